"""What the agent has not yet handed over, on disk: the asynchronous front of :mod:`otel_receivers.spool_file`.

All SQLite work runs in one thread, so the event loop never waits for a disk. What goes wrong with the disk does not
end the agent: a damaged file is set aside and a new one begun; while nothing can be written (disk full), requests wait
in memory, bounded, and what exceeds the bound is counted under ``disk``.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import fasteners
import structlog

from otel_receivers.spool_file import Block, DamagedError, Request, SpoolFile
from postel.errors import PostelError
from postel.otlp.signal import Signal

__all__ = ["Block", "Request", "Spool", "SpoolError"]

# Requests that wait in memory while the disk takes none.
PENDING_BYTES = 4 << 20
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_T = TypeVar("_T")
_log = structlog.get_logger()


class SpoolError(PostelError):
    """The spool cannot be read or written now; the message says why."""


class Spool:
    """Build it with :meth:`open`; one per data folder, on the whole host."""

    def __init__(self, path: Path, max_bytes: int, max_age: float, lock: fasteners.InterProcessLock) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = lock
        self._file: SpoolFile | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._pending: list[Request] = []
        self._pending_state: dict[str, str] = {}
        self._lost = 0
        self._failing = False
        self._appending = asyncio.Lock()
        self._dropped: dict[str, int] = {}
        self._created = 0
        self.arrived = {signal: asyncio.Event() for signal in Signal}

    @classmethod
    async def open(cls, data_dir: Path, *, max_bytes: int, max_age: float) -> Spool:
        """Open or make ``data_dir/spool.db`` and lock the folder against a second agent.

        Raises:
            PostelError: another agent has it, or the folder cannot be written.
        """
        lock = fasteners.InterProcessLock(data_dir / "agent.lock")
        if not _lock(data_dir, lock):
            raise PostelError(
                f"{data_dir}: another agent runs on this folder; end it, or set data_dir to one of its own"
            )
        spool = cls(data_dir / "spool.db", max_bytes, max_age, lock)
        try:
            await spool._call(lambda _: None)
        except BaseException:
            await spool.close()
            raise
        return spool

    @property
    def size(self) -> int:
        """Bytes that wait, on disk and in memory."""
        return (self._file.size if self._file else 0) + sum(len(r.body) for r in self._pending)

    @property
    def dropped(self) -> Mapping[str, int]:
        """Requests that left unsent since `created`, by reason."""
        return self._dropped

    @property
    def created(self) -> int:
        """When counting of `dropped` began, nanoseconds since 1970."""
        return self._created

    async def append(self, requests: Sequence[Request], state: Mapping[str, str]) -> None:
        """Store requests and state in one transaction; never raises for a disk that does not take them."""
        self._pending += requests
        self._pending_state |= state
        async with self._appending:
            if self._pending or self._pending_state:
                await self._store_pending()

    async def _store_pending(self) -> None:
        batch, batch_state, lost = list(self._pending), dict(self._pending_state), self._lost
        try:
            await self._call(lambda file: file.append(batch, batch_state, lost))
        except SpoolError as error:
            if not self._failing:
                _log.error("nothing can be written to the spool; data waits in memory", reason=str(error))
            self._failing = True
            self._bound_pending()
            return
        if self._failing:
            _log.info("the spool can be written again", requests=len(batch), lost=lost)
        self._failing = False
        # More may have come while this call waited for its thread.
        del self._pending[: len(batch)]
        self._pending_state = {k: v for k, v in self._pending_state.items() if batch_state.get(k) != v}
        self._lost -= lost
        for signal in {request.signal for request in batch}:
            self.arrived[signal].set()

    async def peek(self, signal: Signal, limit: int) -> Block | None:
        """See :meth:`SpoolFile.peek`.

        Raises:
            SpoolError: the disk does not give it.
        """
        return await self._call(lambda file: file.peek(signal, limit))

    async def read(self, signal: Signal, request_id: int) -> Block | None:
        """See :meth:`SpoolFile.read`.

        Raises:
            SpoolError: the disk does not give it.
        """
        return await self._call(lambda file: file.read(signal, request_id))

    async def remove(self, ids: Sequence[int]) -> None:
        """See :meth:`SpoolFile.remove`.

        Raises:
            SpoolError: the disk does not take it; the requests will be sent again.
        """
        await self._call(lambda file: file.remove(ids))

    async def drop(self, ids: Sequence[int], reason: str) -> None:
        """See :meth:`SpoolFile.drop`.

        Raises:
            SpoolError: the disk does not take it.
        """
        await self._call(lambda file: file.drop(ids, reason))

    async def trim(self) -> None:
        """See :meth:`SpoolFile.trim`.

        Raises:
            SpoolError: the disk does not take it.
        """
        await self._call(lambda file: file.trim())

    async def state(self) -> dict[str, str]:
        """All state.

        Raises:
            SpoolError: the disk does not give it.
        """
        return await self._call(lambda file: file.state())

    async def close(self) -> None:
        """Close the file and free the folder."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._close_file)
        self._thread.shutdown()
        self._lock.release()
        if self._pending:
            _log.error("requests could not be written to the spool and are lost", requests=len(self._pending))

    async def _call(self, work: Callable[[SpoolFile], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[SpoolFile], _T]) -> _T:
        try:
            try:
                return self._on_file(work)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_aside(error)
                return self._on_file(work)
        except (sqlite3.Error, OSError) as error:
            raise SpoolError(f"{self._path}: {error}") from error

    def _on_file(self, work: Callable[[SpoolFile], _T]) -> _T:
        if self._file is None:
            self._file = SpoolFile(self._path, self._max_bytes, self._max_age)
            # After damage the counts live on in memory alone.
            for reason, number in self._dropped.items():
                if (missing := number - self._file.dropped().get(reason, 0)) > 0:
                    self._file.count_dropped(missing, reason)
            self._created = self._created or self._file.created()
        result = work(self._file)
        self._dropped = self._file.dropped()
        return result

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        self._close_file()
        aside = self._path.with_name(f"{self._path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.replace(aside.with_name(aside.name + suffix))
        _log.error("the spool is damaged: set aside, a new one is begun", reason=str(error), kept=str(aside))

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _bound_pending(self) -> None:
        surplus = sum(len(request.body) for request in self._pending) - PENDING_BYTES
        while surplus > 0:
            oldest = next((place for place, request in enumerate(self._pending) if not request.begins), 0)
            surplus -= len(self._pending.pop(oldest).body)
            self._lost += 1


def _lock(data_dir: Path, lock: fasteners.InterProcessLock) -> bool:
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return bool(lock.acquire(blocking=False))
    except OSError as error:
        raise PostelError(f"{data_dir}: cannot be written: {error.strerror}; mend it or set data_dir") from None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # The low byte is the primary code. An error without one is of Python's module, about its caller.
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, DamagedError) or (code is not None and (code & 0xFF) in _DAMAGED)
