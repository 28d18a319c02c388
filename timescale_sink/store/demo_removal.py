"""Deletes what ``postel demo`` has sent: rows, rollups, series and nodes, and what of it comes after."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from postel.signals import load_all
from timescale_sink.store import event_rollups, rollup_views
from timescale_sink.store.database import Connection, Tier, ask_server
from timescale_sink.store.event_rollups import Events

# How often it is looked for what has come since it was deleted, and how long at most, in seconds.
_LOOK_SECONDS = 1.0
_LONGEST_SECONDS = 180.0
# What comes late is at most so much older than what was there: with a bound no look reads all that a table holds.
_OLDER = timedelta(days=1)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Removed:
    """What was deleted.

    Attributes:
        rows: table -> rows deleted.
        newest: time of the newest row; the year 1 where there were none.
        goes_on: whether more still comes: what was deleted at last was newer than when the deleting began, or came
            for longer than is looked.
    """

    rows: Counter[str] = field(default_factory=Counter)
    newest: datetime = _NEVER
    goes_on: bool = False


async def remove(connection: Connection, *, quiet_seconds: float, under_way: Callable[[], None]) -> Removed:
    """Delete everything of the nodes of which all data carries the demo mark.

    Senders and Collectors keep what the sink has not taken yet. So where there was anything it is looked for more,
    again and again, until for a time nothing has come or until it is seen that the demo still runs.

    Args:
        connection: to a database that has the schema.
        quiet_seconds: how long nothing may have come.
        under_way: called once before it is looked for more.
    """
    (began,) = await _column(connection, "SELECT now()")
    demo = Demo(connection)
    removed = await demo.remove()
    if not removed.rows.total():
        return removed
    under_way()
    quiet_since = looked_since = time.monotonic()
    while not removed.goes_on:
        await asyncio.sleep(_LOOK_SECONDS)
        quiet = time.monotonic() - quiet_since >= quiet_seconds
        try:
            late = await demo.remove()
        except psycopg.errors.DeadlockDetected:
            # With a sink that writes the same rows; it has its turn now.
            continue
        if late.rows.total():
            removed.rows.update(late.rows)
            quiet_since = time.monotonic()
            removed.goes_on = late.newest > began or quiet_since - looked_since > _LONGEST_SECONDS
        elif quiet:
            break
    return removed


class Demo:
    """What a database has of a demo.

    Args:
        connection: to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._nodes: list[str] = []
        self._series: list[UUID] = []
        self._oldest: datetime | None = None

    async def remove(self) -> Removed:
        """Delete it, and what has come of it since it was deleted before."""
        removed = Removed()
        declared = load_all()
        since = self._oldest - _OLDER if self._oldest else _NEVER
        async with self._connection.transaction():
            marked = await self._find()
            for table in declared.tables:
                columns = ", ".join(column.name for column in declared.columns_of(table))
                await self._delete(removed, table, since, f"num_nonnulls({columns})")
            for table in ("otel_metric_point", "otel_log", *declared.event_tables):
                await self._delete(removed, table, since, "1")
            # A look that finds nothing leaves the aggregates to those who refresh them.
            if (marked or removed.rows.total()) and (await ask_server(self._connection)).tier is Tier.COMMUNITY:
                await _delete_rollups(self._connection, self._nodes)
            # Last: sinks wait for these rows, and the aggregates may have to be waited for.
            for table, where, values in (
                ("otel_series", "series_id = ANY (%s)", self._series),
                ("node", "id = ANY (%s) AND demo", self._nodes),
            ):
                cursor = await self._connection.execute(f"DELETE FROM {table} WHERE {where}".encode(), (values,))
                removed.rows[table] = cursor.rowcount
        return removed

    async def _find(self) -> bool:
        """Nodes and series, also those of before: a sink that knows them writes rows of them alone for a time.

        What has come back as somebody else's is left out.

        Returns:
            Whether a node is marked now.
        """
        marked = await _column(self._connection, "SELECT id FROM node WHERE demo")
        gone = "SELECT gone FROM unnest(%s::text[]) AS gone WHERE NOT EXISTS (SELECT FROM node WHERE id = gone)"
        self._nodes = [*marked, *await _column(self._connection, gone, self._nodes)]
        self._series = await _column(
            self._connection,
            """
            SELECT series_id FROM otel_series WHERE node_id = ANY (%s)
            UNION
            SELECT gone FROM unnest(%s::uuid[]) AS gone
            WHERE NOT EXISTS (SELECT FROM otel_series WHERE series_id = gone AND NOT node_id = ANY (%s))
            """,
            self._nodes,
            self._series,
            self._nodes,
        )
        return bool(marked)

    async def _delete(self, removed: Removed, table: str, since: datetime, records: str) -> None:
        """Delete rows and note in the ledger that what they held is gone, so that `db check` agrees."""
        # Lists, not subqueries: only by constants TimescaleDB finds what it must unpack of chunks in columns. By a
        # subquery it unpacks all of them, 100,000 points in 2 s where those of 20 series of 200 go in a millisecond.
        key, values = ("series_id", self._series) if table == "otel_metric_point" else ("node_id", self._nodes)
        removed.rows[table] = 0
        found = await _edges(self._connection, table, "time", (key, values), since)
        if found is None:
            return
        cursor = await self._connection.execute(
            f"""
            WITH gone AS (DELETE FROM {table} WHERE {key} = ANY (%s) AND time BETWEEN %s AND %s RETURNING *),
            counted AS (
                SELECT date_trunc('hour', time, 'UTC') AS hour, count(*) AS rows, sum({records}) AS records
                FROM gone GROUP BY 1
            ),
            noted AS (
                INSERT INTO ingest_ledger AS ledger (hour, destination, sink, removed)
                SELECT hour, '{table}', 'postel demo --remove', records FROM counted
                ON CONFLICT (hour, destination, sink) DO UPDATE SET removed = ledger.removed + excluded.removed
            )
            SELECT coalesce(sum(rows), 0)::bigint FROM counted
            """.encode(),
            (values, *found),
            prepare=False,
        )
        if row := await cursor.fetchone():
            removed.rows[table] = row[0]
        self._oldest = min(self._oldest or found[0], found[0])
        removed.newest = max(removed.newest, found[1])


