"""How much of what is sent is in a process's memory at once: what comes then waits a moment, or is told to come again.

A request takes a *place* while it is read, so that places times the limit bound what is on its way; then *room* for its
bytes after decompression, before they are decompressed, until it is answered. Decoded and on its way into the database
a request takes five to ten times its bytes; one of tiny messages more, for which it takes more room, and one of few
bytes a task, a call and a row's objects, so that it takes room for `LEAST_BYTES`. Who has room never waits for a place:
nobody waits for one that waits for him. All is given back however a request ends.

Requests over `LARGE_BYTES` have a room of their own, so that they keep no others out, and do not wait for it: their
places would be missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from postel.otlp import codec
from postel.otlp.answers import Ingest, Outcome
from postel.otlp.errors import OtlpError, Retryable
from postel.otlp.signal import ExportRequest, Signal

# More than the agent and the Collector send at once, but for what others gave the Collector at once.
LARGE_BYTES = 2 << 20
# Bytes of requests between decompression and answer, of both kinds. One that alone is larger is taken when it is alone.
ROOM_BYTES = 8 << 20
LARGE_ROOM_BYTES = 16 << 20
# Room that a request takes at least: 2048 have it at once, whose calls, tasks and rows take 40 MiB while they wait.
LEAST_BYTES = 4 << 10
# Requests that are read at once.
PLACES = 3
# Seconds that a request waits for its place, and then for its room.
PATIENCE = 1.0
# Requests that wait for either. Each costs a task and what is read ahead for it.
_WAITING = 256
# JSON takes ten times its bytes while it is decoded, and less than protobuf from then on.
_JSON_WEIGHT = 2
# Told to a sender that found no place or room.
_RETRY_SECONDS = 2.0


class _Share:
    """An amount of something; whoever asks for a part waits in line.

    Args:
        amount: all of it.
        patience: seconds that somebody waits at most.
    """

    def __init__(self, amount: int, patience: float) -> None:
        self._amount = amount
        self._patience = patience
        self._used = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, part: int) -> None:
        """Take a part; one that is larger than all is given when nobody has any.

        Raises:
            Retryable: it was not free soon enough.
        """
        if not self._line and self._fits(part):
            self._used += part
            return
        if self._patience == 0 or len(self._line) >= _WAITING:
            raise Retryable(_RETRY_SECONDS, "more is sent at once than there is room for")
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (part, given)
        self._line.append(entry)
        try:
            async with asyncio.timeout(self._patience):
                await given
        except BaseException as error:
            if entry in self._line:
                self._line.remove(entry)
                # Those behind it may fit.
                self._serve()
            elif not given.cancelled():
                self.give(part)
            if isinstance(error, TimeoutError):
                raise Retryable(_RETRY_SECONDS, "more is sent at once than there is room for") from None
            raise

    def give(self, part: int) -> None:
        """Give a part back."""
        self._used -= part
        self._serve()

    @property
    def used(self) -> int:
        """What is given."""
        return self._used

    def _fits(self, part: int) -> bool:
        return self._used == 0 or self._used + part <= self._amount

    def _serve(self) -> None:
        while self._line and self._fits(self._line[0][0]):
            part, given = self._line.popleft()
            if not given.done():
                self._used += part
                given.set_result(None)


class Room:
    """The room of one request; leaving the context gives it back."""

    def __init__(self, share: _Share, size: int) -> None:
        self._share = share
        self._size = size

    def __enter__(self) -> None:
        """It was taken before this was made."""

    def __exit__(self, *_: object) -> None:
        self._share.give(self._size)


@dataclass(slots=True)
class Body:
    """A request as it was sent, until it is decoded."""

    content: bytes
    media_type: str = codec.PROTOBUF
    coding: str = ""
    limit: int = codec.DEFAULT_LIMIT

    async def decode(self, signal: Signal) -> tuple[ExportRequest, bytes | None]:
        """Decode it, and let go of its bytes; the request, and the bytes of protobuf that it was decoded from.

        Raises:
            TooLarge, Malformed: as `codec.decode`.
        """
        content, self.content = self.content, b""
        return await codec.decode_aside(signal, content, self.media_type, self.coding, self.limit)


class Admission:
    """What several servers together let in."""

    def __init__(self) -> None:
        self._places = _Share(PLACES, PATIENCE)
        self._room = _Share(ROOM_BYTES, PATIENCE)
        self._large_room = _Share(LARGE_ROOM_BYTES, 0)
        self._working: set[asyncio.Task[Outcome]] = set()

    @property
    def used(self) -> tuple[int, int]:
        """Places and bytes of room that are taken."""
        return self._places.used, self._room.used + self._large_room.used

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Have a place while a request is read.

        Raises:
            Retryable: none was free for too long.
        """
        await self._places.take(1)
        try:
            yield
        finally:
            self._places.give(1)

    async def room(self, body: Body) -> Room:
        """Take room for a request, to be handed to :meth:`finish` at once.

        Raises:
            Retryable: there was none for too long.
            TooLarge, Malformed: of a compressed body.
        """
        size = await codec.weigh(body.content, body.coding, body.limit)
        size = max(size * (_JSON_WEIGHT if body.media_type == codec.JSON else 1), LEAST_BYTES)
        share = self._large_room if size > LARGE_BYTES else self._room
        await share.take(size)
        return Room(share, size)

    async def finish(self, room: Room, ingest: Ingest, signal: Signal, body: Body) -> Outcome:
        """Decode and ingest a request, even when its sender goes away: until then it is in memory.

        Raises:
            OtlpError: it is not taken.
        """
        task = asyncio.ensure_future(_take(room, ingest, signal, body))
        self._working.add(task)
        task.add_done_callback(self._finished)
        try:
            return await asyncio.shield(task)
        finally:
            # Otherwise its exception, this frame and the task would hold each other, and the request with them.
            del task

    def _finished(self, task: asyncio.Task[Outcome]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            # Read, so that a sender that has gone leaves no "exception was never retrieved" in the log.
            task.exception()


async def _take(room: Room, ingest: Ingest, signal: Signal, body: Body) -> Outcome:
    with room:
        try:
            return await ingest(signal, *await body.decode(signal))
        except OtlpError as error:
            # The frames that it came through hold the request, and would as long as the answer is on its way.
            error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same one


# Of all servers of the process: its memory is one.
ADMISSION = Admission()
