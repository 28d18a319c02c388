"""A server that answers a request with exactly these bytes, however wrong they are as HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def sized(body: bytes, head: bytes = OK, length: int | None = None) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


@asynccontextmanager
async def server(answer: bytes | Answer, *, reads: bool = True) -> AsyncIterator[int]:
    """A server that reads a request and then sends these bytes and hangs up, or does what `answer` does.

    Where it does not read by itself, `answer` finds the request in its reader.
    """
    held: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        held.append(task)
        try:
            if reads:
                await reader.readuntil(b"\r\n\r\n")
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
