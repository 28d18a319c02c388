"""The database: its connections, and what the server behind them can do."""

from __future__ import annotations

import asyncio
import re
import select
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
import psycopg
from psycopg import AsyncConnection, conninfo, sql
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from postel.errors import DatabaseAwayError, DatabaseError
from postel.settings import Settings
from timescale_sink.store import embedded

OLDEST_SERVER = 150000
CONNECT_SECONDS = 4
# What the migrations for it need: the columnstore and its procedures.
_OLDEST_COMMUNITY = (2, 18, 1)
# While somebody waits for a connection it is tried again after this time, however long the database is away already.
_RECONNECT_SECONDS = 1.0

# What waiting does not mend: identity, rights, and the encryption that is asked for. libpq gives no SQLSTATE of a
# connection that failed, only the server's words (libpq/auth.c, init/postinit.c, fe-secure-openssl.c);
# what is not known here, such as a translation, counts as passing.
_FOR_GOOD = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r'|(database|role) ".*" does not exist|is not permitted to log in|permission denied for database'
    r"|server does not support SSL|certificate verify failed|authentication method"
)
_NO_URL = (
    "{setting} is not what PostgreSQL takes (it is not shown here, for it may hold a password); accepted: "
    "postgresql://user:password@host/name, with @ and / of the password as %40 and %2F"
)
# Where the URLs come from, for whoever has to correct one.
URL, READ_URL = "[database] url", "[database] read_url"

# What Postel relies on, whatever the server, the database, the role, PG* variables and the URL's options say: only SET
# comes after all of them (PGTZ, for one, wins over the options). What stays theirs: search_path, by which a schema of
# one's own is chosen; default_transaction_read_only, by which an owner keeps writers out; synchronous_commit, below.
_SESSION = (
    # Times are read in this zone, and hours of the ledger are hours of UTC.
    "SET timezone = 'UTC'",
    # The only style that psycopg reads.
    "SET datestyle = 'ISO'",
    # Floats are read as they were stored, or a repetition would seem to differ.
    "SET extra_float_digits = 1",
    # What ON CONFLICT met is seen by the statement after it.
    "SET default_transaction_isolation = 'read committed'",
    # Every write and every query of the page has a limit of ours; a migration and `db check` take their time.
    "SET statement_timeout = 0",
    "SET lock_timeout = 0",
    # A query of a rollup has hundreds of expressions and runs for milliseconds: compiling them took seconds.
    "SET jit = off",
)
_SESSION_17 = ("SET transaction_timeout = 0",)
# A late batch, or what `demo --remove` deletes, may lie in chunks in columns, which take a change by unpacking rows.
# Past TimescaleDB's limit on these the statement is an error, and would be one each time anew. Last of all: the
# extension's settings are there once it has seen a statement.
_SESSION_TIMESCALE = """
    SELECT set_config(name, '0', false)
    FROM (VALUES ('timescaledb.max_tuples_decompressed_per_dml_transaction')) AS setting (name)
    WHERE current_setting(name, true) IS NOT NULL
"""

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]


class Tier(StrEnum):
    """What the server offers beyond PostgreSQL. A Community that is too old for the schema is used as an Apache is."""

    COMMUNITY = "TimescaleDB Community"
    APACHE = "TimescaleDB Apache"
    PLAIN = "PostgreSQL"


@dataclass(frozen=True, slots=True)
class Server:
    """What a server said of itself."""

    version: str
    tier: Tier
    timescale_version: str | None


async def database_url(
    settings: Settings, *, leave_running: bool = False, stopping: Callable[[], bool] = lambda: False
) -> str:
    """``[database] url``, or that of the embedded PostgreSQL, which is started when it does not run.

    Args:
        settings: which database.
        leave_running: an embedded server that this call starts outlives the program.
        stopping: asked while an embedded server does not start; once it says true that is given up.

    Raises:
        DatabaseError: the embedded server does not start.
    """
    if settings.database.url is not None:
        return settings.database.url.get_secret_value()
    return await asyncio.to_thread(embedded.start, settings.data_dir, leave_running=leave_running, stopping=stopping)


async def connect(url: str, setting: str = URL) -> Connection:
    """One connection, UTC, in transactions of the caller's.

    Args:
        url: of the server and database.
        setting: where the URL comes from.

    Raises:
        DatabaseAwayError: the server does not answer, or says that it cannot now.
        DatabaseError: the URL is none, or the server refuses it for good, or it is too old, or the database cannot hold
            every text.
    """
    parameters = _conninfo(url, setting)
    try:
        connection = await AsyncConnection.connect(parameters, autocommit=True)
        try:
            _check_server(connection)
            await _set_up(connection)
        except BaseException:
            await connection.close()
            raise
    except psycopg.OperationalError as error:
        reason = _first_line(error)
        if _FOR_GOOD.search(reason):
            raise DatabaseError(f"the database refuses: {reason}; see {setting}") from None
        raise DatabaseAwayError(f"the database cannot be reached: {reason}; see {setting}") from None
    return connection


