"""What the sink says of itself: all that it declares, the same figures as its ledger's, and no end to nobody's ear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from pydantic import SecretStr
from structlog.testing import capture_logs

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from postel.settings import Database, Otlp, Settings, Sink
from postel.signals import load_all
from support.otlp_receiver import Receiver, running_receiver
from support.ports import free_ports
from timescale_sink.ingest import queue, reporter, service
from timescale_sink.ingest.service import Service

TIME = 1_768_471_200_000_000_000
Figures = dict[tuple[str, ...], Any]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "REPORT_SECONDS", 0.25)


def _settings(url: str, endpoint: str, **sink: str) -> Settings:
    return Settings(database=Database(url=SecretStr(url)), otlp=Otlp(endpoint=endpoint), sink=Sink(**sink))


@asynccontextmanager
async def _reporting(settings: Settings) -> AsyncIterator[Service]:
    """A sink without its servers, once its database is there."""
    stop = asyncio.Event()
    sink = Service(settings)
    work = asyncio.create_task(sink.run(stop))
    reports = asyncio.create_task(reporter.run(settings, sink.telemetry, sink.state, sink.name))
    try:
        await _until(lambda: sink.ready)
        yield sink
    finally:
        stop.set()
        reports.cancel()
        await asyncio.gather(work, reports, return_exceptions=True)


async def _until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.05)


def _logs(*numbers: int, body: str = "said", at: int = TIME) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in numbers:
        record = records.add(time_unix_nano=at and at + number, body=AnyValue(string_value=body))
        record.attributes.add(key="log.record.uid", value=AnyValue(string_value=f"{number * 1000:032x}"))
    return request


def _points(request: Any) -> list[tuple[Any, Any]]:
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    return [(metric, point) for metric in metrics for point in getattr(metric, metric.WhichOneof("data")).data_points]


def _figures(receiver: Receiver) -> Figures:
    """The last report: (metric, values of its attributes) -> value, or the count of a histogram."""
    _, request = receiver.taken[-1]
    return {
        (metric.name.removeprefix("postel.sink."), *(a.value.string_value for a in point.attributes)): (
            point.count if metric.HasField("histogram") else point.as_int
        )
        for metric, point in _points(request)
    }


async def _told(receiver: Receiver, wanted: Figures) -> None:
    """Reports come until one says this; the last one is shown where none does."""
    try:
        await _until(lambda: receiver.taken and wanted.items() <= _figures(receiver).items())
    except TimeoutError:
        assert _figures(receiver) == wanted


async def test_every_declared_metric_is_told_with_the_figures_of_the_ledger(migrated_database: str) -> None:
    name = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database())"
    async with running_receiver() as receiver, _reporting(_settings(migrated_database, receiver.http)) as sink:
        await sink(Signal.LOGS, _logs(1, 2))
        await sink(Signal.LOGS, _logs(2, 3))
        await sink(Signal.LOGS, _logs(1, body="another"))
        assert (await sink(Signal.LOGS, _logs(4, at=0))).rejected == 1
        await _told(
            receiver,
            {
                ("records", "otel_log", "stored"): 3,
                ("records", "otel_log", "duplicate"): 1,
                ("records", "otel_log", "conflicting"): 1,
                ("records", "otel_log", "dead_lettered"): 1,
                ("requests", "committed"): 4,
                ("requests", "retry"): 0,
                ("commit.duration",): 4,
                ("queue.size",): 0,
                ("queue.requests", "waiting"): 0,
                ("queue.requests", "writing"): 0,
                ("database.up",): 1,
                ("database.connections", "used"): 0,
            },
        )
        with psycopg.connect(migrated_database, autocommit=True) as owner:
            ledger = "SELECT sum(stored), sum(duplicate), sum(conflicting), sum(dead_lettered) FROM ingest_ledger"
            # Of the ledger's duplicates those with another value are a part.
            assert owner.execute(ledger).fetchone() == (3, 2, 1, 1)
            owner.execute(f"{name}; END $$".encode())
            owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(Retryable):
            await sink(Signal.LOGS, _logs(5))
        wanted = {("commit.errors", "ReadOnlySqlTransaction"): 1, ("requests", "retry"): 1, ("database.up",): 0}
        await _told(receiver, wanted)
        _, request = receiver.taken[-1]
    assert isinstance(request, ExportMetricsServiceRequest)
    declaration = load_all()["sink"]
    told: dict[str, set[str]] = {}
    for metric, point in _points(request):
        declared = declaration.metrics[metric.name]
        assert (metric.unit, metric.description) == (declared.unit, declared.description)
        assert metric.WhichOneof("data") == declared.kind
        assert metric.sum.is_monotonic == declared.monotonic
        # A start and, on the grid of all that Postel says, a time.
        assert point.time_unix_nano % 250_000_000 == 0
        assert (0 < point.start_time_unix_nano < point.time_unix_nano) == (declared.kind != "gauge")
        for attribute in point.attributes:
            enum = declaration.attributes[attribute.key].enum
            assert not enum or attribute.value.string_value in enum
        told.setdefault(metric.name, set()).update(attribute.key for attribute in point.attributes)
    assert told == {name: set(metric.attributes) for name, metric in declaration.metrics.items()}


@pytest.mark.parametrize("state", ["42501", "XX000"])
async def test_a_database_that_answers_and_stores_nothing_is_not_ready(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """A right that is missing, say: each request came back, while all that looks after the sink called it good."""
    raised = f"BEGIN RAISE EXCEPTION 'said by the test' USING ERRCODE = '{state}'; END"
    with psycopg.connect(migrated_database, autocommit=True) as owner:
        owner.execute(f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ {raised} $$".encode())
        owner.execute("CREATE TRIGGER fail BEFORE INSERT ON otel_log FOR EACH ROW EXECUTE FUNCTION fail()")
        async with running_receiver() as receiver, _reporting(_settings(migrated_database, receiver.http)) as sink:
            with pytest.raises(Retryable):
                await sink(Signal.LOGS, _logs(1))
            await _told(receiver, {("database.up",): 0})
            # The probe, which is made each second, finds nothing wrong.
            for _ in range(25):
                assert not sink.ready
                await asyncio.sleep(0.1)
            # A balancer sends nothing to who is not ready: when it is long ago, the next request shows how it is.
            monkeypatch.setattr(queue, "UNFORESEEN_SECONDS", 0)
            await _until(lambda: sink.ready)
            monkeypatch.undo()
            with pytest.raises(Retryable):
                await sink(Signal.LOGS, _logs(1))
            assert not sink.ready
            owner.execute("DROP TRIGGER fail ON otel_log")
            assert await sink(Signal.LOGS, _logs(1)) == Outcome()
            assert sink.ready


async def test_what_waits_and_is_written_is_told(migrated_database: str) -> None:
    async with running_receiver() as receiver, _reporting(_settings(migrated_database, receiver.http)) as sink:
        with psycopg.connect(migrated_database) as holder:
            holder.execute("LOCK TABLE otel_log IN SHARE MODE")
            first, *others = requests = [_logs(1), _logs(2), _logs(3)]
            size = sum(request.ByteSize() for request in requests)
            sent = [asyncio.ensure_future(sink(Signal.LOGS, first))]
            await _told(receiver, {("queue.requests", "writing"): 1})
            # What comes meanwhile waits for the next transaction.
            sent += [asyncio.ensure_future(sink(Signal.LOGS, request)) for request in others]
            wanted = {("queue.requests", "writing"): 1, ("queue.requests", "waiting"): 2, ("queue.size",): size}
            await _told(receiver, {**wanted, ("database.connections", "used"): 1})
        assert await asyncio.gather(*sent) == [Outcome()] * 3
        await _told(receiver, {("queue.size",): 0, ("queue.requests", "writing"): 0})


async def test_a_sink_that_stores_its_own_reports_has_no_more_to_say_each_time(migrated_database: str) -> None:
    grpc, http = free_ports(2)
    addresses = {"grpc_address": f"127.0.0.1:{grpc}", "http_address": f"127.0.0.1:{http}"}
    settings = _settings(migrated_database, f"http://127.0.0.1:{http}", **addresses)
    counts = "SELECT count(*) FROM otel_metric_point GROUP BY time ORDER BY time"
    async with _reporting(settings) as sink, service._servers(settings, sink):
        found: list[int] = []
        while len(found) < 6:
            await asyncio.sleep(0.25)
            with psycopg.connect(migrated_database) as connection:
                found = [row[0] for row in connection.execute(counts.encode()).fetchall()]
    # Of the first report there are no records yet; from the second on each has the four fates of one table more.
    assert found[1:] == [found[0] + 4] * (len(found) - 1)
    with psycopg.connect(migrated_database) as connection:
        # Nobody knows of which node it is, and no node is made of it.
        assert connection.execute("SELECT count(*) FROM node").fetchone() == (0,)
        instances = connection.execute("SELECT DISTINCT node_id, instance FROM otel_series").fetchall()
    assert instances == [("unknown", sink.name)]


async def test_nobody_has_to_listen(migrated_database: str) -> None:
    (port,) = free_ports(1)
    with capture_logs() as lines:
        async with _reporting(_settings(migrated_database, f"http://127.0.0.1:{port}")) as sink:
            await asyncio.sleep(1)
            await sink(Signal.LOGS, _logs(1))
            async with running_receiver(http_address=f"127.0.0.1:{port}") as receiver:
                # What was not taken is not missing: it is in the next report.
                await _told(receiver, {("requests", "committed"): 1})
                receiver.answer = Retryable(3600, "not now")
                seen = len(receiver.taken)
                await _until(lambda: len(receiver.taken) > seen + 1)
    assert [line["event"] for line in lines if line["log_level"] != "info"] == []


async def test_without_a_database_it_is_told_that_there_is_none() -> None:
    (nobody,) = free_ports(1)
    async with running_receiver() as receiver:
        settings = _settings(f"postgresql://nobody@127.0.0.1:{nobody}/none", receiver.http)
        sink = Service(settings)
        reports = asyncio.create_task(reporter.run(settings, sink.telemetry, sink.state, sink.name))
        with pytest.raises(Retryable):
            await sink(Signal.LOGS, _logs(1))
        await _told(receiver, {("database.up",): 0, ("requests", "retry"): 1, ("database.connections", "idle"): 0})
        reports.cancel()
        await asyncio.gather(reports, return_exceptions=True)


async def test_the_standard_variable_turns_it_off(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
    settings = _settings(migrated_database, "http://127.0.0.1:9")
    sink = Service(settings)
    async with asyncio.timeout(0.1):
        await reporter.run(settings, sink.telemetry, sink.state, sink.name)
