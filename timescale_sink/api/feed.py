"""New events of all tables, read once for all who listen, none left out and none before it is committed.

Ids and times say nothing of the order in which transactions commit. So a row carries its transaction, and a window of
transactions is read once all of them are over: from the one where the last window ended to the first that may still be
under way. A listener that comes back names where it was, and gets what came since. A window that a fault breaks off is
given again as a whole.

All of it holds where a replica answers, which counts the primary's transactions as it replays them. But one of several
replicas, or one that was killed and replays anew, may have less than was given already (PostgreSQL opens it once it is
consistent): then nothing is read until it has that. On a primary fewer transactions mean a database that was set back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from structlog import get_logger

from postel.errors import DatabaseError, PostelError
from timescale_sink.api.access import Access, BadQueryError, BrokenOffError, asked_again
from timescale_sink.api.events import EventReader, event_of
from timescale_sink.api.filters import Event, Filter, Where
from timescale_sink.api.queries import query
from timescale_sink.store.database import Connection

# From one look to the next, while anybody listens.
POLL_S = 0.25
_RETRY_S = 1.0
_ROWS = 500
# So long a replica may have less than was given; then the database is taken for one that was set back.
BEHIND_S = 30.0
_BEHIND = "the replica has not yet all that was given already; see its log, and [database] read_url"

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a server has: the end of all transactions before ``xmin``; and whether it is a replica."""

    xmin: str
    replica: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """An event's place in the order of windows."""

    xact: str
    time: datetime
    event_id: UUID

    @classmethod
    def before(cls, xact: str) -> _Place:
        """Where a transaction begins."""
        return cls(xact, datetime.min.replace(tzinfo=UTC), UUID(int=0))


@dataclass(frozen=True, slots=True)
class _Piece:
    """Events that are read together, and the place of the last."""

    events: Sequence[Event]
    end: _Place


