"""What ``postel db`` and ``postel demo --remove`` do."""

from __future__ import annotations

import click
import psycopg

from postel.errors import DatabaseError
from postel.settings import Settings
from postel.signals import load_all
from timescale_sink.store import migrate as migrations
from timescale_sink.store.check import differences
from timescale_sink.store.database import Connection, ask_server, connect, database_url


async def url(settings: Settings) -> None:
    """Print the URL of the database in use; an embedded one then runs, so that it can be asked at once."""
    click.echo(await database_url(settings, leave_running=True))


async def migrate(settings: Settings) -> None:
    """Apply what is missing and say what that was."""
    connection = await connect(await database_url(settings))
    try:
        done = await migrations.migrate(connection)
    finally:
        await connection.close()
    click.echo(f"applied: {', '.join(done)}" if done else "the schema is up to date")


async def status(settings: Settings) -> None:
    """Print the server, the migrations and the size of each table."""
    connection = await _migrated(settings)
    try:
        server = await ask_server(connection)
        extension = f", TimescaleDB {server.timescale_version}" if server.timescale_version else ""
        click.echo(f"server: PostgreSQL {server.version}{extension} ({server.tier.value})")
        for name in sorted(await migrations.applied(connection)):
            click.echo(f"applied: {name}")
        rows = await (
            await connection.execute(
                """
                SELECT relname, pg_size_pretty(pg_total_relation_size(oid)), greatest(reltuples, 0)::bigint
                FROM pg_class
                WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
                ORDER BY relname
                """
            )
        ).fetchall()
        for name, size, count in rows:
            click.echo(f"table: {name}, {size}, about {count} rows")
    finally:
        await connection.close()


async def check(settings: Settings) -> int:
    """Recount the tables against the ledger.

    Returns:
        The exit code: 0 where they agree, 1 where they do not.
    """
    connection = await _migrated(settings)
    try:
        found = await differences(connection, load_all())
    finally:
        await connection.close()
    for difference in found:
        click.echo(str(difference))
    if found:
        click.echo(f"{len(found)} difference{'s' if len(found) > 1 else ''}")
    else:
        click.echo("the tables hold what the ledger says")
    return 1 if found else 0


async def remove_demo(settings: Settings) -> dict[str, int]:
    """Delete everything of the nodes that carry the demo mark.

    Returns:
        Table -> rows deleted.
    """
    connection = await _migrated(settings)
    try:
        async with connection.transaction():
            return await _remove_demo(connection, [*load_all().tables])
    finally:
        await connection.close()


async def _remove_demo(connection: Connection, typed: list[str]) -> dict[str, int]:
    deleted = {}
    nodes = "SELECT id FROM node WHERE demo"
    series = f"SELECT series_id FROM otel_series WHERE node_id IN ({nodes})"
    for table in typed:
        columns = [column.name for column in load_all().columns_of(table)]
        points = f"num_nonnulls({', '.join(columns)})"
        deleted[table] = await _delete(connection, table, f"node_id IN ({nodes})", points)
    deleted["otel_metric_point"] = await _delete(connection, "otel_metric_point", f"series_id IN ({series})", "1")
    deleted["otel_log"] = await _delete(connection, "otel_log", f"node_id IN ({nodes})", "1")
    for table, where in (("otel_series", f"node_id IN ({nodes})"), ("node", "demo")):
        cursor = await connection.execute(f"DELETE FROM {table} WHERE {where}".encode())
        deleted[table] = cursor.rowcount
    return deleted


async def _delete(connection: Connection, table: str, where: str, weight: str) -> int:
    """Delete rows and note in the ledger that what they held is gone, so that `db check` agrees."""
    cursor = await connection.execute(
        f"""
        WITH gone AS (DELETE FROM {table} WHERE {where} RETURNING *),
        counted AS (
            SELECT date_trunc('hour', time) AS hour, count(*) AS rows, sum({weight}) AS records FROM gone GROUP BY 1
        ),
        noted AS (
            INSERT INTO ingest_ledger AS ledger (hour, destination, sink, removed)
            SELECT hour, '{table}', 'postel demo --remove', records FROM counted
            ON CONFLICT (hour, destination, sink) DO UPDATE SET removed = ledger.removed + excluded.removed
        )
        SELECT coalesce(sum(rows), 0)::bigint FROM counted
        """.encode()
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _migrated(settings: Settings) -> Connection:
    connection = await connect(await database_url(settings))
    try:
        known = await migrations.applied(connection)
    except psycopg.Error:
        await connection.close()
        raise
    if not known:
        await connection.close()
        raise DatabaseError("the database has no schema yet: run `postel db migrate`, or start the sink once")
    return connection
