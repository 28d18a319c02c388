"""Connections that hold something of a server for nothing: they say a little, and wait until it ends them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

# TLS 1.2's record and handshake headers of a ClientHello of 512 bytes, and no more of it.
HALF_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@dataclass(frozen=True)
class Way:
    """How one comes about: at a port of loopback, what it says there, and by which TLS."""

    port: int
    words: bytes = b""
    tls: ssl.SSLContext | None = None

    async def hold(self, opened: asyncio.Event | None = None) -> float:
        """Open one and wait until the server ends it; seconds. ``opened`` is set once it is open, or is not to be."""
        began = time.monotonic()
        try:
            with contextlib.suppress(OSError):
                name = "localhost" if self.tls else None
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, ssl=self.tls, server_hostname=name
                )
                try:
                    writer.write(self.words)
                    if opened:
                        opened.set()
                    while await reader.read(1 << 10):
                        pass
                finally:
                    writer.transport.abort()
        finally:
            if opened:
                opened.set()
        return time.monotonic() - began


@contextlib.asynccontextmanager
async def flood(ways: Sequence[Way], count: int, *, again: bool = False) -> AsyncIterator[list[asyncio.Task[None]]]:
    """So many connections, of all ways in turns; all were opened when the block begins.

    Args:
        ways: of these, one after the other.
        count: of connections.
        again: whether one that the server ends is opened again.

    Yields:
        A task for each, which ends with it.
    """

    async def one(way: Way, opened: asyncio.Event) -> None:
        await way.hold(opened)
        while again:
            # What opens them has no more of this machine than what is tested.
            await asyncio.sleep(0.2)
            await way.hold()

    tasks: list[asyncio.Task[None]] = []
    try:
        for number in range(count):
            opened = asyncio.Event()
            tasks.append(asyncio.create_task(one(ways[number % len(ways)], opened)))
            # One after the other: a server that cuts off by time still has the last ones when all have come.
            await opened.wait()
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ended(tasks: Sequence[asyncio.Task[None]]) -> int:
    """How many of a flood the server has ended."""
    return sum(task.done() for task in tasks)
