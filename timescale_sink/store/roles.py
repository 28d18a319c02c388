"""Three roles without a login, for who needs less than the tables' owner.

The owner, who migrates, is a login of the user's own: TimescaleDB runs its jobs as the tables' owner, and starts none
as a role that cannot log in. What each of the three may do is granted table by table and no further, again after each
migration; so none of them makes, changes or drops a table, nor writes into one through a view. Of what else is in the
schema they get nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg
from psycopg import sql

from postel.errors import DatabaseError
from postel.signals import Declarations
from timescale_sink.store.database import Connection, Tier, ask_server

WRITE, SERVE, READ = "postel_write", "postel_serve", "postel_read"
ROLES = {
    WRITE: "a sink: writes what comes, and deletes what is too old",
    SERVE: "postel serve: reads, and writes alerts",
    READ: "Grafana and others: reads",
}
# What `serve` writes.
_OF_ALERTS = ("alert", "alert_change", "alert_silence", "alert_notification")
# What nobody but the owner does.
_OF_OWNER = ("postel_migration", "retention")
# What a sink deletes from on each kind of server; rows of the others are dropped by jobs of TimescaleDB, which are the
# owner's, or chunk by chunk, which needs the owner too.
_DELETED = ("node", "otel_series", "dead_letter", "dead_letter_part", "ingest_ledger")


async def make(connection: Connection, declarations: Declarations, ours: Collection[str]) -> list[str]:
    """Make the roles that are not there, and grant them what they need.

    Args:
        connection: as the tables' owner.
        declarations: which tables there are.
        ours: Postel's tables and views, and those of other servers.

    Returns:
        The names of those that were made.

    Raises:
        DatabaseError: this role may make none, or is not the owner of the tables.
    """
    found = await connection.execute("SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%s)", ([*ROLES],))
    known = {name for (name,) in await found.fetchall()}
    missing = [role for role in ROLES if role not in known]
    await require_owner(connection)
    try:
        async with connection.transaction():
            for role in missing:
                await connection.execute(f"CREATE ROLE {role} NOLOGIN".encode())
            await _grant(connection, declarations, ours, [*ROLES])
    except psycopg.errors.InsufficientPrivilege as error:
        if not missing:
            raise
        statements = "; ".join(f"CREATE ROLE {role} NOLOGIN" for role in missing)
        raise DatabaseError(
            f"this role may make no roles ({error.diag.message_primary}); let one that may do it, then run this again: "
            f"{statements}"
        ) from None
    return missing


async def renew(connection: Connection, declarations: Declarations, ours: Collection[str]) -> None:
    """Grant to those roles that may read in this database what they need now, after a migration.

    Args:
        connection: as the tables' owner.
        declarations: which tables there are.
        ours: Postel's tables and views, and those of other servers.

    Raises:
        psycopg.errors.InsufficientPrivilege: this role does not own the tables.
    """
    found = await connection.execute(
        "SELECT rolname::text FROM pg_roles"
        " WHERE rolname = ANY (%s) AND has_table_privilege(oid, 'postel_migration', 'SELECT')",
        ([*ROLES],),
    )
    if known := [name for (name,) in await found.fetchall()]:
        await _grant(connection, declarations, ours, known)


async def _grant(
    connection: Connection, declarations: Declarations, ours: Collection[str], roles: Sequence[str]
) -> None:
    tables, views = await _relations(connection, ours)
    tier = (await ask_server(connection)).tier
    rows = (*declarations.tables, *declarations.event_tables, "otel_metric_point", "otel_log")
    deleted = {*_DELETED, *(rows if tier is Tier.PLAIN else ())}
    written = [table for table in tables if table not in (*_OF_ALERTS, *_OF_OWNER)]
    rights: dict[str, list[tuple[str, Sequence[str]]]] = {
        WRITE: [
            ("SELECT", [*tables, *views]),
            ("INSERT, UPDATE", written),
            ("DELETE", [table for table in written if table in deleted]),
        ],
        SERVE: [("SELECT", [*tables, *views]), ("INSERT, UPDATE, DELETE", _OF_ALERTS)],
        READ: [("SELECT", [*tables, *views])],
    }
    row = await (await connection.execute("SELECT current_schema(), current_database()")).fetchone()
    assert row  # noqa: S101 - a SELECT of two expressions has a row
    schema, database = sql.Identifier(row[0]), sql.Identifier(row[1])
    async with connection.transaction():
        for role in roles:
            name = sql.Identifier(role)
            await _do(connection, "GRANT USAGE ON SCHEMA {} TO {}", schema, name)
            # A batch that holds what is there already goes through a temporary table.
            connect = "CONNECT, TEMPORARY" if role == WRITE else "CONNECT"
            await _do(connection, f"GRANT {connect} ON DATABASE {{}} TO {{}}", database, name)
            await _do(connection, "REVOKE ALL ON {} FROM {}", _listed([*tables, *views]), name)
            for right, relations in rights[role]:
                await _do(connection, f"GRANT {right} ON {{}} TO {{}}", _listed(relations), name)


async def require_owner(connection: Connection) -> None:
    """See that this role may do what only the owner of Postel's tables may.

    Raises:
        DatabaseError: it may not.
    """
    if not await owns(connection):
        raise DatabaseError(
            "the role of [database] url does not own Postel's tables; run this as the one that migrates"
        )


async def owns(connection: Connection) -> bool:
    """Whether this role may do what only the owner of Postel's tables may."""
    asked = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('otel_metric_point')"
    row = await (await connection.execute(asked)).fetchone()
    return bool(row and row[0])


async def _relations(connection: Connection, ours: Collection[str]) -> tuple[list[str], list[str]]:
    """The names of Postel's tables that are there, and of its views."""
    found = await connection.execute(
        """
        SELECT relname::text, relkind IN ('r', 'p') FROM pg_class
        WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace = current_schema()::regnamespace
            AND pg_has_role(relowner, 'USAGE') AND relname = ANY (%s)
        ORDER BY relname
        """,
        ([*ours],),
    )
    rows = await found.fetchall()
    return [name for name, is_table in rows if is_table], [name for name, is_table in rows if not is_table]


def _listed(names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, names))


async def _do(connection: Connection, statement: str, *parts: sql.Composable) -> None:
    await connection.execute(sql.SQL(statement).format(*parts))
