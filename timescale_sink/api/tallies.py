"""Counts of events by what they name: top lists, and how destinations take the mail.

Each question is asked of the database once for all who ask it at about the same time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, LiteralString

from psycopg import AsyncCursor, sql
from psycopg.rows import TupleRow, tuple_row

from timescale_sink.api import sources
from timescale_sink.api.access import Access, BadQueryError, asked_again
from timescale_sink.api.filters import Filter, Where
from timescale_sink.api.leaders import depths, leaders_query, lists_of, names_of
from timescale_sink.api.queries import query
from timescale_sink.api.shared import KEEP_S, Shared
from timescale_sink.api.sources import Source
from timescale_sink.store.database import Tier, ask_server
from timescale_sink.store.rollup_views import filled_of

MOST = 1000
# A day of a busy site is seconds of the database's time: kept for as long as such an answer changes little.
KEEP_SHARE, KEEP_LONGEST_S = 1 / 240, 300.0
_MOST_ANSWERS = 10
# Further exchangers are providers of their own.
_MOST_EXCHANGERS = 5000

Subject = Literal["domain", "destination", "symbol", "sender"]
Grouping = Literal["domain", "provider", "mx", "category", "code"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which events are counted.

    Attributes:
        by: what they name.
        filter: of the table of `TABLES`.
        start: the earliest time.
        stop: the first time that is too late.
        limit: so many names, those with most.
        nodes: only of these; None: of each.
    """

    by: Subject | Grouping
    filter: Filter
    start: datetime
    stop: datetime
    limit: int
    nodes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How often a name came.

    Attributes:
        name: None: of events that name none.
        outcomes: what became of them, and of how many.
        score: the mean that Rspamd gave for a symbol; None for what is no symbol.
    """

    name: str | None
    events: int
    outcomes: Mapping[str, int]
    score: float | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why attempts failed, and how many of them for now and for good."""

    answer: str
    deferred: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """How attempts to deliver ended.

    Attributes:
        name: None: of attempts that name none.
        attempt_duration: mean seconds of an attempt.
        wait_median: seconds from the queue to the delivery; None where nothing was delivered or rollups were read.
        wait_p95: the same, 95 of 100 waited less.
        categories: of answers, the most frequent first.
        codes: enhanced status codes, or reply codes where there are none; none where rollups were read.
    """

    name: str | None
    attempts: int
    delivered: int
    deferred: int
    rejected: int
    attempt_duration: float | None
    wait_median: float | None
    wait_p95: float | None
    categories: Sequence[Refusal] = ()
    codes: Sequence[Refusal] = ()

    @property
    def delivery_rate(self) -> float:
        """Of all attempts."""
        return self.delivered / self.attempts

    @property
    def deferral_rate(self) -> float:
        """Of all attempts."""
        return self.deferred / self.attempts

    @property
    def bounce_rate(self) -> float | None:
        """Of the recipients whose fate is final."""
        final = self.delivered + self.rejected
        return self.rejected / final if final else None


@dataclass(frozen=True, slots=True)
class Top:
    """An answer: from what it was read, and over which time."""

    source: Source
    counts: Sequence[Count]


@dataclass(frozen=True, slots=True)
class Deliverability:
    """An answer: from what it was read, and over which time."""

    source: Source
    groups: Sequence[Delivered]


@dataclass(frozen=True, slots=True)
class _Subject:
    """How a top list is asked for.

    Attributes:
        table: of events.
        name: the expression.
        rolled: what is read of a rollup that has it; None: none has.
        named: events that name none are left out.
        score: the expression of a score.
    """

    table: str
    name: LiteralString
    outcome: LiteralString
    rolled: Sequence[str] | None = None
    rows: str = ""
    named: bool = False
    score: LiteralString = "NULL::float8"


