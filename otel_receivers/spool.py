"""What the agent has not yet handed over: the asynchronous front of :mod:`otel_receivers.spool_store`.

All of it runs in one thread, so the event loop never waits for a disk. What was begun there is done, also where the
task that asked for it is cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from otel_receivers.derived import Occurrence
from otel_receivers.spool_events import Told
from otel_receivers.spool_requests import Block, Request
from otel_receivers.spool_store import SpoolError, SpoolStore
from postel.otlp.signal import Signal

__all__ = ["Block", "Request", "Spool", "SpoolError"]

_T = TypeVar("_T")


class Spool:
    """Build it with :meth:`open`; one per data folder, on the whole host."""

    def __init__(self, store: SpoolStore) -> None:
        self._store = store
        self._figures = store.figures()
        self._appended: deque[tuple[Sequence[Request], Mapping[str, str]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._closed = False
        self.arrived = {signal: asyncio.Event() for signal in Signal}

    @classmethod
    async def open(cls, data_dir: Path, *, max_bytes: int, max_age: float) -> Spool:
        """Open or make ``data_dir/spool.db`` and lock the folder against a second agent.

        A disk that takes nothing now (full, read-only, failing) is said in the log; the spool begins in memory.

        Raises:
            PostelError: another agent has it, or the folder or the file cannot be used for another reason.
        """
        spool = cls(SpoolStore(data_dir, max_bytes, max_age))
        try:
            await spool._call(SpoolStore.open)
        except BaseException:
            await spool.close()
            raise
        return spool

    @property
    def size(self) -> int:
        """Bytes on disk and in memory: what waits, and what was handed over and could not be removed yet."""
        return self._figures.size

    @property
    def dropped(self) -> Mapping[str, int]:
        """Requests that left unsent since `created`, by reason."""
        return self._figures.dropped

    @property
    def created(self) -> int:
        """When counting of `dropped` began, nanoseconds since 1970."""
        return self._figures.created

    async def append(self, requests: Sequence[Request], state: Mapping[str, str]) -> None:
        """Store requests and state in one transaction; never raises for a disk that does not take them.

        Raises:
            SpoolError: the spool is closed.
        """
        self._appended.append((requests, state))
        await self._call(self._store_appended)
        for signal in {request.signal for request in requests}:
            self.arrived[signal].set()

    async def take(self, requests: Sequence[Request], occurrences: Sequence[Occurrence] = ()) -> None:
        """Store requests on disk and count the events in them, each once however often it comes; or neither.

        Args:
            requests: of events.
            occurrences: what is to be counted of them.

        Raises:
            SpoolError: the disk does not take them, or there is no room for them; whoever gave them must keep them.
            TooLarge: there never is room for them.
        """
        if requests:
            await self._call(lambda store: store.take(requests, occurrences))
        for signal in {request.signal for request in requests}:
            self.arrived[signal].set()

    async def peek(self, signal: Signal, limit: int, without: Collection[int] = ()) -> Block | None:
        """The oldest requests of a signal; those in memory come after those in the file.

        One asks at a time for each signal: what was handed out before and is not in ``without`` is no longer under way.

        Args:
            signal: metrics or logs.
            limit: bytes, together; one request alone may be larger.
            without: ids to pass over.

        Raises:
            SpoolError: the disk does not give it, and nothing waits in memory.
        """
        return await self._call(lambda store: store.peek(signal, limit, without))

    async def read(self, signal: Signal, request_id: int) -> Block | None:
        """One request by its id; None where it is gone or damaged.

        Raises:
            SpoolError: the disk does not give it.
        """
        return await self._call(lambda store: store.read(signal, request_id))

    async def remove(self, ids: Collection[int]) -> None:
        """Forget requests that the receiver has accepted.

        Never raises for a disk that does not take it: they are handed out no more, and removed with what is written
        next. Where the agent is killed before that, they are sent again.
        """
        await self._call(lambda store: store.remove(ids))

    async def drop(self, ids: Collection[int], reason: str) -> None:
        """Forget requests that nobody took, as :meth:`remove` does; counted under ``reason``."""
        await self._call(lambda store: store.remove(ids, reason))

    async def told(self) -> list[Told]:
        """What was counted of each sender's events so far.

        Raises:
            SpoolError: the disk does not give it.
        """
        return await self._call(SpoolStore.told)

    async def begin_anew(self) -> None:
        """Let senders begin now of which a clock that was far ahead said that they begin later.

        Raises:
            SpoolError: the disk does not take it.
        """
        await self._call(SpoolStore.begin_anew)

    async def trim(self) -> None:
        """Let go of what is too old; not while the disk takes nothing.

        Raises:
            SpoolError: the disk does not take it.
        """
        await self._call(SpoolStore.trim)

    async def state(self) -> dict[str, str]:
        """All state, as far as it can be read.

        Raises:
            SpoolError: the disk does not give it.
        """
        return await self._call(SpoolStore.state)

    async def close(self) -> None:
        """Close the file and free the folder; what is asked of it from now on raises `SpoolError`."""
        self._closed = True
        await self._run(SpoolStore.close)
        self._thread.shutdown()

    def _store_appended(self, store: SpoolStore) -> None:
        """What came while the thread was at work goes in one transaction."""
        requests: list[Request] = []
        state: dict[str, str] = {}
        while self._appended:
            more, changes = self._appended.popleft()
            requests += more
            state |= changes
        if requests or state:
            store.append(requests, state)

    async def _call(self, work: Callable[[SpoolStore], _T]) -> _T:
        if self._closed:
            raise SpoolError("the spool is closed, for the agent stops")
        return await self._run(work)

    async def _run(self, work: Callable[[SpoolStore], _T]) -> _T:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._work, work))

    def _work(self, work: Callable[[SpoolStore], _T]) -> _T:
        try:
            return work(self._store)
        finally:
            self._figures = self._store.figures()
