"""The mapping takes whatever a decoder lets through: no exception, and every point and record has a fate."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from postel.otlp.signal import Signal
from postel.signals import Declarations, Kind, load_all
from support.otlp_requests import any_request
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.rows import POINTS, Rows

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)
MAPPER = Mapper(load_all())


def _count(request: Any) -> int:
    if isinstance(request, ExportLogsServiceRequest):
        return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
    found = [m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics]
    return sum(len(getattr(m, kind).data_points) for m in found if (kind := m.WhichOneof("data")))


def _count_exemplary(request: Any) -> int:
    if isinstance(request, ExportLogsServiceRequest):
        return 0
    found = [m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics]
    points = [p for m in found if (kind := m.WhichOneof("data")) for p in getattr(m, kind).data_points]
    return sum(isinstance(point, NumberDataPoint) and bool(point.exemplars) for point in points)


@settings(max_examples=300)
@given(any_request)
def test_every_point_and_record_has_exactly_one_fate(sent: tuple[Signal, Any]) -> None:
    rows = Rows()
    dead = MAPPER.map(*sent, NOW, rows)
    ordered = rows.ordered()
    stored = sum(map(len, ordered.values())) + sum(len(r.cells) for t in rows.wide.values() for r in t.values())
    duplicate = sum(tally.duplicate for tally in rows.ledger.values())
    assert rows.records == stored + duplicate + len(rows.dead)
    # Beside its cell a point with exemplars is one of the generic table too.
    assert _count(sent[1]) <= rows.records <= _count(sent[1]) + _count_exemplary(sent[1])
    assert len(rows.dead) <= len(dead)
    assert {letter.reason for letter in rows.dead.values()} <= set(dead)
    again = Rows()
    MAPPER.map(*sent, NOW, again)
    assert again.dead.keys() == rows.dead.keys()
    assert {table: repr(found) for table, found in again.ordered().items()} == {
        table: repr(found) for table, found in ordered.items()
    }


def test_a_column_that_is_declared_to_hold_a_sum_that_falls_takes_just_that() -> None:
    """No source declares one yet: a cumulative sum that is not monotonic."""
    declared = load_all()
    system = declared["system"]
    count = system.metric("host_processes")
    falling = replace(count, kind=Kind.SUM)
    mapper = Mapper(
        Declarations({**declared.sources, "system": replace(system, metrics={**system.metrics, falling.name: falling})})
    )
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    delta = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    for monotonic, temporality, typed in ((False, cumulative, True), (True, cumulative, False), (False, delta, False)):
        point = NumberDataPoint(time_unix_nano=1_768_471_200_000_000_000, as_int=1)
        sum_ = Sum(data_points=[point], is_monotonic=monotonic, aggregation_temporality=temporality)
        scope = ScopeMetrics(metrics=[Metric(name=count.name, sum=sum_)])
        request = ExportMetricsServiceRequest(resource_metrics=[ResourceMetrics(scope_metrics=[scope])])
        rows = Rows()
        assert mapper.map(Signal.METRICS, request, NOW, rows) == []
        assert (len(rows.wide), len(rows.ordered()[POINTS])) == ((1, 0) if typed else (0, 1)), (monotonic, temporality)


def test_the_sources_of_a_node_are_read_from_every_event_that_is_declared_to_tell_them() -> None:
    declared = load_all()
    agent = declared["agent"]
    told = "postel.node.sources"
    events = {
        event.name: replace(event, attributes=(*event.attributes, told)) if event.key == "source_lost" else event
        for event in agent.events.values()
    }
    mapper = Mapper(Declarations({**declared.sources, "agent": replace(agent, events=events)}))
    list_ = AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="system")]))
    for key, expected in (("node_registered", ["system"]), ("source_lost", ["system"]), ("node_booted", None)):
        request = ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="n1"))
        record = resource.scope_logs.add().log_records.add(event_name=agent.event(key).name)
        record.attributes.add(key=told, value=list_)
        record.time_unix_nano = 1_768_471_200_000_000_000
        rows = Rows()
        assert mapper.map(Signal.LOGS, request, NOW, rows) == []
        assert rows.nodes["n1"].sources == expected
