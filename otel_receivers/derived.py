"""What the declarations make of events: from records of logs to the measurements that they are. Pure.

A metric with ``source: {events: ...}`` is derived from the events of a mail server's plugin. An event may claim
anything: what does not fit the declaration of an attribute (another type, no value of its enum, an endless text) is as
if it were not there, and a value that cannot be meant (negative, not finite, beyond 2^53) is not recorded. What is
measured is counted by :mod:`otel_receivers.totals`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from postel.signals import Attribute, AttributeValue, Declarations, Kind, Metric
from postel.signals.derivation import is_derived

UID_BYTES = 16
# Of an attribute's text that tells series apart.
_TEXT = 256
# Of a value; every whole number below it is a double of its own.
_MOST = 2.0**53
# Series that a rule knows by heart.
_SERIES_KEPT = 1_000
_UID = "log.record.uid"
_FIELD = {"string": "string_value", "int": "int_value", "double": "double_value", "boolean": "bool_value"}


class Instance(NamedTuple):
    """Who sent an event: one instance of a program on one node, as the resource says.

    Attributes:
        source: the ``type`` of the declaration that the event belongs to.
        service: ``service.name``.
        host_id: ``host.id``.
        id: ``service.instance.id``.
    """

    source: str
    service: str
    host_id: str
    id: str


class Series(NamedTuple):
    """What tells a metric's points of one instance apart: attributes, in the order of their names."""

    metric: str
    attributes: tuple[tuple[str, AttributeValue], ...]


class Measurement(NamedTuple):
    """One value of one event; ``bounds``: of the histogram that it goes into, None where it is added to a sum."""

    series: Series
    value: float
    bounds: tuple[float, ...] | None


