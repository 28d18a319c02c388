"""A message's joined life: the events of every server that had it, found by any of its ids.

Servers share no id of a message but its Message-ID header, which each event has beside the server's own. So from the id
that is asked for, the ids of what is found lead on: from Haraka's transaction by the header to Zone-MTA's queue id, and
from a bounce to the message that it is about. From a message to its bounce no id leads that is looked up: a bounce is
looked for in the minute after the rejection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from timescale_sink.api.events import EventReader, Search
from timescale_sink.api.filters import Event, Where

# Of one table. A Message-ID that many messages share, as bulk mail does, has no end.
MOST_EVENTS = 500
# Each leads from one kind of id to another; there are three kinds.
_ROUNDS = 5
# Haraka numbers a connection's transactions from 1; so many are looked for where a connection is asked for.
_TRANSACTIONS = 20
_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+")
# Within the line of a log or a server's answer: a Message-ID, and the ids that servers make.
_WITHIN = re.compile(r"<[^\s<>]+@[^\s<>]+>|\b[0-9A-Fa-f]{8}[0-9A-Fa-f-]{8,}(?:\.\w+)*\b")
# What Haraka calls a delivery of a transaction or of a bounce, and Zone-MTA's log a recipient of a message.
_PART = re.compile(r"([0-9A-Fa-f-]{36}(?:\.\d+)?|[0-9a-f]{16,})\.[0-9a-z]+")
# What may still become of a message.
_UNDER_WAY = frozenset(("queued", "deferred", "forwarded"))
# By which id a bounce's event names the message that it is about.
_ABOUT = ("zonemta.bounce.message.id", "haraka.bounce.message_id")
# Zone-MTA and Haraka queue a bounce as soon as they have given up a recipient.
_BOUNCE_WITHIN = timedelta(minutes=1)
# So many times are looked at, the newest; rejections that lie close together count as one.
_REJECTIONS = 20


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a message for one recipient, by the last event that says it.

    Attributes:
        state: a delivery's status (delivered, deferred, rejected); before there is one, what the server that took the
            message did with it: where it stored it, or the event's outcome.
        bounce: whether it is a bounce about the message that this became of, not the message.
    """

    recipient: str
    state: str
    time: datetime
    event: UUID
    bounce: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """What was found, the oldest event first.

    Attributes:
        ids: all ids that the events have, with the one that was asked for.
        cut: there are more than `MOST_EVENTS` of a table; these are the newest.
    """

    ids: frozenset[str]
    events: tuple[Event, ...]
    fates: tuple[Fate, ...]
    cut: bool

    @property
    def under_way(self) -> bool:
        """Whether more is to come, as far as the events say it: it waits somewhere for one recipient at least."""
        return any(fate.state in _UNDER_WAY for fate in self.fates)


class Tracer:
    """Follows messages through the event tables; what `trace` raises is told by `Access.connection`."""

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader

    async def trace(self, asked: str) -> Trace:
        """The life of the message with this id.

        Args:
            asked: a Message-ID with or without its brackets, a queue or transaction id, a connection's, a delivery's or
                an event's; or a text with such an id in it, as servers answer and write logs.
        """
        ids = set(_forms(asked))
        found: dict[UUID, Event] = {}
        new, cut = set(ids), False
        for _ in range(_ROUNDS):
            pages = [await self._with(table, new) for table in self._reader.tables]
            cut = cut or any(len(page) == MOST_EVENTS for page in pages)
            here = [event for page in pages for event in page]
            about = {id_ for event in here for id_ in _ids(event)}
            here += await self._bounces_about(about, [e.time for e in here if e.values.get("status") == "rejected"])
            found |= {event.event_id: event for event in here}
            new = {id_ for event in found.values() for id_ in _ids(event)} - ids
            if not new:
                break
            ids |= new
        events = tuple(sorted(found.values(), key=_order))
        shared = {id_ for event in events for id_ in _ids(event)}
        # A line with an id in it is none itself.
        asked_for = {asked} if len(asked.split()) == 1 else set()
        return Trace(frozenset(shared | asked_for), events, fates(events), cut)

    async def mentions(self, text: str, limit: int, back: timedelta = timedelta(days=1)) -> list[Event]:
        """The newest events, of the time ``back`` from now, with this address, or else with an answer that says it."""
        now = datetime.now(UTC)
        found: list[Event] = []
        for table in self._reader.tables:
            if _ADDRESS.fullmatch(text):
                filter_ = self._reader.filter(table, address=text)
            else:
                filter_ = self._reader.filter(table, said=text)
            # Five minutes ahead, for clocks of nodes that are.
            search = Search(filter_, now - back, now + timedelta(minutes=5))
            found += await self._reader.page(search, limit)
        return sorted(found, key=_order, reverse=True)[:limit]

    async def _with(self, table: str, ids: Iterable[str]) -> list[Event]:
        texts = sorted(ids)
        where = Where()
        if uuids := [id_ for text in texts if (id_ := _uuid(text))]:
            where.add("(message_id = ANY({}) OR queue_id = ANY({}) OR event_id = ANY({}))", texts, texts, uuids)
        else:
            where.add("(message_id = ANY({}) OR queue_id = ANY({}))", texts, texts)
        return await self._reader.read(table, where, MOST_EVENTS)

    async def _bounces_about(self, ids: Iterable[str], rejected: Iterable[datetime]) -> list[Event]:
        """The bounces about a message with these ids, of which attempts were rejected at these times."""
        texts = sorted(ids)
        spans = _spans(rejected)[-_REJECTIONS:]
        found: list[Event] = []
        for table in self._reader.tables:
            if "outcome" not in self._reader.columns(table):
                continue
            for first, last in spans:
                where = Where()
                # No index has the attributes, so its time bounds what is read; clocks may be set by a second.
                where.add("time >= {} AND time < {}", first - timedelta(seconds=1), last + _BOUNCE_WITHIN)
                where.add(
                    "(attributes ->> {} = ANY({}) OR attributes ->> {} = ANY({}))",
                    *(part for attribute in _ABOUT for part in (attribute, texts)),
                )
                found += await self._reader.read(table, where, MOST_EVENTS)
        return found


