"""The SQL of the dashboards, apart from their panels, with Grafana's macros and variables in it.

A chart's query answers rows (time, metric, value), ordered by time; `metric` is the name of a series. Where a table
has rollups a query is a union of the rows and of the rollups, each branch guarded by `$__interval_ms`: Grafana puts a
number there, so that all branches but one are false before anything is read. A chart asks for about `POINTS` points,
so that rows serve up to 17 hours, buckets of 5 minutes up to nine days, of an hour up to ten months, of a day beyond.

Grafana takes `$name(...)` for a macro, whose arguments hold no closing parenthesis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Points of a chart: Grafana divides the range by it, and rounds to an interval that people use.
POINTS = 300
FROM, TO = "$__timeFrom()::timestamptz", "$__timeTo()::timestamptz"
# A variable that stands for all is the word '*': the condition is true then before anything is read.
NODE = "('*' IN (${node:sqlstring}) OR node_id IN (${node:sqlstring}))"
ZONE = "('*' IN (${zone:sqlstring}) OR zone IN (${zone:sqlstring}))"
# How far before the range the row before its first one is looked for: ten rows of the slowest table.
BEFORE = "10 minutes"

# Node id -> its host, and the id where hosts are alike.
NAMED = """(
    SELECT
        id,
        CASE WHEN count(*) OVER (PARTITION BY host) > 1 THEN host || ' (' || left(id, 8) || ')' ELSE host END AS name
    FROM (SELECT id, coalesce(nullif(host, ''), id) AS host FROM node) AS shown
)"""
NODES = f"SELECT name AS __text, id AS __value FROM {NAMED} AS named ORDER BY name"
# Of the end of the range: a zone stays as long as its server runs.
ZONES = f"""SELECT DISTINCT zone FROM metrics_zonemta
WHERE zone <> '' AND time > greatest({FROM}, {TO} - interval '6 hours') AND time <= {TO}
ORDER BY zone"""


@dataclass(frozen=True, slots=True)
class Size:
    """A size of buckets: how a rollup's name ends, its length, and from which interval on it is asked, milliseconds."""

    name: str
    length: str
    least: int


SIZES = (Size("5m", "5 minutes", 300_000), Size("1h", "1 hour", 3_600_000), Size("daily", "24 hours", 86_400_000))


UNION = "\n    UNION ALL\n    "


def guards() -> list[str]:
    """Conditions on the interval, one of which is true: of the rows, and of each size of buckets."""
    least = [0, *(size.least for size in SIZES)]
    most = [*(size.least for size in SIZES), None]
    return [
        " AND ".join([f"$__interval_ms >= {low}"] * bool(low) + [f"$__interval_ms < {high}"] * bool(high))
        for low, high in zip(least, most, strict=True)
    ]


def by_range(table: str, raw: Sequence[str], rolled: Sequence[str], where: str) -> str:
    """The rows of a range, or what rollups keep of them: the first column is the time.

    Args:
        table: whose name its rollups begin with.
        raw: expressions with their names, over the rows.
        rolled: the same over a rollup.
        where: a condition of both.
    """
    rows, *rollups = guards()
    parts = [
        f"""SELECT {", ".join(["time AS at", *raw])}
    FROM {table}
    WHERE {rows} AND time > {FROM} AND time <= {TO} AND {where}"""
    ]
    parts += [
        # The bucket in which the range begins belongs to it.
        f"""SELECT {", ".join(["bucket", *rolled])}
    FROM {table}_{size.name}
    WHERE {guard} AND bucket > {FROM} - interval '{size.length}' AND bucket <= {TO} AND {where}"""
        for guard, size in zip(rollups, SIZES, strict=True)
    ]
    return UNION.join(parts)


def gauges(
    table: str, columns: Mapping[str, str], *, instances: bool = False, where: str = NODE, fill: bool = True
) -> str:
    """The mean of gauges, a series for each node, or each instance where a node may have several."""
    own = "coalesce(named.name, node_id)" + (" || replace(instance, node_id, '')" if instances else "")
    name = f"{own} || ' ' || label" if len(columns) > 1 else own
    pairs = ", ".join(f"('{label}', {column})" for column, label in columns.items())
    there = f"num_nonnulls({', '.join(columns)}) > 0 AND {where}"
    key = ["node_id", "instance", *columns]
    return f"""WITH told AS (
    {by_range(table, key, key, there)}
)
SELECT $__timeGroup(at, $__interval{", NULL" if fill else ""}) AS time, {name} AS metric, avg(value)::float8 AS value
FROM told CROSS JOIN LATERAL (VALUES {pairs}) AS one (label, value)
LEFT JOIN {NAMED} AS named ON named.id = node_id
WHERE value IS NOT NULL
GROUP BY 1, 2
ORDER BY 1, 2"""


def latest(table: str, columns: Mapping[str, str], *, where: str = NODE) -> str:
    """A row for each instance: the last that it told in the last hour of the range."""
    shown = ", ".join(f'last.{column} AS "{label}"' for column, label in columns.items())
    lasts = ", ".join(
        f"(array_agg({column} ORDER BY time DESC) FILTER (WHERE {column} IS NOT NULL))[1] AS {column}"
        for column in columns
    )
    return f"""SELECT coalesce(named.name, node_id) || replace(instance, node_id, '') AS "Node", {shown}
FROM (
    SELECT node_id, instance, {lasts}
    FROM {table}
    WHERE time > greatest({FROM}, {TO} - interval '1 hour') AND time <= {TO} AND {where}
    GROUP BY node_id, instance
) AS last
LEFT JOIN {NAMED} AS named ON named.id = node_id
ORDER BY 1"""


