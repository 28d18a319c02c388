"""The bounded queue between the servers and the writer: what arrives during a commit is committed together.

A request is answered when the transaction that holds it is committed. When the queue is full, the database is away, or
a commit fails, the sender is told to come again, and nothing of the request is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import ExportRequest, Signal
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.rows import Rows
from timescale_sink.ingest.writer import COMMIT_SECONDS, Writer

# Bytes of requests that wait, and that one transaction takes: the latter commits well within COMMIT_SECONDS.
WAITING_BYTES = 64 << 20
TOGETHER_BYTES = 4 << 20
RETRY_SECONDS = 2.0
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


@dataclass(slots=True)
class _Waiting:
    signal: Signal
    request: ExportRequest
    size: int
    answer: asyncio.Future[Outcome]


class IngestQueue:
    """An :class:`postel.otlp.answers.Ingest` over one writer; :meth:`run` is its worker."""

    def __init__(self, mapper: Mapper, writer: Writer) -> None:
        self._mapper = mapper
        self._writer = writer
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._closed = False
        self._failing = False

    async def __call__(self, signal: Signal, request: ExportRequest, /) -> Outcome:
        """Wait until the request is committed.

        Raises:
            Retryable: it is not, and may be sent again.
        """
        size = request.ByteSize()
        if size == 0:
            return Outcome()
        if self._closed:
            raise Retryable(RETRY_SECONDS, "the sink is stopping")
        if self._bytes and self._bytes + size > WAITING_BYTES:
            raise Retryable(RETRY_SECONDS, "the sink has more to write than it can take in")
        waiting = _Waiting(signal, request, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._bytes += size
        self._arrived.set()
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                # A sender that goes away must not undo what others wait for with it.
                return await asyncio.shield(waiting.answer)
        except TimeoutError:
            # It may still be committed; the repetition then finds its rows there. What is not begun is not begun.
            waiting.answer.cancel()
            raise Retryable(RETRY_SECONDS, f"not committed within {COMMIT_SECONDS:g} s") from None

    @property
    def failing(self) -> bool:
        """Whether the last commit failed."""
        return self._failing

    @property
    def bytes(self) -> int:
        """Bytes of requests that wait or are being written."""
        return self._bytes

    async def run(self) -> None:
        """Write what waits until :meth:`close`, then what is left."""
        while self._waiting or not self._closed:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            group = self._take()
            if wanted := [waiting for waiting in group if not waiting.answer.done()]:
                await self._write(wanted)
            self._bytes -= sum(waiting.size for waiting in group)

    def close(self) -> None:
        """Take nothing more; :meth:`run` ends when all that waits is answered."""
        self._closed = True
        self._arrived.set()

    def _take(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        size = group[0].size
        while self._waiting and size + self._waiting[0].size <= TOGETHER_BYTES:
            group.append(self._waiting.popleft())
            size += group[-1].size
        return group

    async def _write(self, group: Sequence[_Waiting]) -> None:
        try:
            outcomes = await self._commit(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was committed and all may come again
            if len(group) > 1 and not isinstance(error, _PASSING):
                # What one request brings along must not keep those from being stored that came with it.
                for waiting in group:
                    await self._write([waiting])
            else:
                self._fail(group, error)
            return
        if self._failing:
            self._failing = False
            _log.info("the database takes data again")
        for waiting, outcome in zip(group, outcomes, strict=True):
            _answer(waiting, outcome)

    async def _commit(self, group: Sequence[_Waiting]) -> list[Outcome]:
        rows = Rows()
        # Mapping is all CPU; in a thread, health checks and new requests are answered meanwhile.
        reasons = await asyncio.to_thread(self._map, group, rows)
        mixed = len(group) > 1
        refused = await self._writer.write(rows, mixed=mixed)
        if not mixed:
            reasons[0] += [letter.reason for letter in refused]
        return [Outcome(len(own), _line(set(own))) for own in reasons]

    def _map(self, group: Sequence[_Waiting], rows: Rows) -> list[list[str]]:
        now = datetime.now(UTC)
        return [self._mapper.map(waiting.signal, waiting.request, now, rows) for waiting in group]

    def _fail(self, group: Sequence[_Waiting], error: Exception) -> None:
        if not isinstance(error, _PASSING):
            _log.error("writing failed in a way that nobody foresaw; the senders try again", exc_info=error)
        elif not self._failing:
            self._failing = True
            _log.warning("the database does not take data; the senders try again", reason=_reason(error))
        for waiting in group:
            _answer(waiting, Retryable(RETRY_SECONDS, f"not committed: {_reason(error)}"))


def _answer(waiting: _Waiting, answer: Outcome | Exception) -> None:
    if waiting.answer.done():
        return
    if isinstance(answer, Exception):
        waiting.answer.set_exception(answer)
        # Read here, so that a sender that has gone leaves no "exception was never retrieved" in the log.
        waiting.answer.exception()
    else:
        waiting.answer.set_result(answer)


def _line(reasons: set[str]) -> str:
    """Some reasons in one line."""
    shown = sorted(reasons)[:_REASONS]
    more = len(reasons) - len(shown)
    return "; ".join(shown) + (f"; and {more} reasons more" if more else "")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "the database did not commit in time"
    return (str(error) or type(error).__name__).splitlines()[0]
