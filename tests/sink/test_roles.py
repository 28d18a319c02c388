"""The roles of the database: each does its work under a login that is in it alone, and nothing beyond.

That every route of the API answers under `postel_serve` tests/page/test_openapi.py shows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from pydantic import SecretStr
from structlog.testing import capture_logs

from postel.errors import DatabaseError
from postel.otlp import codec
from postel.settings import Alerts, Database, Settings
from postel.signals import load_all
from support.page import serving
from support.postgres import migrate_now
from support.roles import logins, make_roles
from support.sink import running_sink
from timescale_sink.alerts import notify
from timescale_sink.alerts.evaluate import Evaluator, _now
from timescale_sink.alerts.rules import load
from timescale_sink.store import commands
from timescale_sink.store import migrate as migrations
from timescale_sink.store.database import connect
from timescale_sink.store.housekeeping import keep_house
from timescale_sink.store.migrate import Script, relations, scripts
from timescale_sink.store.roles import READ, ROLES, SERVE, WRITE

TIME = 1_768_471_200_000_000_000


@pytest.fixture
def urls(migrated_database: str) -> Iterator[Mapping[str, str]]:
    """Role -> URL, and "owner"."""
    with logins(migrated_database) as urls:
        yield {**urls, "owner": migrated_database}


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def metrics(cpu: float, memory: float | None = None) -> bytes:
    """A cell or two of one row, a point of another metric, and one that becomes a dead letter."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="one"))
    all_ = resource.scope_metrics.add().metrics
    all_.add(name="postel.host.cpu.load_average").gauge.data_points.add(time_unix_nano=TIME, as_double=cpu)
    if memory is not None:
        all_.add(name="postel.host.memory.utilization").gauge.data_points.add(time_unix_nano=TIME, as_double=memory)
    all_.add(name="another").gauge.data_points.add(time_unix_nano=TIME, as_double=cpu)
    all_.add(name="timeless").gauge.data_points.add(as_double=1)
    return request.SerializeToString()


def logs() -> bytes:
    """An event of mail, and a log."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="one"))
    records = resource.scope_logs.add().log_records
    event = records.add(event_name="zonemta.delivery.accepted", time_unix_nano=TIME)
    event.attributes.add(key="log.record.uid", value=AnyValue(string_value="0198c0de-0000-7000-8000-000000000001"))
    records.add(time_unix_nano=TIME).body.string_value = "a line"
    return request.SerializeToString()


COUNTED = ("metrics_system", "otel_metric_point", "otel_log", "delivery_events", "dead_letter", "node")


def test_a_sink_that_may_only_write_writes_all_of_it(urls: Mapping[str, str], tmp_path: Path) -> None:
    headers = {"content-type": codec.PROTOBUF}
    with running_sink(tmp_path, urls["owner"]) as sink:
        assert sink.command("db", "migrate").returncode == 0
        sink.url = urls[WRITE]
        sink.start()
        # Twice, and a cell more of the same row: what is there already goes another way; and another one in columns.
        for body in (metrics(0.5), metrics(0.5, 12.0)):
            answer = httpx.post(f"{sink.http}/v1/metrics", content=body, headers=headers)
            assert answer.status_code == httpx.codes.OK, answer.text
            if ask(urls["owner"], "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'"):
                packed = "SELECT compress_chunk(part, if_not_compressed => true) FROM show_chunks(%s) AS part"
                for table in ("metrics_system", "otel_metric_point"):
                    assert ask(urls["owner"], packed % f"'{table}'")
        for _ in range(2):
            answer = httpx.post(f"{sink.http}/v1/logs", content=logs(), headers=headers)
            assert answer.status_code == httpx.codes.OK, answer.text
        counts = {table: ask(urls["owner"], f"SELECT count(*) FROM {table}")[0][0] for table in COUNTED}
        assert counts == dict.fromkeys(COUNTED, 1)
        assert sink.command("db", "check").returncode == 0
        # Of its rights it says nothing: not of how long things are kept, nor of TimescaleDB.
        (said,) = [line for line in sink.log.splitlines() if "[warning" in line or "[error" in line]
        assert "dead_letter has them" in said

    # Old letters and series go, whoever keeps house.
    ask(urls["owner"], "UPDATE dead_letter SET received_at = '2020-01-01+00'")
    with capture_logs() as log:
        assert asyncio.run(keep_house(urls[WRITE], load_all()))
    assert [line for line in log if line["log_level"] != "info"] == []
    assert ask(urls["owner"], "SELECT count(*) FROM dead_letter") == [(0,)]


NODE = """
    INSERT INTO node (id, host, first_seen, last_seen)
    VALUES ('one', 'one', now() - interval '2 hours', now() - interval '1 hour')
