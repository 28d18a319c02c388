"""Which domains have most events of a long range, by the lists of them that are kept of each hour and day.

By domain a month has a million buckets. The lists tell a few dozen names among which those with most events are, or
that they cannot tell: then all are counted. What the names have is counted exactly: the answer is the same either way,
but for what came late and is in the rollups by domain and not in the lists yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import sql

from timescale_sink.api.queries import query
from timescale_sink.api.sources import Source
from timescale_sink.store.event_rollups import DOMAINS, LEADERS, LED

# Sizes of buckets of which there are lists.
_LISTED = {size.name for size in LEADERS["delivery_events"].sizes}
# More are sooner counted all at once.
_MOST = 1000
_LIST: LiteralString = """SELECT
        names[:{depth}], counts[:{depth}],
        CASE WHEN cardinality(counts) >= {depth} THEN counts[{depth}] ELSE 0 END AS others
    FROM {rollup} WHERE bucket >= {since} AND bucket < {until}"""
# Of smaller buckets there are no lists, and few buckets: they make one that is whole.
_WHOLE: LiteralString = """SELECT array_agg(domain), array_agg(attempts), 0 FROM (
        SELECT domain, sum(attempts)::bigint AS attempts FROM {rollup}
        WHERE bucket >= {since} AND bucket < {until} GROUP BY domain
    ) AS told"""


def depths(limit: int) -> Sequence[int]:
    """How many names of each list are read, for so many that are asked for: few, and all where those do not tell.

    Of a year's lists all 500 names took 180 ms, 100 take 40.
    """
    return sorted({min(LED, max(100, 5 * limit)), LED})


def lists_of(source: Source) -> Sequence[str]:
    """The rollups that `leaders_query` reads for a source of rollups of the deliveries, one for each of its parts."""
    led, whole = LEADERS["delivery_events"], DOMAINS["delivery_events"]
    return [f"{(led if size in _LISTED else whole).name}_{size}" for size, _, _ in source.parts]


def leaders_query(source: Source, limit: int, depth: int) -> tuple[sql.Composed, dict[str, object]]:
    """What is asked for the destinations among which those with most attempts are, and its values.

    Args:
        source: rollups of the deliveries, of which nothing is filtered.
        limit: so many are asked for.
        depth: so many names of each list are read, `LED` at most.
    """
    lists = [
        sql.SQL(_LIST if size in _LISTED else _WHOLE).format(
            rollup=sql.Identifier(rollup), since=since, until=until, depth=depth
        )
        for rollup, (size, since, until) in zip(lists_of(source), source.parts, strict=True)
    ]
    return query("leaders", lists=sql.SQL("\n    UNION ALL ").join(lists)), {"limit": limit}


def names_of(rows: Sequence[Sequence[Any]]) -> Sequence[str | None] | None:
    """What the query answered: the names, or None where any may be among those with most."""
    ((names,),) = rows
    return names if names is not None and len(names) <= _MOST else None
