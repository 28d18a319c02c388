"""Writing under pressure: side by side, refused by the database, too slow, too much, unforeseen."""

from __future__ import annotations

import asyncio
import gc
import math
import random
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, NumberDataPoint
from structlog.testing import capture_logs

from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from support.eventually import eventually
from support.postgres import waited_for
from support.sink import ingesting, recount
from timescale_sink.ingest import queue as queue_module
from timescale_sink.ingest.rows import Sighting
from timescale_sink.ingest.sightings import NodeBook

TIME = 1_768_471_200_000_000_000


def logs(*numbers: int, body: str = "") -> ExportLogsServiceRequest:
    """Records with ids and times of their own."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in numbers:
        uid = KeyValue(key="log.record.uid", value=AnyValue(string_value=f"{number:032x}"))
        text = AnyValue(string_value=body or f"record {number}")
        records.add(time_unix_nano=TIME + number * 1000, body=text, attributes=[uid])
    return request


def cells(node: str, *ticks: int) -> ExportMetricsServiceRequest:
    """A gauge and a counter of a node at each tick."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value=node))
    metrics = resource.scope_metrics.add().metrics
    load = metrics.add(name="postel.host.cpu.load_average").gauge.data_points
    network = metrics.add(name="postel.host.network.io").sum
    network.is_monotonic = True
    network.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    way = KeyValue(key="network.io.direction", value=AnyValue(string_value="receive"))
    for tick in ticks:
        at = TIME + tick * 15_000_000_000
        load.append(NumberDataPoint(time_unix_nano=at, as_double=tick))
        network.data_points.append(
            NumberDataPoint(time_unix_nano=at, start_time_unix_nano=TIME, as_int=tick, attributes=[way])
        )
    return request


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_two_sinks_with_the_same_data_interleaved(migrated_database: str) -> None:
    """Overlapping batches in both sinks at once: no deadlock surfaces, nothing doubled, the ledgers agree."""
    chance = random.Random(7)  # noqa: S311 - repeatable
    batches: list[tuple[Signal, Any]] = []
    for _ in range(40):
        first = chance.randrange(400)
        batches.append((Signal.LOGS, logs(*chance.sample(range(first, first + 60), 40))))
        batches.append((Signal.METRICS, cells(f"n{chance.randrange(3)}", *chance.sample(range(60), 20))))
    async with ingesting(migrated_database, "one") as one, ingesting(migrated_database, "two") as two:
        answers = await asyncio.gather(
            *(sink(signal, request) for sink in (one, two) for signal, request in chance.sample(batches, len(batches)))
        )
    assert set(answers) == {Outcome()}
    wanted_logs = {a.value.string_value for s, r in batches if s is Signal.LOGS for x in r.resource_logs
                   for y in x.scope_logs for z in y.log_records for a in z.attributes}  # fmt: skip
    assert ask(migrated_database, "SELECT count(*) FROM otel_log") == [(len(wanted_logs),)]
    assert ask(
        migrated_database, "SELECT count(*) FROM metrics_system WHERE load_1m IS NULL OR network_in IS NULL"
    ) == [(0,)]
    assert ask(
        migrated_database,
        "SELECT count(DISTINCT sink), sum(received) > sum(stored), sum(conflicting) FROM ingest_ledger",
    ) == [(2, True, 0)]
    assert await recount(migrated_database) == []


