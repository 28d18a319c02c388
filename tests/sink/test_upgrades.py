"""Databases of earlier versions with rows of every kind in place: after the migrations they hold what one of now holds.

The rows are those of the contract's requests, copied into the tables of the earlier schema; with TimescaleDB they are
in columns where it has these.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from contract.contract import cases
from contract.wires import grpc_wire
from psycopg import sql

from postel.signals import load_all
from support.earlier import migrate_below
from support.postgres import SERVERS, fresh_database
from support.same_rows import assert_same, roll_up
from support.sink import ingesting
from support.timescale_database import pack
from timescale_sink.store.database import Connection, Tier, ask_server, connect
from timescale_sink.store.migrate import migrate
from timescale_sink.store.rollup_views import names

# With statements of the owner's: they would have to be copied too.
_NOT_HERE = {"49_poisoned_by_the_database", "50_read_only"}


# On plain PostgreSQL most migrations have little to do.
_PLAIN = pytest.param("postgres", marks=pytest.mark.soak)


@pytest.fixture(params=[_PLAIN, *(server for server in SERVERS if server == "timescale")])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with fresh_database(request.getfixturevalue(request.param)) as url:
        yield url


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "first",
    [
        # The first with all tables that the sink writes; then before rollups, before events in columns by time alone,
        # and before the newest rollups.
        pytest.param("0013", marks=pytest.mark.soak),
        pytest.param("0016", marks=pytest.mark.slow),
        pytest.param("0027", marks=pytest.mark.soak),
        pytest.param("0033", marks=pytest.mark.soak),
    ],
)
async def test_rows_of_an_earlier_version_are_as_they_would_be_now(
    url: str, migrated_postgres: str, first: str
) -> None:
    async with ingesting(migrated_postgres) as ingest, grpc_wire(ingest) as wire:
        for case in cases():
            for request in case.requests if case.name not in _NOT_HERE else ():
                await wire(request)
    connection = await connect(url)
    try:
        missing = await migrate_below(connection, first)
        _copy(migrated_postgres, url)
        community = (await ask_server(connection)).tier is Tier.COMMUNITY
        if community:
            pack(url)
            roll_up(url, await _made_so_far(connection))
        assert await migrate(connection) == [*missing, "views"]
    finally:
        await connection.close()
    if community:
        roll_up(url)
    await assert_same(migrated_postgres, url)


_COLUMNS = """
    SELECT relname, array_agg(attname::text ORDER BY attnum)
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
        -- Two servers count their transactions apart.
        AND attname <> 'xact' AND relname <> 'postel_migration'
    GROUP BY 1
"""


def _copy(source: str, target: str) -> None:
    """Copy all rows; the tables and columns of the target are among those of the source."""
    with psycopg.connect(source) as full, psycopg.connect(target) as empty:
        for table, columns in empty.execute(_COLUMNS).fetchall():
            listed = sql.SQL(", ").join(map(sql.Identifier, columns))
            query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(listed, sql.Identifier(table))
            statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), listed)
            with full.cursor().copy(query) as rows, empty.cursor().copy(statement) as taken:
                for block in rows:
                    taken.write(block)


async def _made_so_far(connection: Connection) -> list[str]:
    found = await connection.execute("SELECT view_name FROM timescaledb_information.continuous_aggregates")
    there = {name for (name,) in await found.fetchall()}
    return [rollup for rollup in names(load_all()) if f"{rollup}_1" in there]
