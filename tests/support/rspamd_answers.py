"""Recorded answers of a real Rspamd's controller, and a stand-in that gives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import otel_receivers.rspamd
from support.raw_http_server import server

_DATA = Path(otel_receivers.rspamd.__file__).parent / "testdata" / "3.4"
JUST_STARTED, STAT = ((_DATA / f"{name}-stat.json").read_bytes() for name in ("just-started", "after-traffic"))
FIRST_METRICS, METRICS = ((_DATA / f"{name}-metrics.txt").read_bytes() for name in ("just-started", "after-traffic"))
NO_COUNTERS, COUNTERS = ((_DATA / f"{name}-counters.json").read_bytes() for name in ("just-started", "after-traffic"))
PAGES = {"/ping": b"pong\r\n", "/stat": STAT, "/metrics": METRICS, "/counters": COUNTERS}


@dataclass
class StandIn:
    """What it answers and was asked.

    Attributes:
        pages: path -> body; a path that is not there gets 404.
        password: without it all but `/ping` gets 401; None: it asks for none.
        server: its header `Server`.
        instead: path -> the bytes of a whole answer in place of a page.
        asked: (path, password that was shown or '').
    """

    pages: Mapping[str, bytes] = field(default_factory=lambda: PAGES)
    password: str | None = None
    server: str = "rspamd/3.4"
    instead: Callable[[str], bytes | None] = lambda _path: None
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, request: bytes) -> bytes:
        """The bytes of an answer to the bytes of a request."""
        first, *lines = request.decode("ascii").split("\r\n")
        path = first.split(" ")[1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        shown = headers.get("password", "")
        self.asked.append((path, shown))
        if (bytes_instead := self.instead(path)) is not None:
            return bytes_instead
        if self.password is not None and path != "/ping" and shown != self.password:
            return self._whole("401 Unauthorized", b'{"error":"Unauthorized"}')
        if path not in self.pages:
            return self._whole("404 Not Found", b'{"error":"Not found"}')
        return self._whole("200 OK", self.pages[path])

    def _whole(self, status: str, body: bytes) -> bytes:
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nServer: {self.server}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@asynccontextmanager
async def standing_in(stand_in: StandIn) -> AsyncIterator[int]:
    """Its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(stand_in.answer(await reader.readuntil(b"\r\n\r\n")))
        await writer.drain()

    async with server(answer, reads=False) as port:
        yield port
