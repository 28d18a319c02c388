"""The mapping takes whatever a decoder lets through: no exception, and every point and record has a fate."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from postel.otlp.signal import Signal
from postel.signals import Declarations, Kind, load_all
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.rows import Rows

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)
MAPPER = Mapper(load_all())

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
any_floats = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0])
int64s = st.integers(-(2**63), 2**63 - 1)
uint64s = st.integers(0, 2**64 - 1)
times = st.one_of(st.just(0), st.just(1_768_471_200_000_000_000), uint64s)
values: st.SearchStrategy[AnyValue] = st.recursive(
    st.one_of(
        st.builds(AnyValue),
        st.builds(AnyValue, string_value=words),
        st.builds(AnyValue, int_value=int64s),
        st.builds(AnyValue, double_value=any_floats),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, bytes_value=st.binary(max_size=8)),
    ),
    lambda inner: st.builds(
        lambda pairs: AnyValue(kvlist_value=KeyValueList(values=pairs)),
        st.lists(st.builds(KeyValue, key=words, value=inner), max_size=3),
    ),
    max_leaves=4,
)
EVENTS = sorted(event.name for event in load_all().events.values() if event.row)
FEEDS = sorted({name for t in load_all().event_tables.values() for c in t.columns for name in c.attributes})
names = st.sampled_from(
    [*FEEDS, "host.id", "service.instance.id", "zonemta.zone", "zonemta.outcome", "log.record.uid", "k"]
)
pairs = st.lists(st.builds(KeyValue, key=st.one_of(names, words), value=values), max_size=4)
numbers = st.lists(
    st.one_of(
        st.builds(NumberDataPoint, time_unix_nano=times, as_int=int64s, attributes=pairs, start_time_unix_nano=times),
        st.builds(NumberDataPoint, time_unix_nano=times, as_double=any_floats, flags=st.integers(0, 2**32 - 1)),
    ),
    max_size=4,
)
histograms = st.lists(
    st.builds(
        HistogramDataPoint,
        time_unix_nano=times,
        count=uint64s,
        sum=any_floats,
        bucket_counts=st.lists(uint64s, max_size=3),
        explicit_bounds=st.lists(any_floats, max_size=3),
    ),
    max_size=2,
)
exponentials = st.lists(
    st.builds(ExponentialHistogramDataPoint, time_unix_nano=times, count=uint64s, zero_threshold=any_floats), max_size=2
)
summaries = st.lists(st.builds(SummaryDataPoint, time_unix_nano=times, count=uint64s, sum=any_floats), max_size=2)
metric_names = st.one_of(st.sampled_from(sorted(load_all().metrics)), words)
metrics = st.one_of(
    st.builds(Metric, name=metric_names, gauge=st.builds(Gauge, data_points=numbers)),
    st.builds(
        Metric,
        name=metric_names,
        sum=st.builds(
            Sum, data_points=numbers, is_monotonic=st.booleans(), aggregation_temporality=st.sampled_from([0, 1, 2])
        ),
    ),
    st.builds(Metric, name=metric_names, histogram=st.builds(Histogram, data_points=histograms)),
    st.builds(
        Metric, name=metric_names, exponential_histogram=st.builds(ExponentialHistogram, data_points=exponentials)
    ),
    st.builds(Metric, name=metric_names, summary=st.builds(Summary, data_points=summaries)),
    st.builds(Metric, name=metric_names),
)
resources = st.builds(Resource, attributes=pairs)
metric_requests = st.builds(
    lambda resource, found: ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[ScopeMetrics(metrics=found)])]
    ),
    resources,
    st.lists(metrics, max_size=4),
)
log_requests = st.builds(
    lambda resource, found: ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=resource, scope_logs=[ScopeLogs(log_records=found)])]
    ),
    resources,
    st.lists(
        st.builds(
            LogRecord,
            time_unix_nano=times,
            observed_time_unix_nano=times,
            severity_number=st.integers(-(2**31), 2**31 - 1),
            event_name=st.one_of(words, st.sampled_from(["postel.node.registered", "x" * 600, *EVENTS])),
            body=values,
            attributes=pairs,
            trace_id=st.binary(max_size=20),
            flags=st.integers(0, 2**32 - 1),
        ),
        max_size=4,
    ),
)


def _count(request: Any) -> int:
    if isinstance(request, ExportLogsServiceRequest):
        return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
    found = [m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics]
    return sum(len(getattr(m, kind).data_points) for m in found if (kind := m.WhichOneof("data")))


@settings(max_examples=300)
@given(
    st.one_of(
        st.tuples(st.just(Signal.METRICS), metric_requests),
        st.tuples(st.just(Signal.LOGS), log_requests),
    )
)
def test_every_point_and_record_has_exactly_one_fate(sent: tuple[Signal, Any]) -> None:
    rows = Rows()
    dead = MAPPER.map(*sent, NOW, rows)
    stored = len(rows.points) + sum(len(r.cells) for t in rows.wide.values() for r in t.values())
    stored += sum(map(len, rows.logs.values()))
    duplicate = sum(tally.duplicate for tally in rows.ledger.values())
    assert _count(sent[1]) == rows.records == stored + duplicate + len(rows.dead)
    assert len(rows.dead) <= len(dead)
    assert {letter.reason for letter in rows.dead.values()} <= set(dead)
    again = Rows()
    MAPPER.map(*sent, NOW, again)
    assert (again.points.keys(), again.dead.keys()) == (rows.points.keys(), rows.dead.keys())
    assert {t: found.keys() for t, found in again.logs.items()} == {t: found.keys() for t, found in rows.logs.items()}


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
        assert (len(rows.wide), len(rows.points)) == ((1, 0) if typed else (0, 1)), (monotonic, temporality)


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
