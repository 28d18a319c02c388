"""Every case of the contract, on a real database; and the recount, which must agree after each of them."""

from __future__ import annotations

import pytest
from contract.contract import Case, cases, compare, send
from contract.wires import grpc_wire, http_wire

from postel.otlp import codec
from support.sink import ingesting, recount


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_case(case: Case, migrated_database: str) -> None:
    async with ingesting(migrated_database) as ingest, http_wire(ingest, codec.JSON) as wire:
        await send(case, wire, migrated_database)
    compare(case, migrated_database)
    assert await recount(migrated_database) == []


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_a_repetition_over_the_other_wires_changes_no_row(case: Case, migrated_database: str) -> None:
    """Were a record another one in another encoding, it would be stored twice."""
    async with (
        ingesting(migrated_database) as ingest,
        grpc_wire(ingest) as grpc,
        http_wire(ingest, codec.PROTOBUF, compress=True) as http,
    ):
        await send(case, grpc, migrated_database)
        await send(case, http, migrated_database)
    compare(case, migrated_database, but="ingest_ledger")
    assert await recount(migrated_database) == []
