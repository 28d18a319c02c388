"""Lets a listener show its certificate: TLS at once, or after STARTTLS of SMTP, IMAP or POP3.

Nothing is sent but greetings, so that no mail and no log-in is touched. Each look leaves a line or two in the log of
the server. Sources: RFC 3207 (SMTP), RFC 9051 section 6.2.1 (IMAP), RFC 2595 section 4 (POP3).
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from otel_receivers.receiver import ScrapeError, Target, target_of

TIMEOUT = 10.0
_CLOSE_TIMEOUT = 2.0
_STARTTLS = {25: "smtp", 587: "smtp", 143: "imap", 110: "pop3"}
_GOODBYE = {"smtp": b"QUIT\r\n", "imap": b"b LOGOUT\r\n", "pop3": b"QUIT\r\n"}
_LINES = 100


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener: where, and what is spoken before TLS: ``smtp``, ``imap``, ``pop3``; ``tls``: nothing."""

    target: Target
    protocol: str


def listener_of(text: str) -> Listener:
    """What ``host:port`` or ``smtp://host:port`` of the settings means; the port says what is not said."""
    protocol, _, address = text.rpartition("://")
    target = target_of(address)
    return Listener(target, protocol or _STARTTLS.get(target.port, "tls"))


async def certificate(listener: Listener, *, timeout: float = TIMEOUT) -> bytes | None:  # noqa: ASYNC109 - the whole look's
    """The certificate that a listener shows, DER; None where it offers no TLS.

    Args:
        listener: where.
        timeout: seconds for all of it.

    Raises:
        ScrapeError: ``connection`` (nobody listens, or it hung up), ``timeout``, ``protocol`` (it is no such server),
            ``tls`` (no handshake).
    """
    where = f"{listener.protocol}://{listener.target}"
    try:
        async with asyncio.timeout(timeout), _connected(listener) as (reader, writer):
            return await _shown(listener, reader, writer)
    except TimeoutError:
        raise ScrapeError("timeout", f"{where}: no certificate within {timeout:g} s") from None
    except ssl.SSLError as error:
        raise ScrapeError("tls", f"{where}: no handshake: {error.reason or error}") from None
    except (OSError, EOFError) as error:
        raise ScrapeError("connection", f"{where}: {str(error) or type(error).__name__}") from None
    except ValueError as error:
        raise ScrapeError("protocol", f"{where}: {error}") from None


@asynccontextmanager
async def _connected(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    target = listener.target
    at_once = listener.protocol == "tls"
    reader, writer = await asyncio.open_connection(
        target.host,
        target.port,
        ssl=_context() if at_once else None,
        server_hostname=target.host if at_once else None,
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await writer.wait_closed()
        writer.transport.abort()


async def _shown(listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    protocol = listener.protocol
    if protocol != "tls":
        if not await _offered(protocol, reader, writer):
            writer.write(_GOODBYE[protocol])
            return None
        await writer.start_tls(_context(), server_hostname=listener.target.host)
        writer.write(_GOODBYE[protocol])
    shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return shown


async def _offered(protocol: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Go as far as the server waits for TLS; False where it does not offer it."""
    if protocol == "imap":
        await _line(reader, b"* OK")
        writer.write(b"a STARTTLS\r\n")
        for _ in range(_LINES):
            if (answer := await _line(reader)).startswith(b"a "):
                return answer.upper().startswith(b"A OK")
        raise ValueError("does not answer STARTTLS")
    if protocol == "pop3":
        await _line(reader, b"+OK")
        writer.write(b"STLS\r\n")
        return (await _line(reader)).startswith(b"+OK")
    await _reply(reader, b"220")
    # An address literal, as who has no name says (RFC 5321 section 4.1.4).
    address = ipaddress.ip_address(str(writer.get_extra_info("sockname")[0]).partition("%")[0])
    literal = f"[{'IPv6:' if address.version == 6 else ''}{address}]"  # noqa: PLR2004 - of IP
    writer.write(f"EHLO {literal}\r\n".encode())
    extensions = await _reply(reader, b"250")
    if b"STARTTLS" not in [line[4:].strip().upper() for line in extensions]:
        return False
    writer.write(b"STARTTLS\r\n")
    await _reply(reader, b"220")
    return True


async def _reply(reader: asyncio.StreamReader, code: bytes) -> list[bytes]:
    """The lines of an SMTP reply (RFC 5321 section 4.2.1)."""
    lines = []
    for _ in range(_LINES):
        lines.append(await _line(reader, code))
        if lines[-1][3:4] != b"-":
            return lines
    raise ValueError("its answer has no end")


async def _line(reader: asyncio.StreamReader, begin: bytes = b"") -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError("hangs up")
    if not line.startswith(begin):
        raise ValueError(f"answers {line[:80].decode('ascii', 'replace').strip()!r}")
    return line


def _context() -> ssl.SSLContext:
    """What shows any certificate, also of servers that no client should trust: it is looked at, nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context
