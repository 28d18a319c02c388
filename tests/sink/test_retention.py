"""What is kept for how long: the sink deletes, or TimescaleDB Community's jobs do, and the recount agrees."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from psycopg import conninfo
from pydantic import SecretStr
from structlog.testing import capture_logs

from postel.errors import DatabaseError
from postel.otlp.signal import Signal
from postel.settings import Database, Settings
from postel.signals import load_all
from support.plans import blocks_read
from support.sink import ingesting, recount
from timescale_sink.ingest import service
from timescale_sink.ingest.service import Service
from timescale_sink.store import commands, housekeeping, retention, rollup_views
from timescale_sink.store.database import check_rights, connect
from timescale_sink.store.housekeeping import keep_house
from timescale_sink.store.migrate import SCHEMA_LOCK

DECLARED = load_all()
EVENTS = ("", "zonemta.message.queued", "zonemta.delivery.accepted")
# Days ago; of the raw days, 30, the last is a whole one.
AGES = (400, 40, 31.5, 29, 1)
_NOTHING = retention.Changes([], [], [])


@pytest.fixture
def url(migrated_on_any_server: str) -> str:
    return migrated_on_any_server


def _ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def _community(url: str) -> bool:
    return _ask(url, "SELECT to_regproc('aggregates_of') IS NOT NULL") == [(True,)]


async def _keep_house(url: str) -> None:
    """Once, and whatever jobs drop rows, as they stand in the database; they run by themselves too."""
    assert await keep_house(url, DECLARED)
    if not _community(url):
        return
    jobs = "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention' AND job_id >= 1000"
    for (job,) in _ask(url, jobs):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CALL run_job({job})".encode())


async def _apply(url: str, settings: Database) -> retention.Changes:
    connection = await connect(url)
    try:
        return await retention.apply(connection, settings, DECLARED)
    finally:
        await connection.close()


async def _write(url: str) -> datetime:
    """A row in every table for each age, and dead letters; returns the now that the ages count from."""
    now: datetime = _ask(url, "SELECT now()")[0][0]
    metrics = ExportMetricsServiceRequest()
    logs = ExportLogsServiceRequest()
    resource = metrics.resource_metrics.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="n1"))
    points = resource.scope_metrics.add().metrics
    records = logs.resource_logs.add().scope_logs.add().log_records
    for age in AGES:
        at = int((now - timedelta(days=age)).timestamp() * 1e9)
        points.add(name="postel.host.cpu.load_average").gauge.data_points.add(time_unix_nano=at, as_double=age)
        points.add(name="other", unit=f"{age}").gauge.data_points.add(time_unix_nano=at, as_double=age)
        points.add(name="postel.host.process.count").gauge.data_points.add(time_unix_nano=at, as_double=0.5)
        for event in EVENTS:
            records.add(time_unix_nano=at, body=AnyValue(double_value=age), event_name=event)
    points.add(name="postel.host.cpu.load_average").gauge.data_points.add(as_double=1)
    async with ingesting(url) as ingest:
        await ingest(Signal.METRICS, metrics)
        await ingest(Signal.LOGS, logs)
    return now


def _days(url: str, table: str, now: datetime) -> list[float]:
    rows = _ask(url, f"SELECT time FROM {table} WHERE time < now() ORDER BY time")
    return [round((now - at) / timedelta(days=1), 1) for (at,) in rows]


async def test_what_is_too_old_goes_and_the_recount_agrees_all_the_time(url: str) -> None:
    now = await _write(url)
    tables = ("metrics_system", "otel_metric_point", "otel_log", "email_events", "delivery_events")
    assert await recount(url) == []
    assert (await _apply(url, Database())).first
    # Rows that are still there are rows that may be gone: nobody counts on them.
    assert await recount(url) == []
    await _keep_house(url)
    for table in tables:
        assert _days(url, table, now) == [29, 1], table
    assert await recount(url) == []
    # The series that have points, and those that are younger than what is kept of points.
    assert _ask(url, "SELECT count(*) FROM otel_series") == [(len(AGES),)]
    _ask(url, "UPDATE otel_series SET first_seen = '2020-01-01+00' RETURNING 1")
    await _keep_house(url)
    assert [unit for (unit,) in _ask(url, "SELECT unit FROM otel_series ORDER BY unit")] == ["1", "29"]
    # The ledger is kept for a year.
    ((lines, oldest),) = _ask(url, "SELECT count(*), min(hour) FROM ingest_ledger WHERE hour > '1971-01-01+00'")
    assert (lines > 0, now - oldest > timedelta(days=39)) == (True, True)
    assert await recount(url) == []


async def test_a_row_that_is_lost_within_what_is_kept_is_still_found(url: str) -> None:
    await _write(url)
    await _apply(url, Database())
    await _keep_house(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM otel_log WHERE time < now() - interval '28 days'")
    (difference,) = await recount(url)
    assert (difference.destination, difference.ledger, difference.counted) == ("otel_log", 1, 0)


async def test_what_is_kept_for_ever_stays(url: str) -> None:
    now = await _write(url)
    await _apply(url, Database(raw_days=0, rollup_days=0, dead_letter_days=0))
    _ask(url, "UPDATE dead_letter SET received_at = '2020-01-01+00' RETURNING 1")
    await _keep_house(url)
    assert _days(url, "metrics_system", now) == list(AGES)
    assert _ask(url, "SELECT count(*) FROM dead_letter") == [(len(AGES) + 1,)]
    assert await recount(url) == []


async def test_dead_letters_go_by_when_they_came_and_the_ledger_notes_it(url: str) -> None:
    """Also those without any time, whose hour is 1970; what stands above none that is left goes too."""
    await _write(url)
    await _apply(url, Database())
    assert _ask(url, "SELECT count(*) FROM dead_letter") == [(len(AGES) + 1,)]
    _ask(
        url,
        "UPDATE dead_letter SET received_at = now() - interval '100 days'"
        " WHERE hour < '1971-01-01+00' OR hour > now() - interval '2 days' RETURNING 1",
    )
    parts = _ask(url, "SELECT count(*) FROM dead_letter_part")
    await keep_house(url, DECLARED)
    assert _ask(url, "SELECT count(*) FROM dead_letter") == [(len(AGES) - 1,)]
    assert _ask(url, "SELECT count(*) FROM dead_letter_part") < parts
    assert _ask(url, "SELECT count(*) FROM dead_letter_request WHERE request IS NULL") == [(0,)]
    assert await recount(url) == []
    # The others after the ledger's own time: their lines stay as long as they do, and then nothing is left of the hour.
    _ask(url, "UPDATE dead_letter SET received_at = '2020-01-01+00' RETURNING 1")
    assert _ask(url, "SELECT count(*) > 0 FROM ingest_ledger WHERE hour < now() - interval '380 days'") == [(True,)]
    await keep_house(url, DECLARED)
    assert _ask(url, "SELECT count(*) FROM ingest_ledger WHERE hour < now() - interval '380 days'") == [(0,)]
    assert _ask(url, "SELECT count(*) FROM dead_letter_part") == [(0,)]
    assert await recount(url) == []


async def test_many_rows_go_a_few_at_a_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await _apply(url, Database())
    _ask(
        url,
        "INSERT INTO metrics_system (time, node_id, instance, zone)"
        " SELECT now() - interval '60 days' + i / 7 * interval '7 hours', 'n' || i, '', ''"
        " FROM generate_series(1, 1000) AS i RETURNING 1",
    )
    monkeypatch.setattr(housekeeping, "_ROWS", 64)
    with psycopg.connect(url) as other:
        # A row that a transaction holds is left, and nobody waits for it. A job that drops chunks would: not the sink.
        other.execute("SELECT FROM metrics_system WHERE node_id = 'n100' FOR UPDATE")
        assert await asyncio.wait_for(keep_house(url, DECLARED), 120)
        old = "SELECT node_id FROM metrics_system WHERE time < kept_since('metrics_system')"
        if not _community(url):
            assert _ask(url, old) == [("n100",)]
        other.rollback()
    await _keep_house(url)
    assert _ask(url, old) == []
    assert 0 < _ask(url, "SELECT count(*) FROM metrics_system")[0][0] < 1000


async def test_one_sink_at_a_time_keeps_house(url: str) -> None:
    await _write(url)
    await _apply(url, Database())
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (housekeeping._LOCK,))
        assert not await keep_house(url, DECLARED)
        assert _ask(url, "SELECT count(*) FROM metrics_system") == [(len(AGES),)]
    await _keep_house(url)
    assert _ask(url, "SELECT count(*) FROM metrics_system") == [(2,)]


async def test_one_program_at_a_time_sets_how_long_things_are_kept(url: str) -> None:
    """Two sinks that start together would both add a job of TimescaleDB's, and the second be told that it is there."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (SCHEMA_LOCK,))
        both = [asyncio.create_task(_apply(url, Database())) for _ in range(2)]
        await asyncio.wait(both, timeout=0.5)
        assert [task.done() for task in both] == [False, False]
        other.execute("SELECT pg_advisory_unlock(%s)", (SCHEMA_LOCK,))
        assert sorted(bool(made.first) for made in await asyncio.gather(*both)) == [False, True]