"""


def test_serve_keeps_alerts_and_answers(urls: Mapping[str, str], tmp_path: Path) -> None:
    ask(urls["owner"], NODE)
    with serving(tmp_path, urls[SERVE]) as page:
        silence = {"rule": "node-silent", "ends": "2099-01-01T00:00:00Z", "author": "a", "reason": "b", "labels": {}}
        made = httpx.post(f"{page}/api/v1/silences", json=silence)
        assert made.status_code == httpx.codes.CREATED, made.text
        assert httpx.delete(f"{page}/api/v1/silences/{made.json()['id']}").status_code == httpx.codes.NO_CONTENT
        assert httpx.get(f"{page}/api/v1/nodes").json()["nodes"]
    assert ask(urls["owner"], "DELETE FROM alert; DELETE FROM alert_change; DELETE FROM alert_notification") == []

    async def tell() -> None:
        connection = await connect(urls[SERVE])
        try:
            targets = (SecretStr("json://127.0.0.1:1/"),)
            evaluator = Evaluator(load(None), Alerts(notify=targets), "http://page.test")
            now = await _now(connection)
            for later in (0, 1):
                await evaluator.evaluate(connection, now + timedelta(hours=later))
                await evaluator.tell(connection, now + timedelta(hours=later))
            # Nobody listens there: it is noted for the next try.
            await notify.send(connection, targets, now + timedelta(hours=1))
        finally:
            await connection.close()

    asyncio.run(tell())
    assert ask(urls["owner"], "SELECT rule FROM alert_change WHERE rule = 'node-silent'") == [("node-silent",)]
    assert ask(urls["owner"], "SELECT attempts > 0 FROM alert_notification LIMIT 1") == [(True,)]
    assert ask(urls["owner"], "SELECT count(*) FROM alert WHERE rule = 'rule-broken'") == [(0,)]


# What only the owner may, whatever the role.
OF_OWNER = (
    "DROP TABLE email_events",
    "ALTER TABLE email_events ADD COLUMN more text",
    "CREATE TABLE another (x int)",
    "TRUNCATE email_events",
    "UPDATE retention SET keep = NULL",
    "UPDATE retained SET relation = ''",
    "INSERT INTO postel_migration (name, checksum) VALUES ('x', 'x')",
    "DROP FUNCTION kept_since(text)",
    "CREATE ROLE one_more",
)
EVENT = "INSERT INTO email_events (event_id, time) VALUES (gen_random_uuid(), now())"
OF_ALERTS = (
    "DELETE FROM alert",
    "UPDATE alert SET told = NULL",
    "INSERT INTO alert_silence (starts, ends, author, reason) VALUES (now(), now(), '', '')",
)
OF_DATA = (EVENT, "UPDATE node SET host = ''", "DELETE FROM dead_letter", "DELETE FROM ingest_ledger")


@pytest.mark.parametrize(
    ("role", "denied"),
    [(WRITE, (*OF_OWNER, *OF_ALERTS)), (SERVE, (*OF_OWNER, *OF_DATA)), (READ, (*OF_OWNER, *OF_DATA, *OF_ALERTS))],
)
def test_what_a_role_has_no_need_of_it_may_not(urls: Mapping[str, str], role: str, denied: tuple[str, ...]) -> None:
    assert ask(urls[role], "SELECT count(*) FROM email_events, email_events_5m, alert") == [(0,)]
    with psycopg.connect(urls[role], autocommit=True) as connection:
        for statement in denied:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        if role != WRITE:
            return
        # What it may fails for another reason.
        with pytest.raises(psycopg.errors.NotNullViolation):
            connection.execute(EVENT.encode())


def test_a_later_migration_keeps_them(urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    later = Script("9999_later.sql", "CREATE TABLE later (x int); CREATE VIEW later_view AS SELECT x FROM later")
    known = scripts("migrations")
    monkeypatch.setattr(
        migrations, "scripts", lambda folder: [*known, later] if folder == "migrations" else scripts(folder)
    )
    assert migrate_now(urls["owner"]) == ["9999_later.sql", "views"]
    ask(urls[WRITE], "INSERT INTO later VALUES (1)")
    for role in ROLES:
        assert ask(urls[role], "SELECT x FROM later_view") == [(1,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(urls[role], "UPDATE later_view SET x = 2")
    # A second time there is nothing to make.
    assert make_roles(urls["owner"]) == []


# Beside TimescaleDB's, which are an extension's.
THERE = """
    SELECT relname::text FROM pg_class
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace = current_schema()::regnamespace
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
"""


def test_every_script_that_makes_a_relation_is_understood() -> None:
    """However a script says it, and on servers that are not here too."""
    lines = [
        line
        for folder in ("migrations", "views")
        for script in scripts(folder)
        for line in script.text.splitlines()
        if re.match(r"\s*create\b.*\b(table|view)\b", line, re.IGNORECASE)
    ]
    assert len(lines) > 60
    assert [line for line in lines if not relations(load_all()) & set(re.findall(r"\w+", line))] == []


def test_every_relation_that_is_made_is_known(migrated_database: str) -> None:
    there = {name for (name,) in ask(migrated_database, THERE)}
    assert there <= relations(load_all())
    # On TimescaleDB Community there are all of them.
    if ask(migrated_database, "SELECT FROM pg_class WHERE relname = 'metrics_system_5m_1'"):
        assert there == relations(load_all())


def test_what_others_have_in_the_schema_stays_theirs(urls: Mapping[str, str]) -> None:
    """A table and a view of the same owner: neither by `db roles` nor after a migration."""
    foreign = "CREATE TABLE invoice (x int); CREATE VIEW invoice_view AS SELECT x FROM invoice"
    ask(urls["owner"], foreign)
    make_roles(urls["owner"])
    ask(urls["owner"], "UPDATE postel_migration SET checksum = '' WHERE name = 'views'")
    assert migrate_now(urls["owner"]) == ["views"]
    for role in ROLES:
        for statement in ("SELECT FROM invoice", "SELECT FROM invoice_view", "INSERT INTO invoice VALUES (1)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ask(urls[role], statement)
        assert ask(urls[role], "SELECT count(*) FROM node") == [(0,)]


def test_who_may_not_make_roles_hears_who_may(
    urls: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def settings(url: str) -> Settings:
        return Settings(data_dir=tmp_path, database=Database(url=SecretStr(url)))

    for refused in (commands.make_roles(settings(urls[WRITE])), commands.keep_house(settings(urls[WRITE]), hours=1)):
        with pytest.raises(DatabaseError, match=r"does not own Postel's tables; run this as the one that migrates"):
            asyncio.run(refused)
    asyncio.run(commands.make_roles(settings(urls["owner"])))
    assert f"{WRITE}: a sink: " in capsys.readouterr().out
    asyncio.run(commands.keep_house(settings(urls["owner"]), hours=None))
    assert capsys.readouterr().out == "done\n"
