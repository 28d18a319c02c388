"""Turns the instrumentation's points into declared ones: its names and attributes are not the specification's.

Pure. What the declaration does not ask for is dropped; points that become one by a rename are added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from postel.signals import Declaration, Metric


@dataclass(frozen=True, slots=True)
class Point:
    """A number point of the instrumentation, in its own names."""

    instrument: str
    attributes: Mapping[str, Any]
    value: float


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a declared metric."""

    metric: Metric
    attributes: Mapping[str, str | int]
    value: float


def config(declaration: Declaration) -> dict[str, list[str] | None]:
    """What the instrumentation is asked for: instrument -> the values of its one enumerated attribute."""
    asked: dict[str, list[str] | None] = {}
    for metric in _instrumented(declaration):
        values: Mapping[str, Mapping[str, str]] = metric.source.get("values", {})
        asked[metric.source["instrument"]] = [theirs for names in values.values() for theirs in names] or None
    return asked


def rename(declaration: Declaration, points: Iterable[Point]) -> Iterator[Reading]:
    """The declared readings that these points give."""
    # `name` stands where the instrument is called otherwise in the configuration than on the wire.
    metrics = {m.source.get("name", m.source["instrument"]): m for m in _instrumented(declaration)}
    sums: dict[tuple[str, tuple[tuple[str, str | int], ...]], float] = {}
    for point in points:
        metric = metrics.get(point.instrument)
        if metric is None or (attributes := _attributes(metric, point)) is None:
            continue
        key = (point.instrument, tuple(attributes.items()))
        sums[key] = sums.get(key, 0) + point.value
    for (instrument, items), value in sums.items():
        yield Reading(metrics[instrument], dict(items), value)


def _instrumented(declaration: Declaration) -> Iterator[Metric]:
    return (metric for metric in declaration.metrics.values() if "instrument" in metric.source)


def _attributes(metric: Metric, point: Point) -> dict[str, str | int] | None:
    """Our attributes of a point; None where it is nothing that was asked for (the SDK's overflow point)."""
    values: Mapping[str, Mapping[str, str]] = metric.source.get("values", {})
    ours: dict[str, str | int] = {}
    for theirs, name in metric.source.get("attributes", {}).items():
        value = point.attributes.get(theirs)
        if theirs in values:
            value = values[theirs].get(str(value))
        if value is None:
            return None
        ours[name] = value
    return ours
