"""Plain number points, by far the most of all: from the bytes of protobuf to those of COPY. Pure.

A plain point has a time, a value and attributes, perhaps a start, and nothing else. To read it through protobuf's
objects and hand a tuple to the database's driver takes ten times the CPU that the database then takes for the row
(`docs/decisions/0113`).

Sources: protobuf's "Encoding"; ``opentelemetry/proto/metrics/v1/metrics.proto``, whose fields protobuf writes in the
order of their numbers; PostgreSQL's manual, "COPY", "Binary Format".
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

from timescale_sink.ingest import cells
from timescale_sink.ingest.rows import PointRow, SeriesRow
from timescale_sink.ingest.series import MetricIdentity

# start_time_unix_nano = 2 and time_unix_nano = 3 are fixed64, as_double = 4 is a double, as_int = 6 an sfixed64: a tag
# of one byte, and eight bytes.
_START, _TIME, _DOUBLE, _INT = b"\x11", b"\x19", b"\x21", b"\x31"
_SIZE = 9
_TIMES = struct.Struct("<xQ")
_STARTED_TIMES = struct.Struct("<xQxQ")
_NANOSECONDS = 1000
# A row: how many fields, then each behind its length, which is -1 for NULL. The fields are series_id, time, started_at,
# flags, value, value_int, and eight that plain points leave NULL.
_BEGIN = struct.Struct(">hi16si")
_STARTED = struct.Struct(">qiqiqi")
_UNSTARTED = struct.Struct(">qiiqi")
_FIELDS, _UUID, _EIGHT, _NULL = 14, 16, 8, -1
_NULLS = struct.pack(">8i", *(_NULL,) * 8)
_NO_WHOLE = struct.pack(">i", _NULL) + _NULLS
_INT_VALUE = struct.Struct("<q")
_BOTH_VALUES = struct.Struct(">diq")
# Of all series that are remembered, of the objects of each, and of the attributes of one at most.
_BOOK_BYTES = 32 << 20
_ENTRY_BYTES = 600
_LONGEST = 4 << 10


class Series(NamedTuple):
    """What the rows of a series share.

    Attributes:
        series_id: its bytes.
        begin: of each row.
        row: of ``otel_series``.
    """

    series_id: bytes
    begin: bytes
    row: SeriesRow


def series_of(row: SeriesRow) -> Series:
    """Prepare a series."""
    series_id = row.series_id.bytes
    return Series(series_id, _BEGIN.pack(_FIELDS, _UUID, series_id, _EIGHT), row)


class SeriesBook:
    """The series that were met lately, by the bytes of their attributes: to make one costs more than its point."""

    def __init__(self) -> None:
        self._pages: dict[MetricIdentity, dict[bytes, Series]] = {}
        self._bytes = 0

    def page(self, identity: MetricIdentity) -> dict[bytes, Series]:
        """Those of a metric; to be added to by `add`."""
        if identity not in self._pages:
            # A resource is held as JSON and as what that was made of.
            self._make_room(3 * len(identity.origin.encoded) + len(identity.scope))
            self._pages[identity] = {}
        return self._pages[identity]

    def add(self, page: dict[bytes, Series], attributes: bytes, series: Series) -> None:
        """Remember one, unless it is very long. A page that is no longer of the book goes with its request."""
        if len(attributes) <= _LONGEST:
            self._make_room(len(attributes) + len(series.row.attributes))
            page[attributes] = series

    def _make_room(self, size: int) -> None:
        """For an entry of so many bytes; when it is all taken, the book begins anew."""
        if self._bytes > _BOOK_BYTES:
            self._pages.clear()
            self._bytes = 0
        self._bytes += size + _ENTRY_BYTES


Moment = tuple[int, bytes]
"""Microseconds since 1970, and the fields of a row from its time to the length of its value."""


class Moments(dict[bytes, Moment | None]):
    """What points begin with, their start and time: most of a request have the same. None where that is not plain."""

    def __missing__(self, encoded: bytes) -> Moment | None:
        moment = self[encoded] = _moment(encoded)
        return moment


def _moment(encoded: bytes) -> Moment | None:
    if len(encoded) == _SIZE and encoded[:1] == _TIME:
        (time,) = _TIMES.unpack(encoded)
        time //= _NANOSECONDS
        return time, _UNSTARTED.pack(time - cells.FROM_2000, _NULL, _EIGHT, 0, _EIGHT)
    if len(encoded) == 2 * _SIZE and encoded[_SIZE : _SIZE + 1] == _TIME:
        start, time = (nanoseconds // _NANOSECONDS for nanoseconds in _STARTED_TIMES.unpack(encoded))
        started = _STARTED.pack(time - cells.FROM_2000, _EIGHT, start - cells.FROM_2000, _EIGHT, 0, _EIGHT)
        return time, started
    return None


def read(point: bytes, moments: Moments) -> tuple[Moment, bytes, bytes] | None:
    """Its moment, the fields of its row from the value on, and the rest of its bytes.

    The rest is the attributes where the point is plain; it may hold flags or exemplars, or what no OTLP of today says,
    so who meets it for the first time has to look. None where the point is not plain, whatever the rest says.
    """
    begin = 2 * _SIZE if point[:1] == _START else _SIZE
    moment = moments[point[:begin]]
    end = begin + _SIZE
    if moment is None or len(point) < end:
        return None
    kind = point[begin : begin + 1]
    if kind == _DOUBLE:
        # The last byte first, as PostgreSQL sends it.
        return moment, point[end - 1 : begin : -1] + _NO_WHOLE, point[end:]
    if kind == _INT:
        # An integer fills ``value_int``, too.
        (value,) = _INT_VALUE.unpack_from(point, begin + 1)
        return moment, _BOTH_VALUES.pack(value, _EIGHT, value) + _NULLS, point[end:]
    return None


def restored(copied: bytes) -> PointRow:
    """The row with its values again."""
    series_id, time, started_at, flags, value, value_int, *_ = cells.fields(copied)
    return PointRow(
        UUID(bytes=series_id),
        cells.instant(time or b""),
        cells.instant(started_at) if started_at else None,
        cells.whole(flags or b""),
        cells.double(value or b""),
        cells.whole(value_int) if value_int else None,
    )
