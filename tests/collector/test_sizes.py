"""The real Collector and large requests: what it acknowledges arrives, and what is too large is refused at the door."""

from __future__ import annotations

import asyncio
import gzip
import random
import string
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import psycopg
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from otel_receivers.sender import SpoolSender
from otel_receivers.spool import Request as SpoolRequest
from otel_receivers.spool import Spool
from postel.otlp import codec
from postel.otlp.client import create_sender
from postel.otlp.signal import Signal
from support.collector import Collector, Request, Sink, log_request
from support.sink import running_sink

MIB = 1 << 20
# What the receivers take, and what the sink does.
DOOR = 4 * MIB
SINK = 16 * MIB
TIME = 1_768_471_200_000_000_000


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)


def logs(*bodies: str) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for body in bodies:
        records.add(time_unix_nano=TIME, body=AnyValue(string_value=body))
    return request


def histograms(*buckets: int, attribute: str = "") -> ExportMetricsServiceRequest:
    """A metric with a point for each number of buckets."""
    request = ExportMetricsServiceRequest()
    points = request.resource_metrics.add().scope_metrics.add().metrics.add(name="made.up").histogram.data_points
    for number, count in enumerate(buckets):
        point = points.add(
            time_unix_nano=TIME + number * 1_000, bucket_counts=[1] * count, explicit_bounds=[1.0] * (count - 1)
        )
        if attribute:
            point.attributes.add(key="k", value=AnyValue(string_value=attribute))
    return request


def arrived(sink: Sink) -> list[int]:
    """The number of buckets of each point that the sink took."""
    return [
        len(point.bucket_counts)
        for request in list(sink.taken)
        if isinstance(request, ExportMetricsServiceRequest)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.histogram.data_points
    ]


def post(
    collector: Collector, signal: Signal, body: bytes, *, json: bool = False, zipped: bool = False
) -> httpx.Response:
    headers = {"content-type": codec.JSON if json else codec.PROTOBUF}
    if zipped:
        headers["content-encoding"] = "gzip"
        body = gzip.compress(body, 1)
    return httpx.post(f"{collector.url}{signal.path}", content=body, headers=headers, timeout=30)


