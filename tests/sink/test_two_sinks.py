"""Two sinks on one database that get the same data at the same time, cut and ordered differently.

`POSTEL_TWO_SINKS_RECORDS` makes the long one shorter.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from grpc import aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, NumberDataPoint

from postel.otlp.signal import ExportRequest, Signal
from support.sink import RunningSink, running_sink

# Five seconds before a midnight (UTC), since TimescaleDB has a chunk for each day; and of these days, or its job makes
# columns of what is written, and is itself ended now and then by a deadlock with whoever writes.
TIME = (int(time.time()) // 86_400 * 86_400 - 86_405) * 10**9
# Requests at once of each sink. Within one, what waits is committed together.
TOGETHER = 8
# What a record is: of four, two are logs of either table, one is a point, and one a cell of a typed row.
KINDS = 4
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def _log(number: int) -> LogRecord:
    """An event with a table of its own, or a log; ids have no order that times have.

    A batch that begins with an event is read by the bytes of its events, and one that begins with a log by objects: the
    same event comes to its row in both ways.
    """
    name = "zonemta.message.deleted" if number % KINDS else "two.sinks"
    # As Postel's emitters write it: an event of any other id is read by objects.
    uid = str(uuid.UUID(int=number * 2_654_435_761 % 2**32))
    attribute = KeyValue(key="log.record.uid", value=AnyValue(string_value=uid))
    return LogRecord(time_unix_nano=TIME + number * 1_000_000, event_name=name, attributes=[attribute])


def _requests(numbers: Sequence[int]) -> Iterator[tuple[Signal, ExportRequest]]:
    """The logs and the metrics of a batch; what each record says follows from its number alone."""
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add()
    records.resource.attributes.add(key="host.id", value=AnyValue(string_value="n1"))
    records.scope_logs.add().log_records.extend(_log(n) for n in numbers if n % KINDS < 2)
    yield Signal.LOGS, logs
    metrics = ExportMetricsServiceRequest()
    resource = metrics.resource_metrics.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="n1"))
    scope = resource.scope_metrics.add()
    points = scope.metrics.add(name="two.sinks.sum").sum
    points.aggregation_temporality = DELTA
    # Two columns of the rows of a hundred zones: what is one row comes in two batches, at two sinks.
    queue = scope.metrics.add(name="zonemta.queue.message.count").gauge
    for n in numbers:
        if n % KINDS == 2:
            points.data_points.append(
                NumberDataPoint(
                    time_unix_nano=TIME + n // 64 * 1_000_000_000,
                    as_int=n,
                    attributes=[KeyValue(key="k", value=AnyValue(int_value=n % 64))],
                )
            )
        elif n % KINDS == 3:
            row, column = divmod(n // KINDS, 2)
            state = KeyValue(key="zonemta.queue.state", value=AnyValue(string_value="deferred" if column else "queued"))
            zone = KeyValue(key="zonemta.zone", value=AnyValue(string_value=f"z{row % 100}"))
            queue.data_points.append(
                NumberDataPoint(time_unix_nano=TIME + row // 100 * 30_000_000_000, as_int=n, attributes=[state, zone])
            )
    yield Signal.METRICS, metrics


def _batches(count: int, size: int, chance: random.Random) -> Iterator[Sequence[int]]:
    """Every record twice, in batches that overlap those of the other half, neighbours out of order."""
    for start in range(0, count, size):
        # The second is of another cut: half of what came, half of what comes.
        for first in (start, start + size // 2):
            batch = [number % count for number in range(first, first + size)]
            chance.shuffle(batch)
            yield batch


@dataclass
class _Sender:
    """Sends to one sink; everything is sent again until it is taken."""

    sink: RunningSink
    said: Counter[str] = field(default_factory=Counter)
    records: int = 0

    async def send(self, batches: Iterator[Sequence[int]]) -> None:
        turn = asyncio.Semaphore(TOGETHER)
        async with aio.insecure_channel(self.sink.grpc) as channel, asyncio.TaskGroup() as tasks:
            for batch in batches:
                for signal, request in _requests(batch):
                    await turn.acquire()
                    tasks.create_task(self._one(channel, turn, signal, request))
                self.records += len(batch)

    async def _one(self, channel: aio.Channel, turn: asyncio.Semaphore, signal: Signal, request: ExportRequest) -> None:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(signal.method)
        body = request.SerializeToString()
        try:
            while True:
                try:
                    assert await call(body, timeout=30) == b""
                except aio.AioRpcError as error:
                    self.said[f"{error.code().name}: {error.details()}"] += 1
                    await asyncio.sleep(0.2)
                else:
                    self.said["OK"] += 1
                    return
        finally:
            turn.release()


def _ask(url: str, query: str) -> tuple[Any, ...]:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row
    return row


@pytest.mark.parametrize(
    ("count", "size"),
    [
        pytest.param(10_000, 100, marks=pytest.mark.slow),
        # Each sink writes two of these at once.
        pytest.param(80_000, 10_000, marks=pytest.mark.slow, id="large batches"),
        pytest.param(1_000_000, 100, marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_two_sinks_store_each_record_once(tmp_path: Path, migrated_database: str, count: int, size: int) -> None:
    if count > 100_000:
        count = int(os.environ.get("POSTEL_TWO_SINKS_RECORDS", count))
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with ExitStack() as running:
        sinks = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            sinks.append(running.enter_context(running_sink(tmp_path / name, migrated_database)))
            sinks[-1].start()
        senders = [_Sender(sink) for sink in sinks]
        began = time.monotonic()

        async def send() -> None:
            # Each in an order of its own within a batch, and both the same records at about the same time.
            await asyncio.gather(*(s.send(_batches(count, size, random.Random(n))) for n, s in enumerate(senders)))  # noqa: S311

        asyncio.run(send())
        seconds = time.monotonic() - began
        checked = sinks[0].command("db", "check")
        logs = [sink.log for sink in sinks]
    sent = sum(sender.records for sender in senders)
    said = senders[0].said + senders[1].said
    print(f"{count} records, {sent} sent, {sent / seconds:.0f} a second: {dict(said)}")  # noqa: T201 - the figures
    assert _ask(migrated_database, deadlocks) == (0,)
    assert not any("deadlock" in log or "Traceback" in log for log in logs)
    each = count // KINDS
    for query in (
        "count(*), count(DISTINCT event_id) FROM otel_log",
        "count(*), count(DISTINCT event_id) FROM email_events",
        "count(*), count(DISTINCT value) FROM otel_metric_point",
    ):
        assert _ask(migrated_database, f"SELECT {query}") == (each, each), query
    cells = _ask(migrated_database, "SELECT count(*), count(queue_size), count(deferred_size) FROM metrics_zonemta")
    assert cells == (each // 2, each // 2, each // 2)
    assert checked.stdout == "the tables hold what the ledger says\n"
    ledger = "sum(stored), sum(conflicting), sum(dead_lettered), sum(received), count(DISTINCT sink) FROM ingest_ledger"
    *fates, received, names = _ask(migrated_database, f"SELECT {ledger}")
    assert (fates, names) == ([count, 0, 0], 2)
    # Who was told to come again may have been committed nevertheless.
    assert received == sent if said.keys() == {"OK"} else received >= sent
