"""The spool's file: serialized OTLP requests in order, and small texts of state, in one SQLite database.

Synchronous; every call is one transaction, on disk when it returns (WAL, ``synchronous=FULL``), so a killed process or
a power cut loses nothing that was taken and leaves nothing half. :mod:`otel_receivers.spool` calls it from one thread.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from otel_receivers import spool_events
from otel_receivers.derived import Occurrence
from otel_receivers.spool_events import CountedEvents, Told
from otel_receivers.spool_requests import Block, Request, joined
from otel_receivers.totals import Change
from postel.errors import PostelError
from postel.otlp.errors import TooLarge
from postel.otlp.signal import Signal

# What a row costs beside its body: its other columns, its index entry and the unused part of its last page.
ROW_OVERHEAD = 256
# How many times as long as all else a request waits that `begins` a counter: what comes after it needs it.
BEGINS_AGES = 2
_VERSION = 3
# How much of `max_bytes` the ids of events may take beside it.
_IDS_SHARE = 4
# Free pages are given back to the file system in portions, so that no call takes long.
_VACUUM_PAGES = 2_000
_WAL_BYTES = 4 << 20
_TRIM_ROWS = 64
_DROPPED = "dropped/"
_CREATED = "created"

_SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS request (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    signal TEXT NOT NULL,
    created REAL NOT NULL,
    items INTEGER NOT NULL,
    begins INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS request_in_order ON request (signal, id);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT OR IGNORE INTO state VALUES ('{_CREATED}', strftime('%s', 'now') || '000000000');
{spool_events.SCHEMA}
-- Ids go on from the clock, in microseconds: those of a file that was set aside name nothing in the one after it.
INSERT INTO sqlite_sequence SELECT 'request', {{first_id}} WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence);
PRAGMA user_version = {_VERSION};
COMMIT;
"""  # noqa: S608 - constants of this module


class DamagedError(sqlite3.DatabaseError):
    """The file can be opened, and its pages contradict each other."""


class NoRoomError(PostelError):
    """What was to be stored would be let go of at once; the message says why."""


