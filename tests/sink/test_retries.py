"""Whatever keeps the sink from committing, its sender hears "again" on every wire; the repetition stores it once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from contract.wires import Answer, Wire, grpc_wire, http_wire
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from structlog.testing import capture_logs

from postel.otlp import codec
from support.postgres import waited_for
from support.running_postel import until
from support.sink import ingesting, recount, running_sink
from timescale_sink.ingest import queue as queue_module
from timescale_sink.ingest.queue import IngestQueue


def _request(number: int) -> dict[str, Any]:
    record = {"timeUnixNano": str(1_768_471_200_000_000_000 + number), "body": {"intValue": str(number)}}
    return {"logs": [{"scopeLogs": [{"logRecords": [record]}]}]}


@asynccontextmanager
async def _wires(url: str) -> AsyncIterator[tuple[IngestQueue, list[Wire]]]:
    async with (
        ingesting(url) as ingest,
        grpc_wire(ingest) as grpc,
        http_wire(ingest, codec.PROTOBUF) as protobuf,
        http_wire(ingest, codec.JSON) as json,
    ):
        yield ingest, [grpc, protobuf, json]


async def _all(wires: list[Wire]) -> list[Answer | None]:
    """Another request over each wire, at once."""
    return await asyncio.gather(*(wire(_request(number)) for number, wire in enumerate(wires)))


async def _everything_is_stored(url: str, wires: list[Wire]) -> None:
    for _ in range(2):
        assert await _all(wires) == [Answer(200)] * len(wires)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM otel_log").fetchone() == (len(wires),)
    assert await recount(url) == []


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSES = {
    "40P01": "deadlock_detected",
    "40001": "serialization_failure",
    "53100": "disk_full",
    "53200": "out_of_memory",
    "53300": "too_many_connections",
    "55P03": "lock_not_available",
    "57014": "query_canceled",
    "57P01": "admin_shutdown",
    "58030": "io_error",
}
_NOBODY_FORESAW = {"XX000": "internal_error", "42501": "insufficient_privilege", "0A000": "feature_not_supported"}


@pytest.mark.parametrize("state", [*_PASSES, *_NOBODY_FORESAW])
async def test_what_the_database_says_of_itself_costs_no_record(migrated_database: str, state: str) -> None:
    """None of it is about the data: nothing becomes a dead letter, and nothing is acknowledged."""
    with psycopg.connect(migrated_database, autocommit=True) as owner:
        owner.execute(
            f"""
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'said by the test' USING ERRCODE = '{state}'; END $$;
            CREATE TRIGGER fail BEFORE INSERT ON otel_log FOR EACH ROW EXECUTE FUNCTION fail()
            """.encode()
        )
        async with _wires(migrated_database) as (ingest, wires):
            with capture_logs() as lines:
                for _ in range(2):
                    answers = await _all(wires)
                    assert answers == [Answer(503, "not committed: said by the test", retry=True)] * 3
                    assert ingest.failing
            # Each of them comes again every few seconds: one line, and that once.
            level = "error" if state in _NOBODY_FORESAW else "warning"
            assert [line["log_level"] for line in lines] == [level]
            owner.execute("DROP TRIGGER fail ON otel_log")
            with capture_logs() as lines:
                await _everything_is_stored(migrated_database, wires)
            assert [line["event"] for line in lines] == ["the database takes data again"]
            assert not ingest.failing
    with psycopg.connect(migrated_database) as connection:
        assert connection.execute("SELECT count(*) FROM dead_letter").fetchone() == (0,)


async def test_a_deadline(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _wires(migrated_database) as (_, wires):
        with psycopg.connect(migrated_database) as holder, monkeypatch.context() as shorter:
            shorter.setattr(queue_module, "COMMIT_SECONDS", 0.3)
            holder.execute("LOCK TABLE otel_log IN SHARE MODE")
            assert await _all(wires) == [Answer(503, "not committed within 0.3 s", retry=True)] * 3
        await _everything_is_stored(migrated_database, wires)


async def test_an_overload(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _wires(migrated_database) as (ingest, wires):
        with psycopg.connect(migrated_database) as holder, monkeypatch.context() as smaller:
            smaller.setattr(queue_module, "WAITING_BYTES", 1)
            holder.execute("LOCK TABLE otel_log IN SHARE MODE")
            first = asyncio.ensure_future(wires[0](_request(0)))
            # Until it is in the queue.
            await asyncio.sleep(0.3)
            assert ingest.bytes
            full = Answer(503, "the sink has more to write than it can take in", retry=True)
            assert await _all(wires) == [full] * 3
        assert await first == Answer(200)
        await _everything_is_stored(migrated_database, wires)


async def test_a_stop(migrated_database: str) -> None:
    async with _wires(migrated_database) as (ingest, wires):
        ingest.close()
        assert await _all(wires) == [Answer(503, "the sink is stopping", retry=True)] * 3


async def test_an_exception_that_nobody_foresaw(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _wires(migrated_database) as (ingest, wires):
        with monkeypatch.context() as broken:

            async def fail(*_: object) -> None:
                raise LookupError("a bug")

            broken.setattr(ingest, "_fits_whole", fail)
            with capture_logs() as lines:
                assert await _all(wires) == [Answer(503, "internal error, try again", retry=True)] * 3
        assert [line["log_level"] for line in lines] == ["error"] * 3
        await _everything_is_stored(migrated_database, wires)


_SENDER = """
import sys
import grpc, httpx
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

