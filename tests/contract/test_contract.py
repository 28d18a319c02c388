"""Every case of the contract, on a real database; and the recount, which must agree after each of them."""

from __future__ import annotations

import psycopg
import pytest
from contract.contract import Case, cases, compare_answer, compare_tables, send

from support.sink import ingesting, recount


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_case(case: Case, migrated_database: str) -> None:
    async with ingesting(migrated_database) as ingest:
        for request in case.requests:
            status, body = await send(ingest, request)
            compare_answer(request.get("answer", {}), status, body)
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        compare_tables(connection, case.tables)
    assert await recount(migrated_database) == []


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_a_repetition_changes_no_row(case: Case, migrated_database: str) -> None:
    async with ingesting(migrated_database) as ingest:
        for request in [*case.requests, *case.requests]:
            status, body = await send(ingest, request)
            compare_answer(request.get("answer", {}), status, body)
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        compare_tables(connection, {t: rows for t, rows in case.tables.items() if t != "ingest_ledger"})
    assert await recount(migrated_database) == []