async def test_settings_that_are_so_already_touch_nothing(url: str) -> None:
    """So a role that may only read the table is enough, as long as nothing is to change."""
    made = await _apply(url, Database())
    rollups = rollup_views.names(DECLARED) if _community(url) else []
    assert made.first == sorted([*retention.tables(DECLARED), "dead_letter", "ingest_ledger", *rollups])
    assert made.changed == []
    read_only = conninfo.make_conninfo(url, options="-c default_transaction_read_only=on")
    assert await _apply(read_only, Database()) == _NOTHING
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await _apply(read_only, Database(raw_days=31))
    assert await _apply(url, Database(dead_letter_days=7)) == retention.Changes([], ["dead_letter"], [])


async def test_a_sink_changes_what_it_was_told_and_nothing_else(url: str, tmp_path: Path) -> None:
    """Another one without settings of its own would delete, by its defaults, what the first was told to keep."""
    kept = "SELECT keep FROM retention WHERE relation IN ('otel_log', 'dead_letter', 'ingest_ledger') ORDER BY relation"
    await _apply(url, Database(raw_days=400, rollup_days=500, dead_letter_days=7))
    assert await _apply(url, Database()) == _NOTHING
    # What names people is kept no longer than the events are.
    personal = ["email_events_senders_1h"] if _community(url) else []
    assert (await _apply(url, Database(raw_days=450))).changed == sorted([*retention.tables(DECLARED), *personal])
    assert [time.days for (time,) in _ask(url, kept)] == [7, 500, 450]
    # Rows would be kept longer than their rollups. No reason to take no data.
    settings = Settings(data_dir=tmp_path, database=Database(url=SecretStr(url), rollup_days=365))
    with pytest.raises(DatabaseError, match="would make it raw_days 450, rollup_days 365"):
        await commands.migrate(settings)
    with capture_logs() as logs:
        await Service(settings)._prepare(url)
    assert ("how long things are kept stays as it was", "warning") in [(log["event"], log["log_level"]) for log in logs]
    assert [time.days for (time,) in _ask(url, kept)] == [7, 500, 450]


