"""The WebSocket ``/api/v1/live``: new events and figures as they are stored, for as many as listen.

A client sends requests, each a JSON object; `Subscribe` and `Unsubscribe` say what they hold. It gets::

    {"type": "subscribed", "id": ID, "at": AT}
    {"type": "events", "id": ID, "events": [as /api/v1/events tells them, ...]}
    {"type": "values", "id": ID, "values": [{"time", "node", "instance", "zone", "queue", "column", "value"}, ...]}
    {"type": "at", "at": AT}
    {"type": "error", "id": ID or null, "reason": TEXT}
    {"type": "away", "reason": TEXT}, and {"type": "back"} when the database answers again

``at`` says how far everything was given: of "subscribed" for that subscription, alone for all. Who comes back
subscribes with ``after``, the last `at` that it saw, and misses nothing; what came between that and the break, or by
an "away", may come again, known by its event's id. Who does not read as fast as it is sent to is sent away with the
reason (close code 1013), for it would else be kept for without end.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect
from structlog import get_logger

from postel.errors import PostelError
from postel.tasks import end
from timescale_sink.api.access import BadQueryError
from timescale_sink.api.feed import Subscription
from timescale_sink.api.readers import Readers
from timescale_sink.api.values import Watched, watch

# One that reads takes this in a moment.
_MOST_BYTES = 8 << 20
_LITTLE_BYTES = 1 << 20
_LONGEST_WAIT_S = 10.0
_MOST_LISTENERS = 1000
_MOST_SUBSCRIPTIONS = 50
# An `at` of a quiet subscription, and the sign that the connection lives.
_AT_EVERY_S = 10.0
TRY_AGAIN_LATER = 1013  # of the WebSocket Close Code Number Registry
_RETRY_S = 5.0

_log = get_logger()


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=100, description="The client's own name of the subscription.")


class SubscribeEvents(_Request):
    """Events of a table, from now on or from an `at` on."""

    type: Literal["events"]
    table: str
    filter: list[str] = Field([], max_length=20, description="As of /api/v1/events.")
    address: str | None = None
    after: str | None = Field(None, max_length=20, description="The last `at` of a connection before.")


class SubscribeValues(_Request):
    """New values of typed columns, all gauges or all counters (as rates)."""

    type: Literal["values"]
    table: str
    column: list[str] = Field(min_length=1, max_length=50)
    node: str | None = None
    instance: str | None = None
    zone: str | None = None


class Unsubscribe(_Request):
    """Nothing more of a subscription."""

    type: Literal["unsubscribe"]


_REQUESTS: TypeAdapter[SubscribeEvents | SubscribeValues | Unsubscribe] = TypeAdapter(
    Annotated[SubscribeEvents | SubscribeValues | Unsubscribe, Field(discriminator="type")]
)


class _Outbox:
    """What waits for one listener, bounded in bytes and time; ``lost`` becomes the reason once it did not read."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def put(self, text: str) -> None:
        """Let it wait."""
        if self.lost.done():
            return
        self._waiting.append(text)
        self._bytes += len(text)
        self._filled.set()
        if self._bytes > _LITTLE_BYTES:
            self._drained.clear()
        if self._bytes > _MOST_BYTES:
            self._lose(f"more than {_MOST_BYTES >> 20} MiB waited to be read")

    def tell(self, **message: Any) -> None:
        """The same for a message that is not JSON yet."""
        self.put(orjson.dumps(message, option=orjson.OPT_UTC_Z).decode())

    async def room(self) -> None:
        """Wait until little waits, or the listener is lost."""
        await self._drained.wait()

    async def send_all(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what comes, one after the other, until cancelled or lost."""
        while not self.lost.done():
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                text = self._waiting.popleft()
                try:
                    async with asyncio.timeout(_LONGEST_WAIT_S):
                        await send(text)
                except TimeoutError:
                    self._lose(f"a message waited {_LONGEST_WAIT_S:g} s to be read")
                    return
                self._bytes -= len(text)
                if self._bytes <= _LITTLE_BYTES:
                    self._drained.set()

    def _lose(self, reason: str) -> None:
        self._waiting.clear()
        self._drained.set()
        if not self.lost.done():
            self.lost.set_result(reason)


class _Conversation:
    """One listener's subscriptions."""

    def __init__(self, readers: Readers, outbox: _Outbox) -> None:
        self._readers = readers
        self._outbox = outbox
        # Each with what ends it.
        self._subscriptions: dict[str, Callable[[], object]] = {}
        self._catching_up = False
        self._said_at = time.monotonic()

    async def take(self, text: str) -> None:
        """Do what a request says."""
        try:
            request = _REQUESTS.validate_json(text)
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
            self._outbox.tell(type="error", id=None, reason=reason)
            return
        if isinstance(request, Unsubscribe):
            self._end(request.id)
            return
        try:
            await self._subscribe(request)
        except PostelError as error:
            self._outbox.tell(type="error", id=request.id, reason=str(error))

    def close(self) -> None:
        """End all subscriptions."""
        for id_ in [*self._subscriptions]:
            self._end(id_)

    async def _subscribe(self, request: SubscribeEvents | SubscribeValues) -> None:
        if request.id in self._subscriptions:
            raise BadQueryError(f"id: {request.id!r} is subscribed already")
        if len(self._subscriptions) >= _MOST_SUBSCRIPTIONS:
            raise BadQueryError(f"{_MOST_SUBSCRIPTIONS} subscriptions are the most of a connection")
        try:
            if isinstance(request, SubscribeEvents):
                await self._events(request)
            else:
                self._values(request)
        except PostelError:
            self._end(request.id)
            raise

    async def _events(self, request: SubscribeEvents) -> None:
        feed, outbox = self._readers.feed, self._outbox
        head = f'{{"type":"events","id":{orjson.dumps(request.id).decode()},"events":['
        subscription = Subscription(
            filter=self._readers.events.filter(request.table, request.filter, request.address),
            take=lambda piece: outbox.put(f"{head}{piece}]}}"),
            reached=self._reached,
            away=lambda reason: outbox.tell(type="away", reason=reason) if reason else outbox.tell(type="back"),
        )
        # While it catches up, who breaks off has to come back to where it was.
        self._catching_up = True
        try:
            at = await feed.subscribe(subscription, request.after)
            self._subscriptions[request.id] = lambda: feed.unsubscribe(subscription)
            if request.after is not None:
                async with aclosing(feed.since(subscription.filter, request.after, at)) as missed:
                    async for piece in missed:
                        subscription.take(piece)
                        await outbox.room()
        finally:
            self._catching_up = False
        outbox.tell(type="subscribed", id=request.id, at=at)

    def _reached(self, at: str) -> None:
        now = time.monotonic()
        if not self._catching_up and now - self._said_at >= _AT_EVERY_S:
            self._said_at = now
            self._outbox.tell(type="at", at=at)

    def _values(self, request: SubscribeValues) -> None:
        reader = self._readers.series
        watched = Watched(request.table, tuple(request.column), request.node, request.instance, request.zone)
        reader.check(watched.query(reader, time.time()))
        self._subscriptions[request.id] = asyncio.create_task(self._watch(request.id, watched)).cancel
        self._outbox.tell(type="subscribed", id=request.id, at=None)

    async def _watch(self, id_: str, watched: Watched) -> None:
        while True:
            try:
                async for values in watch(self._readers.series, watched):
                    self._outbox.tell(type="values", id=id_, values=values)
            except PostelError as error:
                self._outbox.tell(type="error", id=id_, reason=str(error))
            except Exception:  # noqa: BLE001 - it would end unseen, and the subscription with it
                _log.exception("new values cannot be read")
            await asyncio.sleep(_RETRY_S)

    def _end(self, id_: str) -> None:
        if end := self._subscriptions.pop(id_, None):
            end()


router = APIRouter()


@router.websocket("/live")
async def live(socket: WebSocket) -> None:
    """Talk to one listener until it goes, or is sent away."""
    readers: Readers = socket.app.state.readers
    await socket.accept()
    if len(readers.listeners) >= _MOST_LISTENERS:
        await socket.close(TRY_AGAIN_LATER, f"{_MOST_LISTENERS} listeners are the most")
        return
    outbox = _Outbox()
    conversation = _Conversation(readers, outbox)
    sending = asyncio.create_task(outbox.send_all(socket.send_text))
    hearing = asyncio.create_task(_hear(socket, conversation))
    readers.listeners.add(outbox)
    try:
        ends: set[asyncio.Future[Any]] = {sending, hearing, outbox.lost}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        readers.listeners.discard(outbox)
        conversation.close()
        ended = await end(sending, hearing)
        # What was being subscribed to may be so by now.
        conversation.close()
    if outbox.lost.done():
        _log.warning("a listener was sent away", reason=outbox.lost.result(), client=socket.client)
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(_LONGEST_WAIT_S):
                await socket.close(TRY_AGAIN_LATER, outbox.lost.result())
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect):
            raise error


async def _hear(socket: WebSocket, conversation: _Conversation) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text") or (message.get("bytes") or b"").decode("utf-8", "replace")
        await conversation.take(text)