async def _delete_rollups(connection: Connection, nodes: list[str]) -> None:
    """Delete what the continuous aggregates hold of nodes: of rows that were dropped no refresh makes them anew.

    Those whatever the node are made anew of what is left of the others, where the nodes had a part in them.
    """
    declarations = load_all()
    made_by_name = {made.name: made for made in event_rollups.rolled(declarations.event_tables)}
    nodeless = {name: made for name, made in made_by_name.items() if "node_id" not in made.by}
    sources = {made.made_of for made in nodeless.values()}
    had: dict[str, _Had] = {}
    for rollup in rollup_views.names(declarations):
        name, _, size = rollup.rpartition("_")
        for table in await _held(connection, rollup):
            # A refresh that has read the rows of before puts its buckets there first, or waits.
            await connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())
            if made := nodeless.get(name):
                (source,) = await _held(connection, f"{made.made_of}_{size}")
                if source in had:
                    had[table] = had[source]
                    await _make_again(connection, made, table, source, had[source])
                continue
            found = await _edges(connection, table, "bucket", ("node_id", nodes))
            if found:
                if name in sources:
                    query = f"SELECT DISTINCT domain FROM {table} WHERE node_id = ANY (%s) AND bucket BETWEEN %s AND %s"
                    told = "domain" in made_by_name[name].by
                    had[table] = _Had(*found, await _column(connection, query, nodes, *found) if told else [])
                await connection.execute(
                    f"DELETE FROM {table} WHERE node_id = ANY (%s) AND bucket BETWEEN %s AND %s".encode(),
                    (nodes, *found),
                    prepare=False,
                )


async def _held(connection: Connection, rollup: str) -> list[str]:
    """The tables in which the continuous aggregates under a rollup are."""
    held = await connection.execute(
        f"SELECT format('%%I.%%I', schema, name) FROM ({rollup_views.HELD}) AS held".encode(), (rollup,)
    )
    return [table for (table,) in await held.fetchall()]


@dataclass(frozen=True, slots=True)
class _Had:
    """What some nodes had in a rollup: the first and the last of its buckets, and domains of these."""

    since: object
    until: object
    domains: list[object]


async def _make_again(connection: Connection, made: Events, table: str, source: str, had: _Had) -> None:
    """Make buckets anew that are made, of what ``source`` has; of all domains where they are not told apart."""
    # An address without a domain has the domain ''.
    key, only, domains = "bucket", "", []
    if "domain" in made.by:
        key = "bucket, domain IS NULL, coalesce(domain, '')"
        only, domains = " AND (domain = ANY (%s) OR domain IS NULL)", [had.domains]
    await connection.execute(
        f"""
        WITH gone AS (DELETE FROM {table} WHERE bucket BETWEEN %s AND %s{only} RETURNING {key})
        INSERT INTO {table} (bucket, {", ".join(made.columns)})
        SELECT bucket, {made.of_buckets()}
        FROM {source}
        WHERE bucket BETWEEN %s AND %s AND ({key}) IN (SELECT * FROM gone)
        GROUP BY {", ".join(["bucket", *made.by])}
        """.encode(),
        (had.since, had.until, *domains, had.since, had.until),
        prepare=False,
    )


async def _edges(
    connection: Connection, table: str, time_: str, of: tuple[str, Sequence[object]], since: datetime = _NEVER
) -> tuple[Any, Any] | None:
    """The first and the last time of some rows, which have one of these values in this column; None: there are none.

    In constants beside the values they keep in columns what is of other times.
    """
    query = f"SELECT min({time_}), max({time_}) FROM {table} WHERE {of[0]} = ANY (%s) AND {time_} >= %s"
    row = await (await connection.execute(query.encode(), (of[1], since), prepare=False)).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


async def _column(connection: Connection, query: str, *parameters: object) -> list[Any]:
    return [row[0] for row in await (await connection.execute(query.encode(), parameters)).fetchall()]
