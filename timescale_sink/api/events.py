"""Events of the tables that the declarations give them: searched, paged, and streamed as a whole.

A page goes on by its last event's key (time, event_id), newest first, so that pages neither repeat nor leave out an
event while others come in. A stream is such pages in a row: it holds no connection while its reader takes its time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from psycopg.rows import tuple_row

from postel.signals import Declarations, EventTable
from timescale_sink.api import filters
from timescale_sink.api.access import Access, BadQueryError, asked_again
from timescale_sink.api.filters import Event, Filter, Where
from timescale_sink.api.queries import query

LONGEST_PAGE = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Key:
    """An event's place in the order of pages."""

    time: datetime
    event_id: UUID

    def __str__(self) -> str:
        """As a page's ``next`` gives it: microseconds since the epoch and the id."""
        return f"{(self.time - _EPOCH) // _MICROSECOND}-{self.event_id.hex}"

    @classmethod
    def of(cls, event: Event) -> Self:
        """Where a page that ends with an event goes on."""
        return cls(event.time, event.event_id)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that a page gave; BadQueryError where it is none."""
        try:
            microseconds, _, event_id = text.rpartition("-")
            return cls(_EPOCH + int(microseconds) * _MICROSECOND, UUID(hex=event_id))
        except (ValueError, OverflowError):
            raise BadQueryError("before: is not the `next` of a page") from None


@dataclass(frozen=True, slots=True)
class Search:
    """Which events, of which time.

    Attributes:
        start: the earliest time.
        stop: the first time that is too late.
        before: only what comes behind this key, which is older.
    """

    filter: Filter
    start: datetime
    stop: datetime
    before: Key | None = None


class EventReader:
    """Reads the event tables; what its methods raise beside BadQueryError is told by `Access.connection`."""

    def __init__(self, access: Access, declarations: Declarations) -> None:
        self._access = access
        self._tables = declarations.event_tables

    @property
    def tables(self) -> Sequence[str]:
        """The event tables."""
        return sorted(self._tables)

    def columns(self, table: str) -> Sequence[str]:
        """The names of an event's declared columns; BadQueryError where there is no such table."""
        return [column.name for column in self._declared(table).columns]

    def filter(
        self, table: str, texts: Sequence[str] = (), address: str | None = None, said: str | None = None
    ) -> Filter:
        """The filter that `timescale_sink.api.filters.parse` makes of these texts, for a table of this name.

        Raises:
            BadQueryError: no such table or column, or a value that the column cannot have.
        """
        return filters.parse(self._declared(table), texts, address, said)

    async def page(self, search: Search, limit: int) -> list[Event]:
        """The newest events that were searched for, at most ``limit`` of them."""
        if search.stop <= search.start:
            raise BadQueryError("from: must be before `to`")
        where = Where()
        where.add("time >= {} AND time < {}", search.start, search.stop)
        search.filter.add_to(where)
        if search.before is not None:
            where.add("(time, event_id) < ({}, {})", search.before.time, search.before.event_id)
        return await self.read(search.filter.table, where, limit)

    async def stream(self, search: Search) -> AsyncIterator[Event]:
        """All of them, newest first."""
        while page := await self.page(search, LONGEST_PAGE):
            for event in page:
                yield event
            if len(page) < LONGEST_PAGE:
                return
            search = replace(search, before=Key.of(page[-1]))

    @asked_again
    async def read(self, table: str, where: Where, limit: int) -> list[Event]:
        """The newest events of a table that meet a condition."""
        names = self.columns(table)
        text = query("events", table, names, condition=where.condition)
        async with self._access.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(text, {"limit": limit, **where.values})
            return [event_of(table, names, row) for row in await cursor.fetchall()]

    def _declared(self, table: str) -> EventTable:
        if table not in self._tables:
            raise BadQueryError(f"table: {table!r} is no table of events; there are {', '.join(self.tables)}")
        return self._tables[table]


def event_of(table: str, names: Sequence[str], row: Sequence[Any]) -> Event:
    """The event of a row: the fixed columns, the declared ones of these names, the attributes."""
    time, event_id, node, instance, name, *cells, attributes = row
    values = {column: cell for column, cell in zip(names, cells, strict=True) if cell is not None}
    return Event(table, time, event_id, node, instance, name, values, attributes)