def queue(columns: Mapping[str, str], *, zones: bool) -> str:
    """Depth or age of queues, each counted once: of the instances that share one the greatest stands for all.

    Args:
        columns: gauge of `metrics_zonemta` -> what it is called; ages are not added up, of them the greatest is shown.
        zones: a series for each zone; else what instances say of the whole.
    """
    where = f"zone <> '' AND {ZONE} AND {NODE}" if zones else f"zone = '' AND {NODE}"
    own = "coalesce(nullif(queue_id, ''), node_id || '/' || instance) AS queue"
    name = ("zone || ' ' || label" if len(columns) > 1 else "zone") if zones else "label"
    pairs = ", ".join(f"('{label}', {column})" for column, label in columns.items())
    key = [own, "zone", *columns]
    tops = ", ".join(f"max({column}) AS {column}" for column in columns)
    means = ", ".join(f"avg({column}) AS {column}" for column in columns)
    over_queues = "max" if "oldest_age" in columns else "sum"
    return f"""WITH told AS (
    {by_range("metrics_zonemta", key, key, f"num_nonnulls({', '.join(columns)}) > 0 AND {where}")}
),
tick AS (SELECT at, queue, zone, {tops} FROM told GROUP BY at, queue, zone),
step AS (
    SELECT $__timeGroup(at, $__interval, NULL) AS step, queue, zone, {means} FROM tick GROUP BY 1, queue, zone
)
SELECT step AS time, {name} AS metric, {over_queues}(value)::float8 AS value
FROM step CROSS JOIN LATERAL (VALUES {pairs}) AS one (label, value)
WHERE value IS NOT NULL
GROUP BY 1, 2
ORDER BY 1, 2"""


def queue_now(*, zones: bool) -> str:
    """What waits at the end of the range, each queue once: a row for each zone, or one of the whole."""
    where = f"zone <> '' AND {ZONE} AND {NODE}" if zones else f"zone = '' AND {NODE}"
    head, group = ('zone AS "Zone", ', "GROUP BY zone ORDER BY zone") if zones else ("", "HAVING count(*) > 0")
    return f"""WITH last AS (
    SELECT DISTINCT ON (node_id, instance, zone)
        coalesce(nullif(queue_id, ''), node_id || '/' || instance) AS queue, zone, queue_size, deferred_size, oldest_age
    FROM metrics_zonemta
    WHERE
        time > greatest({FROM}, {TO} - interval '10 minutes') AND time <= {TO}
        AND queue_size IS NOT NULL AND {where}
    ORDER BY node_id, instance, zone, time DESC
),
once AS (
    SELECT
        queue, zone, max(queue_size) AS queue_size, max(deferred_size) AS deferred_size, max(oldest_age) AS oldest_age
    FROM last GROUP BY queue, zone
)
SELECT
    {head}sum(queue_size)::float8 AS "Queued", sum(deferred_size)::float8 AS "Deferred", max(oldest_age) AS "Oldest"
FROM once
{group}"""


# What the event tables are asked by, as their rollups have it.
_EVENTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "delivery_events": (
        [
            *("to_domain AS domain", "status", "category", "zone", "1::bigint AS events", "duration AS duration_sum"),
            "(duration IS NOT NULL)::int::bigint AS duration_count",
        ],
        ["domain", "status", "category", "zone", "attempts AS events", "duration_sum", "duration_count"],
    ),
    "email_events": (
        [
            "CASE WHEN direction = 'outbound' THEN to_domain ELSE from_domain END AS domain",
            *("direction", "outcome", "spam_action", "1::bigint AS events", "spam_score AS spam_score_sum"),
            "(spam_score IS NOT NULL)::int::bigint AS spam_score_count",
        ],
        [
            *("domain", "direction", "outcome", "spam_action", "messages AS events", "spam_score_sum"),
            "spam_score_count",
        ],
    ),
}


def told(table: str, where: str) -> str:
    """The events of a range, or their rollups, as `told`; `events` is how many a row stands for."""
    raw, rolled = _EVENTS[table]
    return f"""WITH told AS (
    {by_range(table, raw, rolled, where)}
)"""


def events(
    table: str, metric: str, value: str = "sum(events)::float8", *, where: str = NODE, only: str = "true"
) -> str:
    """Events by step, a series for each value of an expression over the rollup's columns."""
    return f"""{told(table, where)}
SELECT $__timeGroup(at, $__interval) AS time, {metric} AS metric, {value} AS value
FROM told
WHERE {only}
GROUP BY 1, 2
ORDER BY 1, 2"""


def event_table(
    table: str, columns: Mapping[str, str], *, where: str = NODE, only: str = "true", rest: str = ""
) -> str:
    """A table over events; column -> expression, and what follows the condition."""
    shown = ", ".join(f'{expression} AS "{label}"' for label, expression in columns.items())
    return f"""{told(table, where)}
SELECT {shown}
FROM told
WHERE {only}
{rest}"""


# What no rollup has is read from the rows, of a day at most.
LAST_DAY = f"time > greatest({FROM}, {TO} - interval '1 day') AND time <= {TO}"
