"""The signals that Postel speaks, with everything that OTLP ties to each of them.

Sources: OTLP specification 1.x, "OTLP/HTTP Request" (the paths) and "OTLP/gRPC" (the services);
``opentelemetry/proto/collector/{metrics,logs}/v1/*_service.proto``. Traces are no signal of Postel: both servers
refuse them.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

ExportRequest: TypeAlias = ExportMetricsServiceRequest | ExportLogsServiceRequest
ExportResponse: TypeAlias = ExportMetricsServiceResponse | ExportLogsServiceResponse

TRACE_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TRACE_PATH = "/v1/traces"


class Signal(enum.Enum):
    """One kind of telemetry; the value is its word in the HTTP path and in stored rows."""

    METRICS = "metrics"
    LOGS = "logs"

    @property
    def path(self) -> str:
        """The path of OTLP/HTTP below the endpoint: ``/v1/metrics``."""
        return f"/v1/{self.value}"

    @property
    def service(self) -> str:
        """The full name of the gRPC service."""
        name = "MetricsService" if self is Signal.METRICS else "LogsService"
        return f"opentelemetry.proto.collector.{self.value}.v1.{name}"

    @property
    def method(self) -> str:
        """The path of the gRPC method: ``/<service>/Export``."""
        return f"/{self.service}/Export"

    @property
    def request_class(self) -> type[ExportRequest]:
        """The protobuf message that is exported."""
        return ExportMetricsServiceRequest if self is Signal.METRICS else ExportLogsServiceRequest

    def response(self, rejected: int = 0, reason: str = "") -> ExportResponse:
        """Build the answer to an export; `partial_success` stays unset when both arguments are empty.

        Args:
            rejected: data points or log records that were not taken.
            reason: why, in words for a human; with `rejected` 0 it is a warning.
        """
        if self is Signal.METRICS:
            metrics = ExportMetricsServiceResponse()
            if rejected or reason:
                metrics.partial_success.rejected_data_points = rejected
                metrics.partial_success.error_message = reason
            return metrics
        logs = ExportLogsServiceResponse()
        if rejected or reason:
            logs.partial_success.rejected_log_records = rejected
            logs.partial_success.error_message = reason
        return logs

    def partial_success(self, response: ExportResponse) -> tuple[int, str]:
        """Read `(rejected, reason)` back out of an answer of this signal."""
        partial = response.partial_success
        rejected: int = getattr(
            partial, "rejected_data_points" if self is Signal.METRICS else "rejected_log_records", 0
        )
        return rejected, partial.error_message

    @property
    def response_class(self) -> type[ExportResponse]:
        """The protobuf message of the answer."""
        return ExportMetricsServiceResponse if self is Signal.METRICS else ExportLogsServiceResponse
