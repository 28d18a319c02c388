"""Where counts of events are read: the events themselves, or a rollup that has what is asked of it.

Both are one table in the queries, whose rows stand for so many ``events`` at a ``time``. Rollups hold by node,
instance, zone or direction, domain, outcome and category; those whatever the domain, the node or both have fewer
buckets, and are read where that is enough. What asks for more (a mail exchanger, a code, a symbol, an address, the
median of a time) reads the events, whatever the range. Rollups are asked where they are stored apart from the events
and the range is long, as for series (`timescale_sink.api.rolled`): the days within the range by the day, what is before
the first and behind the last by smaller buckets.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString

from psycopg import sql

from timescale_sink.api import rolled
from timescale_sink.store.event_rollups import DOMAINS, EVENTS, NODES, SIZES, TOTALS

# Of rows alone up to this range, seconds: more than a million events at 50 a second.
ROWS_UNTIL_S = 6 * 3600
_BUCKETS = 240
SECONDS: Mapping[str, int] = {size.name: rolled.SECONDS[size.name] for size in reversed(SIZES)}
"""Sizes of buckets of the event tables, the largest first."""
# How long ago a bucket ended that is surely made: younger ones are made of smaller ones as they are read. The jobs make
# days once they ended a day ago, hours an hour (`timescale_sink.store.retention`), and run each five minutes.
_MADE = {"daily": timedelta(hours=25), "1h": timedelta(minutes=75), "5m": timedelta(0)}

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
        name: ``rows``, or the size of buckets that start and stop are bounds of.
        rollups: those that are read.
        start: from when on; a bucket's beginning for a rollup.
        stop: the first time that is no longer read.
        parts: of rollups: which sizes of buckets are read, and from when until when of each.
    """

    table: sql.Composable
    name: str
    start: datetime
    stop: datetime
    rollups: Sequence[str] = ()
    parts: Sequence[tuple[str, datetime, datetime]] = ()

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
    """The smallest rollups that answer for a range as well as its events; None: none do.

    Args:
        table: of events.
        start: from when on.
        stop: until when.
        columns: what the query tells apart by and filters by.
        pending: rollups that are still being made, and read slowly until then.
    """
    seconds = (stop - start).total_seconds()
    size = rolled.size_for(rolled.step_for(seconds, SECONDS["5m"], _BUCKETS), SECONDS)
    if size is None or seconds < ROWS_UNTIL_S or not _ROLLED[table].keys() >= set(columns):
        return None
    length = SECONDS[size]
    first, last = math.floor(start.timestamp() / length), math.ceil(stop.timestamp() / length)
    try:
        begin, end = (datetime.fromtimestamp(edge * length, UTC) for edge in (first, last))
        read = parts(begin, end, datetime.now(UTC))
    except (ValueError, OverflowError):
        # Beyond the years that a clock has.
        begin, end = start, stop
        read = [(size, start, stop)]
    asked = {_ROLLED[table][column] for column in columns}
    rollups = {part: _smallest(table, part, asked, pending) for part, _, _ in read}
    listed = sql.SQL(", ").join(_columns(table, asked))
    source = sql.SQL("\n    UNION ALL ").join(
        sql.SQL("SELECT {} FROM {} WHERE bucket >= {} AND bucket < {}").format(
            listed, sql.Identifier(rollups[part]), sql.Literal(since), sql.Literal(until)
        )
        for part, since, until in read
    )
    return Source(sql.SQL("({}) AS bucket").format(source), size, begin, end, [*rollups.values()], read)


def parts(begin: datetime, end: datetime, now: datetime) -> list[tuple[str, datetime, datetime]]:
    """Which sizes of buckets make up a range, and from when until when of each: as few buckets as can be.

    Args:
        begin: a bound of the smallest buckets.
        end: another.
        now: what has ended shortly before it is made of smaller buckets.

    Raises:
        OverflowError, ValueError: beyond the years that a clock has.
    """
    sizes = [*SECONDS]

    def _split(since: datetime, until: datetime, place: int) -> list[tuple[str, datetime, datetime]]:
        if since >= until:
            return []
        size = sizes[place]
        if place == len(sizes) - 1:
            return [(size, since, until)]
        seconds = SECONDS[size]
        made = min(until.timestamp(), (now - _MADE[size]).timestamp())
        inner = [math.ceil(since.timestamp() / seconds), math.floor(made / seconds)]
        if inner[0] >= inner[1]:
            return _split(since, until, place + 1)
        low, high = (datetime.fromtimestamp(edge * seconds, UTC) for edge in inner)
        return [*_split(since, low, place + 1), (size, low, high), *_split(high, until, place + 1)]

    return _split(begin, end, 0)


def _smallest(table: str, size: str, columns: Collection[str], pending: Collection[str]) -> str:
    """The name of the rollup with the fewest rows that has these columns; that which has all is never pending."""
    return next(
        name
        for made in (TOTALS[table], NODES[table], DOMAINS[table], EVENTS[table])
        if made.by.keys() >= set(columns) and (name := f"{made.name}_{size}") not in pending
    )


def _columns(table: str, asked: Collection[str]) -> list[sql.Composed]:
    """What is read of a rollup, under the names that the events' columns have."""
    count = {"delivery_events": "attempts", "email_events": "messages"}[table]
    sums = ("duration_sum", "duration_count") if table == "delivery_events" else ()
    known = {column: own for column, own in _ROLLED[table].items() if own in asked}
    names = {**known, "time": "bucket", "events": count, **{column: column for column in sums}}
    return [sql.SQL("{} AS {}").format(sql.Identifier(own), sql.Identifier(column)) for column, own in names.items()]
