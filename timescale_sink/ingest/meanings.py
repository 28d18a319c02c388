"""What attributes of plain events mean: of one by itself, and of those of several events together. Pure.

Sources: protobuf's "Encoding"; ``opentelemetry/proto/common/v1/common.proto``.
"""

from __future__ import annotations

from binascii import hexlify, unhexlify
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

import orjson

from postel.otlp import varint
from timescale_sink.ingest import cells
from timescale_sink.ingest.events import TEXT_BYTES

# Parts of a row: what stands before its id, the id, the other fixed columns, then a part for each column.
HEAD, ID, FIXED, CELLS = 0, 1, 2, 3
# Bytes of a UUID, and of one as text; where that has its hyphens.
ID_BYTES, _ID_SIZE = 16, 36
_HYPHENS, _HYPHEN = (8, 13, 18, 23), ord("-")
# The tags of KeyValue's key and value, and of AnyValue's string_value: fields 1, 2 and 1, each of a known length.
KEY, _VALUE, _STRING = b"\x0a", b"\x12", b"\x0a"
# The lengths that a varint of one byte holds. What stands before a text, behind the key: two tags and two lengths.
SHORT = 0x80
BEFORE = 4
# By the length of the text.
BEGINS = [_VALUE + bytes([size + 2]) + _STRING + bytes([size]) for size in range(SHORT - 2)]
_PLACE = itemgetter(0)

Meaning = tuple[int | str, bytes] | tuple[None, "tuple[Meaning, ...]"]
"""Of an attribute: the cell of the part of the row that it fills; where it is to be kept as JSON, that by its key; or
several of these."""
NO_ID: Meaning = (ID, b"")
Column = tuple[int | str, Sequence[bytes]]
"""Of one attribute of several events: the part of their rows, or the key, and of each the cell."""


class Reader(Protocol):
    """Of texts of one key, in which is no NUL."""

    def __call__(self, text: bytes, /) -> Meaning | None:
        """What one means; None where that takes a second look."""

    def column(self, texts: Sequence[bytes], /) -> Column | None:
        """What short ones mean, of several events; None where that takes a look at each."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Those at one place of several events.

    Attributes:
        column: what they mean, where that is known at once.
        meanings: otherwise, of each.
        shapes: of each how its meaning is made; None where all are made alike.
    """

    column: Column | None
    meanings: Sequence[Meaning]
    shapes: Sequence[Hashable] | None

    def __iter__(self) -> Iterator[Column]:
        """What they mean; they are made alike."""
        return iter([self.column]) if self.column else _columns(self.meanings)

    def of(self, numbers: Sequence[int]) -> Iterator[Column]:
        """The same of some, which are made alike."""
        if self.column:
            place, found = self.column
            yield place, [found[number] for number in numbers]
        else:
            yield from _columns([self.meanings[number] for number in numbers])


def _columns(meanings: Sequence[Meaning]) -> Iterator[Column]:
    """Of attributes that mean alike."""
    if (place := meanings[0][0]) is None:
        for each in zip(*(several for _, several in meanings), strict=True):
            yield from _columns(each)
    else:
        yield place, [cell for _, cell in meanings]  # type: ignore[misc]


def shapes_of(meanings: Sequence[Meaning]) -> Sequence[Hashable] | None:
    """How each is made; None where all are made alike."""
    places = set(map(_PLACE, meanings))
    if len(places) == 1 and None not in places and ID not in places:
        return None
    shapes = list(map(_shape, meanings))
    return shapes if len(set(shapes)) > 1 else None


def _shape(meaning: Meaning) -> Hashable:
    place, content = meaning
    if place is None:
        return tuple(map(_shape, content))  # type: ignore[arg-type]
    # Of what is no id the other way makes one.
    return (place, len(content)) if place == ID else place


class Ids:
    """For ids as Postel's emitters write them, and only that: any other is kept as it came, or hashed."""

    def __call__(self, text: bytes, /) -> Meaning | None:
        """See `Reader`."""
        digits = text.replace(b"-", b"")
        try:
            event_id = unhexlify(digits)
        except ValueError:
            return NO_ID
        # Five groups of 8, 4, 4, 4 and 12 digits; in the lower case.
        is_canonical = len(text) == _ID_SIZE and text[8:24:5] == b"----" and hexlify(event_id) == digits
        return (ID, event_id) if is_canonical else NO_ID

    def column(self, texts: Sequence[bytes], /) -> Column | None:
        """See `Reader`."""
        together = b"".join(texts)
        if set(map(len, texts)) != {_ID_SIZE} or any(
            set(together[hyphen::_ID_SIZE]) != {_HYPHEN} for hyphen in _HYPHENS
        ):
            return None
        digits = together.replace(b"-", b"")
        try:
            ids = unhexlify(digits)
        except ValueError:
            return None
        if hexlify(ids) != digits or len(ids) != ID_BYTES * len(texts):
            return None
        return ID, [ids[start : start + ID_BYTES] for start in range(0, len(ids), ID_BYTES)]


class Filler:
    """For a key whose texts fill a part of the row as they are."""

    def __init__(self, part: int) -> None:
        self._part = part

    def __call__(self, text: bytes, /) -> Meaning | None:
        """See `Reader`."""
        return (self._part, cells.encoded(text)) if len(text) <= TEXT_BYTES else None

    def column(self, texts: Sequence[bytes], /) -> Column | None:
        """See `Reader`."""
        return self._part, list(map(cells.encoded, texts))


class Keeper:
    """For a key that no column is fed by."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._begin = orjson.dumps(key) + b":"

    def __call__(self, text: bytes, /) -> Meaning | None:
        """See `Reader`."""
        return self._key, self._begin + orjson.dumps(text.decode())

    def column(self, texts: Sequence[bytes], /) -> Column | None:
        """See `Reader`."""
        # As one text of lines; there are more of them where a text has a line's end, or what looks like one in JSON.
        lines = orjson.dumps(b"\n".join(texts).decode())[1:-1].split(b"\\n")
        if len(lines) != len(texts):
            return None
        begin = self._begin + b'"'
        return self._key, [begin + line + b'"' for line in lines]


def long_text(pair: bytes, end: int) -> bytes | None:
    """The text of a KeyValue whose key ends there; None where its value is anything but a text."""
    if pair[end : end + 1] != _VALUE:
        return None
    size, position = varint.read(pair, end + 1)
    if position + size != len(pair) or pair[position : position + 1] != _STRING:
        return None
    size, position = varint.read(pair, position + 1)
    return pair[position:] if position + size == len(pair) else None
