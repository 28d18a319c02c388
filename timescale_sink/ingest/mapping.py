"""OTLP requests to rows, by the declarations. Pure: the time is an argument.

A number point whose metric, kind and attributes a declaration names becomes a cell of a typed row; every other point
goes to ``otel_metric_point``. A log record whose event a declaration gives a table becomes a row of that, every other
one of ``otel_log``. What no column can hold becomes a dead letter, alone, with its reason. Every point and record is
counted in the ledger under the hour of its own time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, NumberDataPoint

from postel.otlp.signal import ExportRequest, Signal
from postel.signals import Column, Declarations, Kind, Table
from timescale_sink.ingest import numbers, wire
from timescale_sink.ingest.letters import Part, bury
from timescale_sink.ingest.points import differ, point_row
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
            return self._map_metrics(request, now, rows)
        return self._records.map(request, now, rows, encoded)

    def _map_metrics(self, request: Any, now: datetime, rows: Rows) -> list[str]:
        reasons: list[str] = []
        for resource_metrics in request.resource_metrics:
            origin = origin_of(resource_metrics.resource)
            resource_part = Part(resource_metrics)
            seen: datetime | None = None
            for scope_metrics in resource_metrics.scope_metrics:
                scope = encode_scope(scope_metrics.scope)
                scope_part = Part(scope_metrics)
                for metric in scope_metrics.metrics:
                    identity = metric_identity(origin, scope, metric)
                    above = _Above(identity, metric, (resource_part, scope_part, Part(metric)))
                    take = self._take_numbers if self._is_generic(above) else self._take_points
                    if at := take(above, now, rows, reasons):
                        seen = max(seen or at, at)
            if seen:
                see(rows, origin, seen)
        return reasons

    def _is_generic(self, above: _Above) -> bool:
        """Whether all points of a metric are numbers for ``otel_metric_point``, which can hold them."""
        identity = above.identity
        return (
            identity.kind in ("gauge", "sum")
            and identity.name not in self._feeds
            and not identity.origin.fault
            and is_key(identity.name)
        )

    def _take_points(self, above: _Above, now: datetime, rows: Rows, reasons: list[str]) -> datetime | None:
        """Map a metric's points; the latest time of those that a table can hold."""
        times = [at for point in _points(above.metric) if (at := self._take_point(above, point, now, rows, reasons))]
        return max(times, default=None)

    def _take_point(self, above: _Above, point: Any, now: datetime, rows: Rows, reasons: list[str]) -> datetime | None:
        """The point's time; None where it became a dead letter."""
        try:
            return self._map_point(above, point, now, rows)
        except UnstorableError as error:
            reasons.append(str(error))
            return None

    def _take_numbers(self, above: _Above, now: datetime, rows: Rows, reasons: list[str]) -> datetime | None:
        """As `_take_points`, by `numbers`: of a metric that `_is_generic`."""
        page = self._series.page(above.identity)
        data = getattr(above.metric, above.identity.kind)
        last = microseconds(now + AHEAD)
        moments = numbers.Moments()
        times: list[int] = []
        seen: datetime | None = None
        for encoded in wire.Points.FromString(data.SerializeToString()).data_points:
            plain = numbers.read(encoded, moments)
            series = plain and (page.get(plain[2]) or self._new_series(above.identity, page, plain[2], encoded))
            if not plain or not series or plain[0][0] > last:
                at = self._take_point(above, NumberDataPoint.FromString(encoded), now, rows, reasons)
                seen = max(seen or at, at) if at else seen
                continue
            (time, middle), value, _ = plain
            series_id, begin, series_row = series
            times.append(time)
            row = begin + middle + value
            stored = rows.points.setdefault((series_id, time), row)
            if stored is row:
                rows.series[series_id] = series_row
            else:
                tally = rows.tally(hour(from_microseconds(time)), POINTS)
                tally.duplicate += 1
                tally.conflicting += differ(stored, row)
        for at, count in by_hour(times):
            rows.tally(at, POINTS).received += count
        if times:
            at = from_microseconds(max(times))
            seen = max(seen or at, at)
        return seen

    def _new_series(
        self, identity: MetricIdentity, page: dict[bytes, numbers.Series], rest: bytes, encoded: bytes
    ) -> numbers.Series | None:
        """The series of a plain point that is met for the first time; None where the point is not plain after all."""
        point = NumberDataPoint.FromString(encoded)
        if point.flags or point.exemplars:
            return None
        series = numbers.series_of(identity.series(list(point.attributes)))
        self._series.add(page, rest, series)
        return series

    def _map_point(self, above: _Above, point: Any, now: datetime, rows: Rows) -> datetime:
        """The point's time.

        Raises:
            UnstorableError: the point became a dead letter.
        """
        identity, metric = above.identity, above.metric
        feed, zone = self._feed(metric, point)
        destination = feed.table.name if feed else POINTS
        try:
            identity.origin.check()
            at = moment(point.time_unix_nano, now)
            if feed:
                self._add_cell(identity.origin, (feed, zone), point, at, rows)
            else:
                _add_point(identity, metric.WhichOneof("data") or "", point, at, rows)
        except UnstorableError as error:
            at = hour_of_letter(point.time_unix_nano, now)
            bury(rows, point, above.parts, destination=destination, reason=str(error), at=at)
            raise
        return at

    def _feed(self, metric: Metric, point: Any) -> tuple[_Feed | None, str]:
        feeds = [feed for feed in self._feeds.get(metric.name, ()) if _is_as_declared(metric, feed)]
        if not feeds or point.WhichOneof("value") is None:
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


def _points(metric: Metric) -> Iterator[Any]:
    kind = metric.WhichOneof("data")
    return iter(getattr(metric, kind).data_points if kind else ())


def _is_as_declared(metric: Metric, feed: _Feed) -> bool:
    """Whether the values are of the declared kind: a delta, say, in a column of totals would be read as a total."""
    if metric.WhichOneof("data") != feed.kind:
        return False
    if feed.kind is Kind.GAUGE:
        return True
    # The sums that can be declared are cumulative.
    data = metric.sum
    return data.is_monotonic == feed.column.counter and data.aggregation_temporality == _CUMULATIVE


def _add_point(identity: MetricIdentity, kind: str, point: Any, at: datetime, rows: Rows) -> None:
    key_text(identity.name, "the metric's name")
    series = identity.series(list(point.attributes))
    row = point_row(series.series_id, kind, point, at)
    tally = rows.tally(hour(at), POINTS)
    tally.received += 1
    key = (series.series_id.bytes, microseconds(at))
    if key in rows.points:
        tally.duplicate += 1
        tally.conflicting += differ(rows.points[key], row)
        return
    rows.series.setdefault(series.series_id.bytes, series)
    rows.points[key] = row
