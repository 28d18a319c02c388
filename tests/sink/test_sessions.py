"""What is asked of a database before it is used, and that its sessions are Postel's own whatever else was set."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from psycopg import conninfo
from pydantic import SecretStr

from postel.errors import DatabaseAwayError, DatabaseError
from postel.otlp.signal import Signal
from postel.settings import Database, Settings
from support.older import soaked
from support.postgres import SERVERS, fresh_database, migrate_now
from support.sink import RunningSink, ingesting, recount
from timescale_sink.ingest.service import Service
from timescale_sink.store import commands
from timescale_sink.store.database import Connection, connect, create_pool

TIME = 1_768_471_200_000_000_000
# What psycopg cannot read, what changes answers, and what would end long statements.
_BENT = {
    "timezone": "Asia/Kolkata",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "extra_float_digits": "-15",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "20000",
    "lock_timeout": "20000",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
}


@pytest.fixture
def url(any_server: str) -> Iterator[str]:
    with fresh_database(any_server) as url:
        yield url


def _ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, client_encoding="UTF8", options="") as connection:
        return connection.execute(query.encode()).fetchall()


def _request() -> ExportMetricsServiceRequest:
    """A cell, a series and a point, and one that becomes a dead letter, with texts that LATIN1 does not have."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="почта"))
    metrics = resource.scope_metrics.add().metrics
    load = metrics.add(name="postel.host.cpu.load_average").gauge.data_points
    other = metrics.add(name="температура", unit="°C").gauge.data_points
    for tick in range(10):
        at = TIME + tick * 15_000_000_000
        load.add(time_unix_nano=at, as_double=0.1 + tick / 3)
        other.add(time_unix_nano=at, as_double=0.1 + tick / 3)
    other.add(as_double=1)
    return request


_OURS = {
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
    "extra_float_digits": "1",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "synchronous_commit": "on",
}


async def _settings_of(connection: Connection) -> dict[str, str]:
    rows = await connection.execute("SELECT name, current_setting(name) FROM pg_settings")
    return {name: value for name, value in await rows.fetchall() if name in _OURS}


async def _check(url: str, **different: str) -> None:
    connection = await connect(url)
    assert await _settings_of(connection) == _OURS | different
    await connection.close()
    async with create_pool(url, 1) as pool, pool.connection() as pooled:
        assert await _settings_of(pooled) == _OURS | different
    for _ in range(2):
        async with ingesting(url) as ingest:
            assert (await ingest(Signal.METRICS, _request())).rejected == 1
    assert await recount(url) == []
    assert _ask(url, "SELECT sum(stored), sum(duplicate), sum(conflicting) FROM ingest_ledger") == [(20, 21, 0)]
    assert _ask(url, "SELECT id FROM node") == [("почта",)]


async def test_variables_of_the_environment_bend_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", _BENT["timezone"])
    monkeypatch.setenv("PGDATESTYLE", _BENT["datestyle"])
    monkeypatch.setenv("PGCLIENTENCODING", _BENT["client_encoding"])
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=20000")
    await asyncio.to_thread(migrate_now, url)
    await _check(url)


async def test_settings_of_the_database_bend_nothing(url: str) -> None:
    name = conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, autocommit=True) as owner:
        for setting, value in {**_BENT, "synchronous_commit": "off"}.items():
            owner.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'".encode())
    await asyncio.to_thread(migrate_now, url)
    await _check(url)


async def test_options_of_the_url_bend_nothing_but_how_safe_a_commit_is(url: str) -> None:
    given = {**_BENT, "synchronous_commit": "local"}
    options = " ".join(f"-c {setting}={value.replace(' ', '')}" for setting, value in given.items())
    bent = conninfo.make_conninfo(url, options=options)
    await asyncio.to_thread(migrate_now, bent)
    await _check(bent, synchronous_commit="local")


