"""What the sink's memory grows by: bounded, whatever comes, and however much of it at once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import grpc
import httpx
import psutil
import psycopg
import pytest
from grpc import aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from postel.otlp.signal import Signal
from support.sink import RunningSink, running_sink

TIME = 1_768_471_200_000_000_000
PROTOBUF = {"content-type": "application/x-protobuf"}
# At rest the sink has 80. It comes to between 240 and 410, as the allocator's luck is.
_MOST_MIB = 450

_MAP_LOGS = """
import datetime, psutil
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from postel.otlp.signal import Signal
from postel.signals import load_all
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.rows import Rows

request = ExportLogsServiceRequest()
records = request.resource_logs.add().scope_logs.add().log_records
for number in range(20_000):
    records.add(time_unix_nano=1_768_471_200_000_000_000 + number * 1000, body=AnyValue(string_value="x" * 200))
mapper, rows, process = Mapper(load_all()), Rows(), psutil.Process()
before = process.memory_info().rss
mapper.map(Signal.LOGS, request, datetime.datetime.now(datetime.UTC), rows)
assert sum(map(len, rows.logs.values())) == 20_000
print((process.memory_info().rss - before) >> 20)
"""


def test_a_mapped_record_takes_about_what_it_says() -> None:
    """The encoder's buffer, 3.7 KiB for each small text, once stayed with it: 160 MiB."""
    done = subprocess.run([sys.executable, "-c", _MAP_LOGS], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 60


@pytest.fixture
def sink(tmp_path: Path, migrated_database: str) -> Iterator[RunningSink]:
    with running_sink(tmp_path, migrated_database) as started:
        started.start()
        yield started


class _Peak:
    """The most memory that a sink has while the block runs, in MiB."""

    def __init__(self, sink: RunningSink) -> None:
        assert sink.process
        self._process = psutil.Process(sink.process.pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.mib = 0

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.mib = max(self.mib, self._process.memory_info().rss >> 20)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _logs() -> ExportLogsServiceRequest:
    """12 MiB, and 217 KiB compressed."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in range(60_000):
        records.add(time_unix_nano=TIME + number * 1000, body=AnyValue(string_value="x" * 200))
    return request


def _points() -> ExportMetricsServiceRequest:
    """13 MiB of 400,000 points, of which each takes 200 bytes once it is decoded."""
    request = ExportMetricsServiceRequest()
    points = request.resource_metrics.add().scope_metrics.add().metrics.add(name="made.up").gauge.data_points
    for number in range(400_000):
        point = points.add(time_unix_nano=TIME + number // 4_000 * 1_000_000_000, as_double=number)
        point.attributes.add(key="number", value=AnyValue(int_value=number % 4_000))
    return request


# By `make test` it is shown of the servers alone: tests/otlp/test_admission.py.
@pytest.mark.soak
@pytest.mark.timeout(180)
async def test_many_large_requests_at_once_take_little(sink: RunningSink) -> None:
    """Before there was an admission it was a gigabyte for each server."""
    logs, points = _logs().SerializeToString(), _points().SerializeToString()
    gzipped = {**PROTOBUF, "content-encoding": "gzip"}
    bodies = [("logs", gzip.compress(logs, 1), gzipped), ("metrics", gzip.compress(points, 1), gzipped)]
    bodies.append(("logs", logs, PROTOBUF))
    codes: list[int | str] = []

    with _Peak(sink) as peak:
        async with (
            httpx.AsyncClient(base_url=sink.http, timeout=60, limits=httpx.Limits(max_connections=60)) as client,
            aio.insecure_channel(sink.grpc, compression=grpc.Compression.Gzip) as channel,
            aio.insecure_channel(sink.grpc) as plain,
        ):

            async def post(path: str, body: bytes, headers: dict[str, str]) -> None:
                codes.append((await client.post(f"/v1/{path}", content=body, headers=headers)).status_code)

            async def call(method: aio.UnaryUnaryMultiCallable[bytes, bytes], body: bytes) -> None:
                try:
                    await method(body)
                except aio.AioRpcError as error:
                    codes.append(error.code().name)
                else:
                    codes.append("OK")

            calls = [call(channel.unary_unary(Signal.LOGS.method), logs) for _ in range(6)]
            calls += [call(plain.unary_unary(Signal.LOGS.method), logs) for _ in range(6)]
            calls += [call(plain.unary_unary(Signal.METRICS.method), points) for _ in range(6)]
            calls += [post(*body) for body in bodies for _ in range(6)]
            await asyncio.gather(*calls)
            assert set(codes) <= {200, 503, "OK", "UNAVAILABLE"}
            # What comes again is taken.
            for body in (bodies[0], bodies[2]):
                deadline = time.monotonic() + 60
                while (answer := await client.post(f"/v1/{body[0]}", content=body[1], headers=body[2])).is_error:
                    assert (answer.status_code, time.monotonic() < deadline) == (503, True)
    assert peak.mib < _MOST_MIB


def test_a_small_poisoned_request_takes_little_and_is_answered_at_once(sink: RunningSink) -> None:
    """205 KiB. When each dead letter held the resource it took 3.9 GiB, and the answer came after 22 s: "retry"."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="blob", value=AnyValue(string_value="x" * 100_000))
    points = resource.scope_metrics.add().metrics.add(name="made.up").gauge.data_points
    for number in range(10_000):
        points.add(as_double=number)
    with _Peak(sink) as peak:
        for _ in range(2):
            answer = httpx.post(f"{sink.http}/v1/metrics", content=request.SerializeToString(), headers=PROTOBUF)
            assert answer.status_code == 200
            said = ExportMetricsServiceResponse.FromString(answer.content).partial_success
            assert said.rejected_data_points == 10_000
    assert peak.mib < 200


@pytest.mark.slow
def test_a_large_resource_above_many_series_takes_little(sink: RunningSink) -> None:
    """390 KiB; each of the series has the resource in its row: 1 GB, which was 1 GiB of memory."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="blob", value=AnyValue(string_value="x" * 100_000))
    points = resource.scope_metrics.add().metrics.add(name="made.up").gauge.data_points
    for number in range(10_000):
        point = points.add(time_unix_nano=TIME, as_double=number)
        point.attributes.add(key="number", value=AnyValue(int_value=number))
    with _Peak(sink) as peak:
        deadline = time.monotonic() + 90
        while True:
            body = request.SerializeToString()
            answer = httpx.post(f"{sink.http}/v1/metrics", content=body, headers=PROTOBUF, timeout=20)
            if answer.status_code == 200:
                break
            assert (answer.status_code, time.monotonic() < deadline) == (503, True)
    assert answer.content == b""
    assert peak.mib < 200


@pytest.mark.soak
@pytest.mark.timeout(180)
async def test_many_requests_of_empty_records_at_once_take_little(sink: RunningSink) -> None:
    """2 MB of nothing but empty records are 130 MB once they are decoded: four at once had room, 620 MiB in all."""
    records = b"\x12\x00" * 950_000
    scope = b"\x12" + _length(records) + records
    body = b"\x0a" + _length(scope) + scope
    async with httpx.AsyncClient(base_url=sink.http, timeout=60) as client:
        with _Peak(sink) as peak:
            answers = await asyncio.gather(
                *(client.post(Signal.LOGS.path, content=body, headers=PROTOBUF) for _ in range(8))
            )
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert peak.mib < _MOST_MIB


@pytest.mark.soak
@pytest.mark.timeout(180)
async def test_many_small_requests_before_a_database_that_waits_take_little(sink: RunningSink) -> None:
    """By their bytes all of 20,000 had room at once: 280 MiB."""
    message = ExportLogsServiceRequest()
    message.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=TIME)
    body = message.SerializeToString()
    codes: Counter[str] = Counter()
    with psycopg.connect(sink.url) as holder, _Peak(sink) as peak:
        holder.execute("LOCK TABLE otel_log IN SHARE MODE")
        async with contextlib.AsyncExitStack() as stack:
            asking = []
            for _ in range(200):
                # A connection of its own, each with a hundred streams.
                options = [("grpc.use_local_subchannel_pool", 1)]
                channel = await stack.enter_async_context(aio.insecure_channel(sink.grpc, options=options))
                call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(Signal.LOGS.method)
                asking += [asyncio.ensure_future(call(body).code()) for _ in range(100)]
            codes.update(code.name for code in await asyncio.gather(*asking))
    # Of those that come faster than they are looked at gRPC itself cancels some.
    assert set(codes) <= {"UNAVAILABLE", "CANCELLED"}
    assert peak.mib < 250


def _length(content: bytes) -> bytes:
    """The length of a message, as protobuf's varint."""
    number, digits = len(content), b""
    while number > 127:
        digits += bytes([number & 127 | 128])
        number >>= 7
    return digits + bytes([number])
