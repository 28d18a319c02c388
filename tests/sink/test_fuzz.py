"""Wrong requests by the thousand over the real sockets of a real sink, with good ones in between.

    POSTEL_FUZZ_SEED=7 pytest -m soak -s tests/sink/test_fuzz.py

repeats a run; `POSTEL_FUZZ_REQUESTS` makes the long one shorter.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import secrets
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import psutil
import psycopg
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc import aio

from postel.otlp import codec, json_mapping
from postel.otlp.answers import RETRY_TRAILER, STATUS_TRAILER
from postel.otlp.signal import Signal
from support.fuzzing import Sending, mutants, structures
from support.sink import RunningSink, running_sink

TIME = 1_768_471_200_000_000_000
# Requests at once, and ways to send each of hypothesis's structures.
TOGETHER = 8
EACH = 10
# Of so many one is good.
GOOD = 10
# Typed events of a good one; fewer than eight are read one by one.
EVENTS = 9
# HTTP status -> the code of its Status. 404 is of traces, the one path that exists and takes nothing.
HTTP = {400: 3, 404: 12, 413: 8, 415: 3, 503: 14}
GRPC = {
    *(grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED),
    *(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE),
}


@dataclass
class _Wires:
    """Both protocols of one sink; every answer is checked against the table."""

    http: httpx.AsyncClient
    channel: aio.Channel
    said: Counter[str] = field(default_factory=Counter)

    async def send(self, sending: Sending) -> int | None:
        """The records that were rejected; None where it is to be sent again."""
        answer = self._post if sending.headers else self._call
        # A minute is no answer; the sink promises five seconds, and waits are its admission's.
        async with asyncio.timeout(60):
            return await answer(sending)

    async def stored(self, sending: Sending) -> int:
        """Sent until it is taken or refused for good: nothing may be told to come again for ever."""
        for attempt in range(30):
            if (rejected := await self.send(sending)) is not None:
                return rejected
            await asyncio.sleep(0.1 * attempt)
        raise AssertionError(f"told to come again, thirty times: {sending}")

    async def _post(self, sending: Sending) -> int | None:
        try:
            answer = await self.http.post(sending.method, content=sending.body, headers=dict(sending.headers))
        except httpx.TransportError as error:
            error.add_note(f"{sending.method}, {dict(sending.headers)}, {len(sending.body)} bytes")
            raise
        self.said[str(answer.status_code)] += 1
        media = answer.headers["content-type"]
        if answer.status_code == 200:
            response = sending.signal.response_class()
            if media == codec.JSON:
                json_mapping.decode(answer.content, response)
            else:
                response.ParseFromString(answer.content)
            return sending.signal.partial_success(response)[0]
        code = orjson.loads(answer.content)["code"] if media == codec.JSON else Status.FromString(answer.content).code
        assert code == HTTP[answer.status_code], sending
        assert ("retry-after" in answer.headers) == (answer.status_code == 503), sending
        return None if answer.status_code == 503 else -1

    async def _call(self, sending: Sending) -> int | None:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(sending.method)
        try:
            body = await call(sending.body)
        except aio.AioRpcError as error:
            code, trailers = error.code(), dict(error.trailing_metadata() or ())
        else:
            self.said["OK"] += 1
            return sending.signal.partial_success(sending.signal.response_class().FromString(body))[0]
        self.said[code.name] += 1
        assert code in GRPC, sending
        if code is not grpc.StatusCode.UNAVAILABLE:
            assert RETRY_TRAILER not in trailers, sending
            return -1
        assert RetryInfo.FromString(trailers[RETRY_TRAILER]).retry_delay.ToNanoseconds() > 0
        assert Status.FromString(trailers[STATUS_TRAILER]).details
        return None


@asynccontextmanager
async def _wires(sink: RunningSink) -> AsyncIterator[_Wires]:
    # No connection expires: httpcore's pool closes one that expires between its choice and its use, as it may while
    # hypothesis keeps the loop busy, and the request ends with a ReadError of the client's own making.
    limits = httpx.Limits(keepalive_expiry=None)
    async with (
        httpx.AsyncClient(base_url=sink.http, timeout=60, limits=limits) as http,
        aio.insecure_channel(sink.grpc) as channel,
    ):
        yield _Wires(http, channel)


def _good(number: int) -> Sending:
    """A request of the node "good": three log records and as many typed events as go by columns, or two cells and two
    points.
    """
    resource = {"attributes": [{"key": "host.id", "value": {"stringValue": "good"}}]}
    at = TIME + number * 15_000_000_000
    if number % 2:
        body: dict[str, Any] = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": []}]}]}
        records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
        for each in range(EVENTS + 3):
            # As Postel's emitters write it: an event of any other id is read by objects.
            uid = {"key": "log.record.uid", "value": {"stringValue": str(uuid.UUID(int=number << 32 | each))}}
            name = "zonemta.message.deleted" if each < EVENTS else "fuzz.good"
            records.append({"timeUnixNano": str(at), "eventName": name, "attributes": [uid]})
    else:
        point = {"timeUnixNano": str(at), "asInt": str(number)}
        metrics = [
            {"name": "postel.host.process.count", "gauge": {"dataPoints": [point]}},
            {"name": "postel.host.memory.usage", "gauge": {"dataPoints": [point]}},
            {"name": "fuzz.good.gauge", "gauge": {"dataPoints": [point]}},
            {"name": "fuzz.good.sum", "sum": {"aggregationTemporality": 1, "dataPoints": [point]}},
        ]
        body = {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]}
    signal = Signal.LOGS if number % 2 else Signal.METRICS
    request = signal.request_class()
    json_mapping.decode(orjson.dumps(body), request)
    match number // 2 % 4:
        case 0:
            return Sending(signal, codec.encode(request, codec.PROTOBUF), signal.method)
        case 1:
            return Sending(signal, codec.encode(request, codec.JSON), signal.path, {"content-type": codec.JSON})
        case 2:
            return Sending(signal, codec.encode(request, codec.PROTOBUF), signal.path, {"content-type": codec.PROTOBUF})
        case _:
            zipped = gzip.compress(codec.encode(request, codec.JSON), 1)
            headers = {"content-type": codec.JSON, "content-encoding": "gzip"}
            return Sending(signal, zipped, signal.path, headers)


def _sendings(seed: int, count: int) -> Iterator[Sending]:
    """Wrong requests, in rounds, so that no more than one of them is in memory."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    left, round_ = count, 0
    while left > 0:
        for signal, request in structures(seed + round_, min(500, -(-left // EACH))):
            for sending in mutants(chance, signal, request, min(EACH, left)):
                yield sending
                left -= 1
        round_ += 1


async def _fuzz(sink: RunningSink, seed: int, count: int) -> tuple[Counter[str], int]:
    """Send all; what was said, and how many good requests there were."""
    good = 0
    turn = asyncio.Semaphore(TOGETHER)

    async with _wires(sink) as wires, asyncio.TaskGroup() as tasks:

        async def take(sending: Sending, *, whole: bool) -> None:
            try:
                rejected = await wires.stored(sending)
                assert not whole or rejected == 0, sending
            finally:
                turn.release()

        for number, sending in enumerate(_sendings(seed, count)):
            await turn.acquire()
            tasks.create_task(take(sending, whole=False))
            if number % GOOD == 0:
                await turn.acquire()
                tasks.create_task(take(_good(good), whole=True))
                good += 1
    return wires.said, good


@pytest.mark.parametrize("count", [400, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_wrong_requests_cost_nothing_of_the_right_ones(tmp_path: Path, migrated_database: str, count: int) -> None:
    long = count > 1000
    # The short one is the same each time: it is there to show what breaks, not to find what nobody broke.
    seed = int(os.environ.get("POSTEL_FUZZ_SEED", secrets.randbelow(1 << 32) if long else 4))
    if long:
        count = int(os.environ.get("POSTEL_FUZZ_REQUESTS", count))
    print(f"POSTEL_FUZZ_SEED={seed}, {count} requests")  # noqa: T201 - by it a failure is repeated
    with running_sink(tmp_path, migrated_database) as sink:
        sink.start()
        said, good = asyncio.run(_fuzz(sink, seed, count))
        assert sink.process
        assert sink.process.poll() is None
        memory = psutil.Process(sink.process.pid).memory_info().rss >> 20
        print(f"{good} good ones beside them; answers: {dict(said.most_common())}; {memory} MiB")  # noqa: T201
        assert sink.state() == 200
        checked = sink.command("db", "check")
    assert checked.stdout == "the tables hold what the ledger says\n"
    for unforeseen in ("Traceback", "an OTLP request failed", "in a way that nobody foresaw"):
        assert unforeseen not in sink.log
    # Each kind of answer was asked for: a fuzz that the first check refuses finds nothing behind it.
    asked = {"200", "400", "404", "415", "OK", "INVALID_ARGUMENT", "UNIMPLEMENTED"}
    assert asked | ({"413", "RESOURCE_EXHAUSTED"} if long else set()) <= said.keys()
    logs, points = good // 2, -(-good // 2)
    expected = {
        "count(*), count(DISTINCT event_id) FROM otel_log": (3 * logs, 3 * logs),
        "count(*), count(DISTINCT event_id) FROM email_events": (EVENTS * logs, EVENTS * logs),
        "count(process_count), count(memory_used), count(*) FROM metrics_system": (points, points, points),
        "count(*), count(DISTINCT (metric, time)) FROM otel_metric_point JOIN otel_series USING (series_id)": (
            2 * points,
            2 * points,
        ),
    }
    with psycopg.connect(migrated_database) as connection:
        for query, counts in expected.items():
            assert connection.execute(f"SELECT {query} WHERE node_id = 'good'".encode()).fetchone() == counts, query
    assert memory < 400
