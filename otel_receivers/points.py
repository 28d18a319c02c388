"""Builds points and events through their declaration, so that nothing undeclared leaves a receiver.

A :class:`Recorder` lives for one tick of one resource. It refuses (:class:`UndeclaredError`) keys, attributes and enum
values that the source's ``metadata.yaml`` does not name, values of the wrong type, and the same point twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import uuid_utils
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceProto
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope as SdkScope

from otel_receivers.receiver import Batch, Problem, Tick
from postel import __version__
from postel.signals import SEVERITY_NUMBER, Attribute, AttributeValue, Declaration, Kind
from postel.signals import Metric as DeclaredMetric

Value = str | bool | int | float | Sequence[str] | Mapping[str, float]
Attributes = Mapping[str, Value]

INT64_MAX = 2**63 - 1
# Source: OpenTelemetry specification, Metrics SDK, "Overflow attribute".
OVERFLOW: Mapping[str, AttributeValue] = {"otel.metric.overflow": True}
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "int": int,
    "double": (int, float),
    "boolean": bool,
    "string[]": (list, tuple),
    "map": dict,
}


class UndeclaredError(ValueError):
    """A receiver records what its declaration does not name: a bug of the receiver, found by its tests."""


@dataclass(slots=True)
class _Series:
    metric: DeclaredMetric
    points: dict[frozenset[tuple[str, Value]], NumberDataPoint | HistogramDataPoint] = field(default_factory=dict)


class Recorder:
    """Collects the points and events of one tick and one resource.

    Args:
        declaration: of the source that records.
        resource: who is spoken of (:meth:`otel_receivers.node.Node.resource`).
        tick: its time is the time of all points.
    """

    def __init__(self, declaration: Declaration, resource: Resource, tick: Tick) -> None:
        self._declaration = declaration
        self._resource = resource
        self._tick = tick
        self._series: dict[str, _Series] = {}
        self._events: list[LogRecord] = []
        self._problems: list[Problem] = []

    def number(
        self, key: str, value: float, attributes: Attributes | None = None, *, start_unix_nano: int | None = None
    ) -> None:
        """Record a gauge or sum.

        Args:
            key: of the metric in the declaration.
            value: in the declared unit; an ``int`` metric takes whole numbers within 64 bits only.
            attributes: a subset of the metric's own.
            start_unix_nano: the start of the counter's epoch; needed for a sum (see :mod:`otel_receivers.epochs`).

        Raises:
            UndeclaredError: the declaration does not allow it.
        """
        metric = self._metric(key)
        if metric.kind is Kind.HISTOGRAM:
            raise UndeclaredError(f"{metric.name} is a histogram, not a number")
        if metric.kind is Kind.SUM and start_unix_nano is None:
            raise UndeclaredError(f"{metric.name} is a sum and needs a start")
        if metric.monotonic and value < 0:
            raise UndeclaredError(f"{metric.name} only rises and cannot be {value}")
        checked = self._attributes(metric.name, metric.attributes, attributes or {})
        point = NumberDataPoint(
            checked, start_unix_nano or 0, self._tick.time_unix_nano, number_of(metric.value_type, value)
        )
        self._add(metric, checked, point)

    def histogram(
        self,
        key: str,
        *,
        bounds: Sequence[float],
        counts: Sequence[int],
        total: float,
        lowest: float,
        highest: float,
        start_unix_nano: int,
        attributes: Attributes | None = None,
    ) -> None:
        """Record a cumulative histogram with explicit bounds: ``len(counts) == len(bounds) + 1``.

        Raises:
            UndeclaredError: the declaration does not allow it, or the counts do not fit the bounds.
        """
        metric = self._metric(key)
        if metric.kind is not Kind.HISTOGRAM:
            raise UndeclaredError(f"{metric.name} is no histogram")
        if len(counts) != len(bounds) + 1:
            raise UndeclaredError(f"{metric.name}: {len(counts)} counts do not fit {len(bounds)} bounds")
        checked = self._attributes(metric.name, metric.attributes, attributes or {})
        point = HistogramDataPoint(
            checked,
            start_unix_nano,
            self._tick.time_unix_nano,
            sum(counts),
            total,
            counts,
            bounds,
            lowest,
            highest,
        )
        self._add(metric, checked, point)

    def event(
        self,
        key: str,
        body: str,
        attributes: Attributes | None = None,
        *,
        time_unix_nano: int | None = None,
        uid: str | None = None,
    ) -> None:
        """Record an event.

        Args:
            key: of the event in the declaration.
            body: one readable English line.
            attributes: a subset of the event's own.
            time_unix_nano: when it happened; None: now.
            uid: its id, the same whenever the same occurrence is recorded again; None: a new one.

        Raises:
            UndeclaredError: the declaration does not allow it.
        """
        try:
            event = self._declaration.event(key)
        except KeyError:
            raise UndeclaredError(f"{self._declaration.path} declares no event {key!r}") from None
        checked = self._attributes(event.name, event.attributes, attributes or {})
        now = time.time_ns()
        record = LogRecord(
            time_unix_nano=now if time_unix_nano is None else time_unix_nano,
            observed_time_unix_nano=now,
            severity_number=SEVERITY_NUMBER[event.severity],  # type: ignore[arg-type] # the enum's stub wants its own class
            severity_text=event.severity.value.upper(),
            body=AnyValue(string_value=body),
            attributes=encode_attributes({**checked, "log.record.uid": uid or str(uuid_utils.uuid7())}),
            event_name=event.name,
        )
        self._events.append(record)

    def problem(self, error_type: str, message: str) -> None:
        """Say that a part of the answer was left out."""
        self._problems.append(Problem(error_type, message))

    def batch(self) -> Batch:
        """Everything recorded so far."""
        metrics = [_sdk_metric(series) for series in self._series.values()]
        scope = SdkScope(self._declaration.scope, __version__)
        resource_logs = ResourceLogs(
            resource=ResourceProto(attributes=encode_attributes(self._resource.attributes)),
            scope_logs=[
                ScopeLogs(
                    scope=InstrumentationScope(name=self._declaration.scope, version=__version__),
                    log_records=self._events,
                )
            ],
        )
        return Batch(
            metrics=(ResourceMetrics(self._resource, [ScopeMetrics(scope, metrics, "")], ""),) if metrics else (),
            events=(resource_logs,) if self._events else (),
            problems=tuple(self._problems),
        )

    def _metric(self, key: str) -> DeclaredMetric:
        try:
            return self._declaration.metric(key)
        except KeyError:
            raise UndeclaredError(f"{self._declaration.path} declares no metric {key!r}") from None

    def _attributes(self, owner: str, allowed: Sequence[str], given: Attributes) -> dict[str, Any]:
        if allowed and given == OVERFLOW:
            return dict(OVERFLOW)
        for name, value in given.items():
            if name not in allowed:
                raise UndeclaredError(f"{owner} has no attribute {name!r}; it has {', '.join(allowed) or 'none'}")
            _check_value(owner, self._declaration.attributes[name], value)
        return {name: well_formed(value) if isinstance(value, str) else value for name, value in given.items()}

    def _add(self, metric: DeclaredMetric, attributes: Attributes, point: NumberDataPoint | HistogramDataPoint) -> None:
        series = self._series.setdefault(metric.key, _Series(metric))
        identity = frozenset(attributes.items())
        if identity in series.points:
            raise UndeclaredError(f"{metric.name} {dict(attributes)} is recorded twice in one tick")
        series.points[identity] = point


def number_of(value_type: str, value: float) -> int | float:
    """The value as the declared type.

    Raises:
        UndeclaredError: not finite, or for ``int`` not whole or beyond 64 bits.
    """
    if isinstance(value, bool) or not math.isfinite(value):
        raise UndeclaredError(f"{value!r} is no number for a point")
    if value_type == "double":
        return float(value)
    if value != int(value) or abs(value) > INT64_MAX:
        raise UndeclaredError(f"{value!r} is not a whole number within 64 bits")
    return int(value)


def well_formed(text: str) -> str:
    """The text as OTLP can carry it; bytes that were no UTF-8 where it comes from are written out, each its own."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def encode_attributes(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """OTLP KeyValues of declared attributes (strings, booleans, numbers, lists of strings, maps of numbers)."""
    return [KeyValue(key=key, value=_any_value(value)) for key, value in attributes.items()]


def _any_value(value: Value) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=value)
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case Mapping():
            return AnyValue(kvlist_value=KeyValueList(values=encode_attributes(value)))
        case _:
            return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=item) for item in value]))


def _check_value(owner: str, attribute: Attribute, value: Value) -> None:
    fits = isinstance(value, _TYPES[attribute.type])
    if attribute.type != "boolean" and isinstance(value, bool):
        fits = False
    if not fits:
        raise UndeclaredError(f"{owner}: {attribute.name} = {value!r} is not of type {attribute.type}")
    if attribute.enum and value not in attribute.enum:
        raise UndeclaredError(f"{owner}: {attribute.name} = {value!r} is none of {', '.join(attribute.enum)}")


def _sdk_metric(series: _Series) -> Metric:
    metric = series.metric
    points: list[Any] = list(series.points.values())
    data: Gauge | Sum | Histogram
    if metric.kind is Kind.GAUGE:
        data = Gauge(points)
    elif metric.kind is Kind.SUM:
        data = Sum(points, AggregationTemporality.CUMULATIVE, metric.monotonic)
    else:
        data = Histogram(points, AggregationTemporality.CUMULATIVE)
    return Metric(metric.name, metric.description, metric.unit, data)
