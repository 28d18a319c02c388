"""`postel sink` as its users run it: a process, real exporters, real kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from psycopg import conninfo

from support.postgres import fresh_database, waited_for
from support.running_postel import until
from support.sink import RunningSink, running_sink
from timescale_sink.store import migrate

_RESOURCE = Resource({"host.id": "n1", "service.name": "test", "service.instance.id": "i"})


@pytest.fixture
def sink(tmp_path: Path, migrated_database: str) -> Iterator[RunningSink]:
    with running_sink(tmp_path, migrated_database) as sink:
        yield sink


def _ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def _body(first: int, count: int) -> bytes:
    """Log records with ids of their own, first to first + count."""
    records = [
        {
            "timeUnixNano": str(1768471200000000000 + number * 1_000_000),
            "body": {"stringValue": f"record {number}"},
            "attributes": [{"key": "log.record.uid", "value": {"stringValue": f"{number:032x}"}}],
        }
        for number in range(first, first + count)
    ]
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()


def _send(sink: RunningSink, body: bytes) -> int:
    """The answer's status; 0 where there is none."""
    try:
        answer = httpx.post(
            f"{sink.http}/v1/logs", content=body, headers={"content-type": "application/json"}, timeout=10
        )
    except httpx.TransportError:
        return 0
    return answer.status_code


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_official_sdk_reaches_the_tables(sink: RunningSink, protocol: str) -> None:
    sink.start()
    exporter: MetricExporter = (
        GrpcMetricExporter(endpoint=sink.grpc, insecure=True)
        if protocol == "grpc"
        else HttpMetricExporter(endpoint=f"{sink.http}/v1/metrics")
    )
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)], _RESOURCE)
    meter = provider.get_meter("test", "1")
    meter.create_gauge("postel.host.cpu.load_average").set(0.75)
    meter.create_counter("app.requests").add(5, {"route": "/"})
    meter.create_histogram("app.duration").record(0.2)
    provider.shutdown()
    assert _ask(sink.url, "SELECT node_id, instance, load_1m FROM metrics_system") == [("n1", "i", 0.75)]
    found = _ask(
        sink.url,
        "SELECT metric, value_int, count::int FROM otel_metric_point JOIN otel_series USING (series_id) ORDER BY 1",
    )
    assert found == [("app.duration", None, 1), ("app.requests", 5, None)]
    assert sink.command("db", "check").returncode == 0


def test_the_official_log_exporter_reaches_the_table(sink: RunningSink) -> None:
    sink.start()
    provider = LoggerProvider(_RESOURCE)
    provider.add_log_record_processor(
        SimpleLogRecordProcessor(OTLPLogExporter(endpoint=sink.grpc, insecure=True)),
    )
    provider.get_logger("test").emit(
        LogRecord(timestamp=time.time_ns(), severity_number=SeverityNumber.WARN, body="low", event_name="disk.low")
    )
    provider.shutdown()
    found = _ask(sink.url, "SELECT node_id, event_name, severity_number, body FROM otel_log")
    assert found == [("n1", "disk.low", 13, "low")]


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_and_doubles_nothing(sink: RunningSink) -> None:
    sink.start()
    for batch in range(6):
        body = _body(batch * 50, 50)
        if batch % 2:
            assert sink.process
            # The kill and the request race: whether it was committed, nobody knows, so it is sent again.
            time.sleep(0.002 * batch)
            sink.process.kill()
            _send(sink, body)
            sink.process.wait(10)
            sink.start()
        until(lambda body=body: _send(sink, body) == 200, 20, "taken")  # type: ignore[misc]
    assert _ask(sink.url, "SELECT count(*), count(DISTINCT event_id) FROM otel_log") == [(300, 300)]
    assert sink.command("db", "check").returncode == 0


