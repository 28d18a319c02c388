"""`postel db` and the removal of demo data, against a database that a sink has written."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from psycopg import conninfo
from pydantic import SecretStr

from postel.errors import DatabaseError
from postel.otlp.signal import Signal
from postel.settings import Database, Settings
from postel.signals import load_all
from support.postgres import fresh_database
from support.sink import RunningSink, ingesting, recount
from timescale_sink.ingest import writer
from timescale_sink.store import commands, demo_removal

TIME = 1_768_471_200_000_000_000
RemoveWhileItComes = Callable[[Callable[[int], ExportMetricsServiceRequest]], Awaitable[demo_removal.Removed]]


def _resource(node: str, *, demo: bool) -> Resource:
    resource = Resource()
    resource.attributes.add(key="host.id", value=AnyValue(string_value=node))
    if demo:
        resource.attributes.add(key="postel.demo", value=AnyValue(bool_value=True))
    return resource


def _metrics(node: str, *, demo: bool, first: int = 0, begin: int = TIME) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add(resource=_resource(node, demo=demo)).scope_metrics.add().metrics
    for tick in range(first, first + 300):
        at = begin + tick * 15_000_000_000
        metrics.add(name="postel.host.cpu.load_average").gauge.data_points.add(time_unix_nano=at, as_double=tick)
        metrics.add(name="other").gauge.data_points.add(time_unix_nano=at, as_double=tick)
    metrics.add(name="other").gauge.data_points.add(as_double=1)
    return request


def _logs(node: str, *, demo: bool, event: str = "", count: int = 10) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add(resource=_resource(node, demo=demo)).scope_logs.add().log_records
    for number in range(count):
        records.add(time_unix_nano=TIME + number, body=AnyValue(int_value=number), event_name=event)
    return request


@pytest.fixture
async def written(migrated_database: str) -> str:
    """A database with the data of a real node and of a demo node."""
    async with ingesting(migrated_database) as ingest:
        for node, demo in (("n1", False), ("d1", True)):
            await ingest(Signal.METRICS, _metrics(node, demo=demo))
            await ingest(Signal.LOGS, _logs(node, demo=demo))
            await ingest(Signal.LOGS, _logs(node, demo=demo, event="zonemta.message.queued", count=3))
            await ingest(Signal.LOGS, _logs(node, demo=demo, event="zonemta.delivery.accepted", count=4))
    return migrated_database


def _settings(url: str, folder: Path) -> Settings:
    return Settings(data_dir=folder, database=Database(url=SecretStr(url)))


async def _remove_demo(url: str, folder: Path, quiet_seconds: float = 0) -> demo_removal.Removed:
    settings = _settings(url, folder)
    return await commands.remove_demo(settings, quiet_seconds=quiet_seconds, under_way=lambda: None)


async def test_check_is_clean_after_writing(written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await commands.check(_settings(written, tmp_path)) == 0
    assert capsys.readouterr().out == "the tables hold what the ledger says\n"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            "DELETE FROM metrics_system WHERE node_id = 'n1' AND time = '2026-01-15 10:00:15+00'",
            "2026-01-15 10:00 UTC metrics_system: the ledger says 480 stored, the tables hold 479",
        ),
        (
            "UPDATE metrics_system SET load_1m = NULL WHERE node_id = 'n1' AND time = '2026-01-15 11:00+00'",
            "2026-01-15 11:00 UTC metrics_system: the ledger says 120 stored, the tables hold 119",
        ),
        (
            "DELETE FROM otel_metric_point WHERE time = '2026-01-15 10:00:30+00'",
            "2026-01-15 10:00 UTC otel_metric_point: the ledger says 480 stored, the tables hold 478",
        ),
        (
            "DELETE FROM otel_log WHERE ctid = (SELECT min(ctid) FROM otel_log)",
            "2026-01-15 10:00 UTC otel_log: the ledger says 20 stored, the tables hold 19",
        ),
        (
            "DELETE FROM delivery_events WHERE ctid = (SELECT min(ctid) FROM delivery_events)",
            "2026-01-15 10:00 UTC delivery_events: the ledger says 8 stored, the tables hold 7",
        ),
        (
            "DELETE FROM dead_letter USING dead_letter_part WHERE part_id = resource_id AND content::text LIKE '%d1%'",
            "1970-01-01 00:00 UTC otel_metric_point: the ledger says 2 dead-lettered, the tables hold 1",
        ),
        (
            "INSERT INTO metrics_zonemta VALUES ('2026-01-15 12:00+00', 'n1', '', '', NULL, NULL, 1)",
            "2026-01-15 12:00 UTC metrics_zonemta: the ledger says 0 stored, the tables hold 1",
        ),
    ],
)
async def test_check_finds_what_was_changed_by_hand(
    written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, says: str
) -> None:
    with psycopg.connect(written, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        assert connection.execute(damage.encode()).rowcount
    assert await commands.check(_settings(written, tmp_path)) == 1
    assert capsys.readouterr().out.splitlines() == [says, "1 difference"]


async def test_the_demo_goes_and_the_rest_stays(written: str, tmp_path: Path) -> None:
    deleted = await _remove_demo(written, tmp_path)
    assert deleted.rows == {
        **dict.fromkeys(load_all().tables, 0),
        "metrics_system": 300,
        "otel_metric_point": 300,
        "otel_log": 10,
        "email_events": 3,
        "delivery_events": 4,
        "otel_series": 1,
        "node": 1,
    }
    with psycopg.connect(written) as connection:
        left = connection.execute(
            "SELECT node_id FROM metrics_system UNION SELECT node_id FROM otel_log"
            " UNION SELECT node_id FROM otel_series UNION SELECT id FROM node"
            " UNION SELECT node_id FROM email_events UNION SELECT node_id FROM delivery_events"
        ).fetchall()
    assert left == [("n1",)]
    assert await recount(written) == []
    again = await _remove_demo(written, tmp_path)
    assert set(again.rows.values()) == {0}
    assert await recount(written) == []


@pytest.fixture
def remove_while_it_comes(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RemoveWhileItComes:
    """Removes a demo of this minute, of which one sink stores more, given when it began, after it was deleted."""

    async def remove(late: Callable[[int], ExportMetricsServiceRequest]) -> demo_removal.Removed:
        begin = time.time_ns() - 300 * 15_000_000_000
        coming = [late(begin)]
        async with ingesting(migrated_database) as ingest:
            await ingest(Signal.METRICS, _metrics("d1", demo=True, begin=begin))

            async def pause(_seconds: float) -> None:
                while coming:
                    await ingest(Signal.METRICS, coming.pop())

            monkeypatch.setattr(demo_removal, "asyncio", SimpleNamespace(sleep=pause))
            return await _remove_demo(migrated_database, tmp_path, 0.1)

    return remove


async def test_what_was_under_way_when_a_demo_was_removed_is_deleted_too(
    migrated_database: str, remove_while_it_comes: RemoveWhileItComes
) -> None:
    """The sink knows its node and series, and writes rows of them alone."""
    removed = await remove_while_it_comes(lambda begin: _metrics("d1", demo=True, begin=begin + 1_000_000_000))
    assert (removed.rows["metrics_system"], removed.rows["otel_metric_point"]) == (600, 600)
    assert not removed.goes_on
    with psycopg.connect(migrated_database) as connection:
        for table in ("metrics_system", "otel_metric_point", "otel_series", "node"):
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)
    assert await recount(migrated_database) == []


async def test_a_demo_that_still_sends_is_told(remove_while_it_comes: RemoveWhileItComes) -> None:
    removed = await remove_while_it_comes(lambda _: _metrics("d1", demo=True, begin=time.time_ns()))
    assert removed.goes_on


async def test_what_comes_as_another_node_of_that_name_stays(
    migrated_database: str, remove_while_it_comes: RemoveWhileItComes
) -> None:
    removed = await remove_while_it_comes(lambda begin: _metrics("d1", demo=False, begin=begin + 1_000_000_000))
    assert removed.rows["metrics_system"] == 300
    with psycopg.connect(migrated_database) as connection:
        for table in ("metrics_system", "otel_metric_point"):
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (300,)
        assert connection.execute("SELECT id, demo FROM node").fetchall() == [("d1", False)]
    assert await recount(migrated_database) == []


async def test_a_demo_that_goes_on_while_it_is_removed_keeps_its_series(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sink forgets by time which series are there, also one that comes in every batch."""
    now = 0.0
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now))
    async with ingesting(migrated_database) as ingest:
        for tick in range(6):
            now = 25.0 * tick
            await ingest(Signal.METRICS, _metrics("d1", demo=True, first=1000 * tick))
            if tick == 1:
                await _remove_demo(migrated_database, tmp_path)
    with psycopg.connect(migrated_database) as connection:
        orphans = connection.execute(
            "SELECT count(*) FROM otel_metric_point LEFT JOIN otel_series USING (series_id) WHERE metric IS NULL"
        ).fetchone()
    assert orphans == (0,)
    assert await recount(migrated_database) == []


