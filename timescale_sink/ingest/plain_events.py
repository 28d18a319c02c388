"""Plain events, nearly all of those that have a table: from the bytes of protobuf to those of COPY. Pure.

An event is plain where its id is a UUID as text, its time can be stored, and each column is fed by one attribute. What
its attributes mean depends on its name alone: of most, the key and value together, by their bytes, are found in a
dictionary, with the cells that they fill or the JSON that keeps them. What is not plain goes the way by objects
(`records`, `events`), which stays the definition of what is right (`docs/decisions/0121`).

Sources: protobuf's "Encoding"; ``opentelemetry/proto/common/v1/common.proto``; PostgreSQL's manual, "COPY".
"""

from __future__ import annotations

from binascii import hexlify, unhexlify
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any

import orjson
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from postel.otlp import varint
from postel.signals import EventColumn, EventRow
from timescale_sink.ingest import cells
from timescale_sink.ingest.events import TEXT_BYTES, WHOLE, EventMapper, cell_of, held_by
from timescale_sink.ingest.rows import RecordKey
from timescale_sink.ingest.series import Origin
from timescale_sink.ingest.values import attributes, canonical

UID = "log.record.uid"

# Parts of a row: what stands before its id, the id, the other fixed columns, then a part for each column.
_HEAD, _ID, _FIXED, _CELLS = 0, 1, 2, 3
# Equal to NULL, and not the same object: the attribute is there, and its column cannot hold it.
_UNFIT = bytes(bytearray(cells.NULL))
# The tags of KeyValue's key and value, and of AnyValue's string_value: fields 1, 2 and 1, each of a known length.
_KEY, _VALUE, _STRING = b"\x0a", b"\x12", b"\x0a"
# Bytes of a UUID, and of one as text.
_ID_BYTES, _ID_SIZE = 16, 36
# The lengths that a varint of one byte holds. What stands before a text, behind the key: two tags and two lengths.
_SHORT = 0x80
_BEFORE = 4
# By its length.
_BEGINS = [_VALUE + bytes([size + 2]) + _STRING + bytes([size]) for size in range(_SHORT - 2)]
# Attributes that are remembered: values of one key, bytes of one, bytes of all, and of the objects of each.
_VALUES = 2000
_LONGEST = 1 << 10
_BOOK_BYTES = 16 << 20
_ENTRY_BYTES = 400

Meaning = tuple[int | str, bytes] | tuple[None, "tuple[Meaning, ...]"]
"""Of an attribute: the cell of the part of the row that it fills; where it is to be kept as JSON, that by its key; or
several of these."""
_NO_ID: Meaning = (_ID, b"")
Row = list[bytes]
"""The parts of a row, which together are its bytes."""


Reader = Callable[[bytes], Meaning | None]
"""What a text of one key means, in which is no NUL; None where that takes a second look."""


@dataclass(slots=True)
class _Key:
    """What is known of a key, and how many of its values are remembered."""

    reader: Reader | None
    remembered: int = 0


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
        for part, column in enumerate(mapper.columns(event_name), _CELLS):
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
            cells.NULL if cell is None else cells.ENCODERS[column.type](cell)
            for column, cell in zip(columns, found, strict=True)
        ]
        fixed = b"".join(map(cells.text, (origin.node_id, origin.instance, self._name)))
        return [b"", cells.NULL, fixed, *made, b""]

    def row(self, template: Row, time: int, pairs: Any) -> tuple[RecordKey, bytes] | None:
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
        event_id = row[_ID]
        if len(event_id) != _ID_BYTES:
            return None
        row[_HEAD] = self._format.head(time)
        row[-1] = cells.json(b"{" + b",".join(self._orders[tuple(kept)](kept)) + b"}")
        return (event_id, time), b"".join(row)

    def forget(self) -> None:
        """Begin anew."""
        self.clear()
        self._keys.clear()
        self._orders.clear()

    def __missing__(self, pair: bytes) -> Meaning:
        """Read an attribute, and remember it unless its key has a new value each time."""
        if pair[:1] != _KEY or pair[1] >= _SHORT:
            return self._read(pair)
        end = pair[1] + 2
        key = self._keys.get(pair[:end]) or self._meet(pair[:end])
        meaning = None
        if reader := key.reader:
            size = len(pair) - end - _BEFORE
            is_short = 0 <= size < _SHORT - 2 and pair[end : end + _BEFORE] == _BEGINS[size]
            text = pair[end + _BEFORE :] if is_short else _long_text(pair, end)
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
        key = self._keys[encoded] = _Key(self._reader(KeyValue.FromString(encoded).key))
        return key

    def _reader(self, key: str) -> Reader | None:
        if key == UID:
            return _read_id
        match self._feeds.get(key, []):
            case []:
                return _keeper(key) if "\0" not in key else None
            case [(part, EventColumn(type="text", part=""))]:
                return _filler(part)
            case _:
                return None

    def _read(self, pair: bytes) -> Meaning:
        """What any attribute means."""
        ((key, value),) = attributes([KeyValue.FromString(pair)]).items()
        if key == UID:
            return _NO_ID
        meaning: list[Meaning] = []
        held: set[str] = set()
        for part, column in self._feeds.get(key, ()):
            cell = cell_of(column, value)
            if cell is None:
                meaning.append((part, _UNFIT))
            else:
                meaning.append((part, cells.ENCODERS[column.type](cell)))
                held |= held_by(column)
        if not held >= WHOLE:
            meaning.append((key, canonical({key: value})[1:-1]))
        return meaning[0] if len(meaning) == 1 else (None, tuple(meaning))


def _read_id(text: bytes) -> Meaning:
    """An id as Postel's emitters write it, and only that: any other is kept as it came, or hashed."""
    digits = text.replace(b"-", b"")
    try:
        event_id = unhexlify(digits)
    except ValueError:
        return _NO_ID
    # Five groups of 8, 4, 4, 4 and 12 digits; in the lower case.
    is_canonical = len(text) == _ID_SIZE and text[8:24:5] == b"----" and hexlify(event_id) == digits
    return (_ID, event_id) if is_canonical else _NO_ID


def _filler(part: int) -> Reader:
    """For a key whose texts fill a part of the row as they are."""

    def read(text: bytes) -> Meaning | None:
        return (part, cells.encoded(text)) if len(text) <= TEXT_BYTES else None

    return read


def _keeper(key: str) -> Reader:
    """For a key that no column is fed by."""
    begin = orjson.dumps(key) + b":"

    def read(text: bytes) -> Meaning | None:
        return key, begin + orjson.dumps(text.decode())

    return read


def _long_text(pair: bytes, end: int) -> bytes | None:
    """The text of a KeyValue whose key ends there; None where its value is anything but a text."""
    if pair[end : end + 1] != _VALUE:
        return None
    size, position = varint.read(pair, end + 1)
    if position + size != len(pair) or pair[position : position + 1] != _STRING:
        return None
    size, position = varint.read(pair, position + 1)
    return pair[position:] if position + size == len(pair) else None
