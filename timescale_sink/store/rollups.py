"""The rollups of the typed tables, ``<table>_5m`` to ``_weekly``: what is kept of a bucket, and the public views.

A bucket's state is a row for each (bucket, node_id, instance, zone, started_at) with `row_count`, the last of each
label, and of each column:

- a gauge ``c``: ``c_sum``, ``c_count``, ``c_min``, ``c_max``, ``c_last``, ``c_last_time``;
- a counter ``c``: ``c_min``, ``c_max``, ``c_first``, ``c_first_time``, ``c_last``, ``c_last_time`` and ``c_fallen``,
  the sum of the values from which it fell within the bucket: 0 where a restart is a new epoch, as it should be.

States of smaller buckets merge into that of a larger one. The public view adds the figure of the column's own name: a
gauge's mean, a counter's increase. Buckets are of UTC, weeks begin on Mondays.

On TimescaleDB Community the states are continuous aggregates, ``<table>_<size>_<number>``, whose definitions are frozen
(``sql/migrations/*.community.sql``, written by ``tools/rollups.py``); elsewhere the view makes them of the raw rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from postel.signals import Declarations

KEY = ("node_id", "instance", "zone", "started_at")
ORIGIN = "2000-01-03 00:00+00"
"""Buckets are counted from here, a Monday, as TimescaleDB does; for those that make up a day it is any midnight."""
_ORIGIN = datetime.fromisoformat(ORIGIN)


@dataclass(frozen=True, slots=True)
class Size:
    """A size of buckets.

    Attributes:
        name: ends the rollup's name.
        interval: the bucket's length, as SQL. In hours where it is stepped through: a day has 24 of them in UTC, and
            another number of them in a reader's zone.
        made_of: the name of the size whose states it merges; '' for the rows.
        later: it came when there were rollups of a year, and is made of those.
    """

    name: str
    interval: str
    made_of: str = ""
    later: bool = False

    @property
    def length(self) -> timedelta:
        """Of a bucket."""
        count, unit = self.interval.split()
        return int(count) * (timedelta(hours=1) if unit.startswith("hour") else timedelta(minutes=1))

    def begin(self, time: datetime) -> datetime:
        """Of the bucket that a time is in."""
        return time - (time - _ORIGIN) % self.length


SIZES = (
    Size("5m", "5 minutes"),
    Size("15m", "15 minutes", "5m", later=True),
    Size("1h", "1 hour", "5m"),
    Size("6h", "6 hours", "1h", later=True),
    Size("daily", "24 hours", "1h"),
    Size("weekly", "168 hours", "daily", later=True),
)
"""Of the typed tables, the smallest first."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A typed table.

    Attributes:
        name: the table's.
        labels: its columns that say what a row is about.
        columns: gauges and counters, in the table's order; whether it is a counter.
    """

    name: str
    labels: Sequence[str]
    columns: Mapping[str, bool]


def typed_tables(declarations: Declarations) -> list[Typed]:
    """The typed tables as they are declared."""
    return [
        Typed(
            name,
            sorted(declarations.tables[name].labels),
            {column.name: column.counter for column in declarations.columns_of(name)},
        )
        for name in sorted(declarations.tables)
    ]


def state_columns(table: Typed) -> list[str]:
    """The names of a state's columns behind the bucket and `KEY`."""
    return [*_of_rows(table)]


def state_of_rows(table: Typed) -> str:
    """The columns of a state behind the bucket and `KEY`, as a query over raw rows makes them."""
    return _select(_of_rows(table))


def state_of_states(table: Typed) -> str:
    """The same, as a query over smaller buckets makes them."""
    return _select(_of_states(table))


def view(table: Typed, size: Size, aggregates: Mapping[str, Sequence[str]]) -> str:
    """The statement that makes the public view or replaces it.

    Args:
        table: where there is a view, with its columns in their order, and further ones behind them.
        size: of the buckets.
        aggregates: continuous aggregate -> its columns; the first has all rows, further ones hold columns that came
            later. Empty: the states are made of the raw rows.
    """
    name = f"{table.name}_{size.name}"
    source = _joined(aggregates) if aggregates else _stepping(table, size)
    figures = []
    for column, counter in table.columns.items():
        figures.append(_increase(table, size, column, aggregates) if counter else _mean(column))
        figures += [f"state.{state}" for state in _states(column, counter=counter)]
    head = ["bucket", *KEY, *table.labels, "row_count"]
    before = _buckets_near(table, size, aggregates) if aggregates and any(table.columns.values()) else ""
    return "\n".join(
        [
            f"CREATE OR REPLACE VIEW {name} AS SELECT",
            ",\n".join([", ".join(f"state.{column}" for column in head), *figures]),
            f"FROM {source} AS state",
            before,
        ]
    )


