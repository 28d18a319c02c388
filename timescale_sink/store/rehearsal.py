"""Says what `migrate` would do: does it in one transaction that is taken back, and looks at the locks that it holds.

Migrations are transactional, on TimescaleDB too: views and aggregates are made without data, and what fills them runs
afterwards in small pieces. So nothing stays of a rehearsal but gaps in sequences. While it runs it holds what it tells
of, for no longer than it is given, and waits for a table that another holds for two seconds only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import psycopg

from postel.errors import DatabaseError
from postel.settings import Database
from postel.signals import Declarations
from postel.tasks import end
from timescale_sink.store import retention
from timescale_sink.store.database import Connection
from timescale_sink.store.migrate import applied, apply_missing, changing

_LOCK_SECONDS = 2
_KEPT = "how long things are kept"
# Read by another session, for which only what was there before has a name. The parts of a table are the table's.
_LOCKS = """
    SELECT coalesce(whole.oid, locked.oid)::regclass::text AS name,
        bool_or(mode = 'AccessExclusiveLock') AS all_wait,
        bool_and(locked.relkind IN ('v', 'm')) AS is_view
    FROM pg_locks
    JOIN pg_class AS locked ON locked.oid = relation
    LEFT JOIN pg_inherits ON inhrelid = locked.oid
    LEFT JOIN pg_class AS whole ON whole.oid = inhparent
    WHERE pid = %s AND locktype = 'relation' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        -- What is weaker holds up neither who reads nor who writes.
        AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        AND locked.relkind IN ('r', 'p', 'f', 'v', 'm')
        AND locked.relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
    GROUP BY 1
"""
# Asked before: to ask for a size takes a lock itself.
_SIZES = """
    SELECT coalesce(inhparent, oid)::regclass::text, sum(pg_total_relation_size(oid))::bigint
    FROM pg_class LEFT JOIN pg_inherits ON inhrelid = oid
    WHERE relkind IN ('r', 'p') AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
    GROUP BY 1
"""


class Waits(IntEnum):
    """Who waits for a table: the weaker first."""

    WRITES = 0
    ALL = 1


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of a table or a view."""

    waits: Waits
    is_view: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A script, and what was held after it that was not before, or more strongly.

    Attributes:
        seconds: that it took; None: it was not done in time.
    """

    name: str
    seconds: float | None
    held: Mapping[str, Held]


@dataclass
class Rehearsal:
    """What would happen, in order.

    Attributes:
        sizes: bytes of each table.
        pending: tables and rollups that are filled, in pieces, once the schema is there.
        complete: all of it was done in time.
    """

    sizes: Mapping[str, int]
    steps: list[Step] = field(default_factory=list)
    pending: Sequence[str] = ()
    complete: bool = False

    def lines(self) -> Iterator[str]:
        """For who asked."""
        for step in self.steps:
            took = "not within the time given" if step.seconds is None else f"{step.seconds:.2f} s"
            yield f"would apply: {step.name} ({took})"
            for waits, what in ((Waits.ALL, "reads and writes"), (Waits.WRITES, "writes")):
                if named := self._named(step, waits):
                    yield f"    {what} wait meanwhile: {named}"

    def _named(self, step: Step, waits: Waits) -> str:
        names = sorted(name for name, held in step.held.items() if held.waits is waits)
        views = sum(step.held[name].is_view for name in names)
        tables = [
            f"{name} ({self.sizes.get(name, 0) / 2**20:.1f} MiB)" for name in names if not step.held[name].is_view
        ]
        return ", ".join([*tables, *([f"{views} view{'s'[: views > 1]}"] if views else [])])


class _Watch:
    """Times the scripts, and sees from a session of its own what the other one holds."""

    def __init__(self, session: Connection, pid: int, rehearsal: Rehearsal) -> None:
        self._session = session
        self._pid = pid
        self._rehearsal = rehearsal
        self._known: dict[str, Held] = {}
        self._name, self._began = "", 0.0
        # The time may end while a script does: it is told of by who comes first.
        self._telling = asyncio.Lock()

    async def begin(self, name: str) -> None:
        """A script begins, and with it ends the one before."""
        seconds = time.monotonic() - self._began
        async with self._telling:
            await self._tell(seconds)
            self._name, self._began = name, time.monotonic()

    async def end(self, *, done: bool = True) -> None:
        """The script that ran has ended, or its time has."""
        seconds = time.monotonic() - self._began
        async with self._telling:
            await self._tell(seconds if done else None)

    async def _tell(self, seconds: float | None) -> None:
        if self._name:
            found = await self._held()
            new = {
                name: held
                for name, held in found.items()
                if name not in self._known or self._known[name].waits < held.waits
            }
            self._known |= found
            self._rehearsal.steps.append(Step(self._name, seconds, new))
        self._name = ""

    async def _held(self) -> dict[str, Held]:
        cursor = await self._session.execute(_LOCKS, (self._pid,))
        return {name: Held(Waits(all_wait), is_view) async for name, all_wait, is_view in cursor}

    @property
    def name(self) -> str:
        """Of the script that runs."""
        return self._name or "the schema"


async def rehearse(
    connection: Connection, observer: Connection, settings: Database, declarations: Declarations, seconds: float
) -> Rehearsal:
    """Do what `migrate` does, and take it back.

    Args:
        connection: does it, as a role that may.
        observer: to the same database; looks on.
        settings: how long things shall be kept.
        declarations: which tables there are.
        seconds: that all of it may take.

    Raises:
        DatabaseError: migrating would fail, or a table is held by another.
    """
    rehearsal = Rehearsal(dict(await (await observer.execute(_SIZES)).fetchall()))
    watch = _Watch(observer, connection.info.backend_pid, rehearsal)
    task = asyncio.create_task(_do(connection, watch, rehearsal, settings, declarations))
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            # Before the transaction ends, or nothing is held any more.
            await watch.end(done=False)
    finally:
        await end(task)
    if done:
        rehearsal.complete = True
        try:
            task.result()
        except psycopg.errors.LockNotAvailable:
            raise DatabaseError(
                f"{watch.name}: another session has held a table that it needs for {_LOCK_SECONDS} s; to migrate would "
                "wait for its end, and all who write to the table behind it: see pg_stat_activity for its transaction"
            ) from None
        except psycopg.errors.OutOfMemory:
            raise DatabaseError(
                f"{watch.name}: all migrations together need more locks than the server has room for: raise its "
                "max_locks_per_transaction to rehearse them; to migrate needs fewer, for it ends each by itself"
            ) from None
    return rehearsal


async def _do(
    connection: Connection, watch: _Watch, rehearsal: Rehearsal, settings: Database, declarations: Declarations
) -> None:
    async with changing(connection), connection.transaction(force_rollback=True):
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'".encode())
        known = await applied(connection)
        await apply_missing(connection, watch.begin)
        if await applied(connection) != known:
            await watch.begin(_KEPT)
            await retention.apply(connection, settings, declarations)
        await watch.end()
        waiting = await connection.execute("SELECT relation FROM retention WHERE pending ORDER BY 1")
        rehearsal.pending = [relation for (relation,) in await waiting.fetchall()]
