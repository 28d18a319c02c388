"""A database that goes away and comes back: how soon the sink writes again."""

from __future__ import annotations

import asyncio
import time

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from support.outage import outage_of
from support.sink import ingesting, recount
from timescale_sink.ingest.queue import IngestQueue


def _log(number: int) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(time_unix_nano=1_768_471_200_000_000_000 + number, body=AnyValue(int_value=number))
    return request


async def _committed(ingest: IngestQueue, number: int) -> float:
    """Send it until it is committed; returns when that was."""
    while True:
        try:
            await ingest(Signal.LOGS, _log(number))
        except Retryable:
            await asyncio.sleep(0.5)
        else:
            return time.monotonic()


@pytest.mark.parametrize("seconds", [pytest.param(9, marks=pytest.mark.slow), pytest.param(70, marks=pytest.mark.soak)])
async def test_the_first_commit_comes_soon_after_the_database(migrated_database: str, seconds: float) -> None:
    async with outage_of(migrated_database) as outage, ingesting(outage.url, connections=4) as ingest:
        assert await ingest(Signal.LOGS, _log(0)) == Outcome()
        await outage.down()
        senders = [asyncio.create_task(_committed(ingest, number)) for number in range(1, 5)]
        await asyncio.sleep(seconds)
        tried = ingest._writer._pool.get_stats()["connections_num"]
        await outage.up()
        back = time.monotonic()
        after = [at - back for at in await asyncio.gather(*senders)]
    # A second at most until it is tried again, and what a busy machine needs more.
    assert min(after) < 3
    # Each second a few times, not as often as the processor can.
    assert tried < 20 + 8 * seconds
    assert await recount(migrated_database) == []