def _check_server(connection: Connection) -> None:
    info = connection.info
    if info.server_version < OLDEST_SERVER:
        raise DatabaseError(
            f"the database is PostgreSQL {info.parameter_status('server_version')}; Postel needs 15 or later"
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        # LOCALE C fits every encoding; that of template0 may fit only the one that is refused here.
        name = sql.Identifier(f"{info.dbname}_utf8").as_string(connection)
        raise DatabaseError(
            f"the encoding of the database {info.dbname} is {encoding}, which cannot hold every text; "
            f"Postel needs UTF8: CREATE DATABASE {name} ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0; "
            "then name that in [database] url"
        )


async def _set_up(connection: Connection) -> None:
    """Make a session's settings those that Postel relies on."""
    # Integers of more than 64 bits, which only JSON has, become floats: as such they go out again.
    set_json_loads(orjson.loads, connection)
    later = _SESSION_17 if connection.info.server_version >= 170000 else ()  # noqa: PLR2004 - where the setting begins
    await connection.execute("; ".join((*_SESSION, *later, _SESSION_TIMESCALE)).encode())


def create_pool(url: str, connections: int, setting: str = URL) -> Pool:
    """A pool that is not open yet; it opens connections as they are needed.

    A connection that its server has ended is not handed out. One that ended without a word is found when it is used.

    Args:
        url: of the server and database.
        connections: at most.
        setting: where the URL comes from.

    Raises:
        DatabaseError: the URL is none.
    """
    return AsyncConnectionPool(
        _conninfo(url, setting),
        connection_class=AsyncConnection[TupleRow],
        kwargs={"autocommit": True},
        min_size=0,
        max_size=connections,
        max_idle=60,
        timeout=CONNECT_SECONDS,
        configure=_set_up,
        # The pool doubles its pauses up to this time in all, then gives up. Left alone it stays away for as long again
        # as the database was, up to five minutes.
        reconnect_timeout=_RECONNECT_SECONDS,
        reconnect_failed=_try_again,
        check=_check,
        open=False,
    )


async def _check(connection: AsyncConnection[Any]) -> None:
    """Ask the server, where it has said something to a connection that rests: that it ends it, mostly.

    Otherwise nothing is asked: each transaction would wait for one answer more.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


async def _try_again(pool: AsyncConnectionPool[Any]) -> None:
    """Begin anew for those who wait; where nobody does, the next who asks begins."""
    if pool.get_stats()["requests_waiting"]:
        await pool.check()


async def ask_server(connection: Connection) -> Server:
    """What the server is; TimescaleDB counts where its extension is installed in this database."""
    row = await (
        await connection.execute(
            """
            SELECT
                current_setting('server_version'),
                (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
                current_setting('timescaledb.license', true)
            """
        )
    ).fetchone()
    if row is None:
        raise DatabaseError("the database does not say what it is")
    version, timescale, licence = row
    tier = Tier.PLAIN
    if timescale is not None:
        tier = Tier.COMMUNITY if licence == "timescale" and _release(timescale) >= _OLDEST_COMMUNITY else Tier.APACHE
    return Server(version, tier, timescale)


def _release(version: str) -> tuple[int, ...]:
    """(2, 18, 1) of 2.18.1, and (2, 23, 0) of 2.23.0-dev."""
    return tuple(map(int, re.findall(r"\d+", version.partition("-")[0])))


async def check_rights(connection: Connection) -> None:
    """Whether the role may do what a sink does.

    Raises:
        DatabaseError: it may not; the message has the statement that mends it.
    """
    rows = await (
        await connection.execute(
            """
            SELECT relname, current_user::text FROM pg_class
            WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
                -- A sink asks the first two, which who migrates writes; the others are for who evaluates alerts.
                AND relname NOT IN (
                    'postel_migration', 'retention', 'alert', 'alert_change', 'alert_silence', 'alert_notification'
                )
                AND NOT (
                    has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                    AND has_table_privilege(oid, 'UPDATE')
                )
            ORDER BY relname
            """
        )
    ).fetchall()
    if rows:
        tables = ", ".join(name for name, _ in rows)
        raise DatabaseError(
            f"the database role {rows[0][1]} may not write into {tables}: "
            f"GRANT SELECT, INSERT, UPDATE ON {tables} TO {rows[0][1]}"
        )
    row = await (
        await connection.execute(
            "SELECT has_database_privilege(current_database(), 'TEMP'), current_database(), current_user::text"
        )
    ).fetchone()
    if row and not row[0]:
        raise DatabaseError(
            f"the database role {row[2]} may not make temporary tables: "
            f"GRANT TEMPORARY ON DATABASE {row[1]} TO {row[2]}"
        )


def _conninfo(url: str, setting: str) -> str:
    # What is acknowledged is on disk, whatever the role's default is. The options of the URL come last and win: another
    # way to say so, such as remote_apply, may be asked for there.
    own = "-c synchronous_commit=on"
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise DatabaseError(_NO_URL.format(setting=setting)) from None
    if not re.fullmatch(r"[\d,]*", str(parts.get("port") or "")):
        # The rest of a password with a slash in it; libpq would say it.
        raise DatabaseError(_NO_URL.format(setting=setting))
    given = parts.get("options") or ""
    return conninfo.make_conninfo(
        url,
        connect_timeout=CONNECT_SECONDS,
        application_name="postel",
        client_encoding="UTF8",
        options=f"{own} {given}".strip(),
        # A peer that vanished without a word is noticed within a commit's time, not after the system's quarter hour.
        tcp_user_timeout=10_000,
        keepalives_idle=30,
    )


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
