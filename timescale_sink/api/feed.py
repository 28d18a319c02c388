"""New events of all tables, read once for all who listen, none left out and none before it is committed.

Ids and times say nothing of the order in which transactions commit. So a row carries its transaction, and a window of
transactions is read once all of them are over: from the one where the last window ended to the first that may still be
under way. A listener that comes back names where it was, and gets what came since.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from psycopg.rows import tuple_row
from structlog import get_logger

from postel.errors import PostelError
from timescale_sink.api.access import Access, BadQueryError
from timescale_sink.api.events import EventReader, event_of
from timescale_sink.api.filters import Event, Filter, Where
from timescale_sink.api.queries import query
from timescale_sink.store.database import Connection

# From one look to the next, while anybody listens.
POLL_S = 0.25
_RETRY_S = 1.0
_ROWS = 500

_log = get_logger()


@dataclass(eq=False, slots=True)
class Subscription:
    """What one listener asked for.

    Attributes:
        take: is given events as they come, each as JSON, joined by commas.
        reached: is told after each window before which transaction everything was given.
        away: is told why new events cannot be read now, and "" when they can again.
    """

    filter: Filter
    take: Callable[[str], None]
    reached: Callable[[str], None]
    away: Callable[[str], None]


@dataclass(slots=True)
class _Group:
    """All who asked for the same: its events are looked for and put together once."""

    filter: Filter
    members: set[Subscription] = field(default_factory=set)


class Feed:
    """Reads new events while anybody listens. `run` it as a task.

    ``at`` is the transaction up to which everything was given; None while nobody listens, or nothing was read yet.
    """

    def __init__(self, access: Access, reader: EventReader) -> None:
        self.at: str | None = None
        self._fault = ""
        self._access = access
        self._reader = reader
        self._groups: dict[Filter, _Group] = {}
        self._wanted = asyncio.Event()
        # A window is given as a whole to whom it begins with.
        self._window = asyncio.Lock()
        # Of the window under way, which begins again after a fault.
        self._given: set[UUID] = set()

    async def subscribe(self, subscription: Subscription) -> str:
        """Give new events from now on; where "now" is, for the listener to come back to.

        Raises:
            DatabaseError, TooSlowError: it is away, and nobody listened before.
        """
        async with self._window:
            if self.at is None:
                async with self._access.connection() as connection:
                    self.at = await _xmin(connection)
            group = self._groups.setdefault(subscription.filter, _Group(subscription.filter))
            group.members.add(subscription)
            self._wanted.set()
            return self.at

    def unsubscribe(self, subscription: Subscription) -> None:
        """Give it nothing more."""
        group = self._groups.get(subscription.filter)
        if group is None:
            return
        group.members.discard(subscription)
        if not group.members:
            del self._groups[subscription.filter]
        if not self._groups:
            self._wanted.clear()

    async def since(self, filter_: Filter, after: str, until: str) -> AsyncIterator[str]:
        """Events of the transactions between two, in pieces as `Subscription.take` gets them."""
        if not after.isdecimal() or not 0 <= int(after) < 2**63:
            raise BadQueryError("after: is not an `at` of this API")
        where = Where()
        filter_.add_to(where)
        async with self._access.connection() as connection:
            async for events in self._read(connection, filter_.table, where, (after, until)):
                yield ",".join(event.encoded().decode() for event in events)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            if not self._groups:
                # What came while nobody listened is nobody's.
                async with self._window:
                    if not self._groups:
                        self.at = None
                await self._wanted.wait()
            try:
                await self._look()
            except PostelError as error:
                if not self._fault:
                    _log.warning("new events cannot be read; trying again", reason=str(error))
                    self._say_away(str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                if self._fault:
                    _log.info("new events are read again")
                    self._say_away("")
                await asyncio.sleep(POLL_S)

    def _say_away(self, fault: str) -> None:
        self._fault = fault
        for member in self._members():
            member.away(fault)

    def _members(self) -> list[Subscription]:
        return [member for group in self._groups.values() for member in group.members]

    async def _look(self) -> None:
        async with self._window:
            if self.at is None:
                return
            async with self._access.connection() as connection:
                # A statement before those that read: what is over now is seen by them.
                until = await _xmin(connection)
                if int(until) < int(self.at):
                    _log.warning("the database was set back; new events are those from now on", was=self.at, now=until)
                for table in sorted({filter_.table for filter_ in self._groups}):
                    async for events in self._read(connection, table, Where(), (self.at, until)):
                        self._give([event for event in events if event.event_id not in self._given])
            self.at = until
            self._given.clear()
            for member in self._members():
                member.reached(until)

    async def _read(
        self, connection: Connection, table: str, where: Where, window: tuple[str, str]
    ) -> AsyncIterator[Sequence[Event]]:
        names = self._reader.columns(table)
        text = query("new_events", table, names, condition=where.condition)
        after, until = window
        async with connection.cursor(name="new_events", row_factory=tuple_row) as cursor:
            await cursor.execute(text, {"after": after, "until": until, **where.values})
            while rows := await cursor.fetchmany(_ROWS):
                yield [event_of(table, names, row) for row in rows]

    def _give(self, events: Sequence[Event]) -> None:
        # Each is made JSON once, and only if somebody wants it.
        encoded: dict[UUID, str] = {}
        for group in [*self._groups.values()]:
            meant = [event for event in events if event.table == group.filter.table and group.filter.meets(event)]
            if not meant:
                continue
            for event in meant:
                if event.event_id not in encoded:
                    encoded[event.event_id] = event.encoded().decode()
            piece = ",".join(encoded[event.event_id] for event in meant)
            for member in [*group.members]:
                member.take(piece)
        self._given.update(event.event_id for event in events)


async def _xmin(connection: Connection) -> str:
    rows = await (await connection.execute(query("snapshot_xmin"))).fetchall()
    return str(rows[0][0])