def _select(columns: Mapping[str, str]) -> str:
    return ",\n    ".join(f"{expression} AS {name}" for name, expression in columns.items())


def _states(column: str, *, counter: bool) -> list[str]:
    kept = ("min", "max", "first", "first_time", "last", "last_time", "fallen")
    return [f"{column}_{name}" for name in (kept if counter else ("sum", "count", "min", "max", "last", "last_time"))]


def _of_rows(table: Typed) -> dict[str, str]:
    made = {"row_count": "count(*)"}
    for label in table.labels:
        made[label] = _last(label, "time", f"{label} IS NOT NULL")
    for column, counter in table.columns.items():
        there = f"{column} IS NOT NULL"
        if counter:
            # A row from before its epoch's start is in no increase (see increase.py).
            there += " AND (time >= started_at) IS NOT FALSE"
        only = f"FILTER (WHERE {there})"
        values = f"array_agg({column} ORDER BY time) {only}"
        parts = {
            "sum": f"sum({column})",
            "count": f"count({column})",
            "min": f"min({column}) {only}" if counter else f"min({column})",
            "max": f"max({column}) {only}" if counter else f"max({column})",
            "first": f"({values})[1]",
            "first_time": f"min(time) {only}",
            "last": _last(column, "time", there),
            "last_time": f"max(time) {only}",
            "fallen": f"counter_fallen(\n        {values},\n        {values}\n    )",
        }
        made |= {state: parts[state.removeprefix(f"{column}_")] for state in _states(column, counter=counter)}
    return made


def _of_states(table: Typed) -> dict[str, str]:
    made = {"row_count": "sum(row_count)::bigint"}
    for label in table.labels:
        made[label] = _last(label, "bucket", f"{label} IS NOT NULL")
    for column, counter in table.columns.items():
        only = f"FILTER (WHERE {column}_last IS NOT NULL)"
        firsts, lasts = (f"array_agg({column}_{end} ORDER BY bucket) {only}" for end in ("first", "last"))
        parts = {
            "sum": f"sum({column}_sum)",
            "count": f"sum({column}_count)::bigint",
            "min": f"min({column}_min)",
            "max": f"max({column}_max)",
            "first": f"({firsts})[1]",
            "first_time": f"min({column}_first_time)",
            "last": _last(f"{column}_last", "bucket", f"{column}_last IS NOT NULL"),
            "last_time": f"max({column}_last_time)",
            "fallen": f"sum({column}_fallen) + counter_fallen(\n        {firsts},\n        {lasts}\n    )",
        }
        made |= {state: parts[state.removeprefix(f"{column}_")] for state in _states(column, counter=counter)}
    return made


def _last(column: str, order: str, there: str) -> str:
    return f"(array_agg({column} ORDER BY {order} DESC) FILTER (WHERE {there}))[1]"


def _stepping(table: Typed, size: Size) -> str:
    return stepping(
        table.name, size, f"SELECT\n    {', '.join(KEY)},\n    {state_of_rows(table)}", f"GROUP BY {', '.join(KEY)}"
    )


def stepping(table: str, size: Size, select: str, group: str) -> str:
    """Buckets made of raw rows, one after the other.

    Grouping by a function of time would read all history whatever window is asked for, because no index knows the
    function. So the buckets that there can be are counted out, a condition picks some, and each is a range of time.
    They begin where rows are kept: a clock that began in 1970 would make millions of them.
    """
    return f"""(
SELECT step.bucket, made.*
FROM generate_series(
    date_bin(
        '{size.interval}',
        greatest((SELECT min(time) FROM {table}), (SELECT since FROM retained WHERE relation = '{table}')),
        '{ORIGIN}'
    ),
    (SELECT max(time) FROM {table}),
    '{size.interval}'
) AS step (bucket)
CROSS JOIN LATERAL (
{select}
FROM {table} WHERE time >= step.bucket AND time < step.bucket + interval '{size.interval}'
{group}
) AS made
)"""


