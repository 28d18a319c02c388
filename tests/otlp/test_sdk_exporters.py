"""The official exporters of the OpenTelemetry Python SDK send to both servers and read their answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc
import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from support.otlp_receiver import Receiver, running_receiver

RESOURCE = Resource({"service.name": "postel-agent", "host.id": "node-1"})

METRIC_EXPORTERS: dict[str, Callable[[Receiver], MetricExporter]] = {
    "grpc": lambda to: GrpcMetricExporter(to.grpc),
    "grpc gzip": lambda to: GrpcMetricExporter(to.grpc, compression=grpc.Compression.Gzip),
    "http": lambda to: HttpMetricExporter(f"{to.http}/v1/metrics"),
    "http gzip": lambda to: HttpMetricExporter(f"{to.http}/v1/metrics", compression=Compression.Gzip),
    "http deflate": lambda to: HttpMetricExporter(f"{to.http}/v1/metrics", compression=Compression.Deflate),
}
LOG_EXPORTERS: dict[str, Callable[[Receiver], LogRecordExporter]] = {
    "grpc": lambda to: GrpcLogExporter(to.grpc),
    "http": lambda to: HttpLogExporter(f"{to.http}/v1/logs"),
}
SPAN_EXPORTERS: dict[str, Callable[[Receiver], SpanExporter]] = {
    "grpc": lambda to: GrpcSpanExporter(to.grpc),
    "http": lambda to: HttpSpanExporter(f"{to.http}/v1/traces"),
}


def export_a_gauge(exporter: MetricExporter) -> MetricExportResult:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False)
    provider.get_meter("postel.system").create_gauge("postel.host.cpu.load", unit="%").set(12.5)
    data = reader.get_metrics_data()
    assert data
    try:
        return exporter.export(data)
    finally:
        provider.shutdown()
        exporter.shutdown()


@pytest.mark.parametrize("exporter", METRIC_EXPORTERS)
async def test_metrics_arrive(exporter: str) -> None:
    async with running_receiver() as receiver:
        result = await asyncio.to_thread(export_a_gauge, METRIC_EXPORTERS[exporter](receiver))
    assert result is MetricExportResult.SUCCESS
    ((signal, request),) = receiver.taken
    assert signal is Signal.METRICS
    (resource,) = request.resource_metrics  # type: ignore[union-attr]
    assert {each.key: each.value.string_value for each in resource.resource.attributes} == {
        "service.name": "postel-agent",
        "host.id": "node-1",
    }
    (metric,) = resource.scope_metrics[0].metrics
    assert (metric.name, metric.unit, metric.gauge.data_points[0].as_double) == ("postel.host.cpu.load", "%", 12.5)


@pytest.mark.parametrize("exporter", LOG_EXPORTERS)
async def test_events_arrive(exporter: str) -> None:
    def emit(to: LogRecordExporter) -> None:
        provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(to))
        provider.get_logger("postel.system").emit(
            LogRecord(timestamp=1_795_000_000_000_000_000, event_name="postel.node.booted", body="node-1 has booted")
        )
        provider.shutdown()

    async with running_receiver() as receiver:
        await asyncio.to_thread(emit, LOG_EXPORTERS[exporter](receiver))
    ((signal, request),) = receiver.taken
    assert signal is Signal.LOGS
    record = request.resource_logs[0].scope_logs[0].log_records[0]  # type: ignore[union-attr]
    assert (record.event_name, record.time_unix_nano) == ("postel.node.booted", 1_795_000_000_000_000_000)
    assert record.body.string_value == "node-1 has booted"


@pytest.mark.parametrize("exporter", SPAN_EXPORTERS)
async def test_traces_are_refused_for_good(exporter: str, caplog: pytest.LogCaptureFixture) -> None:
    def end_a_span(to: SpanExporter) -> SpanExportResult:
        provider = TracerProvider(shutdown_on_exit=False)
        span = provider.get_tracer("t").start_span("s")
        span.end()
        try:
            return to.export([span])  # type: ignore[list-item]
        finally:
            provider.shutdown()
            to.shutdown()

    async with running_receiver() as receiver:
        with caplog.at_level(logging.ERROR):
            result = await asyncio.to_thread(end_a_span, SPAN_EXPORTERS[exporter](receiver))
    assert result is SpanExportResult.FAILURE
    assert receiver.taken == []


@pytest.mark.parametrize("exporter", ["grpc", "http"])
async def test_what_is_retryable_is_sent_again(exporter: str) -> None:
    async with running_receiver() as receiver:
        receiver.before = [Retryable(0.05, "the database is away")]
        result = await asyncio.to_thread(export_a_gauge, METRIC_EXPORTERS[exporter](receiver))
    assert result is MetricExportResult.SUCCESS
    assert len(receiver.taken) == 2
    assert receiver.taken[0] == receiver.taken[1]


@pytest.mark.parametrize("exporter", ["grpc", "http"])
async def test_partial_success_is_not_sent_again(exporter: str) -> None:
    async with running_receiver() as receiver:
        receiver.answer = Outcome(1, "a value that cannot be stored")
        result = await asyncio.to_thread(export_a_gauge, METRIC_EXPORTERS[exporter](receiver))
    assert result is MetricExportResult.SUCCESS
    assert len(receiver.taken) == 1
