"""Which rollup answers a series, and the queries of rollups and of increases.

A rollup is asked where its buckets make up the steps and the server keeps them apart from the rows (TimescaleDB
Community); elsewhere a rollup is made of the rows when it is asked, and the rows themselves are asked sooner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from timescale_sink.api.queries import query

SECONDS = {"daily": 86400, "1h": 3600, "5m": 300}
"""Sizes of buckets, the largest first."""

# A row of each node each 15 seconds is many rows in six hours; five minutes of them are one bucket.
_ROLLED_FROM_S = 6 * 3600


def size_for(step: int) -> str | None:
    """The largest buckets that make up a step of so many seconds; None: no buckets do."""
    return next((size for size, seconds in SECONDS.items() if step % seconds == 0), None)


def step_for(seconds: float, interval: int, points: int) -> int:
    """The step, in seconds, that tells a range by so many points at most, and by half of them or nearly.

    Args:
        seconds: the range.
        interval: from a row of the table to the next.
        points: at most.
    """
    least = seconds / points
    # Larger buckets where two points would be within one.
    unit = next((length for length in SECONDS.values() if least >= length / 2), interval)
    if seconds >= _ROLLED_FROM_S:
        unit = max(unit, SECONDS["5m"])
    unit = max(unit, interval)
    return max(1, math.ceil(least / unit)) * unit


def gauges(table: str, size: str, columns: Sequence[str], *, shared: bool) -> sql.Composed:
    """The query of a rollup's gauges; ``shared``: of a queue that several instances may tell of."""
    name = "rolled_queue_gauges" if shared else "rolled_gauges"
    form: LiteralString = "sum({sum}::float8) / nullif(sum({count}), 0)::float8 AS {column}"
    return query(name, f"{table}_{size}", columns, mean=_each(form, columns, sum="_sum", count="_count"))


def increases(table: str, size: str | None, columns: Sequence[str], *, exact: bool) -> sql.Composed:
    """The query of the increase of counters.

    Args:
        table: a typed table.
        size: of a rollup's buckets; None: by the rows.
        columns: its counters.
        exact: the query that costs more, of `exact_increases` in ``queries.sql``.
    """
    prefix = "exact_" if exact else ""
    beyond: LiteralString = "whole.{column}" if exact else "NULL"
    if size is None:
        return query(
            f"{prefix}increases",
            table,
            columns,
            key=_KEY,
            befores=_befores(columns, "", "time", sql.Identifier("time")),
            unknown=_unknown(columns, ""),
            rises=_each(_RISE_OF_ROWS + beyond + _RISEN, columns),
        )
    states = [f"{column}_{state}" for column in columns for state in ("first", "last", "fallen", "first_time")]
    last_times = _listed(columns, "_last_time")
    return query(
        f"{prefix}rolled_increases",
        f"{table}_{size}",
        columns,
        key=_KEY,
        states=_listed(states),
        last_times=last_times,
        first_times=_listed(columns, "_first_time"),
        befores=_befores(columns, "_last", "bucket", sql.SQL("greatest({})").format(last_times)),
        unknown=_unknown(columns, "_first"),
        rises=_each(
            _RISE_OF_BUCKETS + beyond + _RISEN,
            columns,
            last="_last",
            first="_first",
            fallen="_fallen",
            first_time="_first_time",
        ),
    )


# Of the names of a series. Sorting 86,400 buckets by three texts takes 0.3 s, by a number a third of it.
_KEY = sql.SQL("hashtextextended(node_id, hashtextextended(instance, hashtextextended(zone, 0)))")

_RISE_OF_ROWS: LiteralString = """sum(
        CASE
            WHEN near.begins OR near.{before} IS NOT NULL AND near.known THEN counter_increase(
                near.{column}, CASE WHEN near.known THEN near.{before} END, near.started_at, near.time
            )
            ELSE """
_RISE_OF_BUCKETS: LiteralString = """sum(
        CASE
            WHEN near.begins OR near.known AND near.{before} IS NOT NULL
                THEN near.{fallen}::bigint + near.{last} - near.{first} + counter_increase(
                    near.{first}, CASE WHEN near.known THEN near.{before} END, near.started_at, near.{first_time}
                )
            ELSE """
_RISEN: LiteralString = """
        END
    )::float8 AS {column}"""


def _befores(columns: Sequence[str], state: str, own: str, time: sql.Composable) -> sql.Composed:
    """What is known of the row before: its time, whether it is of the same epoch, its values.

    ``begins`` is true where nothing of the epoch can be before the row, so that its counters began at nothing.
    """
    values = _each("lag({value}) OVER key AS {before}", columns, value=state)
    known = sql.SQL(
        # A row from before its epoch's start is nobody's predecessor.
        "(lag({time}) OVER key IS NOT NULL AND lag(started_at) OVER key IS NOT DISTINCT FROM started_at"
        " AND (lag({time}) OVER key >= started_at) IS NOT FALSE)"
    ).format(time=time)
    return sql.SQL(
        "lag({time}) OVER key AS before, {known} AS known,\n"
        "        started_at >= {own} OR started_at >= lag({time}) OVER key AND NOT {known} AS begins,\n        {values}"
    ).format(time=time, known=known, own=sql.Identifier(own), values=values)


def _unknown(columns: Sequence[str], state: str) -> sql.Composed:
    """Whether the row before is not the predecessor of all of the counters."""
    missing = _each("near.{value} IS NOT NULL AND near.{before} IS NULL", columns, " OR ", value=state)
    return sql.SQL("near.begins IS NOT TRUE AND (NOT near.known OR {})").format(missing)


def _listed(columns: Sequence[str], state: str = "") -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column + state) for column in columns)


def _each(
    form: LiteralString, columns: Sequence[str], between: LiteralString = ",\n    ", **states: str
) -> sql.Composed:
    """A form for each column: {column}, {before} for its value in the row before, and its states by their names."""
    return sql.SQL(between).join(
        sql.SQL(form).format(
            column=sql.Identifier(column),
            before=sql.Identifier(f"{column}_before"),
            **{name: sql.Identifier(column + state) for name, state in states.items()},
        )
        for column in columns
    )
