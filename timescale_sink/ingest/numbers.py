"""Plain number points, by far the most of all: from the bytes of protobuf to those of COPY. Pure.

A plain point has a time, a value and attributes, perhaps a start, and nothing else. To read it through protobuf's
objects and hand a tuple to the database's driver takes ten times the CPU that the database then takes for the row
(`docs/decisions/0113`). Points of one shape have their times and values at the same places: those of a request are read
as one array, and their rows written as another (`docs/decisions/0167`).

Sources: protobuf's "Encoding"; ``opentelemetry/proto/metrics/v1/metrics.proto``, whose fields protobuf writes in the
order of their numbers; PostgreSQL's manual, "COPY", "Binary Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

from timescale_sink.ingest import cells
from timescale_sink.ingest.point_rows import PointRow
from timescale_sink.ingest.rows import SeriesRow
from timescale_sink.ingest.series import MetricIdentity

# start_time_unix_nano = 2 and time_unix_nano = 3 are fixed64, as_double = 4 is a double, as_int = 6 an sfixed64: a tag
# of one byte, and eight bytes.
_START, _TIME, _DOUBLE, _INT = b"\x11", b"\x19", b"\x21", b"\x31"
_FIELD = 9
_NANOSECONDS = np.uint64(1000)
# Of the columns that every plain point fills; -1 is the length of one that is NULL.
_COLUMN_TYPES = {"series_id": "V16", "time": ">i8", "flags": ">i8"}
_NULL = -1
# Of all series that are remembered, of the objects of each, and of the attributes of one at most.
_BOOK_BYTES = 32 << 20
_ENTRY_BYTES = 600
_LONGEST = 4 << 10


class Series(NamedTuple):
    """What points of a series share.

    Attributes:
        series_id: its bytes.
        row: of ``otel_series``.
    """

    series_id: bytes
    row: SeriesRow


def series_of(row: SeriesRow) -> Series:
    """Prepare a series."""
    return Series(row.series_id.bytes, row)


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

    def meet(
        self, identity: MetricIdentity, page: dict[bytes, Series], attributes: bytes, encoded: bytes
    ) -> Series | None:
        """The series of a point whose attributes no page knows yet; None where the point is not plain after all."""
        point = NumberDataPoint.FromString(encoded)
        if point.flags or point.exemplars:
            return None
        series = series_of(identity.series(list(point.attributes)))
        self.add(page, attributes, series)
        return series

    def _make_room(self, size: int) -> None:
        """For an entry of so many bytes; when it is all taken, the book begins anew."""
        if self._bytes > _BOOK_BYTES:
            self._pages.clear()
            self._bytes = 0
        self._bytes += size + _ENTRY_BYTES


class Shape:
    """Where the parts of points are that have the same, in protobuf's bytes and in COPY's.

    Args:
        started: they have a start.
        whole: their values are integers.

    Attributes:
        size: bytes of a point before its attributes.
        last_tag: where the tag of its value is.
    """

    def __init__(self, *, started: bool, whole: bool) -> None:
        self._started = started
        self._whole = whole
        tags = {"start": _START} if started else {}
        # A double is only moved: as a number of 64 bits it keeps each of them.
        tags |= {"time": _TIME, "value": _INT if whole else _DOUBLE}
        self._tags = {f"{part}_tag": ord(tag) for part, tag in tags.items()}
        self._point = np.dtype(
            [field for part in tags for field in ((f"{part}_tag", "u1"), (part, "<i8" if part == "value" else "<u8"))]
        )
        self.size = self._point.itemsize
        self.last_tag = slice(self.size - _FIELD, self.size - _FIELD + 1)
        self._row = self._empty_row()

    def _empty_row(self) -> NDArray[np.void]:
        """How many fields, then each behind its length, which is -1 for NULL."""
        types = {**_COLUMN_TYPES, "value": ">f8" if self._whole else ">i8"}
        types |= {"started_at": ">i8"} if self._started else {}
        types |= {"value_int": ">i8"} if self._whole else {}
        fields = [("fields", ">i2")]
        for column in PointRow._fields:
            fields.append((f"{column}_size", ">i4"))
            if column in types:
                fields.append((column, types[column]))
        row = np.zeros((), np.dtype(fields))
        row["fields"] = len(PointRow._fields)
        for column in PointRow._fields:
            row[f"{column}_size"] = np.dtype(types[column]).itemsize if column in types else _NULL
        return row

    def read(self, points: Iterable[bytes]) -> NDArray[np.void]:
        """What stands before the attributes of each; zeros of one that is too short."""
        size = self.size
        heads = [point[:size] for point in points]
        read = b"".join(heads)
        if len(read) < size * len(heads):
            read = b"".join([head.ljust(size, b"\0") for head in heads])
        return np.frombuffer(read, self._point)

    def fits(self, heads: NDArray[np.void]) -> NDArray[np.bool_]:
        """Which of these have this shape."""
        fits = np.ones(len(heads), np.bool_)
        for name, tag in self._tags.items():
            fits &= heads[name] == tag
        return fits

    def rows(self, heads: NDArray[np.void], times: NDArray[np.int64], ids: bytes) -> list[bytes]:
        """The rows of points, by the ids of their series."""
        rows = np.full(len(heads), self._row)
        rows["series_id"] = np.frombuffer(ids, _COLUMN_TYPES["series_id"])
        rows["time"] = times - cells.FROM_2000
        if self._started:
            rows["started_at"] = _microseconds(heads["start"]) - cells.FROM_2000
        rows["value"] = heads["value"]
        if self._whole:
            rows["value_int"] = heads["value"]
        return rows.view(f"V{rows.itemsize}").tolist()


_SHAPES = {
    (started, _INT if whole else _DOUBLE): Shape(started=started, whole=whole)
    for started in (True, False)
    for whole in (True, False)
}


def _shape_of(point: bytes) -> Shape | None:
    """The shape that a point has, if it has any."""
    started = point[:1] == _START
    tag = (2 if started else 1) * _FIELD
    return _SHAPES.get((started, point[tag : tag + 1]))


def _microseconds(nanoseconds: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (nanoseconds // _NANOSECONDS).astype(np.int64)


class MetricPoints(NamedTuple):
    """Points of a metric.

    Attributes:
        identity: of the metric.
        places: of each point, among all.
        points: each the bytes of a NumberDataPoint as protobuf writes it.
    """

    identity: MetricIdentity
    places: NDArray[np.int64]
    points: Sequence[bytes]

    def by_shape(self) -> Iterator[tuple[Shape, MetricPoints]]:
        """The points that have one: mostly it is the same of all."""
        shapes = list(map(_shape_of, self.points))
        for shape in dict.fromkeys(shapes):
            if shape is not None:
                chosen = [number for number, each in enumerate(shapes) if each is shape]
                yield shape, MetricPoints(self.identity, self.places[chosen], [self.points[n] for n in chosen])

    def series(self, book: SeriesBook, shape: Shape, fits: NDArray[np.bool_]) -> list[Series | None]:
        """Of each point; None where the point has not the shape or is not plain."""
        size = shape.size
        page = book.page(self.identity)
        rests = [point[size:] for point in self.points]
        found = list(map(page.get, rests))
        if all(found) and fits.all():
            return found
        return [
            (page.get(rest) or book.meet(self.identity, page, rest, point)) if fit else None
            for rest, point, fit in zip(rests, self.points, fits.tolist(), strict=True)
        ]


class Plain(NamedTuple):
    """Plain points of one shape.

    Attributes:
        places: of each.
        series: of each.
        ids: of each the 16 bytes of its series' id.
        times: of each, microseconds since 1970.
        rows: of each the bytes of COPY.
    """

    places: NDArray[np.int64]
    series: Sequence[Series]
    ids: bytes
    times: NDArray[np.int64]
    rows: list[bytes]


def read(metrics: Iterable[MetricPoints], last: int, book: SeriesBook) -> Iterator[Plain]:
    """The plain points of metrics, by their shapes; the others are left out.

    Args:
        metrics: of one request.
        last: microseconds since 1970; what is later is left out, too.
        book: grows.
    """
    for shape, group in _by_shape(metrics):
        heads = shape.read(chain.from_iterable(metric.points for metric in group))
        times = _microseconds(heads["time"])
        fits = shape.fits(heads) & (times <= last)
        ends = accumulate(len(metric.points) for metric in group)
        series = [
            found
            for metric, end in zip(group, ends, strict=True)
            for found in metric.series(book, shape, fits[end - len(metric.points) : end])
        ]
        places = np.concatenate([metric.places for metric in group])
        taken = [found for found in series if found]
        if len(taken) < len(series):
            is_plain = np.array([found is not None for found in series])
            heads, times, places = heads[is_plain], times[is_plain], places[is_plain]
        if taken:
            ids = b"".join([found.series_id for found in taken])
            yield Plain(places, taken, ids, times, shape.rows(heads, times, ids))


def _by_shape(metrics: Iterable[MetricPoints]) -> Iterator[tuple[Shape, list[MetricPoints]]]:
    """The points of metrics by the shape that they seem to have; of most metrics it is that of the first."""
    groups: dict[Shape, list[MetricPoints]] = {}
    for metric in metrics:
        first = _shape_of(metric.points[0])
        if first and len(set(map(itemgetter(first.last_tag), metric.points))) == 1:
            groups.setdefault(first, []).append(metric)
        else:
            for shape, some in metric.by_shape():
                groups.setdefault(shape, []).append(some)
    yield from groups.items()