class _BehindError(DatabaseError):
    """A replica has not yet what was given."""


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
        # Whether a replica was asked last; since when it has had less than was given.
        self._replica = False
        self._behind_since: float | None = None
        self._access = access
        self._reader = reader
        self._groups: dict[Filter, _Group] = {}
        self._wanted = asyncio.Event()
        # A window is given as a whole to whom it begins with.
        self._window = asyncio.Lock()
        # Each holds a connection while it reads a piece; the others are the API's.
        self._catching_up = asyncio.Semaphore(1)

    async def subscribe(self, subscription: Subscription, after: str | None = None) -> str:
        """Give new events from now on; where "now" is, for the listener to come back to.

        Args:
            subscription: to what.
            after: where the listener was. Another process may have read further by another replica: then "now" is once
                this one has as much, in `BEHIND_S` at the latest.

        Raises:
            BadQueryError: ``after`` is no ``at``.
            DatabaseError, TooSlowError: it is away, and nobody listened before.
        """
        least = _transaction(after) if after is not None else 0
        deadline = time.monotonic() + BEHIND_S
        while True:
            async with self._window:
                now = _Moment(self.at, self._replica) if self.at is not None else await self._now()
                if int(now.xmin) >= least or not now.replica or time.monotonic() >= deadline:
                    self.at = now.xmin
                    group = self._groups.setdefault(subscription.filter, _Group(subscription.filter))
                    group.members.add(subscription)
                    self._wanted.set()
                    if self._fault:
                        subscription.away(self._fault)
                    return self.at
            await asyncio.sleep(POLL_S)

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

    async def since(self, filter_: Filter, after: str, until: str) -> AsyncGenerator[str]:
        """Events of the transactions between two, in pieces as `Subscription.take` gets them.

        Raises:
            BadQueryError: ``after`` is no ``at``.
            DatabaseError, TooSlowError: it is away, or a replica that has not yet all of them.
        """
        _transaction(after)
        where = Where()
        filter_.add_to(where)

        @asked_again
        async def read(place: _Place) -> _Piece:
            # Who is given a piece may take it slowly: no other one and no transaction waits for that.
            async with self._catching_up, self._access.connection() as connection:
                moment = await _moment(connection)
                # It need not be the replica that was asked what is over.
                if moment.replica and int(moment.xmin) < int(until):
                    raise _BehindError(_BEHIND)
                async with aclosing(self._read(connection, filter_.table, where, place, until, most=_ROWS)) as found:
                    return await anext(found, _Piece([], place))

        piece = await read(_Place.before(after))
        while piece.events:
            yield ",".join(event.encoded().decode() for event in piece.events)
            if len(piece.events) < _ROWS:
                return
            piece = await read(piece.end)

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
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may be fine, and somebody listens
                if not isinstance(error, PostelError):
                    _log.exception("new events cannot be read")
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
            until, tables = self.at, sorted({filter_.table for filter_ in self._groups})
            places = {table: _Place.before(self.at) for table in tables}

            async def read(connection: Connection) -> AsyncGenerator[Sequence[Event]]:
                nonlocal until
                # A statement before those that read: what is over now is seen by them.
                until = self._end(await _moment(connection), until)
                for table in tables:
                    async with aclosing(self._read(connection, table, Where(), places[table], until)) as found:
                        async for piece in found:
                            places[table] = piece.end
                            yield piece.events

            async with aclosing(self._unbroken(read)) as found:
                async for events in found:
                    self._give(events)
            self.at = until
            for member in self._members():
                member.reached(until)

    def _end(self, moment: _Moment, least: str) -> str:
        """Where a window ends that a server is asked for.

        Raises:
            _BehindError: it is a replica that has less than was given, for a while now.
        """
        self._replica = moment.replica
        if int(moment.xmin) >= int(least):
            self._behind_since = None
            return moment.xmin
        if moment.replica:
            now = time.monotonic()
            self._behind_since = self._behind_since or now
            if now - self._behind_since < BEHIND_S:
                raise _BehindError(_BEHIND)
        _log.warning("the database was set back; new events are those from now on", was=least, now=moment.xmin)
        return moment.xmin

    async def _now(self) -> _Moment:
        async with self._access.connection() as connection:
            moment = await _moment(connection)
        self._replica = moment.replica
        return moment

    async def _unbroken(self, read: Callable[[Connection], AsyncGenerator[T]]) -> AsyncGenerator[T]:
        """What ``read`` gives by a connection; by another where it was broken off, once, or as often as it gave any."""
        given, tries = 0, 0
        while True:
            before = given
            try:
                async with self._access.connection() as connection, aclosing(read(connection)) as found:
                    async for one in found:
                        given += 1
                        yield one
            except BrokenOffError:
                tries = 1 if given > before else tries + 1
                if tries > 1:
                    raise
            else:
                return

    async def _read(
        self, connection: Connection, table: str, where: Where, place: _Place, until: str, *, most: int | None = None
    ) -> AsyncGenerator[_Piece]:
        """Events of a table behind a place, all or so many at most."""
        names = self._reader.columns(table)
        text = query("new_events", table, names, condition=where.condition)
        begin = {"after": place.xact, "time": place.time, "event_id": place.event_id}
        values = {**begin, "until": until, "most": most, **where.values}
        cursor = connection.cursor(name="new_events", row_factory=tuple_row)
        try:
            await cursor.execute(text, values)
            while rows := await cursor.fetchmany(_ROWS):
                events = [event_of(table, names, row[:-1]) for row in rows]
                yield _Piece(events, _Place(rows[-1][-1], events[-1].time, events[-1].event_id))
        finally:
            try:
                await cursor.close()
            except psycopg.OperationalError:
                if not connection.closed:
                    raise
                # The server has ended the session: that was found out by this, which left the cursor open.
                await cursor.close()

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


async def _moment(connection: Connection) -> _Moment:
    ((xmin, replica),) = await (await connection.execute(query("snapshot_xmin"))).fetchall()
    return _Moment(xmin, replica)


def _transaction(at: str) -> int:
    """The transaction of an ``at``; BadQueryError where it is none."""
    if not at.isdecimal() or not 0 <= int(at) < 2**63:
        raise BadQueryError("after: is not an `at` of this API")
    return int(at)
