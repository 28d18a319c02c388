"""The SQL of counters with a typed column: what they rose by, exact across restarts, from rows or rollups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tools.grafana.queries import BEFORE, FROM, NAMED, Field, by_step


def _counters(table: str, columns: Sequence[str], where: str) -> str:
    """What counters of a typed table rose by, as `counted`: a row for each row or bucket.

    The rise is the states of the bucket and the value before it, which a window finds at once; the view of increases,
    which looks for it as far as it takes, is asked for the few rows that have none in the window and are not the first
    of their epoch. `covered` are the seconds since the row before, NULL where nobody knows. A server that tells zones
    tells no whole beside them; where one did, it is `twice`.
    """
    # A row from before its counter began is in no increase, and nobody's predecessor.
    counts = f"(time >= started_at) IS NOT FALSE AND num_nonnulls({', '.join(columns)}) > 0"
    last_times = ", ".join(f"{column}_last_time" for column in columns)
    fields = [
        *(Field("node_id"), Field("instance"), Field("zone"), Field("started_at", "timestamptz")),
        Field("begins", "boolean", "started_at >= time", "started_at >= bucket"),
        Field("seen", "timestamptz", f"CASE WHEN {counts} THEN time END", f"greatest({last_times})"),
        *(field for column in columns for field in _states(column)),
    ]
    befores = ", ".join(f"lag({column}_last) OVER epoch AS {column}_before" for column in columns)
    rises = ",\n        ".join(_rise(table, column) for column in columns)
    return f"""told AS (
    {by_step(table, fields, where=" AND ".join(["seen IS NOT NULL", *([where] if where else [])]), behind=True)}
),
near AS (
    SELECT
        *, {befores},
        extract(epoch FROM seen - coalesce(
            lag(seen) OVER (PARTITION BY node_id, instance, zone ORDER BY seen),
            -- A server tells a zone only once something was counted in it.
            max(seen) OVER (
                PARTITION BY node_id, instance ORDER BY seen
                RANGE BETWEEN UNBOUNDED PRECEDING AND interval '1 microsecond' PRECEDING
            ),
            CASE WHEN started_at > {FROM} - interval '{BEFORE}' THEN started_at END
        ))::float8 AS covered,
        zone = '' AND bool_or(zone <> '') OVER (PARTITION BY node_id, instance, started_at) AS twice
    FROM told
    WINDOW epoch AS (PARTITION BY {_KEY} ORDER BY at)
),
counted AS (
    SELECT
        at, node_id, instance, zone, covered,
        {rises}
    FROM near
    WHERE seen > {FROM} AND NOT twice
)"""


_KEY = "node_id, instance, zone, started_at"


def _states(column: str) -> list[Field]:
    """Of a row and of a bucket: the first value, the last, how much it fell between them, when the first was."""
    return [
        Field(f"{column}_first", "bigint", column),
        Field(f"{column}_last", "bigint", column),
        Field(f"{column}_fallen", "bigint", "0"),
        Field(f"{column}_first_time", "timestamptz", "time"),
    ]


def _rise(table: str, column: str) -> str:
    return f"""{column}_fallen + {column}_last - {column}_first + CASE
            WHEN {column}_before IS NOT NULL OR begins
                THEN counter_increase({column}_first, {column}_before, started_at, {column}_first_time)
            WHEN {column}_first IS NOT NULL THEN coalesce(
                (
                    SELECT whole.{column} FROM {table}_increase AS whole
                    WHERE
                        whole.time = {column}_first_time AND whole.node_id = near.node_id
                        AND whole.instance = near.instance AND whole.zone = near.zone
                ),
                0
            )
        END AS {column}"""


def rates(
    table: str, columns: Mapping[str, str], *, by: str = "", where: str = "", sign: Mapping[str, str] | None = None
) -> str:
    """What counters rise by per second: the increase divided by the time since the row before (decision 0051).

    Args:
        table: a typed table.
        columns: its counter -> what it is called.
        by: "node" or "zone": a series for each of them; else the sum over all.
        where: which rows.
        sign: counter -> '-' where it is drawn below the axis.
    """
    each = ", ".join(f"sum({column}) / sum(covered) AS {column}" for column in columns)
    name, join = _series(by, several=len(columns) > 1)
    pairs = ", ".join(f"('{label}', {(sign or {}).get(column, '')}{column})" for column, label in columns.items())
    return f"""WITH {_counters(table, list(columns), where)},
rate AS (
    SELECT $__timeGroup(at, $__interval, NULL) AS step, node_id, instance, zone, {each}
    FROM counted
    WHERE covered > 0
    GROUP BY 1, node_id, instance, zone
)
SELECT step AS time, {name} AS metric, sum(value) AS value
FROM rate CROSS JOIN LATERAL (VALUES {pairs}) AS one (label, value){join}
GROUP BY 1, 2
ORDER BY 1, 2"""


def _series(by: str, *, several: bool) -> tuple[str, str]:
    if by == "node":
        own = "coalesce(named.name, node_id)"
        return (f"{own} || ' ' || label" if several else own), f"\nLEFT JOIN {NAMED} AS named ON named.id = node_id"
    if by == "zone":
        own = "coalesce(nullif(zone, ''), 'all zones')"
        return (f"{own} || ' ' || label" if several else own), ""
    return "label", ""


def totals(table: str, columns: Sequence[str], shown: Mapping[str, str], *, where: str = "") -> str:
    """One row: what counters rose by in the range; what it is called -> an expression over their sums."""
    sums = ", ".join(f"sum({column})::float8 AS {column}" for column in columns)
    expressions = ", ".join(f'{expression} AS "{label}"' for label, expression in shown.items())
    return f"""WITH {_counters(table, columns, where)}
SELECT {expressions}
FROM (SELECT {sums} FROM counted) AS total"""
