"""One data point of any of the five OTLP kinds as a row of ``otel_metric_point``. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar

from timescale_sink.ingest.point_rows import PointRow
from timescale_sink.ingest.values import attributes, canonical, instant, optional_instant


def point_row(series_id: UUID, kind: str, point: Any, at: datetime) -> PointRow:
    """Read a point.

    Args:
        series_id: of the series that it belongs to.
        kind: the field of ``Metric.data``: gauge, sum, histogram, exponential_histogram, summary.
        point: the data point message of that kind.
        at: its time, checked.
    """
    common = {
        "series_id": series_id,
        "time": at,
        "started_at": optional_instant(point.start_time_unix_nano),
        "flags": point.flags,
    }
    match kind:
        case "gauge" | "sum":
            return _number(common, point)
        case "histogram":
            return _histogram(common, point)
        case "exponential_histogram":
            return _exponential(common, point)
        case _:
            quantiles = [[_json_number(q.quantile), _json_number(q.value)] for q in point.quantile_values]
            return PointRow(
                **common, point_count=point.count, sum=point.sum, detail=canonical({"quantiles": quantiles})
            )


def _number(common: dict[str, Any], point: Any) -> PointRow:
    match point.WhichOneof("value"):
        case "as_int":
            return PointRow(
                **common, value=float(point.as_int), value_int=point.as_int, exemplars=_exemplars(point.exemplars)
            )
        case "as_double":
            return PointRow(**common, value=point.as_double, exemplars=_exemplars(point.exemplars))
        case _:
            # No recorded value: the flags say so.
            return PointRow(**common)


def _histogram(common: dict[str, Any], point: Any) -> PointRow:
    return PointRow(
        **common,
        **_extent(point),
        bounds=list(point.explicit_bounds),
        bucket_counts=list(point.bucket_counts),
        exemplars=_exemplars(point.exemplars),
    )


def _exponential(common: dict[str, Any], point: Any) -> PointRow:
    detail = {
        "scale": point.scale,
        "zero_count": point.zero_count,
        "zero_threshold": _json_number(point.zero_threshold),
        "positive": {"offset": point.positive.offset, "counts": list(point.positive.bucket_counts)},
        "negative": {"offset": point.negative.offset, "counts": list(point.negative.bucket_counts)},
    }
    return PointRow(**common, **_extent(point), detail=canonical(detail), exemplars=_exemplars(point.exemplars))


def _extent(point: Any) -> dict[str, Any]:
    return {
        "point_count": point.count,
        "sum": point.sum if point.HasField("sum") else None,
        "min": point.min if point.HasField("min") else None,
        "max": point.max if point.HasField("max") else None,
    }


def _exemplars(exemplars: Iterable[Exemplar]) -> bytes | None:
    found = [
        {
            "time": instant(exemplar.time_unix_nano).isoformat(),
            "value": _exemplar_value(exemplar),
            "trace_id": exemplar.trace_id.hex(),
            "span_id": exemplar.span_id.hex(),
            "attributes": attributes(exemplar.filtered_attributes),
        }
        for exemplar in exemplars
    ]
    return canonical(found) if found else None


def _exemplar_value(exemplar: Exemplar) -> float | str | None:
    match exemplar.WhichOneof("value"):
        case "as_int":
            return exemplar.as_int
        case "as_double":
            return _json_number(exemplar.as_double)
        case _:
            return None


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)
