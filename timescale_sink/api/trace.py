"""A message's joined life: the events of every server that had it, found by any of its ids.

Servers share no id of a message but its Message-ID header, which each event has beside the server's own. So from the id
that is asked for, the ids of what is found lead on: from Haraka's transaction by the header to Zone-MTA's queue id, and
from a bounce to the message that it is about.
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
_BOUNCED = "zonemta.bounce.message.id"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a message for one recipient, by the last event that says it.

    Attributes:
        state: a delivery's status (delivered, deferred, rejected); before there is one, what the server that took the
            message did with it: where it stored it, or the event's outcome.
    """

    recipient: str
    state: str
    time: datetime
    event: UUID


@dataclass(frozen=True, slots=True)
class Trace:
    """What was found, the oldest event first.

    Attributes:
        ids: all ids that the events share, with the one that was asked for.
        cut: there are more than `MOST_EVENTS` of a table; these are the newest.
    """

    ids: frozenset[str]
    events: tuple[Event, ...]
    fates: tuple[Fate, ...]
    cut: bool


class Tracer:
    """Follows messages through the event tables; what `trace` raises is told by `Access.connection`."""

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader

    async def trace(self, asked: str) -> Trace:
        """The life of the message with this id.

        Args:
            asked: a Message-ID with or without its brackets, a queue or transaction id, a connection's or an event's.
        """
        ids = set(_forms(asked))
        found: dict[UUID, Event] = {}
        new, cut = set(ids), False
        for _ in range(_ROUNDS):
            pages = [await self._with(table, new) for table in self._reader.tables]
            cut = cut or any(len(page) == MOST_EVENTS for page in pages)
            found |= {event.event_id: event for page in pages for event in page}
            new = {id_ for event in found.values() for id_ in _ids(event)} - ids
            if not new:
                break
            ids |= new
        events = tuple(sorted(found.values(), key=_order))
        shared = {id_ for event in events for id_ in _ids(event)}
        return Trace(frozenset(shared | {asked}), events, fates(events), cut)

    async def mentions(self, text: str, limit: int) -> list[Event]:
        """The newest events of a day with this address, or else of attempts whose answer says this text."""
        now = datetime.now(UTC)
        found: list[Event] = []
        for table in self._reader.tables:
            if _ADDRESS.fullmatch(text):
                filter_ = self._reader.filter(table, address=text)
            elif "response" in self._reader.columns(table):
                filter_ = self._reader.filter(table, [f"response~{text}"])
            else:
                continue
            # Five minutes ahead, for clocks of nodes that are.
            search = Search(filter_, now - timedelta(days=1), now + timedelta(minutes=5))
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


def fates(events: Sequence[Event]) -> tuple[Fate, ...]:
    """What became of a message for each recipient that its events, the oldest first, name."""
    last: dict[str, Fate] = {}
    by_seq: dict[str, str] = {}
    for event in events:
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
            last[recipient] = Fate(recipient, state, event.time, event.event_id)
    return tuple(last[recipient] for recipient in sorted(last))


def _state(values: Mapping[str, object]) -> str:
    if "status" in values:
        return str(values["status"])
    outcome = str(values.get("outcome", "unknown"))
    return str(values.get("storage_status", outcome)) if outcome == "accepted" else outcome


def _order(event: Event) -> tuple[datetime, bool, UUID]:
    """By time; of one moment what took the message stands before what delivered it."""
    return event.time, "status" in event.values, event.event_id


def _ids(event: Event) -> set[str]:
    named = (event.values.get("message_id"), event.values.get("queue_id"), event.attributes.get(_BOUNCED))
    return {id_ for id_ in named if isinstance(id_, str) and id_}


def _forms(asked: str) -> list[str]:
    """How the tables may write what was asked for."""
    asked = asked.strip()
    if not asked:
        return []
    forms = [asked]
    if "@" in asked and not asked.startswith("<"):
        forms.append(f"<{asked}>")
    if _uuid(asked):
        forms += [f"{asked.upper()}.{number}" for number in range(1, _TRANSACTIONS + 1)]
    return forms


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _texts(event: Event, attribute: str) -> list[str]:
    value = event.attributes.get(attribute)
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
