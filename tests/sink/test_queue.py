"""The queue over a writer whose speed is the test's: large requests end, whatever comes beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from support.eventually import eventually
from timescale_sink.ingest import progress as progress_module
from timescale_sink.ingest import queue as queue_module
from timescale_sink.ingest.queue import IngestQueue
from timescale_sink.ingest.rows import LOGS, POINTS, DeadLetter, Rows, Sighting

HOUR = datetime(2026, 1, 15, 10, tzinfo=UTC)


class CountingMapper:
    """Makes no rows; counts records."""

    def __init__(self) -> None:
        self.requests = 0

    def map(self, signal: Signal, request: Any, _now: datetime, rows: Rows, encoded: bytes | None = None) -> list[str]:
        del encoded
        self.requests += 1
        if signal is Signal.LOGS:
            rows.tally(HOUR, LOGS).received += len(request.resource_logs[0].scope_logs[0].log_records)
        else:
            points = request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
            rows.tally(HOUR, POINTS).received += len(points)
        return []


class SlowWriter:
    """Takes ``seconds`` for each log record and none for points; commits within ``patience`` or not at all."""

    def __init__(self, seconds: float, patience: float = 0.3) -> None:
        self.seconds = seconds
        self.patience = patience
        self.committed = 0
        self.transactions: list[int] = []
        # Clear: nothing is committed.
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, rows: Rows, *, mixed: bool = False) -> list[DeadLetter]:  # noqa: ARG002 - the writer's
        records = rows.tables.get(LOGS, 0)
        async with asyncio.timeout(self.patience):
            await self.open.wait()
            await asyncio.sleep(self.seconds * records)
        self.committed += records
        self.transactions.append(records)
        return []


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (queue_module, progress_module):
        monkeypatch.setattr(module, "COMMIT_SECONDS", 0.3)


@contextlib.asynccontextmanager
async def queue(
    writer: SlowWriter, mapper: CountingMapper | None = None, connections: int = 2
) -> AsyncIterator[IngestQueue]:
    made = IngestQueue(mapper or CountingMapper(), writer, connections=connections)  # type: ignore[arg-type]
    worker = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.close()
        await worker


def logs(records: int, body: str = "x") -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    made = request.resource_logs.add().scope_logs.add().log_records
    for number in range(records):
        made.add(time_unix_nano=1 + number, body=AnyValue(string_value=body))
    return request


def points(number: int) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    made = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.data_points
    for tick in range(number):
        made.add(time_unix_nano=1 + tick)
    return request


async def tries(ingest: IngestQueue, request: Any, most: int) -> int:
    """How often it is sent until it is taken."""
    for number in range(1, most + 1):
        with contextlib.suppress(Retryable):
            assert await ingest(Signal.LOGS, request) == Outcome()
            return number
    raise AssertionError(f"not taken in {most} tries")


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(30_000, id="larger than any transaction"),
        pytest.param(15_000, id="as large as a transaction on a quick database"),
        pytest.param(1_500, id="small in bytes"),
    ],
)
@pytest.mark.parametrize(
    ("signal", "beside"),
    [
        pytest.param(Signal.LOGS, logs(5), id="few records"),
        pytest.param(Signal.METRICS, points(9_000), id="many records of a quicker kind"),
    ],
)
async def test_a_large_request_ends_whatever_is_committed_quickly_beside_it(
    records: int, signal: Signal, beside: Any
) -> None:
    """All of it takes three times as long as a transaction may."""
    writer = SlowWriter(1.0 / records)

    async def others(ingest: IngestQueue) -> None:
        while True:
            with contextlib.suppress(Retryable):
                await ingest(signal, beside)
            await asyncio.sleep(0.03)

    async with asyncio.timeout(30), queue(writer) as ingest:
        task = asyncio.create_task(others(ingest))
        request = logs(records, "y")
        assert await tries(ingest, request, 12) > 2
        task.cancel()
        await asyncio.wait([task])
    assert writer.committed >= records


async def test_after_an_outage_a_large_request_soon_goes_in_large_pieces_again() -> None:
    writer = SlowWriter(0)
    async with queue(writer) as ingest:
        writer.open.clear()
        for _ in range(10):
            with pytest.raises(Retryable):
                await ingest(Signal.LOGS, logs(5))
        assert ingest._pace.records == progress_module.FEWEST_RECORDS
        writer.open.set()
        assert await tries(ingest, logs(50_000), 5) < 5
        assert ingest._pace.records == progress_module.TOGETHER_RECORDS


async def test_a_transaction_repeats_no_more_of_what_stands_above_its_records_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each log record has its resource in its row: of a small request that may be a thousand times its bytes."""
    monkeypatch.setattr(queue_module, "REPEATED_BYTES", 10_000)
    writer = SlowWriter(0)
    requests = [logs(6), logs(6), logs(6), logs(50)]
    for request in requests:
        request.resource_logs[0].resource.attributes.add(key="k", value=AnyValue(string_value="x" * 1_000))
    async with queue(writer) as ingest:
        assert await asyncio.gather(*(ingest(Signal.LOGS, request) for request in requests)) == [Outcome()] * 4
    assert writer.committed == 68
    assert max(writer.transactions) == 9


