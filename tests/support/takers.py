"""Servers that take everything and look at nothing, each in a process of its own: a measured server shares neither
interpreter nor much of a core with them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
LONGEST = 1 << 20
"""Bytes of a message."""


@contextlib.contextmanager
def taking_receiver() -> Iterator[str]:
    """The endpoint of an OTLP/HTTP receiver, until the block ends."""
    with _taker("events") as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def taking_lmtp() -> Iterator[int]:
    """The port of an LMTP server, until the block ends."""
    with _taker("mail") as port:
        yield port


@contextlib.contextmanager
def _taker(what: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, __file__, what], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def take_events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        length = LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
        assert length, "a request without a length"
        await reader.readexactly(int(length[1]))
        writer.write(ANSWER)
        await writer.drain()


async def take_mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """LMTP (RFC 2033): after DATA an answer for each recipient."""
    recipients = 0
    writer.write(b"220 sink.test LMTP\r\n")
    while True:
        verb = (await reader.readuntil(b"\r\n"))[:4].upper()
        if verb == b"DATA":
            writer.write(b"354 Go ahead\r\n")
            await reader.readuntil(b"\r\n.\r\n")
            writer.write(b"250 2.0.0 Ok: stored\r\n" * recipients)
            recipients = 0
        elif verb == b"QUIT":
            writer.write(b"221 2.0.0 Bye\r\n")
            return
        else:
            recipients += verb == b"RCPT"
            writer.write(b"250 2.0.0 Ok\r\n")
        await writer.drain()


TAKERS: dict[str, Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]] = {
    "events": take_events,
    "mail": take_mail,
}


async def main(what: str) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await TAKERS[what](reader, writer)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, limit=LONGEST)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - told to the test
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
