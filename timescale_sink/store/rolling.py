"""Makes the rollups on TimescaleDB Community of what its jobs do not look at: what came too late, or before them.

Only what changed is made again. Never where rows may have been dropped: their rollups would go with them. Rows that
wait to be dropped (`retention.pending`) may, once this has come to its end.

A rollup that is made of others is filled as far back as these go, the oldest first. Until then it is pending too: its
job leaves it alone, and what TimescaleDB holds for made of it grows with it, so its answers are right all the time.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from timescale_sink.store import retention
from timescale_sink.store.database import Connection
from timescale_sink.store.rollup_views import HELD, filled_of, rollups_of
from timescale_sink.store.rollups import Size

# What is younger a rollup's job makes, which looks back a week further: however long the filling takes, nothing is left
# out between the two.
_FILLED = timedelta(days=1)
_Window = tuple[datetime | None, datetime]
# Within bounds, whole days, and each that a chunk has a part of.
_BY_CHUNK = """
    SELECT greatest(since, date_trunc('day', range_start, 'UTC')),
        least(until, date_trunc('day', range_end + interval '24 hours' - interval '1 microsecond', 'UTC'))
    FROM ({bounds}) AS bounds
    JOIN timescaledb_information.chunks ON range_start < until AND range_end > since
    WHERE (hypertable_schema, hypertable_name) IN ({hypertables})
    ORDER BY range_start
"""


async def make_rollups(connection: Connection, table: str, *, begin: bool) -> int:
    """Make the rollups of a table as far back as its rows are all there; returns 0.

    Args:
        connection: in autocommit; a refresh is a transaction of its own.
        table: that has rollups.
        begin: rows that waited for this may be dropped from now on.

    Raises:
        psycopg.Error: what was made until then stays, and is not made again.
    """
    pending = await _pending(connection, [table, *filled_of(table)])
    rollups = {f"{rolled}_{size.name}": size for rolled, size in rollups_of(table)}
    for window in await _windows(connection, table, by_chunk=table in pending):
        for rollup, size in rollups.items():
            if rollup not in pending:
                await _refresh(connection, rollup, _of_buckets(window, size))
    if table in pending and begin:
        await retention.begin(connection, table)
    return 0


async def fill_rollups(connection: Connection, table: str) -> int:
    """Fill the rollups of a table that are made of others and are pending; returns 0.

    Those that others are made of first, and of them the largest, which are made soonest and read by long ranges.

    Args:
        connection: in autocommit; a refresh is a transaction of its own.
        table: that has rollups.

    Raises:
        psycopg.Error: what was made until then stays, and is not made again.
    """
    filled = filled_of(table)
    pending = await _pending(connection, filled)
    sizes = {f"{rolled}_{size.name}": size for rolled, size in rollups_of(table)}
    for rollup in (rollup for rollup in filled if rollup in pending):
        for window in await _filling(connection, filled[rollup]):
            await _refresh(connection, rollup, _of_buckets(window, sizes[rollup]))
        await retention.end_filling(connection, rollup)
    return 0


def _of_buckets(window: _Window, size: Size) -> _Window:
    """A window of whole days as one of whole buckets: those that end within it.

    A week that began before is made with it. The rows of its first days may be gone, but it is made of the days.
    """
    since, until = window
    return since and size.begin(since), size.begin(until)


async def _pending(connection: Connection, relations: Collection[str]) -> set[str]:
    query = "SELECT relation FROM retention WHERE pending AND relation = ANY (%s)"
    return {relation async for (relation,) in await connection.execute(query, ([*relations],))}


async def _refresh(connection: Connection, rollup: str, window: _Window) -> None:
    since, until = window
    if since is not None and since >= until:
        return
    found = await connection.execute("SELECT * FROM aggregates_of(%s)", (rollup,))
    for (name,) in await found.fetchall():
        await connection.execute(
            "CALL refresh_continuous_aggregate(%s::regclass, %s::timestamptz, %s::timestamptz)", (name, since, until)
        )


async def _filling(connection: Connection, source: str) -> list[_Window]:
    """What is made at a time of a rollup of another: chunk by chunk of that, up to `_FILLED` ago."""
    bounds = "SELECT kept_since(%s) AS since, date_trunc('day', now() - %s::interval, 'UTC') AS until"
    query = _BY_CHUNK.format(bounds=bounds, hypertables=HELD)
    found = await connection.execute(query.encode(), (source, _FILLED, source))
    return [(since, until) async for since, until in found]


async def _windows(connection: Connection, table: str, *, by_chunk: bool) -> list[_Window]:
    """What is refreshed at a time, whole days: all of it, or chunk by chunk where nothing is made yet."""
    # The jobs look at the rest; days and their reach shall overlap.
    bounds = """
        SELECT refreshable_since(%s) AS since,
            date_trunc('day', now() - %s::interval, 'UTC') + interval '24 hours' AS until
    """
    if by_chunk:
        query = _BY_CHUNK.format(bounds=bounds, hypertables="SELECT current_schema(), %s::name")
        found = await connection.execute(query.encode(), (table, retention.REACH, table))
    else:
        query = f"""
            SELECT nullif(since, '-infinity'), until FROM ({bounds}) AS bounds
            -- Not a difference: before PostgreSQL 17 there is none to a time that is infinite.
            WHERE since + interval '24 hours' <= until
        """
        found = await connection.execute(query.encode(), (table, retention.REACH))
    return [(since, until) async for since, until in found]
