"""A range of a request's records, as a request of its own: how one that is too large for a transaction is written.

Pure. A record is a data point or a log record; they are numbered from 0 in the order of the request.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from postel.otlp.signal import ExportRequest, Signal


@dataclass(frozen=True, slots=True)
class _Holder:
    """What holds records side by side, with what stands above it: a Metric, or the ScopeLogs themselves.

    Attributes:
        above: bytes of what stands above each record, which some rows repeat.
    """

    resource: Any
    scope: Any
    holder: Any
    records: Any
    above: int


class Slices:
    """A request that any range of records can be cut from.

    Args:
        signal: what the request is.
        request: not changed, and not to be changed meanwhile.
    """

    def __init__(self, signal: Signal, request: ExportRequest) -> None:
        self._signal = signal
        self._holders = list(_holders(signal, request))
        self._ends = list(accumulate(len(holder.records) for holder in self._holders))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def repeated(self, start: int, stop: int) -> int:
        """Bytes that rows of these records hold beside their own, where each repeats what stands above it."""
        total = 0
        for position in range(bisect_right(self._ends, start), len(self._holders)):
            found = self._holders[position]
            first = self._ends[position] - len(found.records)
            if first >= stop:
                break
            total += (min(self._ends[position], stop) - max(first, start)) * found.above
        return total

    def reach(self, start: int, records: int, repeated: int) -> int:
        """Where a piece ends that begins with ``start``.

        Args:
            start: its first record.
            records: how many it holds at most.
            repeated: the bytes that it repeats at most, unless one record alone repeats more.
        """
        stop = start
        for position in range(bisect_right(self._ends, start), len(self._holders)):
            above = self._holders[position].above
            taken = min(self._ends[position] - stop, start + records - stop, repeated // above if above else records)
            stop += taken
            repeated -= taken * above
            if stop < self._ends[position]:
                break
        return max(stop, min(start + 1, len(self)))

    def cut(self, start: int, stop: int) -> ExportRequest:
        """The records from ``start`` up to, not including, ``stop``, below the same resources, scopes and metrics."""
        piece = self._signal.request_class()
        above: tuple[Any, Any] = (None, None)
        resource_part: Any = None
        scope_part: Any = None
        for position in range(bisect_right(self._ends, start), len(self._holders)):
            found = self._holders[position]
            first = self._ends[position] - len(found.records)
            if first >= stop:
                break
            if above[0] is not found.resource:
                resource_part = _parts(self._signal, piece).add(schema_url=found.resource.schema_url)
                resource_part.resource.CopyFrom(found.resource.resource)
            if above[0] is not found.resource or above[1] is not found.scope:
                scope_part = _parts(self._signal, resource_part).add(schema_url=found.scope.schema_url)
                scope_part.scope.CopyFrom(found.scope.scope)
            above = (found.resource, found.scope)
            inside = slice(max(start - first, 0), stop - first)
            if isinstance(found.holder, Metric):
                copy_metric(found.holder, scope_part.metrics.add(), inside)
            else:
                scope_part.log_records.extend(found.records[inside])
        return piece


def _holders(signal: Signal, request: Any) -> Iterator[_Holder]:
    for resource in _parts(signal, request):
        resource_bytes = resource.resource.ByteSize()
        for scope in _parts(signal, resource):
            above = resource_bytes + scope.scope.ByteSize()
            if signal is Signal.LOGS:
                if scope.log_records:
                    yield _Holder(resource, scope, scope, scope.log_records, above)
                continue
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                if kind and (points := getattr(metric, kind).data_points):
                    said = len(metric.name) + len(metric.unit) + len(metric.description)
                    yield _Holder(resource, scope, metric, points, above + said)


def _parts(signal: Signal, message: Any) -> Any:
    """The ResourceMetrics or ResourceLogs of a request, the ScopeMetrics or ScopeLogs of one of these."""
    level = "scope" if message.DESCRIPTOR.name.startswith("Resource") else "resource"
    return getattr(message, f"{level}_{signal.value}")


def copy_metric(metric: Metric, to: Metric, inside: slice) -> None:
    """Copy what a metric says, and of its points those ``inside``; it has a kind."""
    to.name, to.unit, to.description = metric.name, metric.unit, metric.description
    to.metadata.extend(metric.metadata)
    kind = metric.WhichOneof("data") or ""
    source, target = getattr(metric, kind), getattr(to, kind)
    # Set even where it is the default: a sum without points and temporality would read as no data at all.
    target.SetInParent()
    for name in ("aggregation_temporality", "is_monotonic"):
        if name in source.DESCRIPTOR.fields_by_name:
            setattr(target, name, getattr(source, name))
    target.data_points.extend(source.data_points[inside])
