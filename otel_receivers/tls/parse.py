"""Reads of a certificate until when it holds and whom it names. Pure: DER in, a `Certificate` out.

Whether anybody should trust it is not asked: an expired or self-signed certificate is read as any other, which the
standard library does only for those that it trusts. Source: RFC 5280, section 4.1 and 4.2.1.6; ITU-T X.690 (DER).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_SEQUENCE, _SET, _OID, _OCTETS = 0x30, 0x31, 0x06, 0x04
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS, _DNS_NAME = 0xA0, 0xA3, 0x82
_COMMON_NAME, _ALTERNATIVE_NAME = b"\x55\x04\x03", b"\x55\x1d\x11"
# Other texts are of ASCII or UTF-8.
_ENCODINGS = {0x14: "latin-1", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_LONG, _LENGTH_BYTES = 0x80, 4
_NAME_CHARACTERS = 255
# Of a century without its digits (RFC 5280, section 4.1.2.5.1).
_FIRST_OF_1900 = 50


class CertificateError(ValueError):
    """It is no certificate that can be read."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is read of one.

    Attributes:
        not_after: when it ends, seconds since 1970.
        name: whom it names: its common name, else the first of its DNS names, else ''.
    """

    not_after: int
    name: str


def read(der: bytes) -> Certificate:
    """Read a certificate.

    Raises:
        CertificateError: it is none.
    """
    try:
        ((_, certificate),) = _parts(der, _SEQUENCE)
        tag, signed = next(_parts(certificate))
        if tag != _SEQUENCE:
            raise CertificateError("begins with no sequence")
        # A version, which the first of them had not, then serial number, algorithm, issuer, validity, subject.
        fields = [part for part in _parts(signed) if part[0] != _VERSION]
        _, _, _, (_, validity), (_, subject), *further = fields
        _, (kind, not_after) = _parts(validity)
        name = _common_name(subject) or _dns_name(further)
        return Certificate(_seconds(kind, not_after), name[:_NAME_CHARACTERS])
    except (ValueError, IndexError, StopIteration) as error:
        raise CertificateError(f"is no certificate: {error}") from None


def _parts(data: bytes, tag: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The tags and contents of the values that stand one behind the other; all of ``tag``, where it is given."""
    at = 0
    while at < len(data):
        found, length = data[at], data[at + 1]
        at += 2
        if length & _LONG:
            size = length - _LONG
            if not 0 < size <= _LENGTH_BYTES:
                raise CertificateError("a length is not DER")
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise CertificateError("it ends too early")
        if tag is not None and found != tag:
            raise CertificateError(f"has {found:#x} in place of {tag:#x}")
        yield found, data[at : at + length]
        at += length


def _common_name(subject: bytes) -> str:
    for _, names in _parts(subject, _SET):
        for _, named in _parts(names, _SEQUENCE):
            (_, kind), (encoding, text) = _parts(named)
            if kind == _COMMON_NAME:
                return text.decode(_ENCODINGS.get(encoding, "utf-8"), "replace")
    return ""


def _dns_name(fields: list[tuple[int, bytes]]) -> str:
    for tag, wrapped in fields:
        if tag != _EXTENSIONS:
            continue
        ((_, extensions),) = _parts(wrapped, _SEQUENCE)
        for _, extension in _parts(extensions, _SEQUENCE):
            # Its id, perhaps whether it is critical, and its value.
            (_, kind), *_, (_, value) = _parts(extension)
            if kind == _ALTERNATIVE_NAME:
                ((_, names),) = _parts(value, _SEQUENCE)
                return next((name.decode("ascii", "replace") for tag, name in _parts(names) if tag == _DNS_NAME), "")
    return ""


def _seconds(kind: int, time: bytes) -> int:
    text = time.decode("ascii")
    if kind == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _FIRST_OF_1900 else "20") + text
    elif kind != _GENERALIZED_TIME:
        raise CertificateError("its end is no time")
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())
