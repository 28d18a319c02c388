"""Plain points go from protobuf's bytes to COPY's: what they become is what the way by objects makes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, NumberDataPoint

from postel.otlp.signal import Signal
from postel.signals import load_all
from support.otlp_requests import metric_requests
from timescale_sink.ingest import numbers, wire
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.point_rows import PointRow
from timescale_sink.ingest.rows import POINTS, Rows
from timescale_sink.ingest.series import MetricIdentity, origin_of
from timescale_sink.ingest.values import microseconds

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)
TIME = 1_768_471_200_000_000_000
PLAIN = Mapper(load_all())
BY_OBJECTS = Mapper(load_all())
BY_OBJECTS._is_generic = lambda above: False  # type: ignore[method-assign]  # noqa: ARG005


def mapped(mapper: Mapper, *requests: ExportMetricsServiceRequest) -> dict[str, Any]:
    """All that comes of requests in one transaction, the points with their values."""
    rows = Rows()
    reasons = [mapper.map(Signal.METRICS, request, NOW, rows) for request in requests]
    keyed = rows.ordered()[POINTS]
    points = list(map(PointRow.decode, keyed.rows))
    assert keyed.times == [microseconds(point.time) for point in points]
    assert points == sorted(points, key=lambda point: (point.series_id, point.time))
    return {
        "points": [repr(point) for point in points],
        "reasons": [sorted(each) for each in reasons],
        **{name: getattr(rows, name) for name in ("series", "wide", "dead", "parts", "nodes", "ledger")},
    }


@settings(max_examples=300)
@given(metric_requests, metric_requests)
def test_both_ways_agree(one: ExportMetricsServiceRequest, other: ExportMetricsServiceRequest) -> None:
    assert mapped(PLAIN, one, other, one) == mapped(BY_OBJECTS, one, other, one)


@pytest.mark.parametrize("value", [{"as_int": -(2**63)}, {"as_double": float("nan")}, {"as_double": -0.0}, {}])
@pytest.mark.parametrize("start", [0, 1, TIME, 2**64 - 1])
@pytest.mark.parametrize("time", [0, 999, TIME, TIME + 86_400_000_000_000, TIME + 86_400_000_001_000, 2**64 - 1])
@pytest.mark.parametrize("more", [{}, {"flags": 1}, {"exemplars": [{"as_int": 1}]}])
def test_they_agree_at_every_edge(value: dict[str, Any], start: int, time: int, more: dict[str, Any]) -> None:
    pair = KeyValue(key="k", value=AnyValue(string_value="v"))
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for attributes in ([pair], [], [pair, pair]):
        point = NumberDataPoint(start_time_unix_nano=start, time_unix_nano=time, attributes=attributes, **value, **more)
        scope.metrics.add(name="m", gauge=Gauge(data_points=[point, point]))
    # Twice, since a series that is known is not looked at again.
    for _ in range(2):
        assert mapped(PLAIN, request) == mapped(BY_OBJECTS, request)


@pytest.mark.parametrize("size", [0, 100, 127, 128, 16_383, 16_384, 3_000_000])
def test_points_of_any_size_are_told_apart(size: int) -> None:
    long = NumberDataPoint(
        time_unix_nano=TIME, as_int=1, attributes=[KeyValue(key="k", value=AnyValue(string_value="x" * size))]
    )
    short = NumberDataPoint(time_unix_nano=TIME)
    for points in ([long, short, long], [short], []):
        found = wire.Points.FromString(Gauge(data_points=points).SerializeToString()).data_points
        assert [NumberDataPoint.FromString(each) for each in found] == points


@pytest.mark.parametrize("size", [10, 4000])
def test_what_is_remembered_of_series_is_bounded(size: int) -> None:
    book = numbers.SeriesBook()
    origin = origin_of(ExportMetricsServiceRequest().resource_metrics.add().resource)
    most = 0
    for number in range(80_000 if size < 100 else 10_000):
        identity = MetricIdentity(origin, b"", f"m{number % 7}", "", "gauge", "", monotonic=False, description="")
        page = book.page(identity)
        series = numbers.series_of(identity.series([KeyValue(key="k", value=AnyValue(string_value="x" * size))]))
        attributes = b"%010d" % number + b"x" * (size - 10)
        book.add(page, attributes, series)
        assert page[attributes] is series
        most = max(most, sum(map(len, book._pages.values())))
    assert most * (600 + 2 * size) < 40 << 20
    assert most > 1000


def test_very_long_attributes_are_not_remembered() -> None:
    book = numbers.SeriesBook()
    origin = origin_of(ExportMetricsServiceRequest().resource_metrics.add().resource)
    identity = MetricIdentity(origin, b"", "m", "", "gauge", "", monotonic=False, description="")
    page = book.page(identity)
    book.add(page, b"x" * 5000, numbers.series_of(identity.series([])))
    assert page == {}
