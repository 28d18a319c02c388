"""A database that goes away and comes back, whose disk is full, or that takes no more connections: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from support.full_disk import small_disk
from support.known_load import KINDS, Kind, logs, metrics
from support.outage import outage_of
from support.over_wires import over_wires
from support.postgres import distribution_server, migrate_now, timescale_programs
from support.requirements import require
from support.running_postel import until
from support.sink import ingesting, recount, running_sink
from timescale_sink.ingest.queue import IngestQueue
from tools.bootstrap.programs import PostgresServer, find_postgres

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


# Records of a request, and requests that wait for a database.
_IN_REQUEST, _WAITING = 70, 100
_KINDS = {Signal.LOGS: Kind.LOG, Signal.METRICS: Kind.DELTA}


def _request(number: int) -> tuple[Signal, Message]:
    """Of events or points that are in no other."""
    of = (Signal.LOGS, Signal.METRICS)[number % 2]
    numbers = [each * KINDS + _KINDS[of] for each in range(number * _IN_REQUEST, (number + 1) * _IN_REQUEST)]
    return of, (logs if of is Signal.LOGS else metrics)(numbers)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "seconds", [pytest.param(4, marks=pytest.mark.slow), pytest.param(300, marks=pytest.mark.soak)]
)
async def test_senders_are_asked_to_send_again_while_the_database_is_away(
    migrated_database: str, tmp_path: Path, seconds: float
) -> None:
    """Over both wires, to the program; it is told of by /readyz, and goes on by itself."""
    refused = Counter[str]()
    async with outage_of(migrated_database) as outage:
        with running_sink(tmp_path, outage.url) as sink:
            await asyncio.to_thread(sink.start)
            async with over_wires(sink, refused) as wires:
                numbers, waiting = itertools.count(), dict.fromkeys(wires, 0)
                ended = asyncio.Event()

                async def sender(wire: str) -> int:
                    """Send new ones and those that were refused until the end, then what is left; how many."""
                    sent, left, turns = 0, deque[int](), itertools.cycle((True, False))
                    while left or not ended.is_set():
                        again = ended.is_set() or len(left) >= _WAITING or (next(turns) and bool(left))
                        number = left.popleft() if again else next(numbers)
                        sent += not again
                        if not await wires[wire](*_request(number)):
                            left.append(number)
                            await asyncio.sleep(0.1)
                        waiting[wire] = max(waiting[wire], len(left))
                    return sent

                senders = [asyncio.create_task(sender(wire)) for wire in ("grpc", "http") * 4]
                await asyncio.sleep(2)
                assert not refused
                await outage.down()
                await asyncio.sleep(seconds)
                assert await asyncio.to_thread(sink.state) == 503
                # Who came before it was known waits for five seconds.
                await asyncio.to_thread(until, lambda: len(refused) == len(wires), 20, "retries are asked for on both")
                await outage.up()
                await asyncio.to_thread(until, lambda: sink.state() == 200, 20, "ready again")
                ended.set()
                sent = sum(await asyncio.gather(*senders))
            assert sink.end(signal.SIGTERM) == 0
            assert "Traceback" not in sink.log
    print(f"{sent} requests of {_IN_REQUEST}; retries asked for: {dict(refused)}; at most {waiting} waited")  # noqa: T201
    assert await recount(migrated_database) == []
    with psycopg.connect(migrated_database) as connection:
        for table, of in (("otel_log", (sent + 1) // 2), ("otel_metric_point", sent // 2), ("dead_letter", 0)):
            found = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
            assert found == (of * _IN_REQUEST,), table


# Records of 200 KB that wait for a disk.
_ROOM = 40


def _with_extension() -> PostgresServer:
    if not (found := timescale_programs()):
        pytest.skip("no TimescaleDB whose programs are on this machine")
    return found


def _newest() -> PostgresServer:
    require("postgresql", available=_SERVERS)
    return _SERVERS[-1]


@pytest.mark.parametrize(
    ("programs", "mebibytes", "options"),
    [(_newest, 96, ()), (_with_extension, 192, ("-c", "shared_preload_libraries=timescaledb"))],
    ids=["postgres", "timescale"],
)
@pytest.mark.parametrize(
    "seconds", [pytest.param(6, marks=pytest.mark.slow), pytest.param(300, marks=pytest.mark.soak)]
)
@pytest.mark.timeout(600)
async def test_a_full_disk_costs_nothing(
    programs: Callable[[], PostgresServer], mebibytes: int, options: Sequence[str], tmp_path: Path, seconds: float
) -> None:
    """With the write-ahead log on it: the server cannot extend a table, and may end for want of a segment."""
    refused = Counter[str]()
    with small_disk(programs(), mebibytes, *options) as disk, running_sink(tmp_path, disk.url) as sink:
        await asyncio.to_thread(sink.start, seconds=60)
        async with over_wires(sink, refused) as wires:
            by_turns = itertools.cycle(wires.values())

            async def is_taken(number: int) -> bool:
                return await next(by_turns)(Signal.LOGS, _log(number, 200_000))

            assert await is_taken(0)
            await asyncio.to_thread(disk.fill)
            sent, left, end = 1, set[int](), time.monotonic() + seconds
            while time.monotonic() < end or not left:
                # As many as the disk has room for once it is given back, then these again and again.
                number = sent if len(left) < _ROOM else min(left)
                sent = max(sent, number + 1)
                # One that fits into pages that are there may be taken.
                if await is_taken(number):
                    left.discard(number)
                else:
                    left.add(number)
                    await asyncio.sleep(0.1)
            await asyncio.to_thread(disk.empty)
            await asyncio.to_thread(disk.revive)
            for number in sorted(left):
                while not await is_taken(number):  # noqa: ASYNC110 - asked, not told
                    await asyncio.sleep(0.2)
        assert sink.end(signal.SIGTERM) == 0
        assert await recount(disk.url) == []
        with psycopg.connect(disk.url) as connection:
            found = connection.execute("SELECT count(*), count(DISTINCT event_id) FROM otel_log").fetchone()
            letters = connection.execute("SELECT count(*) FROM dead_letter").fetchone()
    print(f"{sent} sent, {len(left)} of them while the disk was full and taken afterwards: {dict(refused)}")  # noqa: T201
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
            refused = Counter[str]()
            async with over_wires(sink, refused) as wires:
                for send in wires.values():
                    assert not await send(Signal.LOGS, _log(1))
            assert refused == {"grpc": 1, "http": 1}
            assert "too many clients" in sink.log
        await asyncio.to_thread(until, lambda: sink.state() == 200, 20, "ready once there are connections")
        async with over_wires(sink, refused) as wires:
            for send in wires.values():
                assert await send(Signal.LOGS, _log(1))
        assert await recount(url) == []