async def test_what_nobody_waits_for_any_more_is_no_longer_in_memory() -> None:
    writer = SlowWriter(0, patience=10)
    async with queue(writer) as ingest:
        writer.open.clear()
        # The first is begun, and ends whoever waits for it; of the others the next group is mapped.
        first = asyncio.create_task(ingest(Signal.LOGS, logs(1)))
        await asyncio.sleep(0.05)
        requests = [*(logs(200, str(number)) for number in range(5)), logs(30_000)]
        others = (ingest(Signal.LOGS, each) for each in requests)
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Retryable] * 7
        assert ingest.bytes == logs(1).ByteSize() + sum(request.ByteSize() for request in requests[:5])
        assert not ingest._waiting
        writer.open.set()
        # On a busy machine its pieces may take longer than these tests' patience.
        await tries(ingest, requests[-1], 10)
    assert writer.committed == 30_001


@pytest.mark.timeout(20)
async def test_a_piece_that_is_committed_while_its_repetition_waits_for_the_lock() -> None:
    """The repetition once met the piece's future done and not yet taken note of, and span without giving a turn."""
    writer = SlowWriter(0, patience=10)
    request = logs(1_000)
    async with queue(writer) as ingest:
        ingest._pace.records = 100
        writer.open.clear()
        with pytest.raises(Retryable):
            await ingest(Signal.LOGS, request)
        (progress,) = ingest._progress._entries.values()
        piece = progress.under_way
        assert piece is not None
        await progress.lock.acquire()
        again = asyncio.create_task(ingest(Signal.LOGS, request))
        await asyncio.sleep(0.1)
        # In one turn of the loop: the repetition is woken, and before it runs the piece is committed.
        progress.lock.release()
        piece.set_result([])
        writer.open.set()
        assert await again == Outcome()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held here is held for longer than others are slow."""
    for module in (queue_module, progress_module):
        monkeypatch.setattr(module, "COMMIT_SECONDS", 20)


class HeldWriter(SlowWriter):
    """Commits nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__(0, patience=20)
        self.open.clear()


async def put(ingest: IngestQueue, request: Any, requests: tuple[int, int]) -> asyncio.Task[Outcome]:
    """Send a request, and wait until so many wait and so many are being written."""
    sent = asyncio.create_task(ingest(Signal.LOGS, request))
    await eventually(lambda: ingest.requests == requests, 5, f"{requests} wait and are written", pause=0.001)
    return sent


