"""What ``postel db`` and ``postel demo --remove`` do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import click
import psycopg
import structlog
from psycopg import sql

from postel.errors import DatabaseAwayError, DatabaseError
from postel.settings import Settings
from postel.signals import load_all
from postel.tasks import end
from timescale_sink.store import event_rollups, housekeeping, rehearsal, retention, roles, rollup_views
from timescale_sink.store import migrate as migrations
from timescale_sink.store.check import differences
from timescale_sink.store.database import Connection, Tier, ask_server, connect, database_url
from timescale_sink.store.event_rollups import Events

# A table of this size is counted within a second; a larger one's rows are the server's estimate.
_COUNTED_BYTES = 64 << 20
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Removed:
    """What `remove_demo` deleted.

    Attributes:
        rows: table -> rows deleted.
        age: seconds since the newest of the demo's data; None where there was none.
    """

    rows: dict[str, int]
    age: float | None


async def url(settings: Settings) -> None:
    """Print the URL of the database in use; an embedded one then runs, so that it can be asked at once."""
    click.echo(await database_url(settings, leave_running=True))


async def migrate(settings: Settings) -> None:
    """Apply what is missing, and for how long things are kept, and say what that was."""
    async with _connected(settings) as connection:
        done = await migrations.migrate(connection)
        click.echo(f"applied: {', '.join(done)}" if done else "the schema is up to date")
        made = await retention.apply(connection, settings.database, load_all())
        for what, names in (
            ("kept for a time from now on", made.first),
            ("kept for another time than before", made.changed),
            ("refreshed by a new job", made.refreshed),
        ):
            if names:
                click.echo(f"{what}: {', '.join(names)}")
        await housekeeping.make_pending_rollups(connection, load_all())


async def make_roles(settings: Settings) -> None:
    """Make the roles that may do less than the owner, and say how a login becomes one of them."""
    async with _migrated(settings) as connection:
        made = await roles.make(connection, load_all(), migrations.relations(load_all()))
    for role, what in roles.ROLES.items():
        click.echo(f"{role}: {what}{'; made' if role in made else ''}")
    click.echo("a login of one of them: CREATE ROLE name LOGIN PASSWORD 'choose one' IN ROLE postel_write;")


async def keep_house(settings: Settings, hours: float | None) -> None:
    """Do what a sink does each hour, of which some is the owner's alone.

    Args:
        settings: which database.
        hours: between one time and the next, until SIGINT or SIGTERM; None: it is done once.
    """
    async with _migrated(settings) as connection:
        await roles.require_owner(connection)
    url = await database_url(settings)
    if hours is None:
        done = await housekeeping.keep_house(url, load_all())
        click.echo("done" if done else "another program does it now")
        return
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # By itself the first process of a container hears neither.
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _log.info("the house is kept from now on", hours=hours)
    keeping = asyncio.create_task(housekeeping.keep_house_again(url, load_all(), 0, hours * 3600))
    await stop.wait()
    # What was under way is undone, and comes again with the next time.
    await end(keeping)


async def rehearse(settings: Settings, seconds: float) -> int:
    """Say what `migrate` would do and whom it would hold up, and change nothing; the exit code is 1 if time ran out."""
    async with _connected(settings) as connection, _connected(settings) as observer:
        found = await rehearsal.rehearse(connection, observer, settings.database, load_all(), seconds)
    for line in found.lines():
        click.echo(line)
    if found.complete and not found.steps:
        click.echo("the schema is up to date")
        return 0
    if found.pending:
        click.echo(f"filled afterwards, a piece at a time, while all goes on: {', '.join(found.pending)}")
    if not found.complete:
        click.echo(f"not within {seconds:g} s: give it more (--seconds), in which it holds what it names, or a copy")
    click.echo(
        "taken back: nothing has changed. Each is a transaction of its own, and holds what it names for as long as it "
        "takes at most; what an earlier one names a later one may hold as well"
    )
    return 0 if found.complete else 1


async def status(settings: Settings) -> None:
    """Print the server, the migrations and the size of each table."""
    async with _migrated(settings) as connection:
        server = await ask_server(connection)
        extension = f", TimescaleDB {server.timescale_version}" if server.timescale_version else ""
        click.echo(f"server: PostgreSQL {server.version}{extension} ({server.tier.value})")
        for name in sorted(await migrations.applied(connection)):
            click.echo(f"applied: {name}")
        kept = await connection.execute(
            "SELECT relation, extract(epoch FROM keep)::bigint / 86400, pending FROM retention ORDER BY 1"
        )
        rollups = rollup_views.names(load_all())
        for name, days, pending in await kept.fetchall():
            waits = ""
            if pending and name not in rollups:
                waits = ", once the rollups of what is older are made" if days else ""
            elif pending:
                waits = "; it is still being made of what is older"
            click.echo(f"kept: {name}, {'for ever' if days is None else f'{days} days'}{waits}")
        # The parts of a hypertable hold what it holds.
        tables = await (
            await connection.execute(
                """
                SELECT whole.relname, pg_size_pretty(sum(pg_total_relation_size(part.oid))),
                    sum(pg_relation_size(part.oid))::bigint, sum(greatest(part.reltuples, 0))::bigint
                FROM pg_class AS whole
                JOIN pg_class AS part ON part.oid = whole.oid
                    OR part.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = whole.oid)
                WHERE whole.relkind IN ('r', 'p') AND whole.relnamespace = current_schema()::regnamespace
                    AND NOT whole.relispartition
                GROUP BY whole.relname ORDER BY whole.relname
                """
            )
        ).fetchall()
        for name, size, held, estimate in tables:
            rows = f"about {estimate}" if held > _COUNTED_BYTES else await _count(connection, name)
            click.echo(f"table: {name}, {size}, {rows} rows")


async def _count(connection: Connection, table: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
    row = await (await connection.execute(query)).fetchone()
    return int(row[0]) if row else 0


async def check(settings: Settings) -> int:
    """Recount the tables against the ledger.

    Returns:
        The exit code: 0 where they agree, 1 where they do not.
    """
    async with _migrated(settings) as connection:
        found = await differences(connection, load_all())
    for difference in found:
        click.echo(str(difference))
    if found:
        click.echo(f"{len(found)} difference{'s' if len(found) > 1 else ''}")
    else:
        click.echo("the tables hold what the ledger says")
    return 1 if found else 0


async def remove_demo(settings: Settings) -> Removed:
    """Delete everything of the nodes of which all data carries the demo mark."""
    async with _migrated(settings) as connection, connection.transaction():
        row = await (
            await connection.execute("SELECT extract(epoch FROM now() - max(last_seen))::float8 FROM node WHERE demo")
        ).fetchone()
        return Removed(await _remove_demo(connection, [*load_all().tables]), row[0] if row else None)


async def _remove_demo(connection: Connection, typed: list[str]) -> dict[str, int]:
    # Lists, not subqueries: only by constants TimescaleDB finds what it must unpack of chunks in columns. By a subquery
    # it unpacks all of them, 100,000 points in 2 s where the points of 20 series of 200 go in a millisecond.
    nodes = await _column(connection, "SELECT id FROM node WHERE demo")
    series = await _column(connection, "SELECT series_id FROM otel_series WHERE node_id = ANY (%s)", nodes)
    deleted = {}
    for table in typed:
        columns = [column.name for column in load_all().columns_of(table)]
        points = f"num_nonnulls({', '.join(columns)})"
        deleted[table] = await _delete(connection, table, "node_id", nodes, points)
    deleted["otel_metric_point"] = await _delete(connection, "otel_metric_point", "series_id", series, "1")
    for table in ("otel_log", *load_all().event_tables):
        deleted[table] = await _delete(connection, table, "node_id", nodes, "1")
    if (await ask_server(connection)).tier is Tier.COMMUNITY:
        await _delete_rollups(connection, nodes)
    for table, where, values in (
        ("otel_series", "series_id = ANY (%s)", series),
        ("node", "id = ANY (%s) AND demo", nodes),
    ):
        cursor = await connection.execute(f"DELETE FROM {table} WHERE {where}".encode(), (values,))
        deleted[table] = cursor.rowcount
    return deleted


async def _column(connection: Connection, query: str, *parameters: object) -> list[object]:
    return [row[0] for row in await (await connection.execute(query.encode(), parameters)).fetchall()]


async def _delete_rollups(connection: Connection, nodes: list[object]) -> None:
    """Delete what the continuous aggregates hold of nodes: of rows that were dropped no refresh makes them anew.

    Those whatever the node are made anew of what is left of the others, where the nodes had a part in them.
    """
    declarations = load_all()
    made_by_name = {made.name: made for made in event_rollups.rolled(declarations.event_tables)}
    nodeless = {name: made for name, made in made_by_name.items() if "node_id" not in made.by}
    sources = {made.made_of for made in nodeless.values()}
    had: dict[str, _Had] = {}
    for rollup in rollup_views.names(declarations):
        name, _, size = rollup.rpartition("_")
        for table in await _held(connection, rollup):
            # A refresh that has read the rows of before puts its buckets there first, or waits.
            await connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())
            if made := nodeless.get(name):
                (source,) = await _held(connection, f"{made.made_of}_{size}")
                if source in had:
                    had[table] = had[source]
                    await _make_again(connection, made, table, source, had[source])
                continue
            found = await _edges(connection, table, "bucket", "node_id", nodes)
            if found:
                if name in sources:
                    query = f"SELECT DISTINCT domain FROM {table} WHERE node_id = ANY (%s) AND bucket BETWEEN %s AND %s"
                    told = "domain" in made_by_name[name].by
                    had[table] = _Had(*found, await _column(connection, query, nodes, *found) if told else [])
                await connection.execute(
                    f"DELETE FROM {table} WHERE node_id = ANY (%s) AND bucket BETWEEN %s AND %s".encode(),
                    (nodes, *found),
                    prepare=False,
                )


async def _held(connection: Connection, rollup: str) -> list[str]:
    """The tables in which the continuous aggregates under a rollup are."""
    held = await connection.execute(
        f"SELECT format('%%I.%%I', schema, name) FROM ({rollup_views.HELD}) AS held".encode(), (rollup,)
    )
    return [table for (table,) in await held.fetchall()]


@dataclass(frozen=True, slots=True)
class _Had:
    """What some nodes had in a rollup: the first and the last of its buckets, and domains of these."""

    since: object
    until: object
    domains: list[object]


async def _make_again(connection: Connection, made: Events, table: str, source: str, had: _Had) -> None:
    """Make buckets anew that are made, of what ``source`` has; of all domains where they are not told apart."""
    # An address without a domain has the domain ''.
    key, only, domains = "bucket", "", []
    if "domain" in made.by:
        key = "bucket, domain IS NULL, coalesce(domain, '')"
        only, domains = " AND (domain = ANY (%s) OR domain IS NULL)", [had.domains]
    await connection.execute(
        f"""
        WITH gone AS (DELETE FROM {table} WHERE bucket BETWEEN %s AND %s{only} RETURNING {key})
        INSERT INTO {table} (bucket, {", ".join(made.columns)})
        SELECT bucket, {made.of_buckets()}
        FROM {source}
        WHERE bucket BETWEEN %s AND %s AND ({key}) IN (SELECT * FROM gone)
        GROUP BY {", ".join(["bucket", *made.by])}
        """.encode(),
        (had.since, had.until, *domains, had.since, had.until),
        prepare=False,
    )


async def _edges(
    connection: Connection, table: str, time: str, key: str, values: list[object]
) -> tuple[object, object] | None:
    """The first and the last time of some rows; None: there are none.

    In constants beside the key they keep in columns what is of other times.
    """
    query = f"SELECT min({time}), max({time}) FROM {table} WHERE {key} = ANY (%s)"
    row = await (await connection.execute(query.encode(), (values,))).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


async def _delete(connection: Connection, table: str, key: str, values: list[object], weight: str) -> int:
    """Delete rows and note in the ledger that what they held is gone, so that `db check` agrees."""
    found = await _edges(connection, table, "time", key, values)
    if found is None:
        return 0
    cursor = await connection.execute(
        f"""
        WITH gone AS (DELETE FROM {table} WHERE {key} = ANY (%s) AND time BETWEEN %s AND %s RETURNING *),
        counted AS (
            SELECT date_trunc('hour', time, 'UTC') AS hour, count(*) AS rows, sum({weight}) AS records
            FROM gone GROUP BY 1
        ),
        noted AS (
            INSERT INTO ingest_ledger AS ledger (hour, destination, sink, removed)
            SELECT hour, '{table}', 'postel demo --remove', records FROM counted
            ON CONFLICT (hour, destination, sink) DO UPDATE SET removed = ledger.removed + excluded.removed
        )
        SELECT coalesce(sum(rows), 0)::bigint FROM counted
        """.encode(),
        (values, *found),
        prepare=False,
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


@asynccontextmanager
async def _migrated(settings: Settings) -> AsyncIterator[Connection]:
    """A connection to a database that has the schema."""
    async with _connected(settings) as connection:
        if not await migrations.applied(connection):
            raise DatabaseError("the database has no schema yet: run `postel db migrate`, or start the sink once")
        yield connection


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Connection]:
    """A connection; what the server says against a statement is one line, with what mends it."""
    connection = await connect(await database_url(settings))
    try:
        yield connection
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        said = _first_line(error)
        raise DatabaseError(f"the schema was changed by hand: {said}; restore it from a backup") from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(f"the role of [database] url may not do that: {_first_line(error)}") from None
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise DatabaseAwayError(f"the database takes no writes now: {_first_line(error)}") from None
    except psycopg.OperationalError as error:
        raise DatabaseAwayError(f"the database went away: {_first_line(error)}") from None
    finally:
        await connection.close()


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
