"""Every case of the contract where all that is there is in columns before each request: TimescaleDB Community."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from contract.contract import Case, cases, compare_answer, compare_tables
from contract.wires import Wire, grpc_wire, http_wire
from psycopg import conninfo

from postel.otlp import codec
from support.postgres import fresh_database, migrate_now
from support.sink import ingesting, recount

pytestmark = pytest.mark.slow

# A reason there names the chunk.
_NOT_HERE = {"49_poisoned_by_the_database"}
# Those whose requests come to rows that are there.
_MERGING = {
    "02_split_row",
    "03_another_value",
    "12_same_id_another_text",
    "20_mail_events",
    "28_conflicting_points",
    "29_recut_batches",
    "32_late",
    "51_one_id_two_times",
    "55_restart_of_a_row",
}
_CASES = [
    pytest.param(case, id=case.name, marks=() if case.name in _MERGING else pytest.mark.soak)
    for case in cases()
    if case.name not in _NOT_HERE
]
_CHUNKS = """
    SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks
    JOIN timescaledb_information.hypertables USING (hypertable_schema, hypertable_name)
    WHERE compression_enabled AND hypertable_schema = 'public'
"""


@pytest.fixture(scope="module")
def template(timescale: str) -> Iterator[str]:
    with fresh_database(timescale) as url:
        migrate_now(url)
        name = str(conninfo.conninfo_to_dict(url)["dbname"])
        with psycopg.connect(timescale, autocommit=True) as connection:
            # TimescaleDB's workers are connected to each database that takes them.
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            while connection.execute(ending, (name,)).fetchall():
                pass
        yield name


@pytest.fixture
def database(timescale: str, template: str) -> Iterator[str]:
    with fresh_database(timescale, template) as url:
        yield url


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", _CASES)
async def test_case(case: Case, database: str) -> None:
    async with (
        ingesting(database) as ingest,
        http_wire(ingest, codec.JSON) as wire,
        grpc_wire(ingest) as another,
    ):
        await _send(case, wire, database)
        _compare(database, case.tables)
        assert await recount(database) == []
        await _send(case, another, database)
    _compare(database, {name: rows for name, rows in case.tables.items() if name != "ingest_ledger"})
    assert await recount(database) == []


async def _send(case: Case, wire: Wire, url: str) -> None:
    for request in case.requests:
        if statement := request.get("sql"):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(statement.encode())
        elif answer := await wire(request):
            compare_answer(request.get("answer", {}), answer)
        _pack(url)


def _pack(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for (chunk,) in connection.execute(_CHUNKS).fetchall():
            connection.execute(f"SELECT compress_chunk('{chunk}')".encode())


def _compare(url: str, tables: Mapping[str, Any]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        compare_tables(connection, tables)
