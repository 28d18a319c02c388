"""Every case of the contract where all that is there is in columns before each request: TimescaleDB Community."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from contract.contract import Case, cases, compare, send
from contract.wires import grpc_wire, http_wire

from postel.otlp import codec
from support.postgres import fresh_database
from support.sink import ingesting, recount
from support.timescale_database import pack

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


@pytest.fixture
def database(timescale: str, migrated_timescale_template: str) -> Iterator[str]:
    with fresh_database(timescale, migrated_timescale_template) as url:
        yield url


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", _CASES)
async def test_case(case: Case, database: str) -> None:
    async with (
        ingesting(database) as ingest,
        http_wire(ingest, codec.JSON) as wire,
        grpc_wire(ingest) as another,
    ):
        await send(case, wire, database, after=partial(pack, database))
        compare(case, database)
        assert await recount(database) == []
        await send(case, another, database, after=partial(pack, database))
    compare(case, database, but="ingest_ledger")
    assert await recount(database) == []
