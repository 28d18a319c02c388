"""What the sink counts of itself, and the report that it makes of it: OTLP, by its own declaration. Pure.

To count costs a few additions a transaction. A report has a fixed number of points for each table that data came for,
so that a sink that stores its own reports stores no more for it from one to the next.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, ScopeMetrics

from postel import __version__
from postel.signals import Declaration, Kind, Metric
from timescale_sink.ingest.rows import Tally

# Upper bounds of how long a commit takes, in seconds; the sink gives up after the last.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


@dataclass(frozen=True, slots=True)
class State:
    """How the sink is at the moment of a report.

    Attributes:
        size: bytes in the queue.
        waiting, writing: requests in the queue.
        up: whether the database takes data, as far as is known.
        used, idle: connections.
    """

    size: int = 0
    waiting: int = 0
    writing: int = 0
    up: bool = False
    used: int = 0
    idle: int = 0


@dataclass(slots=True)
class Telemetry:
    """Counts from the start of the process.

    Attributes:
        started: when that was, in nanoseconds since 1970.
        durations: commits by how long they took, in the buckets of `BOUNDS`; the last one has none.
        seconds: of all commits together.
    """

    started: int = field(default_factory=time.time_ns)
    records: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=lambda: Counter(committed=0, retry=0))
    errors: Counter[str] = field(default_factory=Counter)
    durations: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def committed(self, tallies: Mapping[str, Tally], seconds: float) -> None:
        """A transaction is committed: what became of the records for each table, and how long it took."""
        for table, tally in tallies.items():
            self.records[table, "stored"] += tally.stored
            self.records[table, "duplicate"] += tally.duplicate - tally.conflicting
            self.records[table, "conflicting"] += tally.conflicting
            self.records[table, "dead_lettered"] += tally.dead_lettered
        self.durations[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def failed(self, error: Exception) -> None:
        """A transaction is not."""
        self.errors[type(error).__name__] += 1


def report(
    declaration: Declaration, telemetry: Telemetry, state: State, resource: Mapping[str, str], at: int
) -> ExportMetricsServiceRequest:
    """All that is declared, as a request.

    Args:
        declaration: the sink's.
        telemetry: what was counted.
        state: how it is now.
        resource: who speaks, beside the service and its version.
        at: the time of all points, in nanoseconds since 1970.
    """
    request = ExportMetricsServiceRequest()
    above = request.resource_metrics.add()
    above.resource.attributes.extend(
        _attributes({"service.name": declaration.service, "service.version": __version__, **resource})
    )
    scope = above.scope_metrics.add()
    scope.scope.name, scope.scope.version = declaration.scope, __version__
    points = _Points(declaration, scope, telemetry.started, at)
    for (table, fate), count in sorted(telemetry.records.items()):
        points.number("records", count, {"postel.sink.table": table, "postel.sink.fate": fate})
    for answer, count in telemetry.answers.items():
        points.number("requests", count, {"postel.sink.answer": answer})
    for error, count in sorted(telemetry.errors.items()):
        points.number("commit_errors", count, {"error.type": error})
    points.histogram("commit_duration", telemetry.durations, telemetry.seconds)
    points.number("queue_size", state.size)
    points.number("queue_requests", state.waiting, {"postel.sink.queue.state": "waiting"})
    points.number("queue_requests", state.writing, {"postel.sink.queue.state": "writing"})
    points.number("database_up", int(state.up))
    points.number("database_connections", state.used, {"postel.sink.connection.state": "used"})
    points.number("database_connections", state.idle, {"postel.sink.connection.state": "idle"})
    return request


class _Points:
    """Adds points through the declaration: a metric by its reader, and nothing that it does not name."""

    def __init__(self, declaration: Declaration, scope: ScopeMetrics, started: int, at: int) -> None:
        self._metrics = {metric.source["reader"]: metric for metric in declaration.metrics.values()}
        self._scope = scope
        self._data: dict[str, Any] = {}
        self._started, self._at = started, at

    def number(self, reader: str, value: int, attributes: Mapping[str, str] | None = None) -> None:
        metric = self._metrics[reader]
        point = self._of(metric).data_points.add(time_unix_nano=self._at, as_int=value)
        point.attributes.extend(_attributes(attributes or {}))
        if metric.kind is Kind.SUM:
            point.start_time_unix_nano = self._started

    def histogram(self, reader: str, counts: list[int], total: float) -> None:
        metric = self._metrics[reader]
        self._of(metric).data_points.add(
            start_time_unix_nano=self._started,
            time_unix_nano=self._at,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=BOUNDS,
        )

    def _of(self, metric: Metric) -> Any:
        """The Gauge, Sum or Histogram of a metric, made when its first point comes."""
        if metric.name not in self._data:
            made = self._scope.metrics.add(name=metric.name, unit=metric.unit, description=metric.description)
            data = self._data[metric.name] = getattr(made, metric.kind.value)
            if metric.kind is not Kind.GAUGE:
                data.aggregation_temporality = _CUMULATIVE
            if metric.kind is Kind.SUM:
                data.is_monotonic = metric.monotonic
        return self._data[metric.name]


def _attributes(found: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in found.items()]