async def test_a_schema_of_ones_own_is_chosen_by_the_search_path(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("CREATE SCHEMA mail")
    mine = conninfo.make_conninfo(url, options="-c search_path=mail")
    await asyncio.to_thread(migrate_now, mine)
    async with ingesting(mine) as ingest:
        assert (await ingest(Signal.METRICS, _request())).rejected == 1
    assert _ask(url, "SELECT count(*) FROM mail.metrics_system") == [(10,)]


def test_a_search_path_without_a_schema_is_named(url: str) -> None:
    with pytest.raises(DatabaseError, match="search_path"):
        migrate_now(conninfo.make_conninfo(url, options="-c search_path=nowhere"))


async def test_a_database_that_is_read_only_is_waited_for(url: str, tmp_path: Path) -> None:
    read_only = conninfo.make_conninfo(url, options="-c default_transaction_read_only=on")
    settings = Settings(data_dir=tmp_path, database=Database(url=SecretStr(read_only)))
    with pytest.raises(DatabaseAwayError, match="takes no writes now: cannot execute CREATE TABLE"):
        await commands.migrate(settings)
    with pytest.raises(DatabaseAwayError, match="takes no writes now"):
        await Service(settings)._prepare(read_only)


async def test_a_probe_that_passes_over_a_cancellation_does_not_hold_the_end(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = asyncio.Event()

    async def probe(*_: object) -> None:
        began.set()
        # As the pool does before Python 3.12, where a connection comes with the cancellation.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    monkeypatch.setattr(Service, "_probe", probe)
    stop = asyncio.Event()
    running = asyncio.create_task(Service(Settings(data_dir=tmp_path, database=Database(url=SecretStr(url)))).run(stop))
    await began.wait()
    stop.set()
    await asyncio.wait_for(running, 10)


NARROW = ["LATIN1", "SQL_ASCII"]


@pytest.fixture(params=NARROW)
def narrow(request: pytest.FixtureRequest, any_server: str) -> Iterator[str]:
    """A database that cannot hold every text."""
    with fresh_database(any_server, "template0", f"ENCODING '{request.param}' LOCALE 'C'") as url:
        yield url


async def test_an_encoding_that_cannot_hold_every_text_is_refused(narrow: str) -> None:
    with pytest.raises(DatabaseError, match="Postel needs UTF8: CREATE DATABASE") as caught:
        await connect(narrow)
    statement = str(caught.value).partition(": ")[2].partition(";")[0]
    name = statement.split()[2]
    with psycopg.connect(narrow, autocommit=True) as owner:
        owner.execute(statement.encode())
        try:
            right = conninfo.make_conninfo(narrow, dbname=name.strip('"'))
            await asyncio.to_thread(migrate_now, right)
            await _check(right)
        finally:
            owner.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


# Each encoding is refused on each server by the test before; here five programs start.
@pytest.mark.parametrize("any_server", soaked(SERVERS, "old_postgres"), indirect=True)
@pytest.mark.parametrize("narrow", soaked(NARROW, "SQL_ASCII"), indirect=True)
async def test_every_program_refuses_the_encoding_in_one_line(narrow: str, tmp_path: Path) -> None:
    sink = RunningSink(tmp_path, narrow)
    for command in (("sink",), ("db", "migrate"), ("db", "status"), ("demo", "--remove")):
        ended = await asyncio.to_thread(sink.command, *command)
        assert (ended.returncode, "CREATE DATABASE" in ended.stderr) == (2, True)
        assert "Traceback" not in ended.stderr
    ended = await asyncio.to_thread(sink.command, "doctor")
    assert any(line.startswith("FAIL  database:") and "CREATE DATABASE" in line for line in ended.stdout.splitlines())


async def test_a_connection_that_the_server_ended_while_it_rested_is_not_handed_out(migrated_database: str) -> None:
    async with ingesting(migrated_database) as ingest:
        assert (await ingest(Signal.METRICS, _request())).rejected == 1
        ended = _ask(
            migrated_database,
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        assert set(ended) == {(True,)}
        assert (await ingest(Signal.METRICS, _request())).rejected == 1
        assert not ingest.failing
