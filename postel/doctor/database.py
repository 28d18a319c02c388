"""The doctor's checks of the database: server, schema, rights, and what arrives in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg

from otel_receivers.node import identify
from postel.doctor.result import Result, Verdict
from postel.errors import DatabaseAwayError, DatabaseError, PostelError
from postel.settings import Settings
from timescale_sink.store import embedded
from timescale_sink.store.database import Connection, ask_server, check_rights, connect, database_url
from timescale_sink.store.migrate import applied, check_applied, missing, scripts

# A sample may take this many intervals to arrive before it counts as missing: sending and batching take up to two.
_INTERVALS_LATE = 4


async def check(settings: Settings) -> AsyncIterator[Result]:
    """The database answers, has the schema, and gets this node's samples."""
    if settings.database.url is None and not embedded.runs(settings.data_dir):
        yield Result(
            Verdict.FAIL,
            "database",
            f"the embedded PostgreSQL in {settings.data_dir / 'postgres'} does not run",
            "`postel up` starts it; for one of your own set [database] url",
        )
        return
    try:
        connection = await connect(await database_url(settings, leave_running=True))
    except DatabaseError as error:
        away = "start the server, or " if isinstance(error, DatabaseAwayError) else ""
        yield Result(Verdict.FAIL, "database", str(error), f"{away}correct [database] url")
        return
    try:
        async for result in _schema(connection):
            yield result
        if await applied(connection):
            for results in (_samples(settings, connection), _letters(connection)):
                async for result in results:
                    yield result
    except psycopg.errors.InsufficientPrivilege as error:
        yield Result(
            Verdict.FAIL, "schema", _first_line(error), "GRANT the role of [database] url SELECT on the tables"
        )
    except psycopg.errors.UndefinedTable as error:
        yield Result(
            Verdict.FAIL, "schema", _first_line(error), "a table was dropped by hand: restore it from a backup"
        )
    except psycopg.Error as error:
        yield Result(Verdict.FAIL, "database", _first_line(error), "the database's own log says more")
    finally:
        await connection.close()


async def _schema(connection: Connection) -> AsyncIterator[Result]:
    server = await ask_server(connection)
    yield Result(Verdict.OK, "database", f"PostgreSQL {server.version}, {server.tier.value}")
    row = await (
        await connection.execute(
            "SELECT has_schema_privilege(current_schema(), 'CREATE'), current_schema()::text, current_user::text"
        )
    ).fetchone()
    may_create, schema, role = row or (False, "public", "the role")
    grant = f"GRANT CREATE ON SCHEMA {schema} TO {role}"
    try:
        check_applied(await applied(connection), scripts("migrations"))
        if lacking := await missing(connection, server.tier):
            mend = "run `postel db migrate`, or start the sink" if may_create else f"{grant}; then `postel db migrate`"
            yield Result(Verdict.FAIL, "schema", f"not applied: {', '.join(lacking)}", mend)
            return
        await check_rights(connection)
    except DatabaseError as error:
        text, _, mend = str(error).partition(": ")
        yield Result(Verdict.FAIL, "schema", text, mend)
        return
    if may_create:
        yield Result(Verdict.OK, "schema", "up to date, and the role may write it")
    else:
        yield Result(Verdict.NOTE, "schema", "up to date; the role cannot apply later migrations", f"later: {grant}")


async def _samples(settings: Settings, connection: Connection) -> AsyncIterator[Result]:
    try:
        node = identify(settings.data_dir, setting=settings.node.id, keep=False)
    except PostelError as error:
        yield Result(Verdict.FAIL, "node", str(error))
        return
    row = await (
        await connection.execute(
            "SELECT extract(epoch FROM now() - max(time))::float8 FROM metrics_system WHERE node_id = %s", (node.id,)
        )
    ).fetchone()
    age = row[0] if row else None
    limit = _INTERVALS_LATE * settings.intervals.system_metrics + settings.intervals.send_metrics
    if age is None:
        yield Result(
            Verdict.FAIL, "samples", f"none of this node ({node.id}) yet", "is the agent running? See the checks below"
        )
    elif age > limit:
        yield Result(
            Verdict.FAIL,
            "samples",
            f"the newest of this node ({node.id}) is {age:.0f} s old",
            "the first check below that fails is where the data stops",
        )
    else:
        yield Result(Verdict.OK, "samples", f"the newest of this node ({node.id}) is {age:.0f} s old")


async def _letters(connection: Connection) -> AsyncIterator[Result]:
    row = await (await connection.execute("SELECT count(*), max(received_at)::text FROM dead_letter")).fetchone()
    if row and row[0]:
        yield Result(
            Verdict.NOTE,
            "dead letters",
            f"{row[0]} records could not be stored, the newest at {row[1]}",
            "SELECT reason, count(*) FROM dead_letter GROUP BY reason",
        )


def _first_line(error: psycopg.Error) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