async def test_what_is_forgotten_during_a_transaction_is_written_by_the_next(migrated_database: str) -> None:
    """It writes no series that it knew; once it is committed it knows no more than it has written."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="somebody.elses")
    metric.gauge.data_points.add(time_unix_nano=TIME, as_int=1)
    async with ingesting(migrated_database) as ingest:
        await ingest(Signal.METRICS, request)
        metric.gauge.data_points[0].time_unix_nano += 10**9
        with psycopg.connect(migrated_database) as holder:
            holder.execute("LOCK TABLE otel_metric_point IN EXCLUSIVE MODE")
            second = asyncio.create_task(ingest(Signal.METRICS, request))
            await eventually(lambda: waited_for(migrated_database, "otel_metric_point"), 5, "it waits for the table")
            # As a removal of the demo's data does it, and what is remembered begins anew then.
            with psycopg.connect(migrated_database, autocommit=True) as another:
                another.execute("DELETE FROM otel_series")
            ingest._writer._series_since = -math.inf
            # Of so many, that they are written beside the other.
            await ingest(Signal.LOGS, logs(*range(2_000)))
            assert not second.done()
        assert await second == Outcome()
        metric.gauge.data_points[0].time_unix_nano += 10**9
        await ingest(Signal.METRICS, request)
    assert ask(migrated_database, "SELECT metric FROM otel_series") == [("somebody.elses",)]


async def test_a_record_that_only_the_database_refuses_is_found_and_set_aside(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("ALTER TABLE otel_log ADD CHECK (body <> '\"poison\"')")
        connection.execute("ALTER TABLE metrics_system ADD CHECK (load_1m <> 13)")
    async with ingesting(migrated_database) as ingest:
        request = logs(*range(100))
        for record in (17, 71):
            request.resource_logs[0].scope_logs[0].log_records[record].body.string_value = "poison"
        for _ in range(2):
            assert (await ingest(Signal.LOGS, request)).rejected == 2
            assert (await ingest(Signal.METRICS, cells("n1", *range(20)))).rejected == 2
    assert ask(migrated_database, "SELECT count(*) FROM otel_log") == [(98,)]
    letters = (
        "SELECT destination, count(*) FROM dead_letter WHERE reason LIKE '%check constraint%' GROUP BY 1 ORDER BY 1"
    )
    assert ask(migrated_database, letters) == [("metrics_system", 2), ("otel_log", 2)]
    assert await recount(migrated_database) == []


async def test_what_cannot_be_stored_is_a_line_of_the_log_and_then_one_a_minute(migrated_database: str) -> None:
    bad = logs(1, 2, 3)
    for record in bad.resource_logs[0].scope_logs[0].log_records[:2]:
        record.time_unix_nano = 2**63
    with capture_logs() as records:
        async with ingesting(migrated_database) as ingest:
            for _ in range(3):
                assert (await ingest(Signal.LOGS, bad)).rejected == 2
    (line,) = records
    assert (line["event"], line["records"]) == ("records cannot be stored; dead_letter has them", 2)
    assert "time" in line["reason"]


async def test_each_sender_hears_of_its_own_refusals_only(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("ALTER TABLE otel_log ADD CHECK (body <> '\"poison\"')")
    async with ingesting(migrated_database) as ingest:
        requests = [logs(n, 100 + n, body="poison" if n == 3 else "") for n in range(6)]
        requests[5].resource_logs[0].scope_logs[0].log_records[0].time_unix_nano = 2**64 - 1
        answers = await asyncio.gather(*(ingest(Signal.LOGS, request) for request in requests))
    assert [answer.rejected for answer in answers] == [0, 0, 0, 2, 0, 1]
    assert "check constraint" in answers[3].reason


async def test_each_sender_of_a_group_hears_its_own_reasons_only(migrated_database: str) -> None:
    requests = [logs(n) for n in range(4)]
    requests[1].resource_logs[0].scope_logs[0].log_records[0].time_unix_nano = 2**64 - 1
    requests[2].resource_logs[0].scope_logs[0].log_records[0].event_name = "x" * 3000
    async with ingesting(migrated_database) as ingest:
        answers = await asyncio.gather(*(ingest(Signal.LOGS, request) for request in requests))
    assert [answer.rejected for answer in answers] == [0, 1, 1, 0]
    assert "time" in answers[1].reason
    assert "key column" in answers[2].reason
    assert ";" not in answers[1].reason + answers[2].reason
    assert await recount(migrated_database) == []


async def test_what_is_not_committed_in_time_is_answered_retry_and_may_come_again(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "COMMIT_SECONDS", 0.3)
    async with ingesting(migrated_database) as ingest:
        with psycopg.connect(migrated_database) as holder:
            holder.execute("LOCK TABLE otel_log IN SHARE MODE")
            with pytest.raises(Retryable, match=r"not committed within 0\.3 s"):
                await ingest(Signal.LOGS, logs(1))
            with pytest.raises(Retryable):
                await ingest(Signal.LOGS, logs(2))
        monkeypatch.undo()
        assert await ingest(Signal.LOGS, logs(1)) == Outcome()
    # The second one never began: what its sender was told is true.
    assert ask(migrated_database, "SELECT count(*) FROM otel_log") == [(1,)]
    assert await recount(migrated_database) == []


async def test_more_than_it_can_take_in_is_told_to_come_later(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "WAITING_BYTES", 3 * logs(1).ByteSize())
    async with ingesting(migrated_database) as ingest:
        with psycopg.connect(migrated_database) as holder:
            holder.execute("LOCK TABLE otel_log IN SHARE MODE")
            taken = [asyncio.ensure_future(ingest(Signal.LOGS, logs(n))) for n in range(1, 4)]
            await asyncio.sleep(0.1)
            with pytest.raises(Retryable, match="more to write"):
                await ingest(Signal.LOGS, logs(5))
        assert await asyncio.gather(*taken) == [Outcome()] * 3
        assert ingest.bytes == 0
    assert ask(migrated_database, "SELECT count(*) FROM otel_log") == [(3,)]


async def test_what_waits_during_a_commit_is_committed_together(migrated_database: str) -> None:
    async with ingesting(migrated_database) as ingest:
        await asyncio.gather(*(ingest(Signal.LOGS, logs(n)) for n in range(50)))
    rows = ask(migrated_database, "SELECT count(*), count(DISTINCT xmin::text) FROM otel_log")
    assert rows[0][0] == 50
    assert rows[0][1] <= 3


async def test_a_request_that_nobody_foresaw_keeps_no_other_out(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ingesting(migrated_database) as ingest:
        mapped = ingest._mapper.map

        def fail_for_two(signal: Signal, request: Any, *rest: Any) -> list[str]:
            if request == logs(2):
                raise RuntimeError("nobody foresaw this")
            return mapped(signal, request, *rest)

        monkeypatch.setattr(ingest._mapper, "map", fail_for_two)
        answers = await asyncio.gather(*(ingest(Signal.LOGS, logs(n)) for n in range(5)), return_exceptions=True)
        with pytest.raises(Retryable):
            await ingest(Signal.LOGS, logs(2))
        # It says nothing of the database.
        assert not ingest.failing
    assert [type(answer) for answer in answers] == [Outcome, Outcome, Retryable, Outcome, Outcome]
    assert ask(migrated_database, "SELECT count(*) FROM otel_log") == [(4,)]
    assert await recount(migrated_database) == []


async def test_a_read_only_server_is_told_to_come_later(migrated_database: str) -> None:
    name = ask(migrated_database, "SELECT current_database()")[0][0]
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        async with ingesting(migrated_database) as ingest:
            with pytest.raises(Retryable, match="read-only"):
                await ingest(Signal.LOGS, logs(1))
            assert ingest.failing


async def test_commits_are_on_disk_whatever_the_database_says(migrated_database: str) -> None:
    name = ask(migrated_database, "SELECT current_database()")[0][0]
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    async with ingesting(migrated_database) as ingest, ingest._writer._pool.connection() as other:
        row = await (await other.execute("SHOW synchronous_commit")).fetchone()
    assert row == ("on",)


@pytest.mark.parametrize(("nodes", "size"), [(40, 500_000), (2, 9_000_000)])
async def test_what_is_remembered_of_nodes_is_bounded(migrated_database: str, nodes: int, size: int) -> None:
    """A sender may name another node in each request, and say of it what it likes: all of it stayed for good."""
    async with ingesting(migrated_database) as ingest:
        for number in range(nodes):
            request = cells(f"n{number}", 0)
            resource = request.resource_metrics[0].resource
            resource.attributes.add(key="os.description", value=AnyValue(string_value="x" * size))
            assert await ingest(Signal.METRICS, request) == Outcome()
        gc.collect()
        held = [seen for seen in gc.get_objects() if isinstance(seen, Sighting)]
    # The last request's is still on its way out.
    assert sum(len(seen.attributes["os.description"]) for seen in held) < (8 << 20) + size
    assert ask(migrated_database, "SELECT count(*) FROM node") == [(nodes,)]


def test_a_book_of_nodes_has_an_end_however_little_they_say() -> None:
    book = NodeBook()
    most = 0
    for number in range(30_000):
        sighting = Sighting("", datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(0, UTC), demo=False)
        book.add({f"n{number}": sighting})
        assert book.news({f"n{number}": sighting}) == {}
        most = max(most, len(book._nodes))
    assert 5_000 < most < 10_000


async def test_a_node_is_written_again_after_a_while_and_with_what_is_new(migrated_database: str) -> None:
    """Not with each batch: all sinks would wait for each other at its row."""
    async with ingesting(migrated_database) as ingest:
        versions = []
        for tick, about in ((0, "one"), (0, "one"), (0, "two"), (1, "two"), (1, "two")):
            request = cells("n1", tick)
            resource = request.resource_metrics[0].resource
            resource.attributes.add(key="os.description", value=AnyValue(string_value=about))
            await ingest(Signal.METRICS, request)
            versions += ask(migrated_database, "SELECT xmin::text FROM node")
    assert [versions.index(version) for version in versions] == [0, 0, 2, 3, 3]
