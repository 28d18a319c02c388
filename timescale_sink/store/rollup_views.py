"""Makes the public views of the rollups, of what the server has under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from postel.signals import Declarations
from timescale_sink.store import event_rollups, rollups
from timescale_sink.store.database import Connection
from timescale_sink.store.increase import as_in_the_table
from timescale_sink.store.rollups import SIZES, Size

Aggregates = Mapping[str, Sequence[str]]
"""Continuous aggregate -> its columns."""

HELD = """
    SELECT materialization_hypertable_schema AS schema, materialization_hypertable_name AS name
    FROM aggregates_of(%s) AS aggregate JOIN timescaledb_information.continuous_aggregates
        ON view_schema = current_schema() AND view_name = aggregate
"""
"""The query of the hypertables that hold what is made of a rollup, by its public name."""


def names(declarations: Declarations) -> list[str]:
    """The public names, what others are made of first."""
    return [f"{rolled}_{size.name}" for table in _tables(declarations) for rolled, size in rollups_of(table)]


def _tables(declarations: Declarations) -> Sequence[str]:
    return (*sorted(declarations.tables), *sorted(declarations.event_tables))


def rollups_of(table: str) -> Sequence[tuple[str, Size]]:
    """A table's rollups, what others are made of first: what the public name begins with, and the size that ends it.

    Size by size, so that what is made of others is made soon after them.
    """
    if table not in event_rollups.EVENTS:
        return [(table, size) for size in SIZES]
    return [(made.name, size) for size in SIZES for made in event_rollups.rolled([table]) if size in made.sizes]


def filled_of(table: str) -> Mapping[str, str]:
    """A table's rollups that are made of others as far back as these go -> of which.

    Those that others are made of first, and of them the largest buckets.
    """
    if table not in event_rollups.EVENTS:
        return {f"{table}_{size.name}": f"{table}_{size.made_of}" for size in reversed(SIZES) if size.later}
    return {
        f"{made.name}_{size.name}": f"{made.made_of}_{size.name}"
        for made in event_rollups.rolled([table])
        for size in reversed(made.sizes)
        if made.made_of
    }


def stays_rows(rolled: str, size: Size) -> bool:
    """Whether a rollup, by what its name begins with and its size, is not worth columns.

    Of a year of 100 nodes a typed table has 36,500 days, as rows no larger and read in half the time; lists of names
    are compressed as they are.
    """
    lists = {made.name for made in event_rollups.LEADERS.values()}
    typed = rolled not in {made.name for made in event_rollups.rolled(event_rollups.EVENTS)}
    return rolled in lists or (typed and size.name in ("daily", "weekly"))


def is_personal(rolled: str) -> bool:
    """Whether a rollup, by what its name begins with, names people."""
    return any(made.name == rolled and made.personal for made in event_rollups.rolled(event_rollups.EVENTS))


def declared(declarations: Declarations) -> str:
    """What the views are made of as far as it is declared: another text asks for other views.

    Over rows and over one aggregate: which there are is the server's.
    """
    return "".join(
        [
            rollups.view(typed, size, under)
            for typed in rollups.typed_tables(declarations)
            for size in SIZES
            for under in ({}, {"aggregate": rollups.state_columns(typed)})
        ]
        + [
            event_rollups.view(made, size, [])
            for made in event_rollups.rolled(declarations.event_tables)
            for size in made.sizes
        ]
    )


async def make_views(connection: Connection, declarations: Declarations, *, aggregated: bool) -> None:
    """Make or replace all of them, as part of the caller's transaction.

    Args:
        connection: to a migrated database.
        declarations: which tables there are.
        aggregated: whether continuous aggregates stand under the views.
    """
    for typed in rollups.typed_tables(declarations):
        columns = {name: typed.columns[name] async for name in as_in_the_table(connection, typed.name, typed.columns)}
        for size in SIZES:
            found = await _aggregates(connection, f"{typed.name}_{size.name}") if aggregated else {}
            await connection.execute(rollups.view(replace(typed, columns=columns), size, found).encode())
    for made in event_rollups.rolled(declarations.event_tables):
        for size in made.sizes:
            found = await _aggregates(connection, f"{made.name}_{size.name}") if aggregated else {}
            await connection.execute(event_rollups.view(made, size, [*found]).encode())


async def _aggregates(connection: Connection, rollup: str) -> Aggregates:
    """Those under a rollup, in the order of their numbers."""
    found = await connection.execute(
        """
        SELECT view_name::text, array_agg(attname::text ORDER BY attnum)
        FROM timescaledb_information.continuous_aggregates
        JOIN pg_attribute ON attrelid = format('%%I.%%I', view_schema, view_name)::regclass AND attnum > 0
        WHERE view_schema = current_schema() AND view_name ~ %s
        GROUP BY view_name ORDER BY length(view_name), view_name
        """,
        (f"^{rollup}_[0-9]+$",),
    )
    return {name: columns async for name, columns in found}
