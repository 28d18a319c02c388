"""The fields of a row as PostgreSQL's binary COPY takes them. Pure.

A row is the number of its fields in two bytes, and then each field: its length in four, and its bytes. What is a cell
here has its length in front.

Source: PostgreSQL's manual, "COPY", "Binary Format"; the ``*send`` functions of its types.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from timescale_sink.ingest.values import from_microseconds

# What stands around the rows: the signature, no flags, no extension; and the end.
BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
# A field without a value has the length -1.
NULL = b"\xff\xff\xff\xff"
# Microseconds from 1970 to 2000, which PostgreSQL counts from.
FROM_2000 = 946_684_800_000_000

_LENGTH = struct.Struct(">i")
_WHOLE = struct.Struct(">iq")
_DOUBLE = struct.Struct(">id")
_ARRAY = struct.Struct(">iii")
_DIMENSION = struct.Struct(">ii")
# OID of the type text.
_TEXT = 25


def encoded(content: bytes) -> bytes:
    """A cell of bytes that are as the type sends them: of a text its UTF-8."""
    return _LENGTH.pack(len(content)) + content


def text(value: str) -> bytes:
    """A cell of type text."""
    return encoded(value.encode())


def json(value: bytes) -> bytes:
    """A cell of type jsonb; its first byte is a version."""
    return _LENGTH.pack(len(value) + 1) + b"\1" + value


def texts(values: Sequence[str]) -> bytes:
    """A cell of type text[]: dimensions, whether there are NULLs, the type; then size and first index, the elements."""
    if not values:
        return encoded(_ARRAY.pack(0, 0, _TEXT))
    return encoded(_ARRAY.pack(1, 0, _TEXT) + _DIMENSION.pack(len(values), 1) + b"".join(map(text, values)))


ENCODERS: Mapping[str, Callable[[Any], bytes]] = {
    "text": text,
    "text[]": texts,
    "bigint": lambda value: _WHOLE.pack(8, value),
    "double precision": lambda value: _DOUBLE.pack(8, value),
    "jsonb": json,
}
"""By the type of a declared column."""


def fields(row: bytes, position: int = 2) -> Iterator[bytes | None]:
    """The fields of a row, each without its length."""
    while position < len(row):
        (size,) = _LENGTH.unpack_from(row, position)
        position += _LENGTH.size
        if size < 0:
            yield None
            continue
        yield row[position : position + size]
        position += size


def whole(field: bytes) -> int:
    """A bigint."""
    return int.from_bytes(field, "big", signed=True)


def double(field: bytes) -> float:
    """A double precision."""
    (value,) = struct.unpack(">d", field)
    return float(value)


def instant(field: bytes) -> datetime:
    """A timestamptz."""
    return from_microseconds(whole(field) + FROM_2000)


def _texts(field: bytes) -> list[str]:
    return [(element or b"").decode() for element in fields(field, _ARRAY.size + _DIMENSION.size)]


DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "text": bytes.decode,
    "text[]": _texts,
    "bigint": whole,
    "double precision": double,
    "jsonb": lambda field: field[1:],
}
"""The way back."""
