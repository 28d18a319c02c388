"""What a batch of a receiver's holds, for tests that look at its points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from otel_receivers.receiver import Batch


def data_points(batch: Batch) -> Iterator[tuple[str, Any]]:
    """Each data point, with the name of its metric."""
    for resource in batch.metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    yield metric.name, point


def points_of(batch: Batch, name: str) -> list[Any]:
    """The data points of one metric."""
    return [point for each, point in data_points(batch) if each == name]


def values(batch: Batch) -> dict[tuple[str, str], Any]:
    """(metric, values of the attributes in their order) -> the point's value."""
    return {
        (name, " ".join(map(str, (point.attributes or {}).values()))): point.value for name, point in data_points(batch)
    }


class Increase:
    """What readers make of a counter, all of its series together, by the design's rule ("Rollups").

    Args:
        name: of the metric.
    """

    def __init__(self, name: str) -> None:
        self.total = 0
        self._name = name
        self._before: dict[str, Any] = {}

    def add(self, batch: Batch) -> None:
        """The points of one tick."""
        for point in points_of(batch, self._name):
            self._add(str(dict(point.attributes or {})), point)

    def _add(self, series: str, point: Any) -> None:
        before = self._before.get(series)
        if before is not None and before.start_time_unix_nano == point.start_time_unix_nano:
            assert point.value >= before.value
            self.total += point.value - before.value
        elif point.time_unix_nano != point.start_time_unix_nano:
            self.total += point.value
        self._before[series] = point
