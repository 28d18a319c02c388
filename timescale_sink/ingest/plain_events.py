"""Plain events, nearly all of those that have a table: from the bytes of protobuf to those of COPY. Pure.

An event is plain where its id is a UUID as text, its time can be stored, and each column is fed by one attribute. What
its attributes mean depends on its name alone: of most, the key and value together, by their bytes, are found in a
dictionary, with the cells that they fill or the JSON that keeps them. Events whose attributes mean alike are read and
written by columns, one attribute of all after the other (`docs/decisions/0168`). What is not plain goes the way by
objects (`records`, `events`), which stays the definition of what is right (`docs/decisions/0121`).

Sources: protobuf's "Encoding"; ``opentelemetry/proto/common/v1/common.proto``; PostgreSQL's manual, "COPY".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from postel.signals import EventColumn, EventRow
from timescale_sink.ingest import cells
from timescale_sink.ingest.events import WHOLE, EventMapper, cell_of, held_by
from timescale_sink.ingest.meanings import (
    BEFORE,
    BEGINS,
    CELLS,
    FIXED,
    HEAD,
    ID,
    ID_BYTES,
    KEY,
    NO_ID,
    SHORT,
    Attributes,
    Column,
    Filler,
    Ids,
    Keeper,
    Meaning,
    Reader,
    long_text,
    shapes_of,
)
from timescale_sink.ingest.rows import RecordKey
from timescale_sink.ingest.series import Origin
from timescale_sink.ingest.values import attributes, canonical

UID = "log.record.uid"

# Equal to NULL, and not the same object: the attribute is there, and its column cannot hold it.
_UNFIT = bytes(bytearray(cells.NULL))
# Events that are worth being written by columns.
_FEWEST = 8
# Attributes that are remembered: values of one key, bytes of one, bytes of all, and of the objects of each.
_VALUES = 2000
_LONGEST = 1 << 10
_BOOK_BYTES = 16 << 20
_ENTRY_BYTES = 400

Row = list[bytes]
"""The parts of a row, which together are its bytes."""
Made = tuple[RecordKey, bytes]
"""An event's row, behind its key."""


@dataclass(slots=True)
class _Key:
    """What is known of a key, by the bytes of a KeyValue without a value, and how many of its values are remembered."""

    encoded: bytes
    reader: Reader | None
    remembered: int = 0
    # By the bytes of a KeyValue of a short text, all before the text.
    begins: dict[int, bytes] = field(default_factory=dict)

    def column(self, pairs: Sequence[bytes]) -> Column | None:
        """What several attributes mean that have this key, and a new value each time; None where one is different."""
        if self.reader is None or self.remembered < _VALUES:
            return None
        size = len(self.encoded) + BEFORE
        if not self.begins:
            self.begins = {size + length: self.encoded + begin for length, begin in enumerate(BEGINS)}
        begins = self.begins.get
        texts = [pair[size:] for pair in pairs if pair[:size] == begins(len(pair))]
        if len(texts) < len(pairs) or b"\0" in b"".join(texts):
            return None
        return self.reader.column(texts)


@dataclass(slots=True)
class _Room:
    """For what is remembered, by all plans."""

    used: int = 0
    plans: list[Plan] = field(default_factory=list)

    def take(self, size: int) -> None:
        """For an entry of so many bytes; when it is all taken, everything is forgotten."""
        if self.used > _BOOK_BYTES:
            self.used = 0
            for plan in self.plans:
                plan.forget()
        self.used += size + _ENTRY_BYTES


class PlainEvents:
    """The plans of all events that have a table, made as they come."""

    def __init__(self, mapper: EventMapper) -> None:
        self._mapper = mapper
        self._plans: dict[str, Plan] = {}
        self._room = _Room(plans=[])

    def plan(self, event_name: str) -> Plan | None:
        """How events of a name become rows; None where they have no table."""
        if event_name not in self._plans:
            if (declared := self._mapper.row(event_name)) is None:
                return None
            plan = self._plans[event_name] = Plan(self._mapper, event_name, declared, self._room)
            self._room.plans.append(plan)
        return self._plans[event_name]