def call(collector: Collector, request: Request) -> tuple[grpc.StatusCode, str]:
    signal = Signal.METRICS if isinstance(request, ExportMetricsServiceRequest) else Signal.LOGS
    with grpc.insecure_channel(collector.environment["POSTEL_COLLECTOR_GRPC"]) as channel:
        try:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(signal.method)
            method(request.SerializeToString(), timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


@pytest.fixture
def started(collector: Collector, sink: Sink) -> Collector:
    sink.start()
    collector.start()
    return collector


def test_a_large_log_record_takes_its_neighbours_along(started: Collector, sink: Sink) -> None:
    """Over the batches' limit it was once dropped, with all that followed in its request, after a 200."""
    sent = ["a1", "a2", "a3", "x" * (3 * MIB), "a5", "a6", "a7"]
    assert started.send(logs(*sent)) == httpx.codes.OK
    _until(lambda: len(sink.bodies()) == len(sent))
    assert sink.bodies() == sent
    assert "dropping" not in started.log()


def test_a_large_point_takes_its_neighbours_along(started: Collector, sink: Sink) -> None:
    large = 200_000
    assert started.send(histograms(1, 2, large, 4, 5)) == httpx.codes.OK
    assert started.send(histograms(6, 7, attribute="x" * (DOOR // 2 - 1_000))) == httpx.codes.OK
    _until(lambda: len(arrived(sink)) == 7)
    assert sorted(arrived(sink)) == [1, 2, 4, 5, 6, 7, large]
    assert "dropping" not in started.log()


def test_a_large_resource_takes_its_records_along(started: Collector, sink: Sink) -> None:
    request = logs(*(f"record {number}" for number in range(1_000)))
    request.resource_logs[0].resource.attributes.add(key="k", value=AnyValue(string_value="x" * (DOOR - 50_000)))
    assert started.send(request) == httpx.codes.OK
    _until(lambda: len(sink.bodies()) == 1_000)
    assert "dropping" not in started.log()


def test_in_a_backlog_all_arrives_in_what_the_sink_takes(collector: Collector, sink: Sink) -> None:
    collector.start()
    sent = []
    for number in range(20):
        for body in (f"small {number}", f"large {number} " + "x" * (DOOR - 1_000)):
            sent.append(body)
            assert collector.send(logs(body)) == httpx.codes.OK
    sink.start()
    _until(lambda: len(sink.bodies()) >= len(sent), 40)
    assert sorted(sink.bodies()) == sorted(sent)
    assert max(request.ByteSize() for request in sink.taken) <= SINK
    assert "dropping" not in collector.log()


@pytest.mark.parametrize("field", ["bucketCounts", "explicitBounds"])
def test_json_that_becomes_four_times_as_large_fits_still(collector: Collector, sink: Sink, field: str) -> None:
    """Two characters for each number, which takes eight bytes in protobuf: nothing grows by more."""
    head = b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"%s":[' % field.encode()
    tail = b"]}]}}]}]}]}"
    numbers = (DOOR - len(head) - len(tail) + 1) // 2
    body = head + b",".join([b"1"] * numbers) + tail
    assert DOOR - 1 <= len(body) <= DOOR
    collector.start()
    # In a backlog, so that it is merged with what came before it: more than the sink takes, and split again.
    for number in range(3):
        assert collector.send(metrics_of_some_size(number)) == httpx.codes.OK
        assert post(collector, Signal.METRICS, body, json=True).status_code == httpx.codes.OK
    sink.start()
    _until(lambda: sum(len(each.resource_metrics) for each in sink.taken if hasattr(each, "resource_metrics")) >= 6, 40)
    sizes = sorted(request.ByteSize() for request in sink.taken)
    assert 0.99 * SINK < sizes[-1] <= SINK
    largest = max(sink.taken, key=lambda request: request.ByteSize())
    assert isinstance(largest, ExportMetricsServiceRequest)
    assert "dropping" not in collector.log()


def metrics_of_some_size(number: int) -> ExportMetricsServiceRequest:
    return histograms(number + 1, attribute="x" * 200_000)


def test_what_encodes_to_more_than_it_was_sent_as_fits(started: Collector, sink: Sink) -> None:
    """The Collector writes the ids of a record even where they are empty: 2 bytes become 6."""
    records = b"\x12\x00" * ((DOOR - 100) // 2)
    scope = b"\x12" + _length(len(records)) + records
    body = b"\x0a" + _length(len(scope)) + scope
    assert len(body) <= DOOR
    assert post(started, Signal.LOGS, body).status_code == httpx.codes.OK
    _until(lambda: len(sink.bodies()) == len(records) // 2)
    assert max(request.ByteSize() for request in sink.taken) <= SINK


def _length(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


@pytest.mark.parametrize("size", [DOOR + 1, 20 * MIB])
def test_too_large_is_refused_at_the_door_with_the_reason(started: Collector, sink: Sink, size: int) -> None:
    request = logs("x" * size)
    body, as_json = request.SerializeToString(), codec.encode(request, codec.JSON)
    for response in (
        post(started, Signal.LOGS, body),
        post(started, Signal.LOGS, body, zipped=True),
        post(started, Signal.LOGS, as_json, json=True),
        post(started, Signal.LOGS, as_json, json=True, zipped=True),
    ):
        assert response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
        media = response.headers["content-type"]
        status = response.json() if media == codec.JSON else None
        code, message = (status["code"], status["message"]) if status else _status(response.content)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert "more than 4194304 bytes" in message
    code, reason = call(started, request)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in reason
    assert call(started, log_request("kept"))[0] is grpc.StatusCode.OK
    _until(lambda: sink.bodies() == ["kept"])


def _status(body: bytes) -> tuple[int, str]:
    status = Status.FromString(body)
    return status.code, status.message


def test_what_just_fits_passes(started: Collector, sink: Sink) -> None:
    for size in (DOOR - 40, DOOR - 4_000):
        request = logs("x" * size)
        assert request.ByteSize() <= DOOR
        assert started.send(request) == httpx.codes.OK
        assert call(started, request) == (grpc.StatusCode.OK, "")
    _until(lambda: len(sink.bodies()) == 4)


@pytest.mark.parametrize("compression", ["gzip", "none", pytest.param("snappy", marks=pytest.mark.soak), "zstd"])
def test_postels_own_sink_takes_what_the_collector_sends_however_it_is_compressed(
    program: Path, tmp_path: Path, migrated_postgres: str, compression: str
) -> None:
    """The last two are not of OTLP, and the sink cannot read them: what they carry waits in the Collector."""
    with running_sink(tmp_path, migrated_postgres) as own:
        own.start()
        collector = Collector(program, tmp_path, own.ports[0])
        try:
            collector.start(f"exporters::otlp_grpc/sink::compression: {compression}")
            assert collector.send(logs("a", "x" * (3 * MIB), "c")) == httpx.codes.OK
            assert collector.send(histograms(1, 2, 200_000, 4)) == httpx.codes.OK
            if compression in {"snappy", "zstd"}:
                time.sleep(3)
                assert collector.stop() == 0
                collector.start()
            _until(lambda: _stored(migrated_postgres) == (3, 4))
        finally:
            collector.end()


def _stored(url: str) -> tuple[int, int]:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM otel_log), (SELECT count(*) FROM otel_metric_point)"
        ).fetchone()
    assert row
    return row[0], row[1]


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_the_agent_drops_an_event_that_is_too_large_and_counts_it(
    started: Collector, sink: Sink, tmp_path: Path, protocol: Any, compression: Any
) -> None:
    """It does not compress, and is refused while it is being sent: the agent must hear why, and not try for ever."""
    large = "".join(random.Random(1).choices(string.ascii_letters, k=3 * DOOR))  # noqa: S311 - a text that does not compress
    address = started.environment["POSTEL_COLLECTOR_GRPC"]
    sender = create_sender(
        f"http://{address}" if protocol == "grpc" else started.url, protocol, compression=compression, timeout=30
    )
    spool = await Spool.open(tmp_path / "agent", max_bytes=64 * MIB, max_age=3600)
    events = [spool_request(body) for body in ("before", large, "after", "x" * (2 * MIB), "last")]
    await spool.append(events, {})
    run = asyncio.create_task(SpoolSender(spool, sender, block_bytes=MIB, metrics_interval=1, events_interval=0).run())
    try:
        await asyncio.to_thread(_until, lambda: len(sink.bodies()) == 4)
        async with asyncio.timeout(5):
            while spool.size:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.05)
        assert spool.dropped == {"refused": 1}
    finally:
        run.cancel()
        await asyncio.wait([run])
        await sender.close()
        await spool.close()
    assert sorted(sink.bodies(), key=len) == ["last", "after", "before", "x" * (2 * MIB)]


def spool_request(body: str) -> SpoolRequest:
    return SpoolRequest(Signal.LOGS, logs(body).SerializeToString(), 1)