def _joined(aggregates: Mapping[str, Sequence[str]]) -> str:
    first, *further = aggregates
    if not further:
        return first
    taken = {"bucket", *KEY, *aggregates[first]}
    columns = [f"{first}.*"]
    joins = []
    for name in further:
        columns += [f"{name}.{column}" for column in aggregates[name] if column not in taken]
        taken |= {*aggregates[name]}
        joins.append(f"LEFT JOIN {name} ON {first}.bucket = {name}.bucket AND {_same(first, name)}")
    return f"(SELECT {', '.join(columns)} FROM {first} {' '.join(joins)})"


def _same(one: str, other: str) -> str:
    *key, epoch = KEY
    same = " AND ".join(f"{one}.{column} = {other}.{column}" for column in key)
    return f"{same} AND {one}.{epoch} IS NOT DISTINCT FROM {other}.{epoch}"


def _mean(column: str) -> str:
    return f"state.{column}_sum::double precision / nullif(state.{column}_count, 0) AS {column}"


def _increase(table: Typed, size: Size, column: str, aggregates: Mapping[str, Sequence[str]]) -> str:
    """The increase within the bucket, and that from the last value before it to its first."""
    kept = f"{table.name}_{size.name}" if aggregates else table.name
    before = _value_before(size, column, aggregates) if aggregates else _raw_value_before(table, column)
    return f"""state.{column}_fallen + state.{column}_last - state.{column}_first + counter_increase(
    state.{column}_first,
    coalesce(
        {before},
        -- Retention took it, or may have: what the bucket itself shows is what is known.
        CASE WHEN state.started_at < (SELECT since FROM retained WHERE relation = '{kept}')
            THEN state.{column}_first END
    ),
    state.started_at, state.{column}_first_time
) AS {column}"""


def _raw_value_before(table: Typed, column: str) -> str:
    return f"""(
            SELECT before.{column} FROM {table.name} AS before
            WHERE {_same("before", "state")} AND before.time < state.bucket
                AND before.time >= coalesce(state.started_at, '-infinity')
                AND before.{column} IS NOT NULL AND state.{column}_first IS NOT NULL
            ORDER BY before.time DESC LIMIT 1
        )"""


def _holding(column: str, aggregates: Mapping[str, Sequence[str]]) -> str:
    return next(name for name, columns in aggregates.items() if f"{column}_last" in columns)


def _value_before(size: Size, column: str, aggregates: Mapping[str, Sequence[str]]) -> str:
    # What `near` did not find is asked for among all that is earlier, which coalesce does after gaps alone.
    return f"""near.{column}_last,
        (
            SELECT earlier.{column}_last FROM {_holding(column, aggregates)} AS earlier
            WHERE {_same("earlier", "state")} AND earlier.bucket < {_near(size)} AND {_in_epoch("earlier", size)}
                AND earlier.{column}_last IS NOT NULL AND state.{column}_first IS NOT NULL
            ORDER BY earlier.bucket DESC LIMIT 1
        )"""


def _buckets_near(table: Typed, size: Size, aggregates: Mapping[str, Sequence[str]]) -> str:
    """The last values of the buckets shortly before.

    Bounded below: the latest of all that are earlier would be read out of all of them, because a continuous aggregate
    is a union whose order no index gives: 5 s for the 288 buckets of a day in PGlite, 0.07 s so.
    """
    lasts = ",\n        ".join(
        f"{_last(f'before.{column}_last', 'before.bucket', f'before.{column}_last IS NOT NULL')} AS {column}_last"
        for column, counter in table.columns.items()
        if counter
    )
    # A left join, which is not made for those who ask for the states alone.
    return f"""LEFT JOIN LATERAL (
    SELECT
        {lasts}
    FROM {_joined(aggregates)} AS before
    WHERE {_same("before", "state")} AND before.bucket < state.bucket
        AND before.bucket >= {_near(size)} AND {_in_epoch("before", size)}
) AS near ON true"""


def _near(size: Size) -> str:
    return f"state.bucket - 12 * interval '{size.interval}'"


def _in_epoch(bucket: str, size: Size) -> str:
    return f"{bucket}.bucket >= coalesce(time_bucket('{size.interval}', state.started_at), '-infinity')"