class _Orders(dict[tuple[str, ...], Callable[[dict[str, bytes]], Iterable[bytes]]]):
    """By the keys of what is kept as JSON, as they came: what takes the values in the order of the keys."""

    def __init__(self, room: _Room) -> None:
        super().__init__()
        self._room = room

    def __missing__(self, keys: tuple[str, ...]) -> Callable[[dict[str, bytes]], Iterable[bytes]]:
        ordered = sorted(keys)
        # Of one key itemgetter gives the value itself.
        take = itemgetter(*ordered) if len(keys) > 1 else lambda kept: list(kept.values())
        self._room.take(sum(map(len, keys)))
        self[keys] = take
        return take


class Plan(dict[bytes, Meaning]):
    """How events of one name become rows of their table: the meanings of the attributes that came, by their bytes.

    Attributes:
        table: its name.
    """

    def __init__(self, mapper: EventMapper, event_name: str, declared: EventRow, room: _Room) -> None:
        super().__init__()
        self.table = declared.table
        self._name = event_name
        self._mapper = mapper
        self._room = room
        self._format = mapper.format(event_name)
        self._feeds: dict[str, list[tuple[int, EventColumn]]] = {}
        for part, column in enumerate(mapper.columns(event_name), CELLS):
            if not column.resource and column.name not in declared.values:
                for attribute in column.attributes:
                    self._feeds.setdefault(attribute, []).append((part, column))
        self._keys: dict[bytes, _Key] = {}
        self._orders = _Orders(room)

    def template(self, origin: Origin) -> Row:
        """A row of which all is known that the event's attributes do not say."""
        found, _ = self._mapper.cells(self._name, {}, origin.resource)
        columns = self._mapper.columns(self._name)
        made = [
            cells.NULL if cell is None else cells.CODECS[column.type].write(cell)
            for column, cell in zip(columns, found, strict=True)
        ]
        fixed = b"".join(map(cells.text, (origin.node_id, origin.instance, self._name)))
        return [b"", cells.NULL, fixed, *made, b""]

    def row(self, template: Row, time: int, pairs: Iterable[bytes]) -> Made | None:
        """An event's row, behind its key; None where it is not plain.

        Args:
            template: of its origin.
            time: microseconds since 1970.
            pairs: its attributes, each the bytes of a KeyValue.
        """
        row = template.copy()
        kept: dict[str, bytes] = {}
        # Of attributes that mean several things; it grows until the pairs are read.
        further: list[Any] = []
        found: Iterable[Any] = chain(map(self.__getitem__, pairs), further)
        for place, cell in found:
            if type(place) is int:
                if row[place] is not cells.NULL:
                    # Which of two attributes counts is said by the other way.
                    return None
                row[place] = cell
            elif place is None:
                further.extend(cell)
            else:
                kept[place] = cell
        event_id = row[ID]
        if len(event_id) != ID_BYTES:
            return None
        row[HEAD] = self._format.head(time)
        row[-1] = cells.json(b"{" + b",".join(self._orders[tuple(kept)](kept)) + b"}")
        return (event_id, time), b"".join(row)

    def rows(
        self, template: Row, times: Sequence[int], records: Sequence[Sequence[bytes]]
    ) -> list[Made] | list[Made | None]:
        """Of several events what `row` makes of each."""
        if len(set(map(len, records))) == 1:
            return self._rows(template, times, records)
        made: list[Made | None] = [None] * len(records)
        sizes: dict[int, list[int]] = {}
        for number, pairs in enumerate(records):
            sizes.setdefault(len(pairs), []).append(number)
        for numbers in sizes.values():
            found = self._rows(template, [times[n] for n in numbers], [records[n] for n in numbers])
            for number, each in zip(numbers, found, strict=True):
                made[number] = each
        return made

    def _rows(
        self, template: Row, times: Sequence[int], records: Sequence[Sequence[bytes]]
    ) -> list[Made] | list[Made | None]:
        """The same of events that have equally many attributes."""
        if len(records) < _FEWEST:
            return [self.row(template, time, pairs) for time, pairs in zip(times, records, strict=True)]
        columns = [self._column(pairs) for pairs in zip(*records, strict=True)]
        differing = [column.shapes for column in columns if column.shapes is not None]
        if not differing and (together := self._joined(template, times, [*chain.from_iterable(columns)])):
            return together
        made: list[Made | None] = [None] * len(records)
        for numbers in _alike(differing) or [list(range(len(records)))]:
            joined: list[Made] | None = None
            if differing and len(numbers) >= _FEWEST:
                chosen = chain.from_iterable(column.of(numbers) for column in columns)
                joined = self._joined(template, [times[n] for n in numbers], [*chosen])
            for place, number in enumerate(numbers):
                made[number] = joined[place] if joined else self.row(template, times[number], records[number])
        return made

    def _column(self, pairs: Sequence[bytes]) -> Attributes:
        """What the attributes at one place of several events mean."""
        first = pairs[0]
        key = self._keys.get(first[: first[1] + 2]) if len(first) > 1 else None
        if key and (column := key.column(pairs)):
            return Attributes(column, (), None)
        meanings = list(map(self.__getitem__, pairs))
        return Attributes(None, meanings, shapes_of(meanings))

    def _joined(self, template: Row, times: Sequence[int], columns: Sequence[Column]) -> list[Made] | None:
        """The rows of events whose attributes mean alike; None where that takes a look at each."""
        filled: dict[int, Sequence[bytes]] = {}
        kept: dict[str, Sequence[bytes]] = {}
        for place, found in columns:
            if isinstance(place, str):
                kept[place] = found
            elif template[place] is cells.NULL:
                filled[place] = found
        if len(filled) + len(kept) < len(columns) or set(map(len, filled.get(ID, ()))) != {ID_BYTES}:
            return None
        parts: list[Iterable[bytes]] = [self._format.heads(times), filled[ID]]
        for is_filled, places in groupby(range(FIXED, len(template) - 1), filled.__contains__):
            if is_filled:
                parts += map(filled.__getitem__, places)
            else:
                parts.append(repeat(b"".join(map(template.__getitem__, places))))
        members: Iterable[bytes] = repeat(b"", len(times))
        if kept:
            members = map(b",".join, zip(*map(kept.__getitem__, sorted(kept)), strict=True))
        parts.append([cells.json(b"{" + each + b"}") for each in members])
        rows = map(b"".join, zip(*parts, strict=False))
        return list(zip(zip(filled[ID], times, strict=True), rows, strict=True))

    def forget(self) -> None:
        """Begin anew."""
        self.clear()
        self._keys.clear()
        self._orders.clear()

    def __missing__(self, pair: bytes) -> Meaning:
        """Read an attribute, and remember it unless its key has a new value each time."""
        if pair[:1] != KEY or pair[1] >= SHORT:
            return self._read(pair)
        end = pair[1] + 2
        key = self._keys.get(pair[:end]) or self._meet(pair[:end])
        meaning = None
        if reader := key.reader:
            size = len(pair) - end - BEFORE
            is_short = 0 <= size < SHORT - 2 and pair[end : end + BEFORE] == BEGINS[size]
            text = pair[end + BEFORE :] if is_short else long_text(pair, end)
            if text is not None and b"\0" not in text:
                meaning = reader(text)
        if meaning is None:
            meaning = self._read(pair)
        if key.remembered < _VALUES and len(pair) <= _LONGEST:
            key.remembered += 1
            self._room.take(2 * len(pair))
            self[pair] = meaning
        return meaning

    def _meet(self, encoded: bytes) -> _Key:
        """A key that is met for the first time, by the bytes of a KeyValue without a value."""
        self._room.take(len(encoded))
        key = self._keys[encoded] = _Key(encoded, self._reader(KeyValue.FromString(encoded).key))
        return key

    def _reader(self, key: str) -> Reader | None:
        if key == UID:
            return Ids()
        match self._feeds.get(key, []):
            case []:
                return Keeper(key) if "\0" not in key else None
            case [(part, EventColumn(type="text", part=""))]:
                return Filler(part)
            case _:
                return None

    def _read(self, pair: bytes) -> Meaning:
        """What any attribute means."""
        ((key, value),) = attributes([KeyValue.FromString(pair)]).items()
        if key == UID:
            return NO_ID
        meaning: list[Meaning] = []
        held: set[str] = set()
        for part, column in self._feeds.get(key, ()):
            cell = cell_of(column, value)
            if cell is None:
                meaning.append((part, _UNFIT))
            else:
                meaning.append((part, cells.CODECS[column.type].write(cell)))
                held |= held_by(column)
        if not held >= WHOLE:
            meaning.append((key, canonical({key: value})[1:-1]))
        return meaning[0] if len(meaning) == 1 else (None, tuple(meaning))


def _alike(differing: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """The numbers of events whose attributes are made alike, by those shapes that are not the same of all."""
    alike: dict[tuple[Hashable, ...], list[int]] = {}
    for number, shapes in enumerate(zip(*differing, strict=True)):
        alike.setdefault(shapes, []).append(number)
    return list(alike.values())
