"""What a sink does beside its writing: deletes what is too old, and refreshes what came later than the jobs look.

One sink at a time does it, under an advisory lock, on a connection of its own; nothing of it is on the way of the data.
Rows are deleted a few at a time, so that nobody waits long for one of them, and rows that a transaction holds are left
for the next time, so that no two wait for each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

import psycopg
import structlog

from postel.errors import DatabaseError
from postel.log import Throttle
from postel.signals import Declarations
from timescale_sink.store import retention, roles
from timescale_sink.store.database import Connection, Tier, ask_server, connect
from timescale_sink.store.migrate import SCHEMA_LOCK
from timescale_sink.store.rolling import fill_rollups, make_rollups
from timescale_sink.store.rollup_views import filled_of

_LOCK = SCHEMA_LOCK + 1
# A fifth of a second's deleting, or so.
_ROWS = 10_000
_SERIES = 2_000
_PARTS = 1_000
_APART_SECONDS = 3600.0
# A day between two lines that say the same.
_left = Throttle(86400)
_log = structlog.get_logger()


async def keep_house(url: str, declarations: Declarations) -> bool:
    """Do all of it once.

    Returns:
        Whether this program did; false where another one does it now.

    Raises:
        DatabaseError, psycopg.Error: the database is away, or the role may not. What was done stays done.
    """
    connection = await connect(url)
    try:
        alone = await _alone(connection)
        if alone:
            await _keep(connection, declarations)
        return alone
    finally:
        # The lock goes with it.
        await connection.close()


async def keep_house_again(url: str, declarations: Declarations, first: float, every: float) -> NoReturn:
    """Keep house until cancelled; what goes wrong is in the log, and ends nothing.

    Args:
        url: of the database.
        declarations: whose tables they are.
        first: seconds until the first time.
        every: seconds between the end of one time and the next.
    """
    await asyncio.sleep(first)
    while True:
        try:
            await keep_house(url, declarations)
        except (psycopg.Error, DatabaseError) as error:
            _log.warning("the housekeeping did not end", reason=str(error).strip().partition("\n")[0])
        except Exception:  # noqa: BLE001 - whatever it is, it is said, and ends nothing
            _log.exception("the housekeeping failed")
        await asyncio.sleep(every)


async def make_pending_rollups(connection: Connection, declarations: Declarations) -> None:
    """Make the rollups that rows wait for before they may be dropped, and those that are made of older ones.

    If no other program keeps house now.

    Raises:
        psycopg.Error: the database is away, or the role may not. What was made stays made.
    """
    rows = await (await connection.execute("SELECT relation FROM retention WHERE pending")).fetchall()
    pending = {relation for (relation,) in rows}
    tables = [
        table for table in retention.rolled_up(declarations) if not pending.isdisjoint({table, *filled_of(table)})
    ]
    if tables and await _alone(connection):
        agree = await _clocks_agree(connection)
        for table in tables:
            await make_rollups(connection, table, begin=agree)
            await fill_rollups(connection, table)


async def _alone(connection: Connection) -> bool:
    """Whether nobody else keeps house; from now on this connection does."""
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))).fetchone()
    return bool(row and row[0])


async def _keep(connection: Connection, declarations: Declarations) -> None:
    begun = time.monotonic()
    tier = (await ask_server(connection)).tier
    deleted: dict[str, int] = {}
    agree = await _clocks_agree(connection)
    owner = await roles.owns(connection)
    if tier is not Tier.PLAIN and not owner and _left():
        _log.info(
            "rollups of what came late, and dropping by chunks, are left to the tables' owner: postel db keep-house"
        )
    if tier is Tier.COMMUNITY and owner:
        # For a job that refreshes the same; no reader and no writer waits for either.
        await connection.execute("SET lock_timeout = '1min'")
        for table in retention.rolled_up(declarations):
            await _attempt(f"rollups of {table}", make_rollups(connection, table, begin=agree))
        # By itself: of a platform whose job refreshes nearly all the time, what was made before often fails.
        for table in retention.rolled_up(declarations):
            await _attempt(f"filling of rollups of {table}", fill_rollups(connection, table))
    # What waits for a lock makes others wait behind it.
    await connection.execute("SET lock_timeout = '2s'")
    if agree:
        if tier is Tier.PLAIN or (tier is Tier.APACHE and owner):
            for table in retention.tables(declarations):
                deleted[table] = await _attempt(table, _delete_rows(connection, table, tier))
        deleted["otel_series"] = await _attempt("otel_series", _delete_series(connection))
        if tier is not Tier.APACHE or owner:
            deleted["node"] = await _attempt("node", _delete_nodes(connection))
        deleted["dead_letter"] = await _attempt("dead_letter", _delete_letters(connection))
        deleted["ingest_ledger"] = await _attempt("ingest_ledger", _delete_ledger(connection))
    if any(deleted.values()):
        rows = {table: count for table, count in deleted.items() if count}
        _log.info("deleted what is older than is kept", rows=rows, seconds=round(time.monotonic() - begun, 1))


async def _attempt(step: str, work: Awaitable[int]) -> int:
    """Do a step; what it cannot do keeps none of the others from being done."""
    try:
        return await work
    except psycopg.Error as error:
        _log.warning("a step of the housekeeping failed", step=step, reason=str(error).strip().partition("\n")[0])
        return 0


async def _clocks_agree(connection: Connection) -> bool:
    """Whether it is now what the database takes for now: a clock that is years ahead would delete everything."""
    row = await (
        await connection.execute("SELECT abs(extract(epoch FROM clock_timestamp() - %s))", (datetime.now(UTC),))
    ).fetchone()
    apart = float(row[0]) if row else 0.0
    if apart > _APART_SECONDS:
        _log.warning("nothing is deleted: the database's clock and this host's are apart", seconds=round(apart))
    return apart <= _APART_SECONDS


async def _delete_rows(connection: Connection, table: str, tier: Tier) -> int:
    """Delete the rows of a table that are too old; returns how many."""
    kept = await _time(connection, f"SELECT kept_since('{table}')")
    if kept is None:
        return 0
    if tier is Tier.APACHE:
        # Chunk by chunk, each in a moment; the chunk that holds the last day's rows ends with it.
        cursor = await connection.execute("SELECT count(*) FROM drop_chunks(%s::regclass, %s)", (table, kept))
        row = await cursor.fetchone()
        return int(row[0]) if row else 0
    total = 0
    at: datetime | None = None
    while True:
        begun = time.monotonic()
        cursor = await connection.execute(
            f"""
            WITH old AS (
                SELECT ctid FROM {table}
                WHERE time < %(kept)s AND time >= coalesce(%(at)s, '-infinity'::timestamptz)
                ORDER BY time LIMIT {_ROWS} FOR UPDATE SKIP LOCKED
            ),
            gone AS (DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING time)
            SELECT count(*), max(time) FROM gone
            """.encode(),
            {"kept": kept, "at": at},
        )
        row = await cursor.fetchone() or (0, None)
        count, at = int(row[0]), row[1]
        total += count
        if count < _ROWS:
            return total
        # As long as it took: others have the disk for half of the time.
        await asyncio.sleep(time.monotonic() - begun)


async def _delete_series(connection: Connection) -> int:
    """Delete the series of which no point is kept.

    A sink that wrote a point of one within this minute takes it for stored; once it has forgotten that, it stores it
    again with the next point.
    """
    total = 0
    last = UUID(int=0)
    while True:
        # For each a look into the points' index: an anti-join would read all points.
        cursor = await connection.execute(
            f"""
            WITH looked_at AS (
                SELECT series_id FROM otel_series
                WHERE series_id > %s::uuid AND first_seen < kept_since('otel_metric_point')
                ORDER BY series_id LIMIT {_SERIES}
            ),
            gone AS (
                DELETE FROM otel_series AS series USING looked_at
                WHERE series.series_id = looked_at.series_id AND (
                    SELECT true FROM otel_metric_point AS point WHERE point.series_id = series.series_id LIMIT 1
                ) IS NULL
                RETURNING 1
            )
            SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM looked_at),
                (SELECT series_id FROM looked_at ORDER BY series_id DESC LIMIT 1)
            """.encode(),
            (str(last),),
        )
        gone, looked_at, last = await cursor.fetchone() or (0, 0, last)
        total += int(gone)
        if int(looked_at) < _SERIES:
            return total


async def _delete_nodes(connection: Connection) -> int:
    """Delete the nodes that were last seen before all rows and rollups that are kept."""
    cursor = await connection.execute(
        """
        DELETE FROM node WHERE id = ANY (ARRAY(
            SELECT id FROM node
            WHERE last_seen < (SELECT min(since) FROM retained WHERE relation NOT IN ('dead_letter', 'ingest_ledger'))
            FOR UPDATE SKIP LOCKED
        ))
        """
    )
    return cursor.rowcount


async def _delete_letters(connection: Connection) -> int:
    """Delete dead letters that are too old, which the ledger notes, and what stood above no other."""
    total = 0
    while True:
        cursor = await connection.execute(
            f"""
            WITH gone AS (
                DELETE FROM dead_letter WHERE record_id = ANY (ARRAY(
                    SELECT record_id FROM dead_letter WHERE received_at < kept_since('dead_letter')
                    ORDER BY received_at LIMIT {_ROWS} FOR UPDATE SKIP LOCKED
                ))
                RETURNING hour, destination
            ),
            counted AS (SELECT hour, destination, count(*) AS letters FROM gone GROUP BY hour, destination),
            noted AS (
                INSERT INTO ingest_ledger AS ledger (hour, destination, sink, letters_removed)
                SELECT hour, destination, 'retention', letters FROM counted
                ON CONFLICT (hour, destination, sink) DO UPDATE SET
                    letters_removed = ledger.letters_removed + excluded.letters_removed
            )
            SELECT coalesce(sum(letters), 0)::bigint FROM counted
            """.encode()
        )
        row = await cursor.fetchone()
        count = int(row[0]) if row else 0
        total += count
        if count < _ROWS:
            break
    await _delete_parts(connection)
    return total


# For each a look into the letters' indexes, by the next id in order. Asked for an equal one, PostgreSQL would read all
# letters: an anti-join does, and so does a scan where most letters have one scope, which seems to find it soon.
_UNUSED = " AND ".join(
    f"(SELECT {id_} FROM dead_letter WHERE {id_} >= part_id ORDER BY {id_} LIMIT 1) IS DISTINCT FROM part_id"
    for id_ in ("resource_id", "scope_id", "metric_id")
)


async def _delete_parts(connection: Connection) -> None:
    cursor = await connection.execute(f"SELECT part_id FROM dead_letter_part WHERE {_UNUSED}".encode())
    unused = [row[0] for row in await cursor.fetchall()]
    for begin in range(0, len(unused), _PARTS):
        async with connection.transaction():
            # A sink writes a letter's parts before the letter, and a part that is there it does not write again. Once
            # this lock is granted, each letter on the way is there, and no other begins: it is held for a moment.
            await connection.execute("LOCK TABLE dead_letter_part IN SHARE ROW EXCLUSIVE MODE")
            await connection.execute(
                f"DELETE FROM dead_letter_part WHERE part_id = ANY (%s) AND {_UNUSED}".encode(),
                (unused[begin : begin + _PARTS],),
            )


async def _delete_ledger(connection: Connection) -> int:
    """Delete the ledger's lines that are too old, but those of hours that have dead letters still.

    The lines of an hour and table go together or not at all. What another one holds is left: who waits for nobody is
    in no deadlock with a sink, which holds lines while it waits for the next.
    """
    total = 0
    last = ("-infinity", "")
    while True:
        async with connection.transaction():
            cursor = await connection.execute(
                f"""
                SELECT hour, destination, sink FROM ingest_ledger
                WHERE hour < least(kept_since('ingest_ledger'), kept_since(destination))
                    AND (hour, destination) > (%s::timestamptz, %s)
                ORDER BY hour, destination, sink LIMIT {_ROWS} FOR UPDATE SKIP LOCKED
                """.encode(),
                last,
            )
            held = await cursor.fetchall()
            full = len(held) >= _ROWS
            if full and held[0][:2] != held[-1][:2]:
                # Some of its lines may be beyond the limit.
                held = [line for line in held if line[:2] != held[-1][:2]]
            if held:
                total += await _delete_held(connection, held)
                last = held[-1][:2]
        if not full:
            return total


async def _delete_held(connection: Connection, held: list[tuple[Any, ...]]) -> int:
    """Delete those of the held lines whose hour and table has no others, and no dead letter that is left."""
    # A statement of its own: it sees what was written until the lines were held.
    cursor = await connection.execute(
        """
        DELETE FROM ingest_ledger USING (
            SELECT hour, destination FROM ingest_ledger AS line
            LEFT JOIN unnest(%s::timestamptz[], %s::text[], %s::text[]) AS held (hour, destination, sink)
                USING (hour, destination, sink)
            WHERE hour = ANY (%s::timestamptz[])
            GROUP BY hour, destination
            HAVING sum(dead_lettered - letters_removed) = 0 AND bool_and(held.sink IS NOT NULL)
        ) AS old
        WHERE ingest_ledger.hour = old.hour AND ingest_ledger.destination = old.destination
        """,
        [*(list(column) for column in zip(*held, strict=True)), list({line[0] for line in held})],
    )
    return cursor.rowcount


async def _time(connection: Connection, query: str) -> datetime | None:
    """A time; None for -infinity, which Python does not know."""
    row = await (await connection.execute(f"SELECT nullif(({query}), '-infinity')".encode())).fetchone()
    return row[0] if row else None