class SpoolFile:
    """An open spool file; usable from the thread that opened it.

    Args:
        path: the database; its folder exists.
        max_bytes: bodies and `ROW_OVERHEAD` of each, at most; a quarter of it more for the ids of events.
        max_age: seconds that a request is kept at most; one that `begins` a counter `BEGINS_AGES` times as long.
        writable: False: nothing is written, not even the files beside it for which a full disk has no room.

    Raises:
        sqlite3.Error: whatever SQLite says; the caller decides what it means.
        OSError: whatever the system says.
        PostelError: the file is of a newer Postel.
    """

    def __init__(self, path: Path, max_bytes: int, max_age: float, *, writable: bool = True) -> None:
        self.writable = writable
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._bytes = 0
        if writable:
            # Events name people's addresses. SQLite gives its -wal and -shm files the mode of the database.
            path.touch(mode=0o600)
        database = path if writable else _readable(path)
        self._db = sqlite3.connect(database, timeout=10, isolation_level=None, uri=not writable)
        try:
            self._prepare(path)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, path: Path) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise PostelError(f"{path}: is of a newer Postel (version {version}); update, or move the file away")
        if version < _VERSION:
            # Not on every opening: nothing needs to be written to read on a full disk.
            self._db.executescript(_SCHEMA.format(first_id=time.time_ns() // 1000))
        self._db.execute("PRAGMA synchronous = FULL")
        # What stays of the write-ahead log on disk once it is folded back into the file.
        self._db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        fault = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if fault != "ok":
            raise DamagedError(f"quick_check: {fault}")
        self._bytes = self._db.execute(
            f"SELECT coalesce(sum(length(body) + {ROW_OVERHEAD}), 0) FROM request"  # noqa: S608 - a constant
        ).fetchone()[0]
        self._events = CountedEvents(self._db, self._max_bytes // _IDS_SHARE)

    @property
    def size(self) -> int:
        """Bytes that wait, `ROW_OVERHEAD` of each request included."""
        return int(self._bytes)

    def append(self, requests: Iterable[Request], state: Mapping[str, str]) -> list[int]:
        """Store requests, in order, and state, all or nothing; the oldest make room (counted under ``size``).

        Returns:
            The id of each request.
        """
        with self._transaction():
            return self._store(requests, state)

    def take(self, requests: Sequence[Request], occurrences: Sequence[Occurrence] = ()) -> None:
        """Store requests as :meth:`append` does, where they are not themselves the oldest that would make room.

        The events in them that were not counted before are counted with them.

        Args:
            requests: of events.
            occurrences: what is to be counted of them.

        Raises:
            NoRoomError: they are; nothing is changed.
            TooLarge: not even an empty spool has room for them.
        """
        if sum(len(request.body) + ROW_OVERHEAD for request in requests) > self._max_bytes:
            raise TooLarge(f"the spool takes {self._max_bytes} bytes ([otlp] spool_bytes), the request has more")
        with self._counting() as changes:
            changes.append(self._events.count(occurrences, time.time()))
            self._check_stored(self._store(requests, {}))

    def told(self) -> list[Told]:
        """What was counted so far."""
        return self._events.told()

    def begin_anew(self) -> None:
        """Let senders begin now of which a clock that was far ahead said that they begin later."""
        with self._counting() as changes:
            changes.append(self._events.begin_anew(time.time()))

    def peek(self, signal: Signal, limit: int, without: Container[int] = ()) -> Block | None:
        """The oldest requests of a signal, together at most ``limit`` bytes (one alone may be larger).

        Damaged ones are left out and dropped (counted under ``damaged``).

        Args:
            signal: metrics or logs.
            limit: bytes.
            without: ids to pass over.
        """
        while True:
            block, damaged = self._read(signal, limit, without)
            if damaged:
                try:
                    with self._transaction():
                        self._drop(damaged, "damaged")
                except sqlite3.OperationalError:
                    # They stay while the disk takes nothing; their neighbours can be had all the same.
                    if block is None:
                        raise
            if block is not None or not damaged:
                return block

    def read(self, signal: Signal, request_id: int) -> Block | None:
        """One request by its id; None where it is gone or damaged."""
        row = self._db.execute("SELECT items, checksum, body FROM request WHERE id = ?", (request_id,)).fetchone()
        if row is None or zlib.crc32(row[2]) != row[1]:
            return None
        return Block(signal, row[2], row[0], (request_id,))

    def remove(self, ids: Iterable[int], dropped: Mapping[str, int] | None = None) -> None:
        """Forget requests that the receiver has accepted or nobody took.

        Args:
            ids: of the requests; those of rows that are not here are passed over.
            dropped: how many requests left unsent, these or others, by reason.
        """
        with self._transaction():
            for reason, number in (dropped or {}).items():
                self._count(number, reason)
            self._delete(ids)
        # The rows are gone, whether or not a full disk has room to give their pages back.
        with suppress(sqlite3.OperationalError):
            # execute() would stop after the first page.
            self._db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def trim(self) -> None:
        """Let go of what is older than `max_age`, or `BEGINS_AGES` times that; counted under ``age``.

        And of a piece of the ids of events that are due.
        """
        now = time.time()
        limits = (now - self._max_age, now - self._max_age * BEGINS_AGES)
        while rows := self._oldest("created < CASE begins WHEN 0 THEN ? ELSE ? END", *limits):
            with self._transaction():
                self._drop(rows, "age")
        with self._transaction():
            self._events.forget(now)

    def state(self) -> dict[str, str]:
        """All state."""
        return dict(self._db.execute("SELECT key, value FROM state"))

    def write_state(self, state: Mapping[str, str]) -> None:
        """Store state alone."""
        with self._transaction():
            self._write_state(state)

    def dropped(self) -> dict[str, int]:
        """Requests that left unsent since :meth:`created`, by reason."""
        rows = self._db.execute("SELECT key, value FROM state WHERE key LIKE ?", (_DROPPED + "%",))
        return {key.removeprefix(_DROPPED): int(value) for key, value in rows}

    def created(self) -> int:
        """When this file was made, nanoseconds since 1970."""
        return int(self._db.execute("SELECT value FROM state WHERE key = ?", (_CREATED,)).fetchone()[0])

    def close(self) -> None:
        """Fold the log into the file and close."""
        self._db.close()

    def _store(self, requests: Iterable[Request], state: Mapping[str, str]) -> list[int]:
        self._write_state(state)
        now = time.time()
        ids = [self._insert(request, now) for request in requests]
        while self._bytes > self._max_bytes:
            self._drop(self._oldest("begins = 0") or self._oldest("1"), "size")
        return ids

    def _check_stored(self, ids: Sequence[int]) -> None:
        # The oldest goes first.
        if ids and not self._db.execute("SELECT 1 FROM request WHERE id = ?", (ids[0],)).fetchone():
            raise NoRoomError(
                f"the spool of {self._max_bytes} bytes is full of what counters begin with; mend what the agent sends"
                " to, or raise [otlp] spool_bytes"
            )

    @contextmanager
    def _counting(self) -> Iterator[list[Change]]:
        """A transaction with changes of what is counted: they count in memory once they are on disk."""
        changes: list[Change] = []
        try:
            with self._transaction():
                yield changes
        except BaseException:
            self._events.rolled_back()
            raise
        for change in changes:
            self._events.keep(change)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = self._bytes
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            self._bytes = before
            # SQLite has rolled back by itself after some errors (disk full, I/O).
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                # Where the log cannot grow, what it holds may yet go into the file; the next try then begins it anew.
                with suppress(sqlite3.OperationalError):
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            raise

    def _insert(self, request: Request, now: float) -> int:
        row = self._db.execute(
            "INSERT INTO request (signal, created, items, begins, checksum, body) VALUES (?, ?, ?, ?, ?, ?)"
            " RETURNING id",
            (request.signal.value, now, request.items, request.begins, zlib.crc32(request.body), request.body),
        ).fetchone()
        self._bytes += len(request.body) + ROW_OVERHEAD
        return int(row[0])

    def _read(self, signal: Signal, limit: int, without: Container[int]) -> tuple[Block | None, list[tuple[int, int]]]:
        damaged: list[tuple[int, int]] = []

        def sound() -> Iterator[tuple[int, int, bytes]]:
            for request_id, count, checksum, body in self._in_order(signal, without):
                if zlib.crc32(body) == checksum:
                    yield request_id, count, body
                else:
                    damaged.append((request_id, len(body)))

        return joined(signal, sound(), limit), damaged

    def _in_order(self, signal: Signal, without: Container[int] = ()) -> Iterator[tuple[int, int, int, bytes]]:
        # The ids come from the index alone: passing over many reads none of their bodies.
        for (request_id,) in self._db.execute("SELECT id FROM request WHERE signal = ? ORDER BY id", (signal.value,)):
            if request_id not in without:
                yield from self._db.execute("SELECT id, items, checksum, body FROM request WHERE id = ?", (request_id,))

    def _oldest(self, condition: str, *values: float) -> list[tuple[int, int]]:
        return self._db.execute(
            f"SELECT id, length(body) FROM request WHERE {condition} ORDER BY id LIMIT {_TRIM_ROWS if values else 1}",  # noqa: S608 - literals of this module
            values,
        ).fetchall()

    def _drop(self, rows: Sequence[tuple[int, int]], reason: str) -> None:
        self._delete([request_id for request_id, _ in rows])
        self._count(len(rows), reason)

    def _delete(self, ids: Iterable[int]) -> None:
        for request_id in ids:
            row = self._db.execute("DELETE FROM request WHERE id = ? RETURNING length(body)", (request_id,)).fetchone()
            if row is not None:
                self._bytes -= row[0] + ROW_OVERHEAD

    def _count(self, number: int, reason: str) -> None:
        self._write_state({_DROPPED + reason: str(self.dropped().get(reason, 0) + number)})

    def _write_state(self, state: Mapping[str, str]) -> None:
        self._db.executemany(
            "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", state.items()
        )


def _readable(path: Path) -> str:
    """The URI under which SQLite reads a database where it can make no file beside it.

    Source: https://www.sqlite.org/wal.html, "Read-Only Databases". What was closed in order has no log, and is read
    as it stands; a log that is left has its shared memory beside it.
    """
    log = path.with_name(f"{path.name}-wal")
    alone = "" if log.exists() and log.stat().st_size else "&immutable=1"
    return f"{path.absolute().as_uri()}?mode=ro{alone}"
