"""The SDK's end: runs opentelemetry-instrumentation-system-metrics on a provider of its own, when asked.

Nothing global is touched: no global MeterProvider is read or set, and the instrumentor is no singleton here, so that an
agent that is itself instrumented, or two receivers in one process, do not take each other's points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.resources import Resource

from otel_receivers.system.rename import Point

# The SDK keeps every attribute set it ever saw, gone network interfaces too, and folds those beyond 2000 into one
# point; a fresh provider forgets them.
_COLLECTS_OF_ONE_PROVIDER = 240


class _Instrumentor(SystemMetricsInstrumentor):
    """The instrumentor without BaseInstrumentor's one-per-process rule."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return object.__new__(cls)


class Instruments:
    """Collects the instrumentation's points on demand.

    Args:
        config: instrument -> the values that it is asked for, as SystemMetricsInstrumentor takes it.
    """

    def __init__(self, config: Mapping[str, list[str] | None]) -> None:
        self._config = dict(config)
        self._collected = 0
        self._build()

    def collect(self) -> Iterator[Point]:
        """Ask the operating system now. A callback that fails is logged by the SDK and gives no points."""
        if self._collected >= _COLLECTS_OF_ONE_PROVIDER:
            self.close()
            self._build()
        self._collected += 1
        data = self._reader.get_metrics_data()
        if data is None:
            return
        for resource_metrics in data.resource_metrics:
            for scope_metrics in resource_metrics.scope_metrics:
                for metric in scope_metrics.metrics:
                    for point in metric.data.data_points:
                        if isinstance(point, NumberDataPoint):
                            yield Point(metric.name, point.attributes or {}, point.value)

    def close(self) -> None:
        """Let go of the provider."""
        self._provider.shutdown()

    def _build(self) -> None:
        self._collected = 0
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider(
            [self._reader],
            resource=Resource({}),  # each point gets its resource when it is recorded
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        instrumentor = _Instrumentor(config=self._config)
        instrumentor.instrument(meter_provider=self._provider, skip_dep_check=True)