protocol, address = sys.argv[1:]
body = sys.stdin.buffer.read()
if protocol == "http":
    headers = {"content-type": "application/x-protobuf"}
    answer = httpx.post(address + "/v1/logs", content=body, headers=headers, timeout=20)
    print(answer.status_code, "retry-after" in answer.headers, Status.FromString(answer.content).code)
else:
    try:
        call = grpc.insecure_channel(address).unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        print("OK", call(body, timeout=20))
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata())
        told = RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]).retry_delay.seconds
        print(error.code().name, told > 0, Status.FromString(trailers["grpc-status-details-bin"]).code)
"""


@pytest.mark.slow
def test_a_stop_of_the_whole_program_while_nothing_can_be_written(tmp_path: Path, migrated_database: str) -> None:
    """Not finished in time, what it took is answered "again" before the connections end."""
    message = ExportLogsServiceRequest()
    message.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1_768_471_200_000_000_000)
    request = message.SerializeToString()
    with running_sink(tmp_path, migrated_database) as sink, psycopg.connect(migrated_database) as holder:
        sink.start()
        holder.execute("LOCK TABLE otel_log IN SHARE MODE")
        senders = []
        for protocol, address in (("grpc", sink.grpc), ("http", sink.http)):
            command = [sys.executable, "-c", _SENDER, protocol, address]
            sender = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert sender.stdin
            sender.stdin.write(request)
            sender.stdin.close()
            sender.stdin = None
            senders.append(sender)
        until(lambda: waited_for(migrated_database) == 1, 10, "it waits for the lock")
        # The second one is in the queue behind it.
        time.sleep(1)
        began = time.monotonic()
        assert sink.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
        said = [sender.communicate(timeout=20)[0].split() for sender in senders]
    assert said == [[b"UNAVAILABLE", b"True", b"14"], [b"503", b"True", b"14"]]


async def test_what_is_new_is_copied_and_only_a_repetition_is_staged(migrated_database: str) -> None:
    """Optimistic first: the staging table is made when a key is there already, and not before."""
    staged = "SELECT relname::text FROM pg_class WHERE relname LIKE 'stage%'"
    async with _wires(migrated_database) as (_, wires):
        with psycopg.connect(migrated_database, autocommit=True) as connection:
            await _all(wires)
            assert connection.execute(staged).fetchall() == []
            await _all(wires)
            assert connection.execute(staged).fetchall() == [("stage_otel_log",)]
