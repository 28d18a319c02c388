"""Listeners of this machine that show certificates: TLS at once, and STARTTLS of SMTP (aiosmtpd), IMAP and POP3.

The certificates lie in `certificates/`, each with its key: `expired` ended on 1 April 2020, `lasting` and `bare` end
with the year 2125, `bare` has no subject and names mx.bare.test beside it. All are self-signed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP

CERTIFICATES = Path(__file__).parent / "certificates"
EXPIRED_AT, LASTING_UNTIL = 1_585_699_200, 4_922_899_200
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
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


@asynccontextmanager
async def served(serve: Serve, port: int = 0, certificate: str = "") -> AsyncIterator[int]:
    """Any server of loopback, with TLS at once where a certificate is named; its port."""
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        running.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    tls = context(certificate) if certificate else None
    listening = await asyncio.start_server(handle, "127.0.0.1", port, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def until_it_leaves(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def dialogue(protocol: str, certificate: str) -> Serve:
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