async def test_only_a_time_that_was_another_is_said_to_be(url: str, tmp_path: Path) -> None:
    for days, said in ((None, 0), (None, 0), (40, 1)):
        database = Database(url=SecretStr(url)) if days is None else Database(url=SecretStr(url), raw_days=days)
        with capture_logs() as logs:
            await Service(Settings(data_dir=tmp_path, database=database))._prepare(url)
        assert [log["event"] for log in logs].count("things are kept for another time than before") == said


async def test_a_housekeeping_that_fails_harms_no_ingest(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails in three ways, is tried again each time, and requests are taken all the while."""
    failures: list[BaseException | None] = [
        psycopg.OperationalError("gone"),
        DatabaseError("refused"),
        RuntimeError("unforeseen"),
        None,
    ]
    done = asyncio.Event()

    async def failing(*_: Any) -> bool:
        if not failures:
            done.set()
        elif failure := failures.pop(0):
            raise failure
        return True

    monkeypatch.setattr(housekeeping, "keep_house", failing)
    monkeypatch.setattr(service, "_FIRST_HOUSE_SECONDS", 0)
    monkeypatch.setattr(service, "_HOUSE_SECONDS", 0.01)
    settings = Settings(data_dir=tmp_path, database=Database(url=SecretStr(url)))
    ingest, stop = Service(settings), asyncio.Event()
    running = asyncio.create_task(ingest.run(stop))
    await asyncio.wait_for(done.wait(), 60)
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=10**18, body=AnyValue(int_value=1))
    await ingest(Signal.LOGS, request)
    stop.set()
    await running
    assert _ask(url, "SELECT count(*) FROM otel_log") == [(1,)]
    # At its start the sink has said for how long things are kept.
    kept = "SELECT extract(epoch FROM keep)::int / 86400 FROM retention WHERE relation = 'otel_log'"
    assert _ask(url, kept) == [(30,)]


async def test_a_step_that_fails_keeps_no_other_from_being_done(url: str) -> None:
    now = await _write(url)
    await _apply(url, Database())
    _ask(url, "UPDATE dead_letter SET received_at = '2020-01-01+00' RETURNING 1")
    # Where jobs drop the rows of tables, the first step is another one.
    table, column = ("otel_series", "first_seen") if _community(url) else ("metrics_system", "time")
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO at".encode())
        with capture_logs() as logs:
            assert await keep_house(url, DECLARED)
        owner.execute(f"ALTER TABLE {table} RENAME COLUMN at TO {column}".encode())
    assert [log["step"] for log in logs if log["event"] == "a step of the housekeeping failed"] == [table]
    assert _ask(url, "SELECT count(*) FROM dead_letter") == [(0,)]
    if not _community(url):
        assert _days(url, "otel_metric_point", now) == [29, 1]


async def test_clocks_that_are_apart_delete_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's may be years ahead, and everything would seem old."""

    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Behind:
            return super().now(tz) - timedelta(hours=2)

    await _write(url)
    await _apply(url, Database())
    monkeypatch.setattr(housekeeping, "datetime", Behind)
    assert await keep_house(url, DECLARED)
    assert _ask(url, "SELECT count(*) FROM metrics_system") == [(len(AGES),)]
    if _community(url):
        jobs = "SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention'"
        assert _ask(url, f"{jobs} AND hypertable_name = 'metrics_system'") == [(0,)]


async def test_a_line_that_a_sink_holds_keeps_no_other_from_going(url: str) -> None:
    """Who waited for it while the sink waits for the next would be in a deadlock with it."""
    await _apply(url, Database())
    _ask(
        url,
        "INSERT INTO ingest_ledger (hour, destination, sink)"
        " SELECT now() - i * interval '400 days', 'otel_log', sink FROM generate_series(1, 3) AS i,"
        " (VALUES ('a'), ('b')) AS sinks (sink) RETURNING 1",
    )
    lines = "SELECT round(extract(epoch FROM now() - hour) / 86400)::int, sink FROM ingest_ledger ORDER BY 1, 2"
    with psycopg.connect(url) as sink, capture_logs() as logs:
        sink.execute(
            "UPDATE ingest_ledger SET received = 1, stored = 1 WHERE sink = 'b' AND hour < now() - '1000d'::interval"
        )
        assert await keep_house(url, DECLARED)
        # The two lines of an hour go together.
        assert _ask(url, lines) == [(1200, "a"), (1200, "b")]
        sink.commit()
    assert [log for log in logs if log["log_level"] == "warning"] == []
    assert await keep_house(url, DECLARED)
    assert _ask(url, lines) == []


async def test_many_lines_go_a_few_at_a_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "_ROWS", 5)
    await _apply(url, Database())
    _ask(
        url,
        "INSERT INTO ingest_ledger (hour, destination, sink, received, dead_lettered)"
        " SELECT now() - i * interval '400 days', table_, sink, i % 2, i % 2 FROM generate_series(1, 4) AS i,"
        " (VALUES ('otel_log'), ('email_events')) AS tables (table_), generate_series(1, 3) AS sink RETURNING 1",
    )
    assert await keep_house(url, DECLARED)
    # Those whose dead letters are still there, as far as the ledger knows.
    assert _ask(url, "SELECT DISTINCT dead_lettered FROM ingest_ledger") == [(1,)]
    assert _ask(url, "SELECT count(*) FROM ingest_ledger") == [(12,)]


