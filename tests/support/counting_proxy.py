"""Stands before a server and notes when each request passed: what a program costs that server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from support.listening import listening


@dataclass
class Passed:
    """The requests that passed, as (seconds, first line)."""

    port: int = 0
    requests: list[tuple[float, str]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    def most_in_a_second(self) -> int:
        """How many began within one second, at most."""
        times = [at for at, _ in self.requests]
        return max((sum(began <= at < began + 1 for at in times) for began in times), default=0)


@asynccontextmanager
async def counting_proxy(port: int) -> AsyncIterator[Passed]:
    """A port of loopback behind which is this one. Requests must come in one piece each, as small GETs do."""
    passed = Passed()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asks: bool) -> None:
        while data := await reader.read(1 << 16):
            if asks and data[:4] in (b"GET ", b"POST"):
                passed.requests.append((time.monotonic(), data.split(b"\r\n")[0].decode()))
            writer.write(data)
            await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed.open += 1
        passed.most_open = max(passed.most_open, passed.open)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                there = await asyncio.open_connection("127.0.0.1", port)
                try:
                    await asyncio.gather(forward(reader, there[1], asks=True), forward(there[0], writer, asks=False))
                finally:
                    there[1].close()
        finally:
            passed.open -= 1
            writer.close()

    async with listening(handle) as passed.port:
        yield passed
