"""Listeners of this machine that show certificates: TLS at once, and STARTTLS of SMTP (aiosmtpd), IMAP and POP3.

The certificates lie in `certificates/`, each with its key: `expired` ended on 1 April 2020, `lasting` and `bare` end
with the year 2125, `bare` has no subject and names mx.bare.test beside it. All are self-signed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP

from support.listening import Handle, calm, listening

CERTIFICATES = Path(__file__).parent / "certificates"
EXPIRED_AT, LASTING_UNTIL = 1_585_699_200, 4_922_899_200
# Greeting, and what is answered to each command.
DIALOGUES: Mapping[str, tuple[bytes, Mapping[bytes, bytes]]] = {
    "imap": (b"* OK ready\r\n", {b"a STARTTLS": b"* OK a word before\r\na OK begin\r\n"}),
    "pop3": (b"+OK ready\r\n", {b"STLS": b"+OK begin\r\n"}),
}


def context(certificate: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(CERTIFICATES / f"{certificate}.pem")
    return made


def der(certificate: str) -> bytes:
    text = (CERTIFICATES / f"{certificate}.pem").read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :])


def served(serve: Handle, certificate: str = "") -> AbstractAsyncContextManager[int]:
    """Any server of loopback, with TLS at once where a certificate is named; its port."""
    return listening(calm(serve), context(certificate) if certificate else None)


async def until_it_leaves(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def dialogue(protocol: str, certificate: str) -> Handle:
    greeting, answers = DIALOGUES[protocol]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.write(answers[(await reader.readuntil(b"\r\n")).strip()])
        await writer.drain()
        await writer.start_tls(context(certificate))
        await reader.read()

    return serve


@asynccontextmanager
async def smtp(certificate: str) -> AsyncIterator[int]:
    """aiosmtpd, which offers STARTTLS where a certificate is named."""
    loop = asyncio.get_running_loop()
    tls = context(certificate) if certificate else None
    listening = await loop.create_server(
        lambda: SMTP(Sink(), tls_context=tls, loop=loop, hostname="mx.test"), "127.0.0.1", 0
    )
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
