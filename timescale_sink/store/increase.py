"""The views ``<table>_increase``: how much each counter of a typed table rose since the point before it.

One for each typed table with counters, made from the declarations; ``sql/views/0001_counter_increase.sql`` says what an
increase is. The point before is the nearest earlier one of the same epoch (``started_at``): found through the key's
index, row by row, so that a window costs what it holds and not the history before it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from postel.signals import Declarations
from timescale_sink.store.database import Connection


def counters_of(declarations: Declarations) -> Mapping[str, Sequence[str]]:
    """Typed table -> its counters; without tables that have none."""
    found = {
        table: [column.name for column in declarations.columns_of(table) if column.counter]
        for table in sorted(declarations.tables)
    }
    return {table: counters for table, counters in found.items() if counters}


def view(table: str, counters: Sequence[str]) -> str:
    """The statement that makes a table's view or replaces it.

    Args:
        table: its name.
        counters: its columns; where there is a view, those that it has in its order, and further ones behind them.
    """
    columns = [
        f"counter_increase(row.{name}, {_known_before(table, name)}, row.started_at, row.time) AS {name}"
        for name in counters
    ]
    return "\n".join(
        [
            f"CREATE OR REPLACE VIEW {table}_increase AS SELECT",
            ",\n".join(["row.time, row.node_id, row.instance, row.zone, row.started_at", *columns]),
            f"FROM {table} AS row",
            *(_before(table, name) for name in counters),
        ]
    )


async def make_views(connection: Connection, tables: Mapping[str, Sequence[str]]) -> None:
    """Make the views of these tables with these counters, as part of the caller's transaction."""
    for table, counters in tables.items():
        ordered = [name async for name in as_in_the_table(connection, table, counters)]
        await connection.execute(view(table, ordered).encode())


async def as_in_the_table(connection: Connection, table: str, columns: Collection[str]) -> AsyncIterator[str]:
    """Those of these columns that the table has, in its order.

    A view takes no new column but behind the others, and so it is in the table, wherever it is declared.
    """
    found = await connection.execute(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum", (table,)
    )
    async for (name,) in found:
        if name in columns:
            yield name


def _known_before(table: str, name: str) -> str:
    # Of an epoch that began before what retention keeps, the point before may have been taken: all that is known is
    # this one, and no increase.
    return (
        f"coalesce({name}_before.value, CASE WHEN row.started_at < "
        f"(SELECT since FROM retained WHERE relation = '{table}') THEN row.{name} END)"
    )


def _before(table: str, name: str) -> str:
    return f"""CROSS JOIN LATERAL (
    SELECT (
        SELECT before.{name} FROM {table} AS before
        WHERE
            before.node_id = row.node_id AND before.instance = row.instance AND before.zone = row.zone
            AND before.time < row.time AND before.time >= coalesce(row.started_at, '-infinity')
            AND before.started_at IS NOT DISTINCT FROM row.started_at
            AND before.{name} IS NOT NULL AND row.{name} IS NOT NULL
        ORDER BY before.time DESC LIMIT 1
    ) AS value
) AS {name}_before"""
