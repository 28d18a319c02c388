"""The bounded queue between the servers and the writer: what arrives during a commit is committed together.

Two groups of requests are written at once, each by a connection of its own: while the server ends one's transaction,
the other's rows come. A small group waits until another has ended, and what comes behind it meanwhile is one larger
group. The next is mapped while they are written, and waits: a request that comes then waits for three transactions.

A request is answered when the transactions that hold it are committed. When the queue is full, the database is away, or
a commit fails, the sender is told to come again, and nothing of the request is acknowledged.

One that is too large for a transaction is written in pieces. What is committed of it when its sender must be answered
is remembered, so that the repetition goes on from there: whatever the size, it ends after some repetitions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from postel.log import Throttle
from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import ExportRequest, Signal
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.progress import FEWEST_RECORDS, TOGETHER_RECORDS, Pace, Progress, ProgressBook
from timescale_sink.ingest.rows import Rows
from timescale_sink.ingest.slices import Slices
from timescale_sink.ingest.telemetry import Telemetry
from timescale_sink.ingest.writer import COMMIT_SECONDS, Writer

# Bytes of requests that wait at most, and that one transaction takes.
WAITING_BYTES = 32 << 20
TOGETHER_BYTES = 4 << 20
# Bytes that the rows of one transaction repeat at most: each log record has its resource in its row, each series too.
REPEATED_BYTES = 32 << 20
# Groups that are written at once at most.
_AT_ONCE = 2
# What makes a group large.
_LARGE_RECORDS, _LARGE_BYTES = 2_000, 1 << 20
# What is counted at once; a larger request is counted in a thread.
_SMALL_BYTES = 64 << 10
RETRY_SECONDS = 2.0
# For so long after a failure that nobody foresaw no probe shows that it is over: senders come again within 30 s.
UNFORESEEN_SECONDS = 60.0
# Told to a sender at most; dead_letter has them all.
_REASONS = 3
# What passes: the server is away, overloaded, or chose this transaction to break a deadlock.
_PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    PoolTimeout,
    TimeoutError,
)
_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Waiting:
    signal: Signal
    request: ExportRequest
    size: int
    records: int
    repeated: int
    pace: Pace
    encoded: bytes | None
    # For each record that became a dead letter, why.
    answer: asyncio.Future[list[str]]


_Group = Sequence[_Waiting]
"""Requests whose rows are written by one transaction."""


class _Mapped(NamedTuple):
    """What a group of requests becomes.

    Attributes:
        reasons: of each request, for each record that became a dead letter.
        seconds: that mapping took.
    """

    rows: Rows
    reasons: list[list[str]]
    seconds: float


class IngestQueue:
    """An :class:`postel.otlp.answers.Ingest` over one writer; :meth:`run` is its worker.

    Args:
        mapper: makes rows.
        writer: stores them.
        telemetry: told of what failed.
        connections: that the writer has; by one of them one group is written after the other.
    """

    def __init__(
        self, mapper: Mapper, writer: Writer, telemetry: Telemetry | None = None, *, connections: int = _AT_ONCE
    ) -> None:
        self._at_once = min(connections, _AT_ONCE)
        self._mapper = mapper
        self._writer = writer
        self._telemetry = telemetry
        self._waiting: deque[_Waiting] = deque()
        self._progress = ProgressBook()
        self._pace = Pace(TOGETHER_RECORDS)
        self._bytes = 0
        self._ahead = 0
        self._writing: list[_Group] = []
        # A request, to be taken into a group; and the end of a group's transaction.
        self._arrived = asyncio.Event()
        self._group_ended = asyncio.Event()
        # Who has it takes the next group; who has it maps.
        self._next = asyncio.Lock()
        self._mapping = asyncio.Lock()
        self._closed = False
        self._failing = False
        self._last_failure = 0.0
        # Whether the log was told of it, and that the database is away.
        self._told = self._told_away = False
        self._last_unforeseen: float | None = None
        self._dead = Throttle()
        self._unforeseen = Throttle()

    async def __call__(self, signal: Signal, request: ExportRequest, encoded: bytes | None = None, /) -> Outcome:
        """Wait until the request is committed.

        Raises:
            Retryable: it is not, and may be sent again.
        """
        # To ask protobuf for the size is to serialize it all.
        size = request.ByteSize() if encoded is None else len(encoded)
        if size == 0:
            return Outcome()
        if self._closed:
            raise Retryable(RETRY_SECONDS, "the sink is stopping")
        if self._bytes and self._bytes + size > WAITING_BYTES:
            raise Retryable(RETRY_SECONDS, "the sink has more to write than it can take in")
        if size <= _SMALL_BYTES:
            slices = Slices(signal, request)
        else:
            slices = await asyncio.to_thread(Slices, signal, request)
        if await self._fits_whole(signal, request, slices):
            return await self._whole(signal, request, encoded, size, slices)
        self._bytes += size
        try:
            return await self._in_pieces(signal, request, slices)
        finally:
            self._bytes -= size

    async def _fits_whole(self, signal: Signal, request: ExportRequest, slices: Slices) -> bool:
        """Whether a transaction can take all of a request, as far as is known."""
        if len(slices) > self._pace.records or slices.repeated(0, len(slices)) > REPEATED_BYTES:
            return False
        return len(slices) <= FEWEST_RECORDS or await self._progress.find(signal, request, len(slices)) is None

    async def _whole(
        self, signal: Signal, request: ExportRequest, encoded: bytes | None, size: int, slices: Slices
    ) -> Outcome:
        records = len(slices)
        answer = self._enqueue(
            _Waiting(signal, request, size, records, slices.repeated(0, records), self._pace, encoded, _future())
        )
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                # A sender that goes away must not undo what others wait for with it.
                reasons = await asyncio.shield(answer)
        except TimeoutError:
            # It may still be committed; the repetition then finds its rows there.
            self._withdraw(answer)
            answer.cancel()
            if records > FEWEST_RECORDS:
                # The repetition is written in pieces, whatever others commit quickly meanwhile.
                await self._progress.open(signal, request, records, records // 2)
            raise Retryable(RETRY_SECONDS, f"not committed within {COMMIT_SECONDS:g} s") from None
        return Outcome(len(reasons), _line(set(reasons)))

    async def _in_pieces(self, signal: Signal, request: ExportRequest, slices: Slices) -> Outcome:
        progress = await self._progress.open(signal, request, len(slices), self._pace.records)
        try:
            async with asyncio.timeout(COMMIT_SECONDS), progress.lock:
                while progress.advance():
                    piece = progress.under_way or await self._begin_piece(signal, slices, progress)
                    await asyncio.shield(piece)
        except TimeoutError:
            self._withdraw(progress.under_way)
            so_far = f"{progress.done} of {len(slices)} records are committed"
            raise Retryable(RETRY_SECONDS, f"{so_far}, the others not within {COMMIT_SECONDS:g} s") from None
        self._progress.forget(progress)
        return Outcome(progress.rejected, _line(progress.reasons))

    async def _begin_piece(self, signal: Signal, slices: Slices, progress: Progress) -> asyncio.Future[list[str]]:
        stop = slices.reach(progress.done, progress.pace.records, REPEATED_BYTES)
        piece = await asyncio.to_thread(slices.cut, progress.done, stop)
        records, repeated = stop - progress.done, slices.repeated(progress.done, stop)
        # Its bytes are counted with the request's.
        answer = self._enqueue(_Waiting(signal, piece, 0, records, repeated, progress.pace, None, _future()))
        progress.begin(answer, stop)
        return answer

    def _enqueue(self, waiting: _Waiting) -> asyncio.Future[list[str]]:
        if self._closed:
            raise Retryable(RETRY_SECONDS, "the sink is stopping")
        self._waiting.append(waiting)
        self._bytes += waiting.size
        self._arrived.set()
        return waiting.answer

    def _withdraw(self, answer: asyncio.Future[list[str]] | None) -> None:
        """Nobody waits for this answer any more: what is not begun is not begun, and no longer in memory."""
        for waiting in self._waiting:
            if waiting.answer is answer:
                self._waiting.remove(waiting)
                self._bytes -= waiting.size
                waiting.answer.cancel()
                return

    @property
    def failing(self) -> bool:
        """Whether the last commit failed."""
        return self._failing

    @property
    def away(self) -> bool:
        """Whether commits fail as they do while the database is away, so that a write that succeeds ends it.

        What nobody foresaw, a right that is missing, say, may concern a single table, and a probe writes to none of
        the data's. Without it for a while a sender has to show what there is of it, or a balancer would send none.
        """
        last = self._last_unforeseen
        return self._failing and (last is None or time.monotonic() - last > UNFORESEEN_SECONDS)

    @property
    def bytes(self) -> int:
        """Bytes of requests that wait or are being written."""
        return self._bytes

    @property
    def requests(self) -> tuple[int, int]:
        """How many wait, mapped or not, and how many are being written."""
        return len(self._waiting) + self._ahead, sum(map(len, self._writing))

    async def run(self) -> None:
        """Write what waits until :meth:`close`, then what is left; the next is mapped while the last are written."""
        await asyncio.gather(*(self._work() for _ in range(self._at_once + 1)))

    def close(self) -> None:
        """Take nothing more; :meth:`run` ends when all that waits is answered."""
        self._closed = True
        self._arrived.set()

    async def _work(self) -> None:
        while await self._write_next():
            pass

    async def _write_next(self) -> bool:
        """Take and write a group; False where none comes any more.

        Each worker has `_next` until its group may be written: only one waits for that, mapped.
        """
        # A method of its own: requests that are written must not stay with the names of a loop that waits for more.
        async with self._next:
            if not await self._any_waits():
                return False
            group = self._take()
            self._ahead = len(group)
            mapping = asyncio.create_task(self._map(group))
            await asyncio.wait([mapping])
            another_ended = False
            while not self._may_be_written(group, mapping, another_ended=another_ended):
                self._group_ended.clear()
                await self._group_ended.wait()
                another_ended = True
            self._writing.append(group)
            self._ahead = 0
        try:
            if any(not waiting.answer.done() for waiting in group):
                await self._write(group, mapping)
            else:
                # Read, so that nothing complains of what nobody waits for.
                mapping.exception()
        finally:
            self._writing.remove(group)
            self._group_ended.set()
            self._bytes -= sum(waiting.size for waiting in group)
        return True

    async def _any_waits(self) -> bool:
        """Wait until something does; False where the queue is closed and empty."""
        while not self._waiting and not self._closed:
            self._arrived.clear()
            await self._arrived.wait()
        return bool(self._waiting)

    def _may_be_written(self, group: _Group, mapping: asyncio.Task[_Mapped], *, another_ended: bool) -> bool:
        """Whether a group may be written beside those that are.

        Args:
            group: waits for it.
            mapping: what it becomes; done.
            another_ended: whether another group's transaction has ended meanwhile.
        """
        if not self._writing:
            return True
        # One that cannot be mapped is written request by request, and one of these may tell sources.
        if len(self._writing) == self._at_once or mapping.exception() or mapping.result().rows.tells_sources:
            return False
        return another_ended or _is_large(group)

    def _take(self) -> _Group:
        group = [self._waiting.popleft()]
        size, records, repeated = group[0].size, group[0].records, group[0].repeated
        while self._waiting:
            size += self._waiting[0].size
            records += self._waiting[0].records
            repeated += self._waiting[0].repeated
            if size > TOGETHER_BYTES or records > self._pace.records or repeated > REPEATED_BYTES:
                break
            group.append(self._waiting.popleft())
        return group

    async def _write(self, group: _Group, mapping: Awaitable[_Mapped]) -> None:
        """Write a group and answer its senders; also where mapping it failed, which is heard of here."""
        records = sum(waiting.records for waiting in group)
        paces = {self._pace, *(waiting.pace for waiting in group)}
        mapped = None
        try:
            mapped = await mapping
            began = time.monotonic()
            reasons = await self._commit(mapped)
            seconds = mapped.seconds + time.monotonic() - began
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was committed and all may come again
            if len(group) > 1 and not isinstance(error, _PASSING):
                await self._write_each(group)
            else:
                if isinstance(error, TimeoutError):
                    for pace in paces:
                        pace.too_slow(records)
                self._fail(group, error, commit=mapped is not None)
            return
        for pace in paces:
            pace.committed(records, seconds)
        self._recover(began)
        dead = [reason for own in reasons for reason in own]
        if dead and (count := self._dead(len(dead))):
            _log.warning("records cannot be stored; dead_letter has them", records=count, reason=_line(set(dead)))
        for waiting, own in zip(group, reasons, strict=True):
            _answer(waiting, own)

    async def _write_each(self, group: _Group) -> None:
        """What one request brings along must not keep those from being stored that came with it."""
        for waiting in group:
            if not waiting.answer.done():
                await self._write([waiting], self._map([waiting]))

    async def _commit(self, mapped: _Mapped) -> list[list[str]]:
        mixed = len(mapped.reasons) > 1
        refused = await self._writer.write(mapped.rows, mixed=mixed)
        if not mixed:
            mapped.reasons[0] += [letter.reason for letter in refused]
        return mapped.reasons

    async def _map(self, group: _Group) -> _Mapped:
        # What requests of a group that is written one by one become is mapped beside those that come next.
        async with self._mapping:
            # Mapping is all CPU; in a thread, health checks and new requests are answered meanwhile.
            return await asyncio.to_thread(self._map_now, group)

    def _map_now(self, group: _Group) -> _Mapped:
        began = time.monotonic()
        rows, now = Rows(), datetime.now(UTC)
        reasons = [self._mapper.map(waiting.signal, waiting.request, now, rows, waiting.encoded) for waiting in group]
        rows.ordered()
        return _Mapped(rows, reasons, time.monotonic() - began)

    def _fail(self, group: _Group, error: Exception, *, commit: bool) -> None:
        """Tell senders to come again; ``commit``: it was the database's fault, not that of mapping one request."""
        if self._telemetry:
            self._telemetry.failed(error)
        if not isinstance(error, _PASSING):
            if commit:
                self._last_unforeseen = time.monotonic()
            # Each sender comes again every few seconds, and brings the same traceback.
            if count := self._unforeseen():
                _log.error(
                    "writing failed in a way that nobody foresaw; the senders try again", times=count, exc_info=error
                )
                self._told |= commit
        elif not self._told_away:
            self._told = self._told_away = True
            _log.warning("the database does not take data; the senders try again", reason=_reason(error))
        if commit:
            self._failing = True
            self._last_failure = time.monotonic()
        for waiting in group:
            _answer(waiting, Retryable(RETRY_SECONDS, f"not committed: {_reason(error)}"))

    def _recover(self, began: float) -> None:
        """Something is committed that was begun then; of a failure since then it says nothing."""
        if began < self._last_failure:
            return
        if self._told:
            _log.info("the database takes data again")
        self._failing = self._told = self._told_away = False
        self._last_unforeseen = None


def _future() -> asyncio.Future[list[str]]:
    return asyncio.get_running_loop().create_future()


def _answer(waiting: _Waiting, answer: list[str] | Exception) -> None:
    if waiting.answer.done():
        return
    if isinstance(answer, Exception):
        waiting.answer.set_exception(answer)
        # Read here, so that a sender that has gone leaves no "exception was never retrieved" in the log.
        waiting.answer.exception()
    else:
        waiting.answer.set_result(answer)


def _is_large(group: _Group) -> bool:
    return (
        sum(waiting.records for waiting in group) >= _LARGE_RECORDS
        or sum(waiting.size for waiting in group) >= _LARGE_BYTES
    )


def _line(reasons: set[str]) -> str:
    """Some reasons in one line."""
    shown = sorted(reasons)[:_REASONS]
    more = len(reasons) - len(shown)
    return "; ".join(shown) + (f"; and {more} reasons more" if more else "")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "the database did not commit in time"
    return (str(error) or type(error).__name__).splitlines()[0]
