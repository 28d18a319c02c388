"""Requests that no single transaction can take in time: they end after some repetitions, with every record once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from support.sink import RunningSink, ingesting, recount, running_sink
from timescale_sink.ingest import progress as progress_module
from timescale_sink.ingest import queue as queue_module
from timescale_sink.ingest import writer as writer_module

TIME = 1_768_471_200_000_000_000


@pytest.fixture
def sink(tmp_path: Path, migrated_database: str) -> Iterator[RunningSink]:
    with running_sink(tmp_path, migrated_database) as started:
        started.start()
        yield started


def points(series: int, count: int) -> ExportMetricsServiceRequest:
    """So many series with so many points each."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="a-large-one"))
    metric = resource.scope_metrics.add().metrics.add(name="made.up", unit="1").gauge.data_points
    for number in range(series):
        for tick in range(count):
            point = metric.add(time_unix_nano=TIME + tick * 1_000_000_000, as_double=number)
            point.attributes.add(key="number", value=AnyValue(int_value=number))
    return request


def logs(count: int) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in range(count):
        records.add(time_unix_nano=TIME + number * 1000, body=AnyValue(string_value=f"record {number}"))
    return request


def ask(url: str, query: str) -> tuple[int, ...]:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row
        return row


@pytest.mark.timeout(120)
def test_the_largest_request_is_taken_whole(sink: RunningSink) -> None:
    request = points(4_000, 100)
    body = request.SerializeToString()
    assert 0.8 * (16 << 20) < len(body) < 16 << 20
    answers: list[httpx.Response] = []
    deadline = time.monotonic() + 90
    while not answers or answers[-1].status_code == 503:
        assert time.monotonic() < deadline, sink.log
        answers.append(
            httpx.post(
                f"{sink.http}/v1/metrics",
                content=body,
                headers={"content-type": "application/x-protobuf"},
                timeout=10,
            )
        )
    assert answers[-1].status_code == 200
    assert ExportMetricsServiceResponse.FromString(answers[-1].content) == ExportMetricsServiceResponse()
    # Each try goes on where the one before it ended.
    assert len(answers) <= 8
    assert ask(sink.url, "SELECT count(*) FROM otel_metric_point") == (400_000,)
    received, duplicate = ask(sink.url, "SELECT sum(received), sum(duplicate) FROM ingest_ledger")
    assert (received - duplicate, received <= 440_000) == (400_000, True)
    assert sink.command("db", "check").returncode == 0


async def test_what_a_slow_database_commits_is_not_begun_again(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row takes a millisecond: of 1,000 records in 0.4 s no try takes all, and none that asks for all at once any."""
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END';"
            "CREATE TRIGGER slow BEFORE INSERT ON otel_log FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    for module in (queue_module, progress_module, writer_module):
        monkeypatch.setattr(module, "COMMIT_SECONDS", 0.4)
    too_slow = []
    async with asyncio.timeout(40), ingesting(migrated_database) as ingest:
        answer = None
        while answer is None:
            try:
                answer = await ingest(Signal.LOGS, logs(1_000))
            except Retryable as error:
                too_slow.append(error.reason)
    assert answer == Outcome()
    # Three halvings, and then at least one piece a try.
    assert 2 < len(too_slow) < 15, too_slow
    assert ask(migrated_database, "SELECT count(*) FROM otel_log") == (1_000,)
    assert await recount(migrated_database) == []


async def test_what_cannot_be_stored_of_a_large_request_is_counted_over_all_pieces(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = points(1, 30_000)
    for point in request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[::2]:
        point.time_unix_nano = 0
    for module in (queue_module, progress_module):
        monkeypatch.setattr(module, "TOGETHER_RECORDS", 10_000)
    async with ingesting(migrated_database) as ingest:
        answer = await ingest(Signal.METRICS, request)
    assert answer.rejected == 15_000
    assert "time" in answer.reason
    # Without time they are all the same, but for the first.
    assert ask(migrated_database, "SELECT count(*) FROM otel_metric_point") == (15_000,)
    assert await recount(migrated_database) == []
