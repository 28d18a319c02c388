"""The same OTLP into plain PostgreSQL and TimescaleDB Community: the same answers, and the same rows in every table.

The contract's requests, one case after the other into the same tables; and records of the known load in random company,
some of them twice, where all that there is is rolled up and put into columns in between. Needs a server with
TimescaleDB: the one in process takes no connections.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
import pytest
from contract.contract import cases
from contract.wires import grpc_wire
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from postel.otlp.signal import Signal
from support.known_load import KINDS, Kind, logs, metrics
from support.postgres import fresh_database
from support.same_rows import assert_same, roll_up
from support.sink import ingesting
from support.timescale_database import pack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_RECORDS = 7000
_SENT_TWICE = 0.2
_ROUTES = ((Kind.MESSAGE,), (Kind.ATTEMPT, Kind.DELIVERY, Kind.LOG), (Kind.GAUGE, Kind.COUNTER, Kind.DELTA))
"""Kinds that travel together."""


@pytest.fixture
def community(timescale: str, migrated_timescale_template: str) -> Iterator[str]:
    with fresh_database(timescale, migrated_timescale_template) as url:
        yield url


async def test_the_contracts_requests(migrated_postgres: str, community: str) -> None:
    async with (
        ingesting(migrated_postgres) as one,
        ingesting(community) as other,
        grpc_wire(one) as to_one,
        grpc_wire(other) as to_other,
    ):
        for case in cases():
            for request in case.requests:
                if statement := request.get("sql"):
                    for url in (migrated_postgres, community):
                        with psycopg.connect(url, autocommit=True) as connection:
                            connection.execute(statement.encode())
                else:
                    assert await to_one(request) == await to_other(request), case.name
    roll_up(community)
    await assert_same(migrated_postgres, community)


async def test_many_records_of_all_kinds(migrated_postgres: str, community: str) -> None:
    async with ingesting(migrated_postgres) as one, ingesting(community) as other:
        requests = [*_requests(random.Random(4))]  # noqa: S311 - repeatable
        for number, (signal, request) in enumerate(requests):
            assert await one(signal, request) == await other(signal, request)
            if number == len(requests) // 2:
                roll_up(community)
                pack(community)
    roll_up(community)
    await assert_same(migrated_postgres, community)


def _requests(chance: random.Random) -> Iterator[tuple[Signal, ExportMetricsServiceRequest | ExportLogsServiceRequest]]:
    batches = []
    for kinds in _ROUTES:
        numbers = [number for kind in kinds for number in range(kind, _RECORDS, KINDS)]
        numbers += chance.sample(numbers, int(len(numbers) * _SENT_TWICE))
        chance.shuffle(numbers)
        while numbers:
            size = chance.randint(1, 300)
            batches.append((kinds, numbers[:size]))
            del numbers[:size]
    chance.shuffle(batches)
    for kinds, some in batches:
        yield (Signal.METRICS, metrics(some)) if Kind.GAUGE in kinds else (Signal.LOGS, logs(some))
