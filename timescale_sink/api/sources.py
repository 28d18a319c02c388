"""Where counts of events are read: the events themselves, or a rollup that has what is asked of it.

Both are one table in the queries, whose rows stand for so many ``events`` at a ``time``. Rollups hold by node,
instance, zone or direction, domain, outcome and category; those whatever the domain and those whatever the node have
fewer buckets, and are read where that is enough. What asks for more (a mail exchanger, a code, a symbol, an
address, the median of a time) reads the events, whatever the range. Rollups are asked where they are stored apart from
the events and the range is long, as for series (`timescale_sink.api.rolled`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import LiteralString

from psycopg import sql

from timescale_sink.api import rolled
from timescale_sink.store.event_rollups import DOMAINS, EVENTS, NODES

# Of rows alone up to this range, seconds: more than a million events at 50 a second.
ROWS_UNTIL_S = 6 * 3600
_BUCKETS = 240

# Column of the events -> of their rollup. For email_events the rollup's domain is the other side's.
_ROLLED: Mapping[str, Mapping[str, str]] = {
    "delivery_events": {
        **{name: name for name in ("node_id", "instance", "zone", "status", "category")},
        "to_domain": "domain",
    },
    "email_events": {name: name for name in ("node_id", "instance", "direction", "outcome", "spam_action")},
}
_ROWS: Mapping[str, LiteralString] = {
    "delivery_events": """(
    SELECT *, 1 AS events, duration AS duration_sum, (duration IS NOT NULL)::int AS duration_count
    FROM delivery_events
) AS event""",
    "email_events": "(SELECT *, 1 AS events FROM email_events) AS event",
    # Each symbol of a message.
    "symbols": """(
    SELECT event.*, 1 AS events, symbol, CASE WHEN jsonb_typeof(score) = 'number' THEN score::float8 END AS symbol_score
    FROM email_events AS event
    CROSS JOIN LATERAL jsonb_each(
        CASE WHEN jsonb_typeof(event.symbols) = 'object' THEN event.symbols END
    ) AS found (symbol, score)
) AS event""",
    # Each attempt with the provider of the host that answered.
    "providers": """(
    SELECT
        event.*, 1 AS events, duration AS duration_sum, (duration IS NOT NULL)::int AS duration_count,
        coalesce(known.provider, lower(event.mx)) AS provider
    FROM delivery_events AS event
    LEFT JOIN unnest(%(hosts)s::text[], %(providers)s::text[]) AS known (host, provider)
        ON known.host = lower(event.mx)
) AS event""",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What a query reads.

    Attributes:
        table: its FROM.
        name: ``rows``, or the size of the rollup's buckets.
        rollup: its name; '' for rows.
        start: from when on; a bucket's beginning for a rollup.
        stop: the first time that is no longer read.
    """

    table: sql.Composable
    name: str
    start: datetime
    stop: datetime
    rollup: str = ""

    @property
    def rows(self) -> bool:
        """Whether it has all that the events say."""
        return self.name == "rows"


def rows(name: str, start: datetime, stop: datetime) -> Source:
    """The events of a range: a table of them, or ``symbols`` or ``providers``, which say more of each."""
    return Source(sql.SQL(_ROWS[name]), "rows", start, stop)


def rollup(
    table: str, start: datetime, stop: datetime, columns: Collection[str], *, pending: Collection[str] = ()
) -> Source | None:
    """The smallest rollup that answers for a range as well as its events; None: none does.

    Args:
        table: of events.
        start: from when on.
        stop: until when.
        columns: what the query tells apart by and filters by.
        pending: rollups that are still being made, and read slowly until then.
    """
    seconds = (stop - start).total_seconds()
    size = rolled.size_for(rolled.step_for(seconds, rolled.SECONDS["5m"], _BUCKETS))
    if size is None or seconds < ROWS_UNTIL_S or not _ROLLED[table].keys() >= set(columns):
        return None
    asked = {_ROLLED[table][column] for column in columns}
    made = next(
        made
        for made in (NODES[table], DOMAINS[table], EVENTS[table])
        if made.by.keys() >= asked and f"{made.name}_{size}" not in pending
    )
    name = f"{made.name}_{size}"
    count = {"delivery_events": "attempts", "email_events": "messages"}[table]
    sums = ("duration_sum", "duration_count") if table == "delivery_events" else ()
    known = {column: own for column, own in _ROLLED[table].items() if own in made.by}
    names = {**known, "time": "bucket", "events": count, **{column: column for column in sums}}
    listed = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(sql.Identifier(own), sql.Identifier(column)) for column, own in names.items()
    )
    source = sql.SQL("(SELECT {} FROM {}) AS bucket").format(listed, sql.Identifier(name))
    length = rolled.SECONDS[size]
    first, last = math.floor(start.timestamp() / length), math.ceil(stop.timestamp() / length)
    try:
        begin, end = (datetime.fromtimestamp(edge * length, UTC) for edge in (first, last))
    except (ValueError, OverflowError):
        # Beyond the years that a clock has.
        begin, end = start, stop
    return Source(source, size, begin, end, name)
