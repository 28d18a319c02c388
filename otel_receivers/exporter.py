"""The exporter end of every source: batches in, serialized OTLP requests of bounded size out.

Pure. Numbers are encoded by ``opentelemetry.exporter.otlp.proto.common``, the SDK's own encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from functools import cache
from typing import Any, TypeVar

from google.protobuf.message import Message
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.sdk.metrics.export import MetricsData

from otel_receivers.receiver import Batch
from otel_receivers.spool_requests import Request
from postel.otlp.signal import Signal
from postel.signals import load_all

_Message = TypeVar("_Message", ExportMetricsServiceRequest, ExportLogsServiceRequest)


def messages(batch: Batch) -> Iterator[ExportMetricsServiceRequest | ExportLogsServiceRequest]:
    """At most one request a signal, of any size; nothing for a batch without content."""
    if batch.metrics:
        request = ExportMetricsServiceRequest()
        for resource_metrics in batch.metrics:
            # One by one: encode_metrics keeps only the last of several ResourceMetrics with an equal resource.
            request.MergeFrom(encode_metrics(MetricsData([resource_metrics])))
        yield request
    if batch.events:
        yield ExportLogsServiceRequest(resource_logs=batch.events)


def requests(batch: Batch, limit: int) -> list[Request]:
    """Serialized requests of at most ``limit`` bytes each; a single point or record above it stands alone."""
    out: list[Request] = []
    for message in messages(batch):
        if isinstance(message, ExportMetricsServiceRequest):
            out += (
                Request(Signal.METRICS, m.SerializeToString(), point_count(m), begins(m))
                for m in _split(message, limit)
            )
        else:
            out += log_requests(message, limit)
    return out


def log_requests(message: ExportLogsServiceRequest, limit: int) -> list[Request]:
    """A request of logs as serialized ones of at most ``limit`` bytes each; a single record above it stands alone."""
    return [
        Request(Signal.LOGS, part.SerializeToString(), record_count(part.resource_logs))
        for part in _split(message, limit)
        if part.resource_logs
    ]


def repeated_bytes(message: ExportLogsServiceRequest) -> int:
    """Bytes that each request made of this one repeats: all that is neither a record nor of other resources."""
    return _own_bytes(message, message.resource_logs) + max(
        (
            _own_bytes(resource, resource.scope_logs)
            + max((_own_bytes(scope, scope.log_records) for scope in resource.scope_logs), default=0)
            for resource in message.resource_logs
        ),
        default=0,
    )


def _own_bytes(message: Message, parts: Iterable[Message]) -> int:
    return message.ByteSize() - sum(_framed_bytes(part.ByteSize()) for part in parts)


def _framed_bytes(size: int) -> int:
    """Of a part within its message: a tag, its length in groups of seven bits, itself (protobuf encoding)."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size


def point_count(request: ExportMetricsServiceRequest) -> int:
    """Data points of a request."""
    return sum(len(_points(metric)) for metric in _metrics(request))


def begins(request: ExportMetricsServiceRequest) -> bool:
    """Whether a counter of a typed table is first met here: a point whose start is its own time.

    Only typed tables have increases that would count the next point in full (:mod:`otel_receivers.epochs`). Of the
    others a point comes like that at most ticks of a host whose interfaces and disks come and go.
    """
    typed = _typed()
    return any(
        point.start_time_unix_nano == point.time_unix_nano
        for metric in _metrics(request)
        if metric.sum.is_monotonic and metric.name in typed
        for point in metric.sum.data_points
    )


@cache
def _typed() -> frozenset[str]:
    """The metrics that feed a typed column."""
    return frozenset(
        metric.name for declaration in load_all() for metric in declaration.metrics.values() if metric.columns
    )


def _metrics(request: ExportMetricsServiceRequest) -> Iterator[Metric]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def record_count(resources: Iterable[ResourceLogs]) -> int:
    """Log records of resources."""
    return sum(len(scope.log_records) for resource in resources for scope in resource.scope_logs)


def _split(message: _Message, limit: int) -> Iterator[_Message]:
    """Halves of halves until each fits; order is kept."""
    level = next((i for i, parts in enumerate(_levels(message)) if len(parts) > 1), None)
    if message.ByteSize() <= limit or level is None:
        yield message
        return
    for part in _halves(message, level):
        yield from _split(part, limit)


def _halves(message: _Message, level: int) -> Iterator[_Message]:
    for keep_first in (True, False):
        half = type(message)()
        half.CopyFrom(message)
        parts = _levels(half)[level]
        middle = len(parts) // 2
        del parts[slice(middle, None) if keep_first else slice(0, middle)]
        yield half


def _levels(message: ExportMetricsServiceRequest | ExportLogsServiceRequest) -> list[MutableSequence[Any]]:
    """The repeated fields from the outermost in, each in the first message of the one before."""
    if isinstance(message, ExportMetricsServiceRequest):
        path = ("resource_metrics", "scope_metrics", "metrics")
    else:
        path = ("resource_logs", "scope_logs", "log_records")
    levels: list[MutableSequence[Any]] = []
    owner: Any = message
    for name in path:
        parts = getattr(owner, name)
        levels.append(parts)
        if not parts:
            return levels
        owner = parts[0]
    if isinstance(owner, Metric):
        levels.append(_points(owner))
    return levels


def _points(metric: Metric) -> MutableSequence[Any]:
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else []
