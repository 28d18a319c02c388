"""`postel db migrate --check`: says what migrating does and whom it holds up, and leaves a database as it was."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo
from pydantic import SecretStr

from postel.errors import DatabaseError
from postel.settings import Database, Settings
from postel.signals import load_all
from support.earlier import migrate_below
from support.postgres import fresh_database
from timescale_sink.store import commands, rehearsal
from timescale_sink.store import migrate as migrations
from timescale_sink.store.database import connect
from timescale_sink.store.migrate import Script, migrate, scripts
from timescale_sink.store.rehearsal import Held, Rehearsal, Waits, rehearse

EARLIER = "0028"
ROWS = (
    """
    INSERT INTO metrics_system (time, node_id, instance, zone, load_1m)
    SELECT now() - n * interval '1 hour', 'n', '', '', n FROM generate_series(1, 300) AS n
    """,
    """
    INSERT INTO email_events (
        time, event_id, node_id, instance, event_name, direction, outcome, from_user, from_domain, attributes
    )
    SELECT now() - n * interval '1 minute', gen_random_uuid(), 'n', '', 'zonemta.message.queued', 'outbound', 'queued',
        'user' || n % 7, 'example.org', '{}'
    FROM generate_series(1, 20000) AS n
    """,
)
# Everything in the database that has a name, and what is in each table.
STATE = """
    SELECT oid::regclass::text, relkind::text, relhasindex, relchecks, obj_description(oid), CASE WHEN relkind = 'v'
        THEN pg_get_viewdef(oid) END FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT attrelid::regclass::text, attname::text, attnotnull, attnum, NULL, NULL FROM pg_attribute
        WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
    UNION ALL SELECT oid::regprocedure::text, 'function', NULL, NULL, obj_description(oid), prosrc FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT name, checksum, NULL, NULL, NULL, applied_at::text FROM postel_migration
    UNION ALL SELECT relation, to_jsonb(retention)::text, NULL, NULL, NULL, NULL FROM retention
    UNION ALL SELECT 'rows', 'metrics_system', NULL, NULL, count(*)::text, sum(load_1m)::text FROM metrics_system
    UNION ALL SELECT 'rows', 'email_events', NULL, NULL, count(*)::text, NULL FROM email_events
    ORDER BY 1, 2, 4
"""


@pytest.fixture
def url(any_server: str) -> Iterator[str]:
    with fresh_database(any_server) as url:
        yield url


async def rehearsed(url: str, seconds: float = 60) -> Rehearsal:
    connection, observer = await connect(url), await connect(url)
    try:
        return await rehearse(connection, observer, Database(), load_all(), seconds)
    finally:
        await connection.close()
        await observer.close()


def state(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(STATE.encode()).fetchall()


async def test_it_says_what_migrating_does_and_leaves_all_as_it_was(url: str) -> None:
    earlier = await connect(url)
    missing = await migrate_below(earlier, EARLIER)
    await earlier.close()
    with psycopg.connect(url, autocommit=True) as connection:
        for rows in ROWS:
            connection.execute(rows.encode())
        server = connection.execute("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    before = state(url)
    found = await rehearsed(url)
    assert state(url) == before

    names = [step.name for step in found.steps]
    assert names == [*missing, "public suffixes", "views", "how long things are kept"]
    assert found.complete
    held = {step.name: step.held for step in found.steps}
    # ALTER TABLE and CREATE INDEX, as PostgreSQL's manual has it (13.3.1).
    assert held["0028_pending_retention.sql"] == {
        "retention": Held(Waits.ALL, is_view=False),
        "dead_letter": Held(Waits.WRITES, is_view=False),
    }
    if server == (0,):
        assert held["0030_sender_index.rows.sql"] == {"email_events": Held(Waits.WRITES, is_view=False)}
        assert "    writes wait meanwhile: email_events (" in "\n".join(found.lines())
    connection_ = await connect(url)
    try:
        assert await migrate(connection_) == [*missing, "views"]
    finally:
        await connection_.close()
    assert (await rehearsed(url)).steps == []


async def test_it_says_so_of_an_empty_database(url: str) -> None:
    found = await rehearsed(url)
    assert found.complete
    assert "0001_tables.sql" in [step.name for step in found.steps]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('node')").fetchone() == (None,)


@pytest.fixture
def slow(migrated_postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database whose next migration takes a minute, with a table that writers wait for meanwhile."""
    text = "LOCK TABLE email_events IN SHARE MODE; SELECT pg_sleep(60);"
    later = [*scripts("migrations"), Script("9999_slow.sql", text)]
    monkeypatch.setattr(migrations, "scripts", lambda folder: later if folder == "migrations" else scripts(folder))
    return migrated_postgres


async def test_what_takes_longer_is_given_up_and_named(
    slow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data_dir=tmp_path, database=Database(url=SecretStr(slow)))
    assert await commands.rehearse(settings, 1.0) == 1
    said = capsys.readouterr().out
    assert "would apply: 9999_slow.sql (not within the time given)\n" in said
    assert re.search(r"^    writes wait meanwhile: email_events \(\d+\.\d MiB\)$", said, re.MULTILINE)
    with psycopg.connect(slow) as connection:
        # Whoever writes waits no longer.
        connection.execute("SET lock_timeout = '1s'")
        connection.execute("LOCK TABLE email_events IN ROW EXCLUSIVE MODE")


@pytest.mark.parametrize("then", [None, "second"], ids=["the last", "another"])
async def test_each_script_is_told_of_once_when_the_time_ends_with_it(migrated_postgres: str, then: str | None) -> None:
    observer = await connect(migrated_postgres)
    try:
        found = Rehearsal({})
        watch = rehearsal._Watch(observer, observer.info.backend_pid, found)
        await watch.begin("first")
        ends = asyncio.create_task(watch.begin(then) if then else watch.end())
        await asyncio.sleep(0)
        await watch.end(done=False)
        await ends
    finally:
        await observer.close()
    assert [(step.name, step.seconds is None) for step in found.steps] == [
        ("first", False),
        *([(then, True)] if then else []),
    ]


async def test_a_time_in_which_nothing_is_found_out_is_no_answer(
    migrated_postgres: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data_dir=tmp_path, database=Database(url=SecretStr(migrated_postgres)))
    assert await commands.rehearse(settings, 0.0) == 1
    said = capsys.readouterr().out
    assert "up to date" not in said
    assert "not within 0 s: give it more (--seconds)" in said


async def test_a_table_that_another_holds_is_not_waited_for(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_LOCK_SECONDS", 1)
    with psycopg.connect(slow) as other:
        other.execute("LOCK TABLE email_events IN ROW EXCLUSIVE MODE")
        began = asyncio.get_running_loop().time()
        with pytest.raises(DatabaseError, match=r"9999_slow\.sql: another session has held a table"):
            await rehearsed(slow)
        assert asyncio.get_running_loop().time() - began < 20


async def test_who_may_not_migrate_is_told(migrated_postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(migrated_postgres, autocommit=True) as owner:
        role = f"reader_{owner.info.dbname}"
        owner.execute(f"CREATE ROLE {role} LOGIN".encode())
        owner.execute("UPDATE postel_migration SET checksum = 'another' WHERE name = 'views'")
        owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
        try:
            told = conninfo.make_conninfo(migrated_postgres, user=role)
            with pytest.raises(DatabaseError, match="may not change the schema"):
                await commands.rehearse(Settings(data_dir=tmp_path, database=Database(url=SecretStr(told))), 20)
        finally:
            owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