_SUBJECTS: Mapping[str, _Subject] = {
    "domain": _Subject("delivery_events", "to_domain", "status", rolled=("to_domain", "status")),
    "destination": _Subject("delivery_events", "lower(mx)", "status"),
    "symbol": _Subject("email_events", "symbol", "outcome", rows="symbols", named=True, score="symbol_score"),
    "sender": _Subject(
        "email_events",
        # A null sender is kept as the empty address that it is; of an address, the domain alone where that is private.
        "CASE WHEN from_domain IS NOT NULL THEN coalesce(from_user || '@', '') || from_domain"
        " WHEN attributes ->> 'email.from.address' = '' THEN '<>' ELSE attributes ->> 'email.from.address' END",
        "outcome",
        named=True,
    ),
}
_CODE: LiteralString = "coalesce(enhanced_code, smtp_code::text)"
_GROUPINGS: Mapping[str, _Subject] = {
    "domain": _Subject("delivery_events", "to_domain", "status", rolled=("to_domain", "status", "category")),
    "provider": _Subject("delivery_events", "provider", "status", rows="providers"),
    "mx": _Subject("delivery_events", "lower(mx)", "status"),
    "category": _Subject("delivery_events", "category", "status", rolled=("status", "category")),
    "code": _Subject("delivery_events", _CODE, "status"),
}
_WAITED: LiteralString = "coalesce(attributes -> 'zonemta.queue.duration', attributes -> 'haraka.delivery.duration')"
_PERCENTILES: LiteralString = (
    "percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY CASE WHEN jsonb_typeof("
    + _WAITED
    + ") = 'number' THEN ("
    + _WAITED
    + ")::float8 END) FILTER (WHERE status = 'delivered')"
)


def table_of(by: Subject) -> str:
    """The table whose events a top list counts, and whose columns a filter of it names."""
    return _SUBJECTS[by].table


def top_query(asked: Asked, source: Source, among: _Names) -> tuple[sql.Composed, dict[str, Any]]:
    """What is asked for a top list, and its values; each row makes a `Count`.

    Args:
        asked: for what.
        source: what is read.
        among: the domains among which those are; None: any may be.
    """
    subject = _SUBJECTS[asked.by]
    where = _where(asked, source, among)
    text = query(
        "top",
        condition=where.condition,
        subject=sql.SQL(subject.name),
        outcome=sql.SQL(subject.outcome),
        score=sql.SQL(subject.score),
        source=source.table,
    )
    return text, {"limit": asked.limit, "named": subject.named, **where.values}


def _where(asked: Asked, source: Source, among: _Names) -> Where:
    """What the source's rows have to meet."""
    where = Where()
    where.add("time >= {} AND time < {}", source.start, source.stop)
    if among is not None:
        named = [name for name in among if name is not None]
        where.add("to_domain = ANY({})" if None not in among else "(to_domain = ANY({}) OR to_domain IS NULL)", named)
    asked.filter.add_to(where)
    if asked.nodes is not None:
        where.add("node_id = ANY({})", list(asked.nodes))
    return where


