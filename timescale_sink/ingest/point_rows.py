"""The points of a transaction: as they come, and in the order in which they are written. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from timescale_sink.ingest import cells
from timescale_sink.ingest.values import microseconds


class PointRow(NamedTuple):
    """A row of ``otel_metric_point``, whose ``count`` is ``point_count`` here; the JSON columns are encoded bytes."""

    series_id: UUID
    time: datetime
    started_at: datetime | None
    flags: int
    value: float | None = None
    value_int: int | None = None
    point_count: int | None = None
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    bounds: list[float] | None = None
    bucket_counts: list[int] | None = None
    detail: bytes | None = None
    exemplars: bytes | None = None

    def encode(self) -> bytes:
        """As COPY takes it."""
        parts = [_FIELDS.pack(len(self))]
        for value, codec in zip(self, _CODECS, strict=True):
            parts.append(cells.NULL if value is None else codec.write(value))
        return b"".join(parts)

    @classmethod
    def decode(cls, row: bytes) -> PointRow:
        """The values of what `encode` gives, and `numbers`."""
        found = zip(cells.fields(row), _CODECS, strict=True)
        return cls._make(None if field is None else codec.read(field) for field, codec in found)


POINT_COLUMNS: Mapping[str, str] = {
    "series_id": "uuid",
    "time": "timestamptz",
    "started_at": "timestamptz",
    "flags": "bigint",
    "value": "double precision",
    "value_int": "bigint",
    "count": "numeric",
    "sum": "double precision",
    "min": "double precision",
    "max": "double precision",
    "bounds": "double precision[]",
    "bucket_counts": "numeric[]",
    "detail": "jsonb",
    "exemplars": "jsonb",
}
"""Columns of ``otel_metric_point`` in the order of a row's fields, and their types."""

_FIELDS = struct.Struct(">h")
_CODECS = [cells.CODECS[type_] for type_ in POINT_COLUMNS.values()]


def differ(one: bytes, other: bytes) -> bool:
    """Whether two points of a key are contradictory: NaN is what NaN is, as in the database."""
    if one == other:
        return False
    stands, came = PointRow.decode(one), PointRow.decode(other)
    return stands != came and repr(stands) != repr(came)


@dataclass(frozen=True, slots=True)
class KeyedRows:
    """Rows of one table, in the order of their keys.

    Attributes:
        times: of each, microseconds since 1970.
        rows: of each the bytes of COPY, or of a log record its values in the order of the table's columns.
    """

    times: Sequence[int]
    rows: Sequence[Any]

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, part: slice) -> KeyedRows:
        return KeyedRows(self.times[part], self.rows[part])


class Repeated(NamedTuple):
    """A point whose key another has that came before.

    Attributes:
        time: microseconds since 1970.
        conflicting: whether it has another value.
    """

    time: int
    conflicting: bool


class _Block(NamedTuple):
    """Points that came together.

    Attributes:
        places: of each, where it stands among all that came.
        ids: of each the 16 bytes of its series' id.
        times: of each, microseconds since 1970.
    """

    places: NDArray[np.int64]
    ids: bytes
    times: NDArray[np.int64]
    rows: Sequence[bytes]


class PointRows:
    """Points as they come; of a key that comes again the first counts."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._came = 0

    def reserve(self, count: int) -> int:
        """The place of the first of so many points, which may be added in any order."""
        first = self._came
        self._came += count
        return first

    def add(self, row: PointRow, place: int) -> None:
        """Add one."""
        times = np.array([microseconds(row.time)], np.int64)
        self._blocks.append(_Block(np.array([place], np.int64), row.series_id.bytes, times, [row.encode()]))

    def extend(self, places: NDArray[np.int64], ids: bytes, times: NDArray[np.int64], rows: Sequence[bytes]) -> None:
        """Add several.

        Args:
            places: of each, what `reserve` gave and on.
            ids: of each the 16 bytes of its series' id.
            times: of each, microseconds since 1970.
            rows: of each the bytes of COPY.
        """
        self._blocks.append(_Block(places, ids, times, rows))

    def ordered(self) -> tuple[KeyedRows, list[Repeated]]:
        """The points by key, as the index has them; and those that are left out."""
        if not self._blocks:
            return KeyedRows([], []), []
        places = np.concatenate([block.places for block in self._blocks])
        times = np.concatenate([block.times for block in self._blocks])
        # Two numbers are compared sooner than 16 bytes; their first byte counts most, as the database compares a uuid.
        ids = np.frombuffer(b"".join([block.ids for block in self._blocks]), ">u8").astype(np.uint64)
        high, low = ids[::2], ids[1::2]
        order = np.lexsort((places, times, low, high))
        high, low, times = high[order], low[order], times[order]
        came = list(chain.from_iterable(block.rows for block in self._blocks))
        rows = list(map(came.__getitem__, order.tolist()))
        again = (high[1:] == high[:-1]) & (low[1:] == low[:-1]) & (times[1:] == times[:-1])
        if not again.any():
            return KeyedRows(times.tolist(), rows), []
        first = np.concatenate(([True], ~again))
        kept = np.flatnonzero(first)
        repeated = list(_repeated(rows, times.tolist(), first.tolist()))
        return KeyedRows(times[kept].tolist(), [rows[place] for place in kept.tolist()]), repeated


def _repeated(rows: Sequence[bytes], times: Sequence[int], first: Sequence[bool]) -> Iterator[Repeated]:
    stands = rows[0]
    for row, time, is_first in zip(rows, times, first, strict=True):
        if is_first:
            stands = row
        else:
            yield Repeated(time, differ(stands, row))
