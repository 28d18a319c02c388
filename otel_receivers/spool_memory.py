"""What the spool keeps in memory while the disk takes nothing: what its file lacks, and what is to leave the file.

Pure; used from one thread. A request in memory has an id below 0, a row of the file one above it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence

from otel_receivers.spool_requests import Block, Request, joined
from postel.otlp.signal import Signal

# Of the bodies of all requests that wait in memory.
PENDING_BYTES = 4 << 20


class Memory:
    """Build it empty.

    Attributes:
        requests: id -> what the file has not yet, in order.
        state: what the file has not yet.
        dropped: requests that left unsent and are not counted in the file yet, by reason.
        gone: rows that were handed over or dropped and are still in the file.
    """

    def __init__(self) -> None:
        self.requests: dict[int, Request] = {}
        self.state: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()
        self.gone: set[int] = set()
        self._last = 0
        # Requests that became rows since a block of their signal was begun: the block may have them by their old ids.
        self._moved: dict[Signal, dict[int, int]] = {signal: {} for signal in Signal}

    @property
    def size(self) -> int:
        """Bytes of the bodies."""
        return sum(len(request.body) for request in self.requests.values())

    @property
    def differs(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.requests or self.state or self.dropped or self.gone)

    def add(self, requests: Iterable[Request], state: Mapping[str, str]) -> None:
        """Keep requests, after those that are here, and state."""
        for request in requests:
            self._last -= 1
            self.requests[self._last] = request
        self.state |= state

    def bound(self) -> None:
        """Drop the oldest requests beyond `PENDING_BYTES`; counted under ``disk``."""
        surplus = self.size - PENDING_BYTES
        while surplus > 0:
            oldest = next((i for i, request in self.requests.items() if not request.begins), next(iter(self.requests)))
            surplus -= len(self.requests.pop(oldest).body)
            self.dropped["disk"] += 1

    def begin(self, signal: Signal) -> None:
        """Nothing of a signal is under way: no id from before is asked for again."""
        self._moved[signal].clear()

    def peek(self, signal: Signal, limit: int, without: Container[int]) -> Block | None:
        """As :meth:`otel_receivers.spool_file.SpoolFile.peek`, of what waits here."""
        rows = (
            (request_id, request.items, request.body)
            for request_id, request in self.requests.items()
            if request.signal is signal and request_id not in without
        )
        return joined(signal, rows, limit)

    def read(self, request_id: int) -> Block | None:
        """One request by its id; None where it is not here."""
        request = self.requests.get(request_id)
        return None if request is None else Block(request.signal, request.body, request.items, (request_id,))

    def row(self, request_id: int) -> int:
        """The row that a request became, by the id that it had here; any other id as it is."""
        return next((moved[request_id] for moved in self._moved.values() if request_id in moved), request_id)

    def forget(self, ids: Iterable[int]) -> None:
        """Requests were handed over or dropped: those in memory are no more, rows are to leave the file."""
        for request_id in map(self.row, ids):
            if request_id > 0:
                self.gone.add(request_id)
            else:
                self.requests.pop(request_id, None)

    def stored(self, rows: Sequence[int]) -> None:
        """The file has all requests, as these rows, and all state."""
        for (request_id, request), row in zip(self.requests.items(), rows, strict=True):
            self._moved[request.signal][request_id] = row
        self.requests.clear()
        self.state.clear()
