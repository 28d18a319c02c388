"""The schema on every kind of server: what migrating does, refuses and leaves."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from postel.errors import DatabaseAwayError, DatabaseError
from postel.signals import EVENT_COLUMNS, load_all
from support.earlier import migrate_below
from support.plans import blocks_read, make_history
from support.postgres import fresh_database, migrate_now
from timescale_sink.store import database as servers
from timescale_sink.store import migrate as migrations
from timescale_sink.store.database import Tier, ask_server, check_rights, connect, create_pool
from timescale_sink.store.increase import make_views
from timescale_sink.store.migrate import Script, migrate, scripts

KEY = {"time", "node_id", "instance", "zone", "started_at"}


@pytest.fixture
def url(any_server: str) -> Iterator[str]:
    with fresh_database(any_server) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[psycopg.Connection[Any]]:
    migrate_now(url)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_a_script_is_for_the_servers_that_its_name_says() -> None:
    for name, tiers in (
        ("0001_a.sql", [Tier.COMMUNITY, Tier.APACHE, Tier.PLAIN]),
        ("0001_a.timescale.sql", [Tier.COMMUNITY, Tier.APACHE]),
        ("0001_a.community.sql", [Tier.COMMUNITY]),
        ("0001_a.rows.sql", [Tier.APACHE, Tier.PLAIN]),
    ):
        assert [tier for tier in Tier if Script(name, "").fits(tier)] == tiers


def test_a_second_time_applies_nothing(url: str) -> None:
    assert migrate_now(url)
    assert migrate_now(url) == []


async def test_two_at_once_apply_everything_once(url: str) -> None:
    connections = [await connect(url) for _ in range(3)]
    done = await asyncio.gather(*map(migrate, connections))
    for connection in connections:
        await connection.close()
    assert sorted(map(bool, done)) == [False, False, True]


async def test_what_came_before_keeps_its_rows_and_gets_what_is_missing(url: str) -> None:
    """A database of before the columns of events and the retention that waits, with a row and a setting in it."""
    connection = await connect(url)
    try:
        missing = await migrate_below(connection, "0027")
        await connection.execute("INSERT INTO retention VALUES ('metrics_system', interval '400 days', '-infinity')")
        row = "INSERT INTO metrics_system (time, node_id, instance, zone, load_1m) VALUES (now(), 'n', '', '', 1)"
        await connection.execute(row.encode())
        assert missing
        assert await migrate(connection) == [*missing, "views"]
        kept = "SELECT keep = interval '400 days', pending FROM retention WHERE relation = 'metrics_system'"
        assert await (await connection.execute(kept.encode())).fetchall() == [(True, False)]
        rolled = "SELECT row_count::int FROM metrics_system_daily"
        assert await (await connection.execute(rolled.encode())).fetchall() == [(1,)]
    finally:
        await connection.close()


def test_typed_columns_are_those_that_are_declared(database: psycopg.Connection[Any]) -> None:
    declarations = load_all()
    for table in declarations.tables.values():
        found = database.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s", (table.name,)
        ).fetchall()
        declared = {(c.name, c.type) for c in declarations.columns_of(table.name)}
        declared |= {(label, "text") for label in table.labels}
        assert {(c, t) for c, t in found if c not in KEY} == declared
        assert {c for c, _ in found} >= KEY


def test_columns_of_events_are_those_that_are_declared(database: psycopg.Connection[Any]) -> None:
    types = {"ARRAY": "text[]"}
    for table in load_all().event_tables.values():
        found = database.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s", (table.name,)
        ).fetchall()
        declared = {(c.name, c.type) for c in table.columns}
        assert {(c, types.get(t, t)) for c, t in found if c not in EVENT_COLUMNS} == declared
        assert {c for c, _ in found} >= set(EVENT_COLUMNS)


def test_units_stand_in_the_database(database: psycopg.Connection[Any]) -> None:
    row = database.execute(
        "SELECT col_description('metrics_system'::regclass, attnum) FROM pg_attribute"
        " WHERE attrelid = 'metrics_system'::regclass AND attname = 'memory_used'"
    ).fetchone()
    assert row
    assert row[0].endswith("postel.host.memory.usage, unit By")


def test_every_counter_has_its_increase(database: psycopg.Connection[Any]) -> None:
    for table in load_all().tables:
        counters = {c.name for c in load_all().columns_of(table) if c.counter}
        found = database.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s", (f"{table}_increase",)
        ).fetchall()
        assert {c for (c,) in found} - KEY == counters


async def test_a_counter_comes_behind_others_in_its_view_wherever_it_is_declared(url: str) -> None:
    """A view that is there takes further columns at its end only, as its table does."""
    connection = await connect(url)
    await migrate(connection)
    await connection.execute("CREATE TABLE metrics_fresh (LIKE metrics_haraka, b_total bigint, a_total bigint)")
    for declared in (["a_total", "b_total"], ["a_total", "a_new_total", "b_total"]):
        if "a_new_total" in declared:
            await connection.execute("ALTER TABLE metrics_fresh ADD COLUMN a_new_total bigint")
        await make_views(connection, {"metrics_fresh": declared})
    columns = (await connection.execute("SELECT * FROM metrics_fresh_increase")).description
    await connection.close()
    assert columns is not None
    assert [column.name for column in columns if column.name not in KEY] == ["b_total", "a_total", "a_new_total"]


def test_an_edited_migration_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate_now(url)
    edited = [Script(s.name, s.text + "-- edited") for s in scripts("migrations")]
    monkeypatch.setattr(migrations, "scripts", lambda folder: edited if folder == "migrations" else scripts(folder))
    with pytest.raises(DatabaseError, match=r"0001_tables\.sql was applied with another text"):
        migrate_now(url)


def test_a_database_of_a_newer_postel_is_refused(url: str) -> None:
    migrate_now(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO postel_migration VALUES ('9999_later.sql', 'x')")
    with pytest.raises(DatabaseError, match=r"9999_later\.sql.*update Postel"):
        migrate_now(url)


def test_a_failed_migration_leaves_nothing_of_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [*scripts("migrations"), Script("0099_broken.sql", "CREATE TABLE half (); SELECT 1/0;")]
    monkeypatch.setattr(migrations, "scripts", lambda folder: broken if folder == "migrations" else scripts(folder))
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate_now(url)
    monkeypatch.undo()
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT to_regclass('half'), to_regclass('node')").fetchone() == (None, "node")
    assert migrate_now(url) == ["views"]


def test_a_role_without_rights_runs_on_a_schema_that_is_up_to_date(url: str) -> None:
    name = str(conninfo.conninfo_to_dict(url)["dbname"]).replace("postel_test", "role")
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'".encode())
        try:
            lesser = conninfo.make_conninfo(url, user=name, password="x")  # noqa: S106 - of this test's role
            with pytest.raises(DatabaseError, match=r"may not change the schema.*CREATE"):
                migrate_now(lesser)
            migrate_now(url)
            owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}".encode())
            assert migrate_now(lesser) == []
            with pytest.raises(DatabaseError, match=f"{name} may not write into dead_letter, .*: GRANT .* TO {name}"):
                asyncio.run(_rights(lesser))
            owner.execute(f"GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name}".encode())
            asyncio.run(_rights(lesser))
            database = conninfo.conninfo_to_dict(url)["dbname"]
            owner.execute(f"REVOKE TEMPORARY ON DATABASE {database} FROM public".encode())
            with pytest.raises(DatabaseError, match=f"GRANT TEMPORARY ON DATABASE {database} TO {name}"):
                asyncio.run(_rights(lesser))
        finally:
            owner.execute(f"DROP OWNED BY {name}".encode())
            owner.execute(f"DROP ROLE {name}".encode())


async def _rights(url: str) -> None:
    connection = await connect(url)
    try:
        await check_rights(connection)
    finally:
        await connection.close()


async def test_the_server_is_told_by_what_it_has(url: str, request: pytest.FixtureRequest) -> None:
    connection = await connect(url)
    await migrate(connection)
    server = await ask_server(connection)
    await connection.close()
    with_timescale = "timescale" in request.node.callspec.id
    assert (server.tier is not Tier.PLAIN) == with_timescale


def test_a_community_that_is_too_old_for_the_schema_is_used_as_an_apache_is() -> None:
    old, new = ("2.17.2", "2.18.0"), ("2.18.1", "2.23.0-dev", "3.0")
    assert [servers._release(version) < servers._OLDEST_COMMUNITY for version in old + new] == [True] * 2 + [False] * 3


def test_a_server_that_is_away_is_waited_for() -> None:
    with pytest.raises(DatabaseAwayError, match=r"cannot be reached.*\[database\] url"):
        migrate_now("postgresql://nobody@127.0.0.1:1/none")


def test_a_database_that_takes_nobody_now_is_waited_for(url: str, any_server: str) -> None:
    name = conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(any_server, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        with pytest.raises(DatabaseAwayError, match="not currently accepting connections"):
            migrate_now(url)


@pytest.mark.parametrize("wrong", [{"dbname": "no_such_database"}, {"user": "no_such_role"}])
def test_what_is_not_there_is_named_and_not_waited_for(any_server: str, wrong: dict[str, str]) -> None:
    with pytest.raises(DatabaseError, match="no_such_") as caught:
        migrate_now(conninfo.make_conninfo(any_server, **wrong))
    assert not isinstance(caught.value, DatabaseAwayError)


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_password_is_not_waited_for(old_postgres: str, password: str | None) -> None:
    with psycopg.connect(old_postgres, autocommit=True) as owner:
        row = owner.execute("SHOW hba_file").fetchone()
        assert row
        rules = Path(row[0])
        before = rules.read_text()
        owner.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        rules.write_text("local all guarded scram-sha-256\n" + before)
        try:
            owner.execute("SELECT pg_reload_conf(), pg_sleep(0.5)")
            with pytest.raises(DatabaseError, match="refuses") as caught:
                migrate_now(conninfo.make_conninfo(old_postgres, user="guarded", password=password))
            assert not isinstance(caught.value, DatabaseAwayError)
        finally:
            rules.write_text(before)
            owner.execute("SELECT pg_reload_conf()")
            owner.execute("DROP ROLE guarded")


@pytest.mark.parametrize("url", ["postgres//u:hidden@h/x", "postgresql://u:hidden/x@h/y"])
async def test_a_malformed_url_is_never_shown(url: str) -> None:
    for attempt in (lambda: connect(url), lambda: create_pool(url, 1).open()):
        with pytest.raises(DatabaseError, match=r"\[database\] url") as caught:
            await attempt()
        assert "hidden" not in str(caught.value)
        assert "hidden" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("seed", range(3))
def test_increases_over_windows_add_up_to_what_really_happened(database: psycopg.Connection[Any], seed: int) -> None:
    """A counter with restarts, gaps and cells that are missing, against a tally kept beside it."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    rows: list[tuple[int, int, int | None]] = []
    truth: list[tuple[int, int]] = []  # (time of the row that shows it, how much)
    at, start, value, shown = 1_000_000, 1_000_000, 500, 500
    rows.append((at, start, value))
    for _ in range(150):
        at += 30 * chance.choice((1, 1, 1, 2, 7))
        if chance.random() < 0.1:
            start, value, shown = at - chance.randrange(1, 30), 0, 0
        value += chance.choice((0, 1, 3, 40))
        if chance.random() < 0.2:
            rows.append((at, start, None))
            continue
        rows.append((at, start, value))
        truth.append((at, value - shown))
        shown = value
    chance.shuffle(rows)
    with database.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO metrics_zonemta (time, node_id, instance, zone, started_at, delivered_total)"
            " VALUES (to_timestamp(%s), 'n', 'i', 'z', to_timestamp(%s), %s)",
            rows,
        )
    for _ in range(20):
        begin, end = sorted(chance.sample(range(999_000, at + 100), 2))
        got = database.execute(
            "SELECT coalesce(sum(delivered_total), 0) FROM metrics_zonemta_increase"
            " WHERE time >= to_timestamp(%s) AND time < to_timestamp(%s)",
            (begin, end),
        ).fetchone()
        assert got == (sum(rise for when, rise in truth if begin <= when < end),)


def test_a_window_of_increases_reads_no_history(database: psycopg.Connection[Any]) -> None:
    make_history(database)
    read = blocks_read(
        database,
        "SELECT sum(delivered_total), sum(rejected_total)"
        " FROM metrics_zonemta_increase WHERE time >= to_timestamp(1000000 + 30 * 19900)",
    )
    # 202 rows and a look into the index for each of the 101 that count; the history has 40000.
    assert read < 1500
