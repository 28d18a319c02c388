"""OTLP requests to rows, by the declarations. Pure: the time is an argument.

A number point whose metric, kind and attributes a declaration names becomes a cell of a typed row; every other point
goes to ``otel_metric_point``, and so does, beside its cell, one with exemplars. A log record whose event a declaration
gives a table becomes a row of that, every other one of ``otel_log``. What no column can hold becomes a dead letter,
alone, with its reason. Every point and record is counted in the ledger under the hour of its own time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, DataPointFlags, Metric, NumberDataPoint

from postel.otlp.signal import ExportRequest, Signal
from postel.signals import Column, Declarations, Kind, Table
from timescale_sink.ingest import numbers, wire
from timescale_sink.ingest.letters import Part, bury
from timescale_sink.ingest.numbers import MetricPoints
from timescale_sink.ingest.points import point_row
from timescale_sink.ingest.records import RecordMapper
from timescale_sink.ingest.rows import POINTS, Rows, WideKey, WideRow
from timescale_sink.ingest.series import MetricIdentity, Origin, encode_scope, metric_identity, origin_of
from timescale_sink.ingest.sightings import see
from timescale_sink.ingest.values import (
    AHEAD,
    UnstorableError,
    attributes,
    by_hour,
    finite,
    from_microseconds,
    hour,
    hour_of_letter,
    is_key,
    key_text,
    microseconds,
    moment,
    optional_instant,
    whole,
)

_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_NO_VALUE = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK


@dataclass(frozen=True, slots=True)
class _Feed:
    kind: Kind
    column: Column
    table: Table
    when: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Above:
    """What stands above points."""

    identity: MetricIdentity
    metric: Metric
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class _Output:
    """Where what a request becomes is put.

    Attributes:
        now: what lies far ahead of it is refused.
        reasons: of each point that became a dead letter, why.
    """

    now: datetime
    rows: Rows
    reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Heard:
    """When a resource spoke last, as far as a table can hold what it said."""

    origin: Origin
    last: datetime | None = None

    def at(self, time: datetime | None) -> None:
        """It did at this time; None: nothing that a table can hold."""
        if time and (self.last is None or time > self.last):
            self.last = time


@dataclass(frozen=True, slots=True)
class _Generic:
    """A metric of which all points are numbers for ``otel_metric_point``, which can hold them."""

    above: _Above
    points: MetricPoints
    heard: _Heard


class Mapper:
    """Maps requests by one set of declarations."""

    def __init__(self, declarations: Declarations) -> None:
        self._feeds: dict[str, list[_Feed]] = {}
        for metric in declarations.metrics.values():
            for column in metric.columns:
                feed = _Feed(metric.kind, column, declarations.tables[column.table], dict(column.when))
                self._feeds.setdefault(metric.name, []).append(feed)
        self._records = RecordMapper(declarations)
        self._series = numbers.SeriesBook()

    def map(
        self, signal: Signal, request: ExportRequest, now: datetime, rows: Rows, encoded: bytes | None = None
    ) -> list[str]:
        """Add a request's rows to those that are there.

        Args:
            signal: what it is.
            request: checked, as every decoder does it.
            now: what lies far ahead of it is refused.
            rows: they grow.
            encoded: the request as protobuf, where it came so.

        Returns:
            For each of its points or records that became a dead letter, why.
        """
        if signal is Signal.METRICS:
            return self._map_metrics(request, _Output(now, rows))
        return self._records.map(request, now, rows, encoded)

    def _map_metrics(self, request: Any, output: _Output) -> list[str]:
        generic: list[_Generic] = []
        heard: list[_Heard] = []
        for resource_metrics, scopes in _with_points(request):
            origin = origin_of(resource_metrics.resource)
            heard.append(_Heard(origin))
            resource_part = Part(resource_metrics)
            for scope_metrics, metrics in scopes:
                scope = encode_scope(scope_metrics.scope)
                scope_part = Part(scope_metrics)
                for metric in metrics:
                    identity = metric_identity(origin, scope, metric)
                    above = _Above(identity, metric, (resource_part, scope_part, Part(metric)))
                    if self._is_generic(above):
                        generic.append(_Generic(above, _gather(above, output.rows), heard[-1]))
                    else:
                        for point in _points(metric):
                            heard[-1].at(self._take_point(above, point, output))
        self._take_numbers(generic, output)
        for each in heard:
            if each.last:
                see(output.rows, each.origin, each.last)
        return output.reasons

    def _is_generic(self, above: _Above) -> bool:
        """Whether all points of a metric are numbers for ``otel_metric_point``, which can hold them."""
        identity = above.identity
        return (
            identity.kind in ("gauge", "sum")
            and identity.name not in self._feeds
            and not identity.origin.fault
            and is_key(identity.name)
        )

    def _take_numbers(self, generic: Sequence[_Generic], output: _Output) -> None:
        """Map the points of all metrics that are generic: the plain ones together, each other one by itself."""
        if not generic:
            return
        rows = output.rows
        firsts = np.array([each.points.places[0] for each in generic])
        latest = np.full(len(generic), -1)
        plain_places = [np.empty(0, np.int64)]
        for plain in numbers.read([each.points for each in generic], microseconds(output.now + AHEAD), self._series):
            # Of a series that is told in several ways the first counts, as in the database.
            for series_id, row in plain.series:
                rows.series.setdefault(series_id, row)
            rows.points.extend(plain.places, plain.ids, plain.times, plain.rows)
            for at, count in by_hour(plain.times.tolist()):
                rows.tally(at, POINTS).received += count
            np.maximum.at(latest, np.searchsorted(firsts, plain.places, "right") - 1, plain.times)
            plain_places.append(plain.places)
        for each, time in zip(generic, latest.tolist(), strict=True):
            each.heard.at(from_microseconds(time) if time >= 0 else None)
        places, plain_ones = np.concatenate([each.points.places for each in generic]), np.concatenate(plain_places)
        if len(plain_ones) == len(places):
            return
        for place in places[~np.isin(places, plain_ones)].tolist():
            each = generic[int(np.searchsorted(firsts, place, "right")) - 1]
            point = NumberDataPoint.FromString(each.points.points[place - int(each.points.places[0])])
            each.heard.at(self._take_point(each.above, point, output, place))

    def _take_point(self, above: _Above, point: Any, output: _Output, place: int | None = None) -> datetime | None:
        """The point's time; None where it became a dead letter."""
        try:
            return self._map_point(above, point, output, place)
        except UnstorableError as error:
            output.reasons.append(str(error))
            return None

    def _map_point(self, above: _Above, point: Any, output: _Output, place: int | None) -> datetime:
        """The point's time.

        Raises:
            UnstorableError: the point became a dead letter.
        """
        identity, metric = above.identity, above.metric
        feed, zone = self._feed(metric, point)
        destination = feed.table.name if feed else POINTS
        try:
            identity.origin.check()
            at = moment(point.time_unix_nano, output.now)
            if feed:
                self._add_cell(identity.origin, (feed, zone), point, at, output.rows)
            if not feed or point.exemplars:
                # A row of many points has no place for what one of them was made of (0199).
                _add_point(identity, point, at, output.rows, place)
        except UnstorableError as error:
            at = hour_of_letter(point.time_unix_nano, output.now)
            bury(output.rows, point, above.parts, destination=destination, reason=str(error), at=at)
            raise
        return at

    def _feed(self, metric: Metric, point: Any) -> tuple[_Feed | None, str]:
        feeds = [feed for feed in self._feeds.get(metric.name, ()) if _is_as_declared(metric, feed)]
        # Told to have no value, a point may still bring a number: in a counter's column a 0 would be a reading.
        if not feeds or point.flags & _NO_VALUE or point.WhichOneof("value") is None:
            return None, ""
        found = attributes(point.attributes)
        for feed in feeds:
            others = dict(found)
            zone = others.pop(feed.table.zone, "") if feed.table.zone else ""
            if others == feed.when:
                return feed, str(zone)
        return None, ""

    @staticmethod
    def _add_cell(origin: Origin, where: tuple[_Feed, str], point: NumberDataPoint, at: datetime, rows: Rows) -> None:
        feed, zone = where
        value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        cell = whole(value) if feed.column.type == "bigint" else finite(value)
        key = WideKey(origin.node_id, origin.instance, key_text(zone, "the zone"), at)
        table = rows.wide.setdefault(feed.table.name, {})
        row = table.setdefault(key, WideRow(key))
        tally = rows.tally(hour(at), feed.table.name)
        tally.received += 1
        if feed.column.name in row.cells:
            tally.duplicate += 1
            tally.conflicting += row.cells[feed.column.name] != cell
            return
        row.cells[feed.column.name] = cell
        if feed.column.counter and row.started_at is None:
            row.started_at = optional_instant(point.start_time_unix_nano)
        for column, attribute in feed.table.labels.items():
            if attribute in origin.resource:
                row.labels[column] = str(origin.resource[attribute])


