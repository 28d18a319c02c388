"""How far the requests are that are written in pieces, and how many records go into one transaction.

Pure but for the futures that it waits for; the queue writes.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from postel.otlp.signal import ExportRequest, Signal
from timescale_sink.ingest.writer import COMMIT_SECONDS

# Records that one transaction takes: at first, and at most. About a second's work of two slow cores. It is halved where
# as many would take more than a share of the time in which they must be committed, which has to do for three: when a
# request comes one is being written, beside another or not, and one is mapped. It is doubled where twice as many would
# take less than another.
TOGETHER_RECORDS = 20_000
FEWEST_RECORDS = 100
_SLOW_SHARE, _QUICK_SHARE = 1 / 3, 0.25
# Requests whose progress is remembered. A sender repeats one for hours, but has few at a time.
_REMEMBERED = 64
# Different reasons of one request's dead letters that are kept for its answer.
_REASONS = 100


class Pace:
    """How many records go into a transaction, so that it is committed in time."""

    def __init__(self, records: int) -> None:
        self.records = max(records, FEWEST_RECORDS)

    def committed(self, records: int, seconds: float) -> None:
        """A transaction of so many records took that time. What a few take says nothing of many."""
        if 2 * records < self.records:
            return
        share = seconds / COMMIT_SECONDS * self.records / records
        if share > _SLOW_SHARE:
            self.too_slow(records)
        elif 2 * share < _QUICK_SHARE:
            self.records = min(2 * self.records, TOGETHER_RECORDS)

    def too_slow(self, records: int) -> None:
        """One of so many was not committed in time."""
        self.records = max(min(self.records, records) // 2, FEWEST_RECORDS)


@dataclass(slots=True, eq=False)
class Progress:
    """How far a request is: its first ``done`` records are committed.

    Attributes:
        key: the request's hash.
        records: how many it has.
        pace: its own. What others commit quickly meanwhile may be of another kind, and says nothing of its pieces.
        under_way: the piece that is being written, even when nobody waits for it any more.
        lock: whoever has it writes the next piece. Two senders may have the same request, or one sends it again before
            it heard of the first.
    """

    key: bytes
    records: int
    pace: Pace
    done: int = 0
    rejected: int = 0
    reasons: set[str] = field(default_factory=set)
    under_way: asyncio.Future[list[str]] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _stop: int = 0

    def begin(self, answer: asyncio.Future[list[str]], stop: int) -> None:
        """The piece that ends before record ``stop`` waits to be written."""
        self.under_way, self._stop = answer, stop

    def advance(self) -> bool:
        """Take note of a piece whose writing has ended; whether records are left.

        Asked, and not called back: a callback comes a turn of the loop after its future is done, and who waits for a
        future that is done gives the loop no turn.
        """
        piece = self.under_way
        if piece is not None and piece.done():
            self.under_way = None
            if not piece.cancelled() and piece.exception() is None:
                self.done = self._stop
                self.rejected += len(piece.result())
                self.reasons.update(list(set(piece.result()))[: max(_REASONS - len(self.reasons), 0)])
        return self.done < self.records


class ProgressBook:
    """The requests that are written in pieces; of too many, the one that was not asked for longest is forgotten."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Progress] = {}

    async def find(self, signal: Signal, request: ExportRequest, records: int) -> Progress | None:
        """How far this request with so many records is; None where nothing is known of it."""
        if not any(entry.records == records for entry in self._entries.values()):
            return None
        return self._entries.get(await asyncio.to_thread(_digest, signal, request))

    async def open(self, signal: Signal, request: ExportRequest, records: int, together: int) -> Progress:
        """The same; what is not known is so from now on, in pieces of ``together`` records at first."""
        key = await asyncio.to_thread(_digest, signal, request)
        progress = self._entries.pop(key) if key in self._entries else Progress(key, records, Pace(together))
        # At the end: the first is the one that was not asked for longest.
        self._entries[key] = progress
        if len(self._entries) > _REMEMBERED:
            del self._entries[next(iter(self._entries))]
        return progress

    def forget(self, progress: Progress) -> None:
        """The request is committed: sent once more it is looked at once more."""
        self._entries.pop(progress.key, None)


def _digest(signal: Signal, request: ExportRequest) -> bytes:
    digest = hashlib.blake2b(signal.value.encode())
    digest.update(request.SerializeToString(deterministic=True))
    return digest.digest()
