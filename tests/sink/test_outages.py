"""A database that goes away and comes back, whose disk is full, or that takes no more connections: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from support.full_disk import small_disk
from support.outage import outage_of
from support.postgres import distribution_server, migrate_now
from support.requirements import require
from support.running_postel import until
from support.sink import ingesting, recount, running_sink
from timescale_sink.ingest.queue import IngestQueue
from tools.bootstrap.programs import find_postgres

_SERVERS = find_postgres()


def _log(number: int, size: int = 0) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    record = records.add(time_unix_nano=1_768_471_200_000_000_000 + number, body=AnyValue(int_value=number))
    if size:
        # What nothing compresses.
        record.body.string_value = random.Random(number).randbytes(size // 2).hex()  # noqa: S311 - the same each time
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


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(9, marks=pytest.mark.slow),
        pytest.param(70, marks=pytest.mark.soak),
        pytest.param(300, marks=pytest.mark.soak),
    ],
)
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
    with psycopg.connect(migrated_database) as connection:
        assert connection.execute("SELECT count(*) FROM otel_log").fetchone() == (5,)


# Records of 200 KB that wait for a disk.
_ROOM = 40


async def _is_taken(ingest: IngestQueue, number: int) -> bool:
    try:
        return await ingest(Signal.LOGS, _log(number, 200_000)) == Outcome()
    except Retryable:
        return False


@pytest.mark.parametrize(
    "seconds", [pytest.param(6, marks=pytest.mark.slow), pytest.param(300, marks=pytest.mark.soak)]
)
@pytest.mark.timeout(600)
async def test_a_full_disk_costs_nothing(seconds: float) -> None:
    """With the write-ahead log on it: the server cannot extend a table, and may end for want of a segment."""
    require("postgresql", available=_SERVERS)
    with small_disk(_SERVERS[-1], 96) as disk:
        await asyncio.to_thread(migrate_now, disk.url)
        async with ingesting(disk.url) as ingest:
            assert await ingest(Signal.LOGS, _log(0)) == Outcome()
            await asyncio.to_thread(disk.fill)
            sent, left, end = 1, set[int](), time.monotonic() + seconds
            while time.monotonic() < end or not left:
                # As many as the disk has room for once it is given back, then these again and again.
                number = sent if len(left) < _ROOM else min(left)
                sent = max(sent, number + 1)
                # One that fits into pages that are there may be taken.
                if await _is_taken(ingest, number):
                    left.discard(number)
                else:
                    left.add(number)
                    await asyncio.sleep(0.1)
            await asyncio.to_thread(disk.empty)
            await asyncio.to_thread(disk.revive)
            for number in sorted(left):
                while not await _is_taken(ingest, number):  # noqa: ASYNC110 - asked, not told
                    await asyncio.sleep(0.2)
        assert await recount(disk.url) == []
        with psycopg.connect(disk.url) as connection:
            found = connection.execute("SELECT count(*), count(DISTINCT event_id) FROM otel_log").fetchone()
            letters = connection.execute("SELECT count(*) FROM dead_letter").fetchone()
    print(f"{sent} sent, {len(left)} of them while the disk was full and taken afterwards")  # noqa: T201
    assert (found, letters) == ((sent, sent), (0,))


@pytest.mark.slow
async def test_a_server_that_takes_no_more_connections_is_waited_for(tmp_path: Path) -> None:
    require("postgresql", available=_SERVERS)
    limits = ("-c", "max_connections=6", "-c", "superuser_reserved_connections=0", "-c", "max_wal_senders=0")
    with distribution_server(_SERVERS[-1], *limits) as url, running_sink(tmp_path, url) as sink:
        await asyncio.to_thread(migrate_now, url)

        def taken() -> ExitStack:
            """All connections that there are."""
            held = ExitStack()
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    held.enter_context(psycopg.connect(url))
            return held

        with taken():
            sink.start(ready=False)
            assert await asyncio.to_thread(sink.state) == 503
            async with ingesting(url) as ingest:
                with pytest.raises(Retryable):
                    await ingest(Signal.LOGS, _log(1))
            assert "too many clients" in sink.log
        await asyncio.to_thread(until, lambda: sink.state() == 200, 20, "ready once there are connections")
        async with ingesting(url) as ingest:
            assert await ingest(Signal.LOGS, _log(1)) == Outcome()
        assert await recount(url) == []