def _points(metric: Metric) -> Sequence[Any]:
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()


def _with_points(request: Any) -> Iterator[tuple[Any, list[tuple[Any, list[Metric]]]]]:
    """The ResourceMetrics of a request, each with its ScopeMetrics, each with its metrics.

    Without what has no points: nothing is made of it, and a request may have millions of that.
    """
    for resource_metrics in request.resource_metrics:
        scopes = [
            (scope_metrics, metrics)
            for scope_metrics in resource_metrics.scope_metrics
            if (metrics := [metric for metric in scope_metrics.metrics if _points(metric)])
        ]
        if scopes:
            yield resource_metrics, scopes


def _gather(above: _Above, rows: Rows) -> MetricPoints:
    """The points of a metric by their bytes, with their places."""
    data = getattr(above.metric, above.identity.kind)
    points = wire.Points.FromString(data.SerializeToString()).data_points[:]
    first = rows.points.reserve(len(points))
    return MetricPoints(above.identity, np.arange(first, first + len(points)), points)


def _is_as_declared(metric: Metric, feed: _Feed) -> bool:
    """Whether the values are of the declared kind: a delta, say, in a column of totals would be read as a total."""
    if metric.WhichOneof("data") != feed.kind:
        return False
    if feed.kind is Kind.GAUGE:
        return True
    # The sums that can be declared are cumulative.
    data = metric.sum
    return data.is_monotonic == feed.column.counter and data.aggregation_temporality == _CUMULATIVE


def _add_point(identity: MetricIdentity, point: Any, at: datetime, rows: Rows, place: int | None) -> None:
    key_text(identity.name, "the metric's name")
    series = identity.series(list(point.attributes))
    rows.series.setdefault(series.series_id.bytes, series)
    row = point_row(series.series_id, identity.kind, point, at)
    rows.points.add(row, rows.points.reserve(1) if place is None else place)
    rows.tally(hour(at), POINTS).received += 1
