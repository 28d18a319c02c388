"""The doctor's checks of the replica that `serve` reads: it is one of this database, may be read, and follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from postel.doctor.result import Result, Verdict
from postel.errors import DatabaseAwayError, DatabaseError
from postel.settings import Settings
from postel.signals import load_all
from timescale_sink.store.database import READ_URL, Connection, connect

# What `serve` reads beside the declared tables.
_READ = ("node", "otel_log", "retention")
# As long it may take to replay what the primary has now.
_PATIENCE_S = 5.0
_POLL_S = 0.05
_CORRECT = f"correct {READ_URL}"


@dataclass(frozen=True, slots=True)
class _Server:
    """What a server says of itself.

    Attributes:
        cluster: the same of a primary and its replicas.
        database: its name.
        started: when the server did.
        follows: whether it is in recovery.
    """

    cluster: int
    database: str
    version: str
    started: datetime
    follows: bool


async def check(settings: Settings) -> AsyncIterator[Result]:
    """The replica answers, is one of ``[database] url``, may be read, and has what the primary has."""
    url, read_url = settings.database.url, settings.database.read_url
    if url is None or read_url is None:
        return
    async with AsyncExitStack() as connections:
        try:
            replica = await connections.enter_async_context(await connect(read_url.get_secret_value(), READ_URL))
        except DatabaseError as error:
            away = "start the server, or " if isinstance(error, DatabaseAwayError) else ""
            yield Result(Verdict.FAIL, "replica", str(error), f"{away}{_CORRECT}; until then the API answers 503")
            return
        try:
            primary = await connections.enter_async_context(await connect(url.get_secret_value()))
        except DatabaseError:
            yield Result(
                Verdict.NOTE, "replica", "answers; how far it is behind the database, which does not, is unknown"
            )
            return
        try:
            async for result in _compared(primary, replica):
                yield result
        except psycopg.Error as error:
            yield Result(Verdict.FAIL, "replica", str(error).partition("\n")[0], "the servers' own logs say more")


async def _compared(primary: Connection, replica: Connection) -> AsyncIterator[Result]:
    origin, copy = await _ask(primary), await _ask(replica)
    if (origin.cluster, origin.database) != (copy.cluster, copy.database):
        what = "server" if origin.cluster != copy.cluster else "database"
        yield Result(Verdict.FAIL, "replica", f"is none of [database] url, but another {what}", _CORRECT)
        return
    if not copy.follows:
        if copy.started == origin.started:
            text, mend = "is the primary itself, which is relieved of nothing", f"name a replica in {READ_URL}"
            yield Result(Verdict.NOTE, "replica", text, mend)
            return
        yield Result(
            Verdict.FAIL,
            "replica",
            "was promoted, and gets nothing new from the primary",
            "make a new copy of the primary; if it shall be the primary itself, name it in [database] url",
        )
        return
    async for result in _rights(replica):
        yield result
    if origin.follows:
        yield Result(Verdict.FAIL, "replica", "[database] url names a replica too", "name the primary there")
        return
    yield await _lag(primary, replica, f"PostgreSQL {copy.version}, a streaming replica")


async def _ask(connection: Connection) -> _Server:
    async with connection.cursor(row_factory=class_row(_Server)) as cursor:
        await cursor.execute(
            """
            SELECT
                (SELECT system_identifier FROM pg_control_system()) AS cluster, current_database()::text AS database,
                current_setting('server_version') AS version, pg_postmaster_start_time() AS started,
                pg_is_in_recovery() AS follows
            """
        )
        return (await cursor.fetchall())[0]


async def _rights(replica: Connection) -> AsyncIterator[Result]:
    declared = load_all()
    names = sorted({*declared.tables, *declared.event_tables, *_READ})
    rows = await (
        await replica.execute(
            "SELECT name, current_user::text, to_regclass(quote_ident(name)) IS NULL FROM unnest(%s::text[]) AS name"
            " WHERE NOT coalesce(has_table_privilege(to_regclass(quote_ident(name)), 'SELECT'), false)",
            (names,),
        )
    ).fetchall()
    if lacking := [name for name, _, missing in rows if missing]:
        yield Result(
            Verdict.FAIL,
            "replica",
            f"has not: {', '.join(lacking)}",
            "`postel db migrate`; if that was done, the replica has not replayed it yet, or names another schema",
        )
    elif rows:
        tables = ", ".join(name for name, *_ in rows)
        role = sql.Identifier(rows[0][1]).as_string(replica)
        yield Result(
            Verdict.FAIL,
            "replica",
            f"the role {rows[0][1]} may not read {tables}",
            f"at the primary: `postel db roles`, then GRANT postel_read TO {role}",
        )


async def _lag(primary: Connection, replica: Connection, name: str) -> Result:
    """How long the replica takes to replay what the primary has written by now."""
    ((position,),) = await (await primary.execute("SELECT pg_current_wal_lsn()::text")).fetchall()
    began, first = time.monotonic(), None
    while True:
        rows = await replica.execute(
            """
            SELECT
                pg_wal_lsn_diff(%s::pg_lsn, pg_last_wal_replay_lsn())::bigint,
                extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8
            """,
            (position,),
        )
        ((lacks, age),) = await rows.fetchall()
        waited = time.monotonic() - began
        if lacks <= 0:
            return Result(Verdict.OK, "replica", f"{name}; it had what the primary has after {waited:.2f} s")
        first = lacks if first is None else first
        if waited > _PATIENCE_S:
            break
        await asyncio.sleep(_POLL_S)
    newest = "unknown" if age is None else f"{age:.0f} s"
    text = f"{name}; {lacks / 2**20:.1f} MiB behind the primary, age of its newest transaction: {newest}"
    if lacks < first:
        mend = "what it reads, its disk or its way to the primary is slower than what is written"
        return Result(Verdict.NOTE, "replica", f"{text}; it follows", mend)
    return Result(
        Verdict.FAIL,
        "replica",
        f"{text}; it stands still",
        "its log says why: it does not reach the primary, waits for a question (max_standby_streaming_delay), or was "
        "told to pause (pg_wal_replay_resume)",
    )
