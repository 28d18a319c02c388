"""Which rollup answers a series, and the queries of rollups and of increases.

A rollup is asked where its buckets make up the steps and the server keeps them apart from the rows (TimescaleDB
Community); elsewhere a rollup is made of the rows when it is asked, and the rows themselves are asked sooner.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg import sql

from timescale_sink.api.queries import query
from timescale_sink.store.rollups import ORIGIN, SIZES

SECONDS: Mapping[str, int] = {size.name: int(size.length.total_seconds()) for size in reversed(SIZES)}
"""Sizes of buckets of the typed tables, the largest first."""
BEGIN = int(datetime.fromisoformat(ORIGIN).timestamp())
"""Steps are counted from here, epoch seconds, as buckets are: what is a week begins on Monday."""

# What one series is told by: others came so that there is one for many series too.
_UNITS = [SECONDS[size.name] for size in reversed(SIZES) if not size.later]
# Buckets of an hour or more are few, so that those of some hours without any are bridged too.
_AWAY_S = 6 * 3600
# A row of each node each 15 seconds is many rows in six hours; five minutes of them are one bucket.
_ROLLED_FROM_S = 6 * 3600
MOST = 12_000
"""So many buckets are read for an answer, and are answered, where nobody says which step it shall have.

One that is read takes 5 to 10 us of the server, one that is answered about as long of both sides.
"""
FEWEST = 24
"""Points of a range that are told, however many series there are."""


def size_for(step: int, sizes: Mapping[str, int] = SECONDS, *, pending: Collection[str] = ()) -> str | None:
    """The largest buckets that make up a step of so many seconds; None: no buckets do.

    Args:
        step: counted from `BEGIN`.
        sizes: name -> seconds, the largest first.
        pending: those that are still being made, and read slowly until then.
    """
    return next((size for size, seconds in sizes.items() if step % seconds == 0 and size not in pending), None)


def look_back(size: str | None) -> int:
    """How long before a range the predecessors of its first buckets, or rows, are looked for, seconds.

    Who has none there is asked for by the query that costs more: to plan it, which is to look at every chunk that there
    is, took twenty times as long as to run it, on a year of 57 rollups.

    Args:
        size: of the buckets; None: rows.
    """
    seconds = SECONDS[size or "5m"]
    return max(seconds, _AWAY_S) if seconds >= SECONDS["1h"] else seconds


def step_for(seconds: float, interval: int, points: int, *, series: int = 1) -> int:
    """The step, in seconds, that tells a range by so many points at most, and by half of them or nearly.

    By fewer where many series are told: nobody reads hundreds of lines of hundreds of points, and larger buckets are
    read at once.

    Args:
        seconds: the range.
        interval: from a row of the table to the next.
        points: at most.
        series: how many (node, instance, zone) are told.
    """
    longest = seconds / min(points, FEWEST)
    least = min(longest, seconds * max(1 / points, series / MOST))
    # Larger buckets where two points would be within one.
    unit = next((length for length in _UNITS if least > length / 2), interval)
    if seconds >= _ROLLED_FROM_S:
        unit = max(unit, SECONDS["5m"])
        fitting = [length for length in SECONDS.values() if unit <= length <= max(unit, longest)]
        few = [length for length in fitting if series * seconds / length <= MOST]
        unit = (few or fitting[:1])[-1]
    unit = max(unit, interval)
    return max(1, min(math.ceil(least / unit), math.floor(longest / unit))) * unit


def begin(time: float, step: int) -> int:
    """Of the step that a time is in, epoch seconds."""
    return math.floor((time - BEGIN) / step) * step + BEGIN


def end(time: float, step: int) -> int:
    """The first begin of a step that is not before a time."""
    return math.ceil((time - BEGIN) / step) * step + BEGIN


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
    beyond: LiteralString = "whole.{column}" if exact else _OLDEST if size else "NULL"
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
    within = sql.Literal(max(_DAY, timedelta(seconds=SECONDS[size])))
    return query(
        f"{prefix}rolled_increases",
        f"{table}_{size}",
        columns,
        key=_KEY,
        states=_listed(states),
        within=within,
        last_times=last_times,
        first_times=_listed(columns, "_first_time"),
        befores=_befores(columns, "_last", "bucket", sql.SQL("greatest({})").format(last_times)),
        unknown=_unknown(columns, "_first"),
        rises=_each(
            _RISE_OF_BUCKETS + beyond + _RISEN,
            columns,
            rollup=sql.Literal(f"{table}_{size}"),
            last="_last",
            first="_first",
            fallen="_fallen",
            first_time="_first_time",
        ),
    )


_DAY = timedelta(days=1)
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
# With nothing before it: as the view has it.
_OLDEST: LiteralString = """CASE WHEN near.oldest
                THEN near.{fallen}::bigint + near.{last} - near.{first} + counter_increase(
                    near.{first},
                    CASE WHEN near.started_at < (SELECT since FROM retained WHERE relation = {rollup})
                        THEN near.{first} END,
                    near.started_at, near.{first_time}
                )
            END"""
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
    form: LiteralString, columns: Sequence[str], between: LiteralString = ",\n    ", **states: str | sql.Literal
) -> sql.Composed:
    """A form for each column: {column}, {before} for its value in the row before, and its states by their names.

    What is a literal is the same for each.
    """
    return sql.SQL(between).join(
        sql.SQL(form).format(
            column=sql.Identifier(column),
            before=sql.Identifier(f"{column}_before"),
            **{
                name: sql.Identifier(column + state) if isinstance(state, str) else state
                for name, state in states.items()
            },
        )
        for column in columns
    )
