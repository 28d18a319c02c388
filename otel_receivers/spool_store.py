"""The spool's two places: its file, and the memory from which it goes on while the disk takes nothing.

Synchronous; :class:`otel_receivers.spool.Spool` calls it from one thread. What goes wrong with the disk does not end
the agent:

* A damaged file is set aside and a new one begun.
* What the file does not take (disk full, read-only, failing) waits in memory, bounded; what exceeds the bound is
  counted under ``disk``. It is handed out from there, after what the file still has of its signal and can give. Every
  append tries the file again, with the state and the requests that wait in one transaction.
* A row that was handed over and that the disk does not let go of is remembered, and handed out no more.
* So it is too when the file cannot be opened for the disk's sake at the start; it is then read as it stands, or, where
  it cannot be read, handed out once it can. Counters begin a new epoch where the state could not be read.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import fasteners
import structlog

from otel_receivers.derived import Occurrence
from otel_receivers.disk import fault, probe
from otel_receivers.spool_events import Told
from otel_receivers.spool_file import DamagedError, NoRoomError, SpoolFile
from otel_receivers.spool_memory import Memory
from otel_receivers.spool_requests import Block, Request
from postel.errors import PostelError
from postel.otlp.signal import Signal

# Removed in one transaction, so that what was gathered on a full disk needs little room in the log.
_SETTLED_ROWS = 500
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_T = TypeVar("_T")
_log = structlog.get_logger()


class SpoolError(PostelError):
    """The spool cannot be read or written now; the message says why."""


class DiskError(SpoolError):
    """The disk takes nothing now; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the spool says of itself.

    Attributes:
        size: bytes on disk and in memory: what waits, and what was handed over and could not be removed yet.
        dropped: requests that left unsent since `created`, by reason.
        created: nanoseconds since 1970.
    """

    size: int
    dropped: Mapping[str, int]
    created: int


class SpoolStore:
    """Build it, then :meth:`open` it; one per data folder, on the whole host.

    Args:
        data_dir: has ``spool.db`` and ``agent.lock``.
        max_bytes: see :class:`SpoolFile`.
        max_age: see :class:`SpoolFile`.
    """

    def __init__(self, data_dir: Path, max_bytes: int, max_age: float) -> None:
        self._path = data_dir / "spool.db"
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = fasteners.InterProcessLock(data_dir / "agent.lock")
        self._file: SpoolFile | None = None
        self._memory = Memory()
        self._failing = False
        self._counted: dict[str, int] = {}
        self._created = time.time_ns()

    def open(self) -> None:
        """Lock the folder against a second agent, and open or make the file; a disk that takes nothing is said.

        Raises:
            PostelError: another agent has the folder, or it or the file cannot be used for a reason of its own.
        """
        try:
            self.on_file(lambda _: None)
        except DiskError as error:
            self._fail(error)
            if self._file is None:
                self._open_to_read()

    def figures(self) -> Figures:
        """Size and losses."""
        return Figures(
            size=(self._file.size if self._file else 0) + self._memory.size,
            dropped=dict(Counter(self._counted) + self._memory.dropped),
            created=self._created,
        )

    def append(self, requests: Iterable[Request], state: Mapping[str, str]) -> None:
        """Store requests and state in one transaction; never raises for a disk that does not take them."""
        self._memory.add(requests, state)
        self._flush()

    def take(self, requests: Sequence[Request], occurrences: Sequence[Occurrence] = ()) -> None:
        """Store requests on disk, and count the events in them, or neither.

        Raises:
            SpoolError: the disk does not take them, or there is no room for them.
            TooLarge: there never is room for them.
        """
        try:
            self.on_file(lambda file: file.take(requests, occurrences), writing=True)
        except NoRoomError as error:
            raise SpoolError(f"{self._path}: {error}") from None

    def told(self) -> list[Told]:
        """See :meth:`SpoolFile.told`; nothing where there is no file.

        Raises:
            SpoolError: the disk does not give it.
        """
        return [] if self._file is None else self.on_file(SpoolFile.told)

    def begin_anew(self) -> None:
        """See :meth:`SpoolFile.begin_anew`.

        Raises:
            SpoolError: the disk does not take it.
        """
        self.on_file(SpoolFile.begin_anew, writing=True)

    def peek(self, signal: Signal, limit: int, without: Collection[int] = ()) -> Block | None:
        """See :meth:`SpoolFile.peek`; without ``without``, nothing that was handed out of this signal is under way.

        Raises:
            SpoolError: the disk does not give it, and nothing waits in memory.
        """
        if not without:
            self._memory.begin(signal)
        rows = {self._memory.row(request_id) for request_id in without}
        passed = self._memory.gone | rows if rows else self._memory.gone
        trouble: SpoolError | None = None
        if self._file is not None:
            try:
                block = self.on_file(lambda file: file.peek(signal, limit, passed))
            except SpoolError as error:
                trouble = error
            else:
                if block is not None:
                    return block
        block = self._memory.peek(signal, limit, without)
        if block is None and trouble is not None:
            raise trouble
        return block

    def read(self, signal: Signal, request_id: int) -> Block | None:
        """See :meth:`SpoolFile.read`.

        Raises:
            SpoolError: the disk does not give it.
        """
        row = self._memory.row(request_id)
        if row < 0 or self._file is None:
            return self._memory.read(row)
        return None if row in self._memory.gone else self.on_file(lambda file: file.read(signal, row))

    def remove(self, ids: Collection[int], reason: str = "") -> None:
        """Forget requests; never raises for a disk that does not take it: it is done with what is written next.

        Args:
            ids: of the requests.
            reason: why nobody took them; '': the receiver has accepted them.
        """
        self._memory.forget(ids)
        if reason:
            self._memory.dropped[reason] += len(ids)
        if self._file is not None and self._file.writable:
            try:
                self._settle()
            except PostelError as error:
                self._fail(error)

    def trim(self) -> None:
        """See :meth:`SpoolFile.trim`; not while the disk takes nothing.

        Raises:
            SpoolError: the disk does not take it.
        """
        if not self._failing:
            self.on_file(lambda file: file.trim())

    def state(self) -> dict[str, str]:
        """All state, as far as it can be read.

        Raises:
            SpoolError: the disk does not give it.
        """
        stored = {} if self._file is None else self.on_file(lambda file: file.state())
        return stored | self._memory.state

    def close(self) -> None:
        """Try once more to write what waits in memory, close the file and free the folder."""
        if self._memory.differs:
            self._flush()
        if self._memory.requests:
            _log.error("requests could not be written to the spool and are lost", requests=len(self._memory.requests))
        self._close_file()
        if self._lock.acquired:
            self._lock.release()

    def on_file(self, work: Callable[[SpoolFile], _T], *, writing: bool = False) -> _T:
        """Do work on the file; it is opened where it is not, and where it is damaged a new one.

        Raises:
            SpoolError: what went wrong, in words.
            PostelError: as :meth:`open`.
        """
        try:
            try:
                return self._do(work, writing=writing)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_aside(error)
                return self._do(work, writing=writing)
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from error

    def _do(self, work: Callable[[SpoolFile], _T], *, writing: bool) -> _T:
        if self._file is not None and writing and not self._file.writable:
            # Opening reads the whole file.
            probe(self._path.parent)
            self._close_file()
        if self._file is None:
            self._open()
        assert self._file is not None, "_open sets it"  # noqa: S101
        result = work(self._file)
        self._counted = self._file.dropped()
        return result

    def _flush(self) -> None:
        requests, lost = self._memory.requests, self._memory.dropped["disk"]
        try:
            self._settle()
            rows = self.on_file(lambda file: file.append(requests.values(), self._memory.state), writing=True)
        except PostelError as error:
            self._fail(error)
            self._memory.bound()
            return
        if self._failing:
            _log.info("the spool can be written again", requests=len(requests), lost=lost)
        self._failing = False
        self._memory.stored(rows)

    def _settle(self) -> None:
        """Rid the file of what is gone, and count what was dropped."""
        while self._memory.gone or self._memory.dropped:
            self._settle_some(tuple(islice(self._memory.gone, _SETTLED_ROWS)))

    def _settle_some(self, rows: Collection[int]) -> None:
        # Where the file is set aside for this, the new one has no such rows: its ids are later ones.
        self.on_file(lambda file: file.remove(rows, self._memory.dropped), writing=True)
        self._memory.gone.difference_update(rows)
        self._memory.dropped.clear()

    def _fail(self, error: PostelError) -> None:
        if not self._failing:
            _log.error("nothing can be written to the spool; data waits in memory", reason=str(error))
        self._failing = True

    def _explained(self, error: sqlite3.Error | OSError) -> SpoolError:
        if what := fault(error, self._path.parent):
            return DiskError(f"{self._path}: {what}; mend it, or set data_dir to another disk")
        if isinstance(error, OSError):
            return SpoolError(f"{self._path}: cannot be used: {error.strerror}; mend it or set data_dir")
        return SpoolError(f"{self._path}: {error}")

    def _open(self) -> None:
        self._lock_folder()
        try:
            file = SpoolFile(self._path, self._max_bytes, self._max_age)
        except (sqlite3.Error, OSError) as error:
            if not _is_damage(error):
                self._open_to_read()
            raise
        try:
            # After damage the counts live on in memory alone.
            if missing := Counter(self._counted) - Counter(file.dropped()):
                file.remove((), missing)
        except BaseException:
            file.close()
            raise
        self._file = file
        self._created = min(self._created, file.created())

    def _open_to_read(self) -> None:
        """What was left by a run before is handed out, and its state goes on, though nothing can be written."""
        folder = self._path.parent
        if not self._lock.acquired and os.access(folder, os.W_OK):
            return  # another agent may write there
        with suppress(sqlite3.Error, OSError):
            self._file = SpoolFile(self._path, self._max_bytes, self._max_age, writable=False)
            self._counted = self._file.dropped()
            self._created = min(self._created, self._file.created())

    def _lock_folder(self) -> None:
        if self._lock.acquired:
            return
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            locked = self._lock.acquire(blocking=False)
        except OSError as error:
            if fault(error, folder):
                raise
            raise PostelError(f"{folder}: cannot be written: {error.strerror}; mend it or set data_dir") from None
        if not locked:
            raise PostelError(f"{folder}: another agent runs on this folder; end it, or set data_dir to one of its own")

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        self._close_file()
        aside = self._path.with_name(f"{self._path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.replace(aside.with_name(aside.name + suffix))
        self._memory.gone.clear()
        _log.error("the spool is damaged: set aside, a new one is begun", reason=str(error), kept=str(aside))

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _is_damage(error: Exception) -> bool:
    # The low byte is the primary code. An error without one is of Python's module, about its caller.
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, DamagedError) or (code is not None and (code & 0xFF) in _DAMAGED)