async def test_status_names_server_migrations_and_tables(
    written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await commands.status(_settings(written, tmp_path))
    said = capsys.readouterr().out
    assert said.startswith("server: PostgreSQL ")
    assert "applied: 0001_tables.sql" in said
    assert re.search(r"^table: metrics_system, .*, 600 rows$", said, re.MULTILINE)
    assert re.search(r"^table: dead_letter, .*, 2 rows$", said, re.MULTILINE)


async def test_a_large_table_is_estimated(
    written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(written, autocommit=True) as connection:
        connection.execute("ANALYZE otel_log")
    monkeypatch.setattr(commands, "_COUNTED_BYTES", 1)
    await commands.status(_settings(written, tmp_path))
    assert re.search(r"^table: otel_log, .*, about 20 rows$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("first", [True, False])
async def test_a_node_that_sent_real_data_is_never_taken_for_a_demo(
    migrated_database: str, tmp_path: Path, *, first: bool
) -> None:
    """Whatever sends the mark by mistake, before or after: its rows are not deleted."""
    async with ingesting(migrated_database) as ingest:
        for demo in (first, not first):
            await ingest(Signal.METRICS, _metrics("n1", demo=demo))
        both = _logs("n2", demo=first)
        both.MergeFrom(_logs("n2", demo=not first))
        await ingest(Signal.LOGS, both)
    deleted = await _remove_demo(migrated_database, tmp_path)
    assert set(deleted.rows.values()) == {0}


async def test_a_table_that_was_dropped_is_named(written: str, tmp_path: Path) -> None:
    with psycopg.connect(written, autocommit=True) as connection:
        connection.execute("DROP TABLE dead_letter CASCADE")
    with pytest.raises(DatabaseError, match=r"changed by hand: relation .dead_letter. does not exist"):
        await commands.check(_settings(written, tmp_path))


async def test_a_role_that_may_not_read_is_named(written: str, tmp_path: Path) -> None:
    with psycopg.connect(written, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader_of_nothing LOGIN; GRANT SELECT ON postel_migration TO reader_of_nothing")
    try:
        url = conninfo.make_conninfo(written, user="reader_of_nothing")
        with pytest.raises(DatabaseError, match=r"may not do that: permission denied for (table|view)"):
            await commands.check(_settings(url, tmp_path))
    finally:
        with psycopg.connect(written, autocommit=True) as connection:
            connection.execute("DROP OWNED BY reader_of_nothing; DROP ROLE reader_of_nothing")


async def test_a_database_without_a_schema_is_named(postgres: str, tmp_path: Path) -> None:
    with fresh_database(postgres) as url, pytest.raises(DatabaseError, match="run `postel db migrate`"):
        await commands.check(_settings(url, tmp_path))


def test_the_commands_as_they_are_typed(postgres: str, tmp_path: Path) -> None:
    with fresh_database(postgres) as url:
        sink = RunningSink(tmp_path, url)
        assert sink.command("db", "url").stdout.strip() == url
        first = sink.command("db", "migrate")
        assert (first.returncode, first.stdout[:8]) == (0, "applied:")
        assert sink.command("db", "migrate").stdout == "the schema is up to date\n"
        assert sink.command("db", "status").returncode == 0
        assert sink.command("db", "check").returncode == 0