class TallyReader:
    """Counts events; what its methods raise beside BadQueryError is told by `Access.connection`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._tops: Shared[Top] = Shared()
        self._deliverability: Shared[Deliverability] = Shared()
        self._tier: Tier | None = None

    async def close(self) -> None:
        """End what is still being asked."""
        await self._tops.close()
        await self._deliverability.close()

    async def top(self, asked: Asked) -> Top:
        """The names that came most often; BadQueryError where the range is none."""
        _check(asked)
        return await self._tops.get(asked, lambda: self._ask_top(asked), _keep_s(asked))

    async def deliverability(self, asked: Asked) -> Deliverability:
        """How attempts ended, of the names with most of them; BadQueryError where the range is none."""
        _check(asked)
        return await self._deliverability.get(asked, lambda: self._ask_deliverability(asked), _keep_s(asked))

    @asked_again
    async def _ask_top(self, asked: Asked) -> Top:
        subject = _SUBJECTS[asked.by]
        async with self._access.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            source, among = await self._source(cursor, asked, subject)
            await cursor.execute(*top_query(asked, source, among))
            return Top(source, [Count(*row) for row in await cursor.fetchall()])

    @asked_again
    async def _ask_deliverability(self, asked: Asked) -> Deliverability:
        grouping = _GROUPINGS[asked.by]
        async with self._access.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            source, among = await self._source(cursor, asked, grouping)
            where, subject = _where(asked, source, among), sql.SQL(grouping.name)
            values = dict(where.values)
            if grouping.rows == "providers":
                rows = sources.rows("delivery_events", source.start, source.stop)
                text = query("exchangers", condition=where.condition, source=rows.table)
                await cursor.execute(text, {"limit": _MOST_EXCHANGERS, **values})
                known: dict[str, str] = dict(await cursor.fetchall())
                values |= {"hosts": [*known], "providers": [*known.values()]}
            text = query(
                "deliverability",
                condition=where.condition,
                subject=subject,
                percentiles=sql.SQL(_PERCENTILES if source.rows else "NULL::float8[]"),
                source=source.table,
            )
            await cursor.execute(text, {"limit": asked.limit, **values})
            found = await cursor.fetchall()
            text = query(
                "refusals",
                condition=where.condition,
                subject=subject,
                code=sql.SQL(_CODE if source.rows else "NULL::text"),
                source=source.table,
            )
            names = [row[0] or "" for row in found]
            await cursor.execute(text, {"names": names, "most": _MOST_ANSWERS, **values})
            refusals: dict[tuple[str | None, str], list[Refusal]] = {}
            for of, kind, answer, deferred, rejected in await cursor.fetchall():
                refusals.setdefault((of, kind), []).append(Refusal(answer, deferred, rejected))
        groups = []
        for name, attempts, delivered, deferred, rejected, duration, waits in found:
            median, p95 = waits or (None, None)
            group = Delivered(name, attempts, delivered, deferred, rejected, duration, median, p95)
            categories, codes = (refusals.get((name, kind), ()) for kind in ("categories", "codes"))
            groups.append(replace(group, categories=categories, codes=codes))
        return Deliverability(source, groups)

    async def _source(self, cursor: AsyncCursor[TupleRow], asked: Asked, subject: _Subject) -> tuple[Source, _Names]:
        """What is read, and the domains among which those with most events are; before any other query."""
        # Lists and what is counted by them are of the same moment.
        await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        if self._tier is None:
            self._tier = (await ask_server(cursor.connection)).tier
        if subject.rolled is not None and self._tier is Tier.COMMUNITY:
            filled = filled_of(subject.table)
            held = await _held(cursor, filled)
            columns = asked.filter.columns.union(subject.rolled, ["node_id"] if asked.nodes is not None else [])
            pending = filled.keys() - held.keys()
            if source := sources.rollup(subject.table, asked.start, asked.stop, columns, pending=pending):
                return source, await _among(cursor, asked, source, held)
        return sources.rows(subject.rows or subject.table, asked.start, asked.stop), None


_Names = Sequence[str | None] | None
"""Names among which those are that are asked for; None: any may be."""


async def _held(cursor: AsyncCursor[TupleRow], rollups: Collection[str]) -> dict[str, datetime]:
    """Those that are filled, and from when on all that they are to hold is there."""
    await cursor.execute(
        "SELECT relation, greatest(kept_since(relation), '0001-01-01 UTC')"
        " FROM retention WHERE NOT pending AND relation = ANY (%s)",
        ([*rollups],),
    )
    return dict(await cursor.fetchall())


async def _among(cursor: AsyncCursor[TupleRow], asked: Asked, source: Source, held: Mapping[str, datetime]) -> _Names:
    """The domains among which those with most events of some rollups are."""
    if asked.by != "domain" or asked.filter.terms or asked.nodes is not None:
        return None
    # A list that is gone, or not there yet, would leave nothing to anybody.
    if any(held.get(rollup, source.stop) > source.start for rollup in lists_of(source)):
        return None
    for depth in depths(asked.limit):
        await cursor.execute(*leaders_query(source, asked.limit, depth))
        names = names_of(await cursor.fetchall())
        if names is not None:
            return names
    return None


def _check(asked: Asked) -> None:
    if asked.stop <= asked.start:
        raise BadQueryError("from: must be before `to`")


def _keep_s(asked: Asked) -> float:
    return min(max(KEEP_S, (asked.stop - asked.start).total_seconds() * KEEP_SHARE), KEEP_LONGEST_S)
