"""Ports of loopback for the servers and proxies of the tests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from postel import serving
from postel.listening import listen
from postel.otlp.tls_door import TlsDoor

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A free port, each of whose connections is handled in a task; at the end all of them are cancelled."""
    held: set[asyncio.Task[None]] = set()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        held.add(task)
        task.add_done_callback(held.discard)
        await handle(reader, writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        ending = [*held]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


def calm(handle: Handle) -> Handle:
    """The same, and the connection is closed at its end; it may end because the other side leaves, or the test."""

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return handled


@asynccontextmanager
async def served(
    app: ASGIApp,
    address: str = "127.0.0.1:0",
    *,
    connections: int = serving.CONNECTIONS,
    body: int | None = None,
    tls: TlsDoor | None = None,
) -> AsyncIterator[int]:
    """The port of an application that Postel's own HTTP server serves until the block ends."""
    server = serving.create_server(app, grace=1, connections=connections, body=body, tls=tls)
    with listen(address, "a test") as listener:
        running = asyncio.create_task(server.serve([listener]))
        while not server.started:
            assert not running.done(), "the HTTP server did not start"
            await asyncio.sleep(0.005)
        try:
            yield listener.getsockname()[1]
        finally:
            server.stop()
            await running
