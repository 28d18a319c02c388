"""Certificates are read as OpenSSL reads them; what is none is refused, whatever it is."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers.tls import parse
from otel_receivers.tls.parse import Certificate, CertificateError
from support.tls_listeners import EXPIRED_AT, LASTING_UNTIL, der

ALL = {name: der(name) for name in ("expired", "lasting", "bare")}
EXPECTED = {
    # Its times are UTCTime, of two digits for a year, those of the others GeneralizedTime.
    "expired": Certificate(EXPIRED_AT, "old.test"),
    "lasting": Certificate(LASTING_UNTIL, "mx.lasting.test"),
    "bare": Certificate(LASTING_UNTIL, "mx.bare.test"),
}


@pytest.mark.parametrize("name", ALL)
def test_a_certificate_is_read(name: str) -> None:
    assert parse.read(ALL[name]) == EXPECTED[name]


@given(st.sampled_from(sorted(ALL)), st.data())
def test_one_that_is_cut_short_is_none(name: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(ALL[name]) - 1))
    with pytest.raises(CertificateError):
        parse.read(ALL[name][:length])


@given(st.sampled_from(sorted(ALL)), st.data())
def test_a_damaged_one_is_read_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    damaged = bytearray(ALL[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(CertificateError):
        assert len(parse.read(bytes(damaged)).name) <= 255


@given(st.binary(max_size=300))
def test_what_is_no_certificate_is_refused(anything: bytes) -> None:
    with pytest.raises(CertificateError):
        parse.read(anything)


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [(0x0C, "mäil.test".encode(), "mäil.test"), (0x1E, "mail".encode("utf-16-be"), "mail"), (0x14, b"m\xe4il", "mäil")],
)
def test_names_come_in_several_encodings(encoding: int, text: bytes, name: str) -> None:
    common_name = b"\x06\x03\x55\x04\x03" + bytes((encoding, len(text))) + text
    named = b"\x30" + bytes((len(common_name),)) + common_name
    subject = b"\x31" + bytes((len(named),)) + named
    assert parse._common_name(subject) == name


@pytest.mark.parametrize(
    ("kind", "text", "seconds"),
    [
        (0x17, b"491231235959Z", 2_524_607_999),
        (0x17, b"500101000000Z", -631_152_000),
        (0x18, b"20500101000000Z", 2_524_608_000),
    ],
)
def test_years_of_two_digits_are_from_1950_to_2049(kind: int, text: bytes, seconds: int) -> None:
    assert parse._seconds(kind, text) == seconds
