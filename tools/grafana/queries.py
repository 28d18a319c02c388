"""The SQL of the dashboards, apart from their panels, with Grafana's macros and variables in it.

A chart's query answers rows (time, metric, value), ordered by time; `metric` is the name of a series. What has rollups
is read by the function `by_step` (sql/views/0008_by_step.sql), which is given `$__interval_ms` and chooses the largest
buckets that make up a step, as the API does. A chart asks for about `POINTS` points, so that rows serve up to 17 hours.

Grafana takes `$name(...)` for a macro, whose arguments hold no closing parenthesis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from timescale_sink.store import event_rollups

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
NODE_NAMES = f"SELECT name AS __text, id AS __value FROM {NAMED} AS named ORDER BY name"
# Of the end of the range: a zone stays as long as its server runs.
ZONES = f"""SELECT DISTINCT zone FROM metrics_zonemta
WHERE zone <> '' AND time > greatest({FROM}, {TO} - interval '6 hours') AND time <= {TO}
ORDER BY zone"""


@dataclass(frozen=True, slots=True)
class Field:
    """What is read of a row or a bucket.

    Attributes:
        type: of PostgreSQL's.
        raw: an expression over a row; '' where it is the field's name.
        rolled: the same over a bucket.
    """

    name: str
    type: str = "text"
    raw: str = ""
    rolled: str = ""

    @property
    def of_row(self) -> str:
        """What is selected of a row."""
        return self._cast(self.raw)

    @property
    def of_bucket(self) -> str:
        """What is selected of a bucket."""
        return self._cast(self.rolled)

    def _cast(self, expression: str) -> str:
        if not expression:
            return self.name if self.type == "text" else f"{self.name}::{self.type}"
        return f"{expression}::{self.type}" if expression.isidentifier() else f"({expression})::{self.type}"


def by_step(
    table: str,
    fields: Sequence[Field],
    *,
    rollups: Sequence[str] = (),
    condition: str = "",
    where: str = "",
    behind: bool = False,
) -> str:
    """The rows of a range, or the buckets that make up its steps: the time as `at`, and the fields.

    Args:
        table: of the rows.
        fields: in their order.
        rollups: what their names begin with, those with the fewest rows first; none: as the table is called.
        condition: one over the columns of the table and its rollups, without variables; '': none.
        where: one over the fields; '': none.
        behind: also what was just before the range.
    """
    rows = _quoted(", ".join(field.of_row for field in fields))
    buckets = _quoted(", ".join(field.of_bucket for field in fields))
    names = ", ".join(_quoted(name) for name in rollups or [table])
    further = f",\n        condition => {_quoted(condition)}" * bool(condition) + ",\n        behind => true" * behind
    answer = ", ".join(f"{field.name} {field.type}" for field in fields)
    narrowed = f"\n    WHERE {where}" * bool(where)
    return f"""SELECT * FROM by_step(
        '{table}', ARRAY[{names}], $__interval_ms, {FROM}, {TO}, ARRAY[${{node:sqlstring}}]::text[],
        {rows},
        {buckets}{further}
    ) AS told (at timestamptz, {answer}){narrowed}"""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def gauges(table: str, columns: Mapping[str, str], *, instances: bool = False, fill: bool = True) -> str:
    """The mean of gauges, a series for each node, or each instance where a node may have several."""
    own = "coalesce(named.name, node_id)" + (" || replace(instance, node_id, '')" if instances else "")
    name = f"{own} || ' ' || label" if len(columns) > 1 else own
    pairs = ", ".join(f"('{label}', {column})" for column, label in columns.items())
    fields = [Field("node_id"), Field("instance"), *(Field(column, "float8") for column in columns)]
    return f"""WITH told AS (
    {by_step(table, fields)}
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
    own = "coalesce(nullif(queue_id, ''), node_id || '/' || instance)"
    of = "zone <> ''" if zones else "zone = ''"
    name = ("zone || ' ' || label" if len(columns) > 1 else "zone") if zones else "label"
    pairs = ", ".join(f"('{label}', {column})" for column, label in columns.items())
    fields = [Field("queue", raw=own, rolled=own), Field("zone"), *(Field(column, "float8") for column in columns)]
    tops = ", ".join(f"max({column}) AS {column}" for column in columns)
    means = ", ".join(f"avg({column}) AS {column}" for column in columns)
    over_queues = "max" if "oldest_age" in columns else "sum"
    return f"""WITH told AS (
    {by_step("metrics_zonemta", fields, condition=of, where=ZONE if zones else "")}
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


# What the event tables are asked by beside the domain, and `events`: how many a row or a bucket's row stands for.
_EVENTS: Mapping[str, Sequence[Field]] = {
    "delivery_events": [
        Field("status"),
        Field("category"),
        Field("zone"),
        Field("events", "bigint", "1", "attempts"),
        Field("duration_sum", "float8", "duration"),
        Field("duration_count", "bigint", "(duration IS NOT NULL)::int"),
    ],
    "email_events": [
        Field("direction"),
        Field("outcome"),
        Field("spam_action"),
        Field("events", "bigint", "1", "messages"),
        Field("spam_score_sum", "float8", "spam_score"),
        Field("spam_score_count", "bigint", "(spam_score IS NOT NULL)::int"),
    ],
}


def told(table: str, where: str = "", *, domains: bool = False) -> str:
    """The events of a range, or their rollups, as `told`; `events` is how many a row stands for.

    Args:
        table: of events.
        where: a condition beside that of the nodes.
        domains: whether `domain` is asked for; without it there are far fewer buckets.
    """
    fields, whole, some = [*_EVENTS[table]], event_rollups.TOTALS[table], event_rollups.NODES[table]
    if domains:
        whole, some = event_rollups.DOMAINS[table], event_rollups.EVENTS[table]
        fields = [Field("domain", raw=some.by["domain"]), *fields]
    return f"""WITH told AS (
    {by_step(table, fields, rollups=[whole.name, some.name], where=where)}
)"""


def events(table: str, metric: str, value: str = "sum(events)::float8", *, where: str = "", only: str = "true") -> str:
    """Events by step, a series for each value of an expression over the rollup's columns."""
    return f"""{told(table, where)}
SELECT $__timeGroup(at, $__interval) AS time, {metric} AS metric, {value} AS value
FROM told
WHERE {only}
GROUP BY 1, 2
ORDER BY 1, 2"""


def event_table(table: str, columns: Mapping[str, str], *, where: str = "", only: str = "true", rest: str = "") -> str:
    """A table over events and their domains; column -> expression, and what follows the condition."""
    shown = ", ".join(f'{expression} AS "{label}"' for label, expression in columns.items())
    return f"""{told(table, where, domains=True)}
SELECT {shown}
FROM told
WHERE {only}
{rest}"""


# What no rollup has is read from the rows, of a day at most.
LAST_DAY = f"time > greatest({FROM}, {TO} - interval '1 day') AND time <= {TO}"