def test_a_part_that_is_not_used_is_found_without_reading_the_letters(url: str) -> None:
    """Senders wait meanwhile."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO dead_letter (record_id, hour, destination, reason, record, resource_id, scope_id, metric_id)"
            " SELECT md5('l' || i)::uuid, now(), 'otel_log', '', '{}', md5('r' || i)::uuid, md5('s')::uuid,"
            " md5('m' || i)::uuid FROM generate_series(1, 20000) AS i"
        )
        connection.execute(
            "INSERT INTO dead_letter_part SELECT md5(name)::uuid, '{}'"
            " FROM (VALUES ('r7'), ('s'), ('m9'), ('none'), ('more')) AS parts (name)"
        )
        connection.execute("ANALYZE dead_letter, dead_letter_part")
        delete = f"DELETE FROM dead_letter_part WHERE {housekeeping._UNUSED}"
        assert blocks_read(connection, delete) < 100
        assert connection.execute("SELECT count(*) FROM dead_letter_part").fetchone() == (3,)


async def test_series_without_points_are_found_however_many_there_are(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_SERIES", 2)
    await _write(url)
    await _apply(url, Database())
    _ask(url, "UPDATE otel_series SET first_seen = '2020-01-01+00' RETURNING 1")
    assert await keep_house(url, DECLARED)
    assert [unit for (unit,) in _ask(url, "SELECT unit FROM otel_series ORDER BY unit")] == ["1", "29"]


async def test_a_node_goes_with_the_last_that_was_kept_of_it(url: str) -> None:
    await _write(url)
    seen = "UPDATE node SET last_seen = now() - interval '{} days' RETURNING 1"
    for_ever, a_year = Database(raw_days=0, rollup_days=0), Database(raw_days=30, rollup_days=365)
    # Where rollups are kept of their own there may be some; else nothing that rows do not give.
    within, beyond = (360, 400) if _community(url) else (29, 40)
    for days, kept, left in ((beyond, for_ever, 1), (within, a_year, 1), (beyond, a_year, 0)):
        await _apply(url, kept)
        assert _ask(url, seen.format(days)) == [(1,)]
        await _keep_house(url)
        assert _ask(url, "SELECT count(*) FROM node") == [(left,)], days


async def test_a_node_that_a_sink_holds_is_not_waited_for(url: str) -> None:
    await _write(url)
    await _apply(url, Database())
    _ask(url, "UPDATE node SET last_seen = now() - interval '400 days' RETURNING 1")
    with psycopg.connect(url) as sink, capture_logs() as logged:
        sink.execute("UPDATE node SET last_seen = now()")
        await _keep_house(url)
        assert [line for line in logged if line["log_level"] == "warning"] == []
    await _keep_house(url)
    assert _ask(url, "SELECT count(*) FROM node") == [(1,)]


async def test_a_role_that_may_not_change_it_takes_data_all_the_same(url: str, tmp_path: Path) -> None:
    name = str(conninfo.conninfo_to_dict(url)["dbname"]).replace("postel_test", "role")
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD 'x';"
            f" GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name};"
            f" REVOKE INSERT, UPDATE ON retention FROM {name}".encode()
        )
        try:
            lesser = conninfo.make_conninfo(url, user=name, password="x")  # noqa: S106 - of this test's role
            settings = Settings(data_dir=tmp_path, database=Database(url=SecretStr(lesser)))
            connection = await connect(lesser)
            try:
                await check_rights(connection)
                assert await Service(settings)._apply_retention(connection) is None
            finally:
                await connection.close()
            with pytest.raises(DatabaseError, match="may not"):
                await commands.migrate(settings)
        finally:
            owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
    assert _ask(url, "SELECT count(*) FROM retention") == [(0,)]


async def test_migrating_says_for_how_long_things_are_kept(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data_dir=tmp_path, database=Database(url=SecretStr(url)))
    await commands.migrate(settings)
    said = capsys.readouterr().out
    assert "kept for a time from now on: dead_letter, delivery_events, " in said
    assert "than before" not in said
    await commands.migrate(settings)
    assert capsys.readouterr().out == "the schema is up to date\n"
    await commands.migrate(Settings(data_dir=tmp_path, database=Database(url=SecretStr(url), dead_letter_days=91)))
    assert "kept for another time than before: dead_letter\n" in capsys.readouterr().out
    await commands.status(settings)
    said = capsys.readouterr().out
    assert "kept: metrics_system, 30 days\n" in said
    assert "kept: dead_letter, 91 days\n" in said
