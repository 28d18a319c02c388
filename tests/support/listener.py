"""A client of the WebSocket `/api/v1/live` that keeps what it gets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import orjson
from websockets.sync.client import ClientConnection, connect


class Listener:
    """A client that keeps what it gets."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.got: list[dict[str, Any]] = []

    def ask(self, **request: Any) -> None:
        self.socket.send(orjson.dumps(request), text=True)

    def subscribe(self, id_: str = "a", table: str = "delivery_events", **more: Any) -> str:
        """Subscribe to events and wait until that is so; its `at`."""
        self.ask(type="events", id=id_, table=table, **more)
        return str(self.next("subscribed")["at"])

    def next(self, kind: str, seconds: float = 10) -> dict[str, Any]:
        """The next message of a kind."""
        deadline = time.monotonic() + seconds
        while True:
            message: dict[str, Any] = orjson.loads(self.socket.recv(deadline - time.monotonic()))
            self.got.append(message)
            if message["type"] == kind:
                return message

    def numbers(self, count: int, id_: str = "a", seconds: float = 10) -> list[int]:
        """The events' numbers of a subscription, once so many are there."""
        deadline = time.monotonic() + seconds
        while len(found := self._numbers(id_)) < count:
            self.next("events", deadline - time.monotonic())
        return found

    def _numbers(self, id_: str) -> list[int]:
        told = [message for message in self.got if message["type"] == "events" and message["id"] == id_]
        return [UUID(event["id"]).int for message in told for event in message["events"]]


@contextmanager
def listening(page: str, **options: Any) -> Iterator[Listener]:
    """One that is connected to a page's API, by an address without the last slash."""
    with connect(page.replace("http", "ws") + "/api/v1/live", max_size=None, proxy=None, **options) as socket:
        yield Listener(socket)