@pytest.mark.usefixtures("patient")
async def test_two_large_groups_are_written_at_once_and_the_next_is_mapped_and_no_more() -> None:
    """One group ahead is what keeps all busy; more would be memory."""
    writer, mapper = HeldWriter(), CountingMapper()
    async with queue(writer, mapper) as ingest:
        # Two of these are larger than a transaction: each is a group.
        then = [(0, 1), (0, 2), (1, 2), (2, 2)]
        sent = [await put(ingest, logs(15_000, f"{number}"), requests) for number, requests in enumerate(then)]
        await eventually(lambda: mapper.requests == 3, 5, "one is mapped")
        await asyncio.sleep(0.1)
        assert (mapper.requests, ingest.requests) == (3, (2, 2))
        writer.open.set()
        assert await asyncio.gather(*sent) == [Outcome()] * 4
    assert writer.transactions == [15_000] * 4
    assert ingest.bytes == 0
    assert ingest.requests == (0, 0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("first", [15_000, 5])
async def test_small_groups_wait_for_the_one_that_is_written_and_become_larger(first: int) -> None:
    writer, mapper = HeldWriter(), CountingMapper()
    async with queue(writer, mapper) as ingest:
        sent = [await put(ingest, logs(first), (0, 1)), await put(ingest, logs(5), (1, 1))]
        await eventually(lambda: mapper.requests == 2, 5, "the second is mapped")
        sent += [await put(ingest, logs(5), (2 + number, 1)) for number in range(8)]
        writer.open.set()
        await asyncio.gather(*sent)
    # The second was mapped when the others came.
    assert writer.transactions == [first, 5, 40]


@pytest.mark.usefixtures("patient")
async def test_a_single_connection_takes_one_group_after_the_other() -> None:
    writer, mapper = HeldWriter(), CountingMapper()
    async with queue(writer, mapper, connections=1) as ingest:
        sent = [await put(ingest, logs(15_000, f"{number}"), (number, 1)) for number in range(3)]
        await eventually(lambda: mapper.requests == 2, 5, "one is mapped")
        await asyncio.sleep(0.1)
        assert (mapper.requests, ingest.requests) == (2, (2, 1))
        writer.open.set()
        assert await asyncio.gather(*sent) == [Outcome()] * 3


@pytest.mark.usefixtures("patient")
async def test_an_end_waits_for_all_that_is_written_and_mapped() -> None:
    writer = HeldWriter()
    async with queue(writer) as ingest:
        then = [(0, 1), (0, 2), (1, 2)]
        sent = [await put(ingest, logs(15_000, f"{number}"), requests) for number, requests in enumerate(then)]
        ingest.close()
        with pytest.raises(Retryable, match="stopping"):
            await ingest(Signal.LOGS, logs(1))
        writer.open.set()
        assert await asyncio.gather(*sent) == [Outcome()] * 3
    assert ingest.requests == (0, 0)


class TellingMapper(CountingMapper):
    """Of a request with one body a node says which sources it has; one with the other cannot be mapped."""

    def map(self, signal: Signal, request: Any, now: datetime, rows: Rows, encoded: bytes | None = None) -> list[str]:
        made = super().map(signal, request, now, rows, encoded)
        body = request.resource_logs[0].scope_logs[0].log_records[0].body.string_value
        if body == "unforeseen":
            raise RuntimeError("nobody foresaw this")
        if body == "sources":
            rows.nodes["n1"] = Sighting("", HOUR, HOUR, demo=False, sources=["host"])
        return made


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("body", ["sources", "unforeseen"])
async def test_what_may_say_which_sources_a_node_has_waits_until_nothing_else_is_written(body: str) -> None:
    """Of two written at once the one that was said first could be committed last, and would hold."""
    writer, mapper = HeldWriter(), TellingMapper()
    async with queue(writer, mapper) as ingest:
        sent = [await put(ingest, logs(15_000, "first"), (0, 1)), await put(ingest, logs(15_000, body), (1, 1))]
        await eventually(lambda: mapper.requests == 2, 5, "the second is mapped")
        await asyncio.sleep(0.1)
        assert ingest.requests == (1, 1)
        writer.open.set()
        answers = await asyncio.gather(*sent, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Outcome, Outcome if body == "sources" else Retryable]


class FailingWriter(HeldWriter):
    """Its next transaction fails at once, where that is said."""

    fails = False

    async def write(self, rows: Rows, *, mixed: bool = False) -> list[DeadLetter]:
        if self.fails:
            self.fails = False
            raise psycopg.OperationalError("the server is gone")
        return await super().write(rows, mixed=mixed)


@pytest.mark.usefixtures("patient")
async def test_what_was_begun_before_a_failure_does_not_end_it() -> None:
    writer = FailingWriter()
    async with queue(writer) as ingest:
        earlier = await put(ingest, logs(15_000, "earlier"), (0, 1))
        writer.fails = True
        with pytest.raises(Retryable, match="the server is gone"):
            await ingest(Signal.LOGS, logs(15_000, "later"))
        writer.open.set()
        assert await earlier == Outcome()
        assert ingest.failing
        assert await ingest(Signal.LOGS, logs(5)) == Outcome()
        assert not ingest.failing
