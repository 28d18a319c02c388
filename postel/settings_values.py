"""The forms that a setting's value may have; ``description`` is what messages and the reference page call them."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

_SOCKET_PATH_BYTES = 90
_ADDRESS = r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$"
# Underscores are in no domain name, but in many of a Docker network.
_HOST_NAME = re.compile(r"\w([\w-]*\w)?(\.\w([\w-]*\w)?)*\.?")
# A colon at least; the interface of a link-local address may follow.
_IPV6 = re.compile(r"[0-9a-fA-F.]*:[0-9a-fA-F:.]*(%[\w.-]+)?")
# A URL with one @ at most, and that before the path; or libpq's key=value form.
_DATABASE_URL = re.compile(r"postgres(ql)?://([^@/]*@)?[^@?]*(\?.*)?|\s*\w+\s*=.*", re.DOTALL)


def _port_exists(address: str) -> str:
    # A port that the system chooses is one that nobody else could be told.
    if not 1 <= int(address.rpartition(":")[2]) <= 65535:  # noqa: PLR2004 - the largest 16 bits hold
        raise ValueError("the port is not from 1 to 65535")
    return address


def _sendable(token: SecretStr) -> SecretStr:
    # Whoever sends it puts it into a header, which takes nothing else (RFC 9110 section 5.5).
    if not re.fullmatch(r"[\x21-\x7e]+", token.get_secret_value()):
        raise ValueError("no header can carry it")
    return token


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")  # noqa: TRY004 - pydantic turns ValueErrors into messages
    return value


def _host(text: str) -> str:
    """A name, or an address without brackets, as sockets take it."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if _IPV6.fullmatch(bare):
        IPv6Address(bare)
        return bare
    if not _HOST_NAME.fullmatch(text):
        raise ValueError("is neither a name nor an address")
    # No top-level domain is a number (RFC 3696 section 2): this must be an address.
    if text.rstrip(".").rpartition(".")[2].isdecimal():
        IPv4Address(text)
    # What sockets do with a name: it refuses parts above 63 characters.
    text.encode("idna")
    return text


def endpoint_url(text: str) -> SplitResult:
    """The parts of an endpoint: scheme, host, and perhaps port and path.

    An exporter puts the signal's path behind the endpoint's own, which a query or fragment would swallow; it need not
    honour either (OpenTelemetry specification, "OpenTelemetry Protocol Exporter", endpoint).

    Raises:
        ValueError: it is no such URL.
    """
    if not re.fullmatch(r"https?://[^\s?#]+", text):
        raise ValueError("not a URL that a path can be put behind")
    url = urlsplit(text)
    _host(url.hostname or "")
    if url.port == 0:
        raise ValueError("nobody listens on port 0")
    return url


def _endpoint(text: str) -> str:
    endpoint_url(text)
    return text


def _no_blank(value: object) -> object:
    # Path("") is the working directory.
    if isinstance(value, str) and not value.strip():
        raise ValueError("names no folder")
    return value


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def _socket_path(path: Path) -> Path:
    path = _absolute(path)
    # unix(7): 107 bytes; while the socket is made it has another name, of up to 15 bytes.
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise ValueError("is longer than a socket's path may be")
    return path


def _of_postgresql(url: SecretStr) -> SecretStr:
    # No more than this: libpq, which knows it exactly, would cost the agent memory for nothing.
    if url and not _DATABASE_URL.fullmatch(url.get_secret_value()):
        raise ValueError("not a URL of PostgreSQL")
    return url


# TOML's true is no 1, although Python's is.
Whole = Annotated[int, BeforeValidator(_no_truth)]
Number = Annotated[float, BeforeValidator(_no_truth)]
Port = Annotated[Whole, Field(ge=1, le=65535, description="a port number, 1 to 65535")]
Host = Annotated[str, Field(description="a host name or IP address, without scheme and port"), AfterValidator(_host)]
Address = Annotated[
    str,
    Field(pattern=_ADDRESS, description='"host:port", such as "127.0.0.1:4417"; the port is from 1 to 65535'),
    AfterValidator(_port_exists),
]
Listener = Annotated[
    str,
    Field(
        pattern=r"^((smtp|imap|pop3|tls)://)?" + _ADDRESS.removeprefix("^"),
        description='"host:port", or "smtp://host:port"; smtp, imap and pop3 begin with STARTTLS, tls does not',
    ),
    AfterValidator(_port_exists),
]
Seconds = Annotated[Number, Field(gt=0, le=86400, description="seconds, a number above 0, such as 15")]
# Scheduled times are multiples of the interval; whole seconds keep those of two nodes on the same grid.
Interval = Annotated[Whole, Field(ge=1, le=86400, description="whole seconds, 1 to 86400, such as 15")]
Endpoint = Annotated[
    str,
    Field(
        description='a URL such as "http://127.0.0.1:4318" (HTTP) or "http://127.0.0.1:4317" (gRPC), without ? and #'
    ),
    AfterValidator(_endpoint),
]
Folder = Annotated[
    Path,
    BeforeValidator(_no_blank),
    Field(description="a folder for all that Postel keeps; ~ is the user's home folder, where that is known"),
    AfterValidator(_absolute),
]
SocketPath = Annotated[
    Path,
    BeforeValidator(_no_blank),
    Field(description="the path of a Unix socket, up to 90 bytes, in a folder that exists"),
    AfterValidator(_socket_path),
]
Mode = Annotated[
    str, Field(pattern=r"^0?[0-7]{3}$", description='a file mode in octal digits, in quotes, such as "0660"')
]
Token = Annotated[SecretStr, AfterValidator(_sendable)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_of_postgresql)]
# Of what a server shows of itself over TLS.
Certificate = Annotated[
    Path,
    Field(
        description="a file with the certificate to show, then those of its issuers, PEM, its key with it or in "
        "tls_key; unset: no TLS"
    ),
]
CertificateKey = Annotated[Path, Field(description="a file with the key of tls_certificate, PEM")]
ClientAuthority = Annotated[
    Path,
    Field(description="a file with the authority whose certificates clients must show, PEM; unset: they need none"),
]