def _spans(times: Iterable[datetime]) -> list[tuple[datetime, datetime]]:
    """Times that lie within a minute of each other, as their first and last."""
    spans: list[tuple[datetime, datetime]] = []
    for time in sorted(times):
        if spans and time - spans[-1][1] < _BOUNCE_WITHIN:
            spans[-1] = (spans[-1][0], time)
        else:
            spans.append((time, time))
    return spans


def fates(events: Sequence[Event]) -> tuple[Fate, ...]:
    """What became of a message, and of the bounces about it, for each recipient that its events name.

    Args:
        events: the oldest first.

    Returns:
        The message's first: who writes to himself is a recipient of both.
    """
    last: dict[tuple[bool, str], Fate] = {}
    by_seq: dict[str, str] = {}
    bounces = {id_ for event in events if any(map(event.attributes.get, _ABOUT)) for id_ in _own_ids(event)}
    for event in events:
        bounce = not bounces.isdisjoint(_own_ids(event))
        refused = _texts(event, "haraka.recipient.refused.address")
        named = _texts(event, "email.to.address")
        seq = event.attributes.get("zonemta.message.seq")
        if isinstance(seq, str) and "status" in event.values:
            by_seq.update(dict.fromkeys([seq], named[0]) if named else {})
        # What is deleted is named by its number alone.
        elif isinstance(seq, str) and not named and seq in by_seq:
            named = [by_seq[seq]]
        for recipient in (*named, *refused):
            state = "rejected" if recipient in refused else _state(event.values)
            last[bounce, recipient] = Fate(recipient, state, event.time, event.event_id, bounce)
    return tuple(last[key] for key in sorted(last))


def _state(values: Mapping[str, object]) -> str:
    if "status" in values:
        return str(values["status"])
    outcome = str(values.get("outcome", "unknown"))
    return str(values.get("storage_status", outcome)) if outcome == "accepted" else outcome


def _order(event: Event) -> tuple[datetime, bool, UUID]:
    """By time; of one moment what took the message stands before what delivered it."""
    return event.time, "status" in event.values, event.event_id


def _ids(event: Event) -> set[str]:
    about = map(event.attributes.get, _ABOUT)
    return _own_ids(event) | {id_ for id_ in about if isinstance(id_, str) and id_}


def _own_ids(event: Event) -> set[str]:
    """Without that of the message that a bounce is about."""
    named = event.values.get("message_id"), event.values.get("queue_id")
    return {id_ for id_ in named if isinstance(id_, str) and id_}


def _forms(asked: str) -> list[str]:
    """How the tables may write what was asked for."""
    asked = asked.strip()
    if not asked:
        return []
    forms = {asked}
    if "@" in asked and not asked.startswith("<"):
        forms.add(f"<{asked}>")
    for id_ in (asked, *_WITHIN.findall(asked)):
        forms.add(id_)
        if part := _PART.fullmatch(id_):
            forms |= {part[1], part[1].upper()}
        if _uuid(id_):
            forms |= {f"{id_.upper()}.{number}" for number in range(1, _TRANSACTIONS + 1)}
    return list(forms)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _texts(event: Event, attribute: str) -> list[str]:
    value = event.attributes.get(attribute)
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