def test_it_listens_before_its_database_is_there_and_takes_data_once_it_is(tmp_path: Path, postgres: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"postgresql://nobody@127.0.0.1:{closed.getsockname()[1]}/none"
    with running_sink(tmp_path, away) as sink:
        sink.start(ready=False)
        assert sink.state() == 503
        answer = httpx.post(f"{sink.http}/v1/logs", content=_body(0, 1), headers={"content-type": "application/json"})
        assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
        assert sink.end(signal.SIGTERM) == 0
        with fresh_database(postgres) as url:
            sink.url = url
            sink.start()
            assert _send(sink, _body(0, 1)) == 200
            assert _ask(url, "SELECT count(*) FROM otel_log") == [(1,)]
            sink.end(signal.SIGTERM)


@pytest.mark.slow
def test_a_database_that_goes_and_comes_back(sink: RunningSink) -> None:
    sink.start()
    assert _send(sink, _body(0, 1)) == 200
    name = sink.url.split("dbname=")[1].split()[0]
    elsewhere = sink.url.replace(f"dbname={name}", "dbname=postgres")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        assert _send(sink, _body(1, 1)) == 503
        assert sink.state() == 503
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    until(lambda: _send(sink, _body(1, 1)) == 200, 20, "the database is back")
    assert sink.state() == 200
    assert _ask(sink.url, "SELECT count(*) FROM otel_log") == [(2,)]


def _disconnect(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


@pytest.mark.slow
def test_it_is_ready_again_without_traffic(sink: RunningSink) -> None:
    """A balancer that heeds /readyz sends nothing before."""
    sink.start()
    name = str(conninfo.conninfo_to_dict(sink.url)["dbname"])
    with psycopg.connect(conninfo.make_conninfo(sink.url, dbname="postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        _disconnect(connection, name)
        assert _send(sink, _body(0, 1)) == 503
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        until(lambda: sink.state() == 200, 10, "ready again")

        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        _disconnect(connection, name)
        until(lambda: _send(sink, _body(0, 1)) == 503, 10, "nothing is taken")
        for _ in range(15):
            # It answers, but takes nothing.
            assert sink.state() == 503
            time.sleep(0.2)
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
        until(lambda: sink.state() == 200, 10, "ready again, by a session that is not read-only")
    assert _send(sink, _body(0, 1)) == 200


@pytest.mark.slow
def test_the_embedded_database_killed_under_it_comes_back() -> None:
    # Not below pytest's own folder, which another pytest closes to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="postel-"))
    try:
        with running_sink(folder, "") as sink:
            sink.start()
            assert _send(sink, _body(0, 1)) == 200
            server = int((folder / "data/postgres/postmaster.pid").read_text().split()[0])
            os.kill(server, signal.SIGKILL)
            until(lambda: _send(sink, _body(1, 1)) == 200, 40, "the database is back")
            assert sink.command("db", "check").stdout == "the tables hold what the ledger says\n"
            sink.end(signal.SIGTERM)
    finally:
        shutil.rmtree(folder)


def test_asked_to_stop_it_finishes_what_it_took(sink: RunningSink) -> None:
    sink.start()
    with psycopg.connect(sink.url) as holder:
        # Nobody can write until this transaction ends.
        holder.execute("LOCK TABLE otel_log IN SHARE MODE")
        sender = subprocess.Popen(
            [sys.executable, "-c", _SENDER, f"{sink.http}/v1/logs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert sender.stdin
        sender.stdin.write(_body(0, 3))
        sender.stdin.close()
        sender.stdin = None
        until(lambda: waited_for(sink.url) == 1, 10, "it waits")
        assert sink.process
        sink.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        holder.rollback()
    assert sender.communicate(timeout=20)[0].strip() == b"200"
    assert sink.process.wait(20) == 0
    assert _ask(sink.url, "SELECT count(*) FROM otel_log") == [(3,)]


_SENDER = """
import sys, httpx
body = sys.stdin.buffer.read()
print(httpx.post(sys.argv[1], content=body, headers={"content-type": "application/json"}, timeout=15).status_code)
"""


def test_a_taken_port_names_its_setting(sink: RunningSink) -> None:
    with socket.create_server(("127.0.0.1", sink.ports[0])):
        ended = sink.command("sink")
    assert ended.returncode == 2
    assert ended.stderr.strip().endswith("set [sink] grpc_address to a free address")


def test_a_schema_of_a_newer_postel_ends_the_sink(sink: RunningSink) -> None:
    with psycopg.connect(sink.url, autocommit=True) as connection:
        connection.execute("INSERT INTO postel_migration VALUES ('9999_later.sql', 'x')")
    ended = sink.command("sink")
    assert ended.returncode == 2
    assert "9999_later.sql" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_database_that_is_not_there_ends_the_sink(sink: RunningSink) -> None:
    sink.url = conninfo.make_conninfo(sink.url, dbname="no_such_database")
    ended = sink.command("sink")
    assert ended.returncode == 2
    assert "no_such_database" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_asked_to_stop_while_another_program_migrates_it_stops(sink: RunningSink) -> None:
    with psycopg.connect(sink.url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (migrate.SCHEMA_LOCK,))
        sink.start(ready=False)
        until(lambda: "another program changes the schema now" in sink.log, 10, "it waits for the lock")
        began = time.monotonic()
        assert sink.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 3
        waiting = other.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    assert waiting == (1,), "nothing of it waits on in the server"
    assert "Traceback" not in sink.log


def test_asked_to_stop_while_its_database_is_away_it_stops(tmp_path: Path) -> None:
    """A host that swallows what is sent to it: each connection attempt would take four seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent, running_sink(tmp_path, "") as sink:
        sink.url = f"postgresql://postel@127.0.0.1:{silent.getsockname()[1]}/postel"
        sink.start(ready=False)
        time.sleep(0.5)
        began = time.monotonic()
        assert sink.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 3
        assert "Traceback" not in sink.log
