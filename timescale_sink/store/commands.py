"""What ``postel db`` and ``postel demo --remove`` do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import click
import psycopg
import structlog
from psycopg import sql

from postel.errors import DatabaseAwayError, DatabaseError
from postel.settings import Settings
from postel.signals import load_all
from postel.tasks import end
from timescale_sink.store import demo_removal, housekeeping, rehearsal, retention, roles, rollup_views
from timescale_sink.store import migrate as migrations
from timescale_sink.store.check import differences
from timescale_sink.store.database import Connection, ask_server, connect, database_url
from timescale_sink.store.demo_removal import Removed

# A table of this size is counted within a second; a larger one's rows are the server's estimate.
_COUNTED_BYTES = 64 << 20
_log = structlog.get_logger()


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


async def remove_demo(settings: Settings, *, quiet_seconds: float, under_way: Callable[[], None]) -> Removed:
    """Delete everything of the nodes of which all data carries the demo mark; see `demo_removal.remove`."""
    async with _migrated(settings) as connection:
        return await demo_removal.remove(connection, quiet_seconds=quiet_seconds, under_way=under_way)


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
