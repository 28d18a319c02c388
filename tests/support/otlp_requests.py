"""Requests as hypothesis makes them: every kind of point and record, with values from all corners of their types."""

from __future__ import annotations

import struct

from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Exemplar,
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

from postel.otlp.signal import ExportRequest, Signal
from postel.signals import load_all

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
exemplars = st.lists(st.builds(Exemplar, time_unix_nano=times, as_double=any_floats, trace_id=st.binary()), max_size=2)
numbers = st.lists(
    st.one_of(
        st.builds(NumberDataPoint, time_unix_nano=times, as_int=int64s, attributes=pairs, start_time_unix_nano=times),
        st.builds(NumberDataPoint, time_unix_nano=times, as_double=any_floats, flags=st.integers(0, 2**32 - 1)),
        st.builds(NumberDataPoint, time_unix_nano=times, as_double=any_floats, attributes=pairs, exemplars=exemplars),
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
# A signal and a request of it.
any_request: st.SearchStrategy[tuple[Signal, ExportRequest]] = st.one_of(
    st.tuples(st.just(Signal.METRICS), metric_requests), st.tuples(st.just(Signal.LOGS), log_requests)
)
