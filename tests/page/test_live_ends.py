"""The end of a listener's connection, whose subscription was just being made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from fastapi import FastAPI, WebSocket

from postel.signals import load_all
from timescale_sink.api.access import Access
from timescale_sink.api.feed import Feed
from timescale_sink.api.live import live
from timescale_sink.api.readers import Readers
from timescale_sink.store.database import Connection, create_pool


class PassingOver(Access):
    """Passes over a cancellation that comes with the connection, as the pool does before Python 3.12."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.asked.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        async with super().connection() as connection:
            yield connection


class Client:
    """Subscribes, takes nothing, and breaks off while a connection to the database is waited for."""

    def __init__(self, access: PassingOver) -> None:
        self._broken = access.asked
        wrong, right = b"{}", orjson.dumps({"type": "events", "id": "a", "table": "delivery_events"})
        self._says: list[dict[str, Any]] = [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "bytes": request} for request in (wrong, right)),
        ]

    async def receive(self) -> MutableMapping[str, Any]:
        return self._says.pop(0) if self._says else {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await self._broken.wait()
            raise OSError


async def test_who_breaks_off_amid_a_subscription_leaves_none(database: str) -> None:
    access = PassingOver()
    app = FastAPI()
    app.state.readers = readers = Readers(load_all())
    readers.feed = Feed(access, readers.events)
    client = Client(access)
    async with create_pool(database, 1) as pool, asyncio.timeout(20):
        access.pool = pool
        await live(WebSocket({"type": "websocket", "app": app, "headers": []}, client.receive, client.send))
    assert access.asked.is_set()
    assert not readers.listeners
    assert not readers.feed._groups
