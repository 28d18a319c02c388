"""The identity of a metric's points: what a series is, and its id. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from timescale_sink.ingest.rows import SeriesRow
from timescale_sink.ingest.values import UnstorableError, attributes, canonical, fingerprint, key_text, text

_TEMPORALITY: Mapping[int, str] = {
    AggregationTemporality.AGGREGATION_TEMPORALITY_UNSPECIFIED: "",
    AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA: "delta",
    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """The resource of a batch, read once: who speaks.

    Attributes:
        node_id: ``host.id``, else ``host.name``, else ``unknown``.
        instance: ``service.instance.id``, or ''.
        encoded: the resource's attributes as canonical JSON.
        fault: why nothing of it can be stored; '' where it can.
    """

    node_id: str
    instance: str
    resource: Mapping[str, Any] = field(compare=False)
    encoded: bytes
    fault: str = ""

    def check(self) -> None:
        """Raise the fault as an UnstorableError."""
        if self.fault:
            raise UnstorableError(self.fault)


def origin_of(resource: Resource) -> Origin:
    """Read a resource."""
    found = attributes(resource.attributes)
    node = found.get("host.id") or found.get("host.name") or "unknown"
    instance = found.get("service.instance.id") or ""
    fault = ""
    try:
        node, instance = key_text(str(node), "the node id"), key_text(str(instance), "service.instance.id")
    except UnstorableError as error:
        fault = str(error)
    return Origin(str(node), str(instance), found, canonical(found), fault)


def encode_scope(scope: InstrumentationScope) -> bytes:
    """A scope as canonical JSON; its schema's URL is no part of it (0201)."""
    content: dict[str, Any] = {"name": text(scope.name), "version": text(scope.version)}
    if scope.attributes:
        content["attributes"] = attributes(scope.attributes)
    return canonical(content)


@dataclass(frozen=True, slots=True)
class MetricIdentity:
    """What all series of one metric of one scope of one resource share."""

    origin: Origin
    scope: bytes
    name: str
    unit: str
    kind: str
    temporality: str
    monotonic: bool
    description: str

    def series(self, pairs: list[KeyValue]) -> SeriesRow:
        """The series of the points with these attributes.

        The id hashes what tells series apart: resource, scope, name, unit, kind, temporality, monotonic, attributes.
        The description does not: a better text is not another series.
        """
        encoded = canonical(attributes(pairs))
        kind = f"{self.kind}/{self.temporality}/{self.monotonic:d}"
        return SeriesRow(
            fingerprint(
                self.origin.encoded, self.scope, self.name.encode(), self.unit.encode(), kind.encode(), encoded
            ),
            self.origin.node_id,
            self.origin.instance,
            self.name,
            self.unit,
            self.kind,
            self.temporality,
            self.monotonic,
            self.description,
            self.origin.encoded,
            self.scope,
            encoded,
        )


def metric_identity(origin: Origin, scope: bytes, metric: Metric) -> MetricIdentity:
    """Read what a metric says of all its points."""
    kind = metric.WhichOneof("data") or ""
    data = getattr(metric, kind) if kind else None
    return MetricIdentity(
        origin,
        scope,
        text(metric.name),
        text(metric.unit),
        kind,
        _TEMPORALITY.get(getattr(data, "aggregation_temporality", 0), ""),
        getattr(data, "is_monotonic", False),
        text(metric.description),
    )