class Occurrence(NamedTuple):
    """An event as far as metrics are concerned.

    Attributes:
        uid: `UID_BYTES` that are the same whenever the event comes again.
        instance: who sent it.
        host_name: ``host.name``.
        measurements: none where it only tells that the sender lives, as heartbeats do.
    """

    uid: bytes
    instance: Instance
    host_name: str
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one event leads to one metric."""

    metric: str
    fixed: Mapping[str, AttributeValue]
    bounds: tuple[float, ...] | None
    carried: tuple[tuple[str, Attribute], ...]
    value: str | None
    when: Mapping[str, Collection[AttributeValue]]
    # By the values that are carried over, for most events lead to few series.
    series: dict[tuple[AttributeValue | None, ...], Series] = field(default_factory=dict)

    @property
    def asks(self) -> set[str]:
        """The attributes of the event that it looks at."""
        return {*self.when, *(name for name, _ in self.carried), *([self.value] if self.value else [])}

    def measure(self, found: Mapping[str, AttributeValue]) -> Measurement | None:
        """The measurement that an event with these attributes is; None where it is none."""
        for name, values in self.when.items():
            if found.get(name) not in values:
                return None
        value = 1 if self.value is None else _amount(found.get(self.value))
        if value is None:
            return None
        carried = tuple(found.get(theirs) for theirs, _ in self.carried)
        series = self.series.get(carried)
        if series is None:
            if len(self.series) >= _SERIES_KEPT:
                self.series.clear()
            series = self.series[carried] = self._series(carried)
        return Measurement(series, value, self.bounds)

    def _series(self, carried: Iterable[AttributeValue | None]) -> Series:
        attributes = dict(self.fixed)
        for (_, attribute), value in zip(self.carried, carried, strict=True):
            if value is not None and (not attribute.enum or value in attribute.enum):
                attributes[attribute.name] = value
        return Series(self.metric, tuple(sorted(attributes.items())))


class Derivation:
    """Knows which metrics which events lead to."""

    def __init__(self, declarations: Declarations) -> None:
        self._rules: dict[str, list[_Rule]] = {}
        # Event -> attribute that a rule asks for -> the field of an AnyValue that holds its declared type.
        self._fields: dict[str, dict[str, str]] = {}
        self._events: dict[str, tuple[str, str]] = {}
        self._scopes: dict[str, tuple[str, str]] = {}
        for declaration in declarations:
            derived = [metric for metric in declaration.metrics.values() if is_derived(metric)]
            if not derived:
                continue
            self._scopes[declaration.scope] = (declaration.type, declaration.service)
            self._events |= dict.fromkeys(declaration.events, (declaration.type, declaration.service))
            for metric in derived:
                for event, fixed in metric.source["events"].items():
                    rule = _rule(metric, fixed, declaration.attributes)
                    self._rules.setdefault(event, []).append(rule)
                    self._fields.setdefault(event, {_UID: "string_value"}).update(
                        {name: _FIELD[declaration.attributes[name].type] for name in rule.asks}
                    )

    def occurrences(self, request: ExportLogsServiceRequest) -> list[Occurrence]:
        """The events of sources that have derived metrics, in order."""
        return [
            occurrence
            for resource_logs in request.resource_logs
            for scope_logs in resource_logs.scope_logs
            for occurrence in self._of_scope(resource_logs.resource, scope_logs.scope.name, scope_logs.log_records)
        ]

    def _of_scope(self, resource: Resource, scope: str, records: Sequence[LogRecord]) -> Iterator[Occurrence]:
        said: dict[str, str] | None = None
        for record in records:
            # A heartbeat is no event of a source's own; its scope says whose plugin lives.
            source = self._events.get(record.event_name) or self._scopes.get(scope)
            if source is None:
                continue
            said = _texts(resource) if said is None else said
            instance = Instance(
                source[0],
                said.get("service.name") or source[1],
                said.get("host.id", ""),
                said.get("service.instance.id", ""),
            )
            found = _found(record.attributes, self._fields.get(record.event_name, {}))
            rules = self._rules.get(record.event_name, ())
            measurements = tuple(measured for rule in rules if (measured := rule.measure(found)) is not None)
            uid = _uid(record, instance, found) if measurements else b""
            yield Occurrence(uid, instance, said.get("host.name", ""), measurements)


def _rule(metric: Metric, fixed: Mapping[str, AttributeValue], declared: Mapping[str, Attribute]) -> _Rule:
    source = metric.source
    return _Rule(
        metric=metric.name,
        fixed=dict(fixed),
        bounds=metric.bounds if metric.kind is Kind.HISTOGRAM else None,
        carried=tuple((theirs, declared[ours]) for theirs, ours in source["attributes"].items()),
        value=source.get("value"),
        when={name: frozenset(values) for name, values in source["when"].items()},
    )


def _amount(value: AttributeValue | None) -> float | None:
    if value is None or isinstance(value, str) or not 0 <= value <= _MOST:
        return None
    return value


def _found(pairs: Iterable[KeyValue], fields: Mapping[str, str]) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    if not fields:
        return found
    for pair in pairs:
        field = fields.get(pair.key)
        if field is not None and (value := _read(pair.value, field)) is not None:
            found[pair.key] = value
    return found


def _read(value: AnyValue, field: str) -> AttributeValue | None:
    """The value where it has the declared type. A double that is whole may come as an int."""
    given = value.WhichOneof("value")
    if given != field and not (field == "double_value" and given == "int_value"):
        return None
    found: AttributeValue = getattr(value, given)
    if isinstance(found, str):
        return found if len(found) <= _TEXT else None
    return found if math.isfinite(found) else None


def _texts(resource: Resource) -> dict[str, str]:
    return {pair.key: pair.value.string_value[:_TEXT] for pair in resource.attributes if pair.value.string_value}


def _uid(record: LogRecord, instance: Instance, found: Mapping[str, AttributeValue]) -> bytes:
    """The record's UUID; a hash of an id that is none, with its time; a hash of all that it says where it has no id."""
    uid = str(found.get(_UID, ""))
    try:
        own = bytes.fromhex(uid.replace("-", ""))
    except ValueError:
        own = b""
    if len(own) == UID_BYTES:
        return own
    said = f"{uid} {record.time_unix_nano}".encode() if uid else record.SerializeToString(deterministic=True)
    parts = (instance.source, instance.service, instance.host_id, instance.id)
    return hashlib.blake2b("\0".join(parts).encode() + b"\0" + said, digest_size=UID_BYTES).digest()
