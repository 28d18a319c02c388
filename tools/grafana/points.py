"""The SQL of metrics without a typed column: `otel_series` and `otel_metric_point`, which have no rollups."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import indent

from tools.grafana.queries import BEFORE, FROM, NAMED, NODE, TO


def _series(metric: str, where: str) -> str:
    """The series of a metric, each with its node's name; as a query within another."""
    return f"""    SELECT series.series_id, coalesce(named.name, node_id) AS node, instance, attributes
    FROM otel_series AS series LEFT JOIN {NAMED} AS named ON named.id = node_id
    WHERE metric = '{metric}' AND {where}"""


def gauge(metric: str, name: str, value: str = "avg(value)", *, where: str = NODE) -> str:
    """A gauge without a typed column: a series for each value of an expression over node, attributes and instance."""
    return f"""SELECT $__timeGroup(time, $__interval, NULL) AS time, {name} AS metric, {value}::float8 AS value
FROM (
{_series(metric, where)}
) AS series
JOIN otel_metric_point USING (series_id)
WHERE $__timeFilter(time)
GROUP BY 1, 2
ORDER BY 1, 2"""


def rates(metric: str, name: str, *, value: str = "value", per: str = "", where: str = NODE) -> str:
    """A counter without a typed column: its rise per second, or by what another figure of its points rose."""
    divisor = f"{per} - lag({per}) OVER epoch" if per else "extract(epoch FROM time - lag(time) OVER epoch)"
    # The mean of many series is one ratio, their rates add up.
    total = "sum(rise) / nullif(sum(per), 0)" if per else "sum(rise / nullif(per, 0))"
    inner = f"""    SELECT
        $__timeGroup(time, $__interval, NULL) AS step, series_id, {name} AS metric, sum(rise) AS rise, sum(per) AS per
    FROM (
        SELECT
            time, series_id, node, instance, attributes,
            {value} - lag({value}) OVER epoch AS rise, ({divisor})::float8 AS per
        FROM (
{indent(_series(metric, where), " " * 8)}
        ) AS series
        JOIN otel_metric_point USING (series_id)
        WHERE time > {FROM} - interval '{BEFORE}' AND time <= {TO}
        WINDOW epoch AS (PARTITION BY series_id, started_at ORDER BY time)
    ) AS row
    WHERE rise >= 0 AND time > {FROM}
    GROUP BY 1, 2, 3"""
    return f"""WITH risen AS (
{inner}
)
SELECT step AS time, metric, ({total})::float8 AS value
FROM risen
GROUP BY 1, 2
ORDER BY 1, 2"""


def latest(metric: str, columns: Mapping[str, str], *, where: str = NODE, rest: str = "ORDER BY 1") -> str:
    """A row for each series of a metric: the last that it told in the last hour of the range."""
    shown = ", ".join(f'{expression} AS "{label}"' for label, expression in columns.items())
    return f"""SELECT {shown}
FROM (
{_series(metric, where)}
) AS series
CROSS JOIN LATERAL (
    SELECT time, value FROM otel_metric_point AS point
    WHERE
        point.series_id = series.series_id
        AND time > greatest({FROM}, {TO} - interval '1 hour') AND time <= {TO}
    ORDER BY time DESC LIMIT 1
) AS last
{rest}"""
