"""The fields of a row as PostgreSQL's binary COPY takes them. Pure.

A row is the number of its fields in two bytes, and then each field: its length in four, and its bytes. What is a cell
here has its length in front.

Source: PostgreSQL's manual, "COPY", "Binary Format"; the ``*send`` functions of its types.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from timescale_sink.ingest.values import from_microseconds, microseconds

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
# Of a numeric: how many digits to the base of ten thousand, the weight of the first, the sign, the decimal places.
_NUMERIC = struct.Struct(">hhHh")
_BASE = 10_000
# OIDs of types.
_TEXT, _FLOAT8, _NUMERIC_TYPE = 25, 701, 1700


def encoded(content: bytes) -> bytes:
    """A cell of bytes that are as the type sends them: of a text its UTF-8."""
    return _LENGTH.pack(len(content)) + content


def text(value: str) -> bytes:
    """A cell of type text."""
    return encoded(value.encode())


def json(value: bytes) -> bytes:
    """A cell of type jsonb; its first byte is a version."""
    return _LENGTH.pack(len(value) + 1) + b"\1" + value


def numeric(value: int) -> bytes:
    """A cell of type numeric, of a whole number that is not negative; another raises a ValueError."""
    if value < 0:
        raise ValueError(f"{value} is negative")
    digits = []
    while value:
        value, digit = divmod(value, _BASE)
        digits.append(digit)
    head = _NUMERIC.pack(len(digits), max(len(digits) - 1, 0), 0, 0)
    return encoded(head + struct.pack(f">{len(digits)}h", *reversed(digits)))


def double(value: float) -> bytes:
    """A cell of type double precision."""
    return _DOUBLE.pack(8, value)


def bigint(value: int) -> bytes:
    """A cell of type bigint."""
    return _WHOLE.pack(8, value)


def timestamp(since_1970: int) -> bytes:
    """A cell of type timestamptz, of microseconds since 1970."""
    return bigint(since_1970 - FROM_2000)


def moment(value: datetime) -> bytes:
    """The same, of a time with a zone."""
    return timestamp(microseconds(value))


def uuid(value: UUID) -> bytes:
    """A cell of type uuid."""
    return encoded(value.bytes)


def _array(type_: int, elements: Sequence[bytes]) -> bytes:
    """An array of one dimension: dimensions, whether there are NULLs, the type; size and first index; the elements."""
    if not elements:
        return encoded(_ARRAY.pack(0, 0, type_))
    return encoded(_ARRAY.pack(1, 0, type_) + _DIMENSION.pack(len(elements), 1) + b"".join(elements))


def texts(values: Sequence[str]) -> bytes:
    """A cell of type text[]."""
    return _array(_TEXT, [text(value) for value in values])


def doubles(values: Sequence[float]) -> bytes:
    """A cell of type double precision[]."""
    return _array(_FLOAT8, [double(value) for value in values])


def numerics(values: Sequence[int]) -> bytes:
    """A cell of type numeric[]."""
    return _array(_NUMERIC_TYPE, [numeric(value) for value in values])


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


def read_bigint(field: bytes) -> int:
    """A bigint."""
    return int.from_bytes(field, "big", signed=True)


def read_double(field: bytes) -> float:
    """A double precision."""
    (value,) = struct.unpack(">d", field)
    return float(value)


def read_timestamp(field: bytes) -> datetime:
    """A timestamptz."""
    return from_microseconds(read_bigint(field) + FROM_2000)


def read_numeric(field: bytes) -> int:
    """A numeric as `numeric` writes it."""
    value = 0
    for (digit,) in struct.iter_unpack(">h", field[_NUMERIC.size :]):
        value = value * _BASE + digit
    return value


def _elements(field: bytes) -> Iterator[bytes]:
    return (element or b"" for element in fields(field, _ARRAY.size + _DIMENSION.size))


def read_texts(field: bytes) -> list[str]:
    """A text[]."""
    return [element.decode() for element in _elements(field)]


def read_doubles(field: bytes) -> list[float]:
    """A double precision[]."""
    return list(map(read_double, _elements(field)))


def read_numerics(field: bytes) -> list[int]:
    """A numeric[]."""
    return list(map(read_numeric, _elements(field)))


def read_json(field: bytes) -> bytes:
    """A jsonb."""
    return field[1:]


def read_uuid(field: bytes) -> UUID:
    """A uuid."""
    return UUID(bytes=field)


class Codec(NamedTuple):
    """What writes a cell of a type, and what reads its field."""

    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]


CODECS: Mapping[str, Codec] = {
    "uuid": Codec(uuid, read_uuid),
    "timestamptz": Codec(moment, read_timestamp),
    "text": Codec(text, bytes.decode),
    "text[]": Codec(texts, read_texts),
    "bigint": Codec(bigint, read_bigint),
    "numeric": Codec(numeric, read_numeric),
    "numeric[]": Codec(numerics, read_numerics),
    "double precision": Codec(double, read_double),
    "double precision[]": Codec(doubles, read_doubles),
    "jsonb": Codec(json, read_json),
}
"""By the name of a column's type."""
