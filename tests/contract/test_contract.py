"""Every case of the contract, on a real database; and the recount, which must agree after each of them."""

from __future__ import annotations

import psycopg
import pytest
from contract.contract import Case, cases, compare_answer, compare_tables
from contract.wires import Wire, grpc_wire, http_wire

from postel.otlp import codec
from support.sink import ingesting, recount


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_case(case: Case, migrated_database: str) -> None:
    async with ingesting(migrated_database) as ingest, http_wire(ingest, codec.JSON) as wire:
        await _send(case, wire, migrated_database)
    _compare(case, migrated_database)
    assert await recount(migrated_database) == []


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_a_repetition_over_the_other_wires_changes_no_row(case: Case, migrated_database: str) -> None:
    """Were a record another one in another encoding, it would be stored twice."""
    async with (
        ingesting(migrated_database) as ingest,
        grpc_wire(ingest) as grpc,
        http_wire(ingest, codec.PROTOBUF, compress=True) as http,
    ):
        await _send(case, grpc, migrated_database)
        await _send(case, http, migrated_database)
    _compare(case, migrated_database, but="ingest_ledger")
    assert await recount(migrated_database) == []


async def _send(case: Case, wire: Wire, url: str) -> None:
    for request in case.requests:
        if statement := request.get("sql"):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(statement.encode())
        elif answer := await wire(request):
            compare_answer(request.get("answer", {}), answer)


def _compare(case: Case, url: str, but: str = "") -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        compare_tables(connection, {table: rows for table, rows in case.tables.items() if table != but})
