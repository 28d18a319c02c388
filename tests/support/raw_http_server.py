"""A server that answers a request with exactly these bytes, however wrong they are as HTTP."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from support.listening import Handle, calm, listening

Answer = Handle
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def sized(body: bytes, head: bytes = OK, length: int | None = None) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def server(answer: bytes | Answer, *, reads: bool = True) -> AbstractAsyncContextManager[int]:
    """A server that reads a request and then sends these bytes and hangs up, or does what `answer` does.

    Where it does not read by itself, `answer` finds the request in its reader.
    """

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reads:
            await reader.readuntil(b"\r\n\r\n")
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        else:
            await answer(reader, writer)

    return listening(calm(handle))
