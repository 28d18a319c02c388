"""What a server has in memory at once is bounded, and given back however a request ends."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import inspect
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import httpx
import pytest
import uvicorn
from grpc import aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from starlette.applications import Starlette

from postel.listening import listen
from postel.otlp import admission as admission_module
from postel.otlp import codec, grpc_server, http_server
from postel.otlp.admission import ADMISSION, Admission, Body, _Share
from postel.otlp.answers import Outcome
from postel.otlp.errors import Malformed, Retryable, TooLarge
from postel.otlp.grpc_server import create_server
from postel.otlp.http_server import routes
from postel.otlp.signal import ExportRequest, Signal

MIB = 1 << 20
PROTOBUF = {"content-type": codec.PROTOBUF}
GZIPPED = {**PROTOBUF, "content-encoding": "gzip"}


def logs(size: int) -> bytes:
    """A request of so many bytes, and some."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "x" * size
    return request.SerializeToString()


async def test_a_share_is_given_in_the_order_of_asking() -> None:
    share = _Share(10, 1.0)
    await share.take(6)
    given: list[int] = []

    async def ask(part: int) -> None:
        await share.take(part)
        given.append(part)

    # The one that would fit does not overtake the one that came before it.
    asking = [asyncio.create_task(ask(part)) for part in (5, 4)]
    await asyncio.sleep(0)
    assert given == []
    share.give(6)
    await asyncio.gather(*asking)
    assert given == [5, 4]
    assert share.used == 9


async def test_what_is_larger_than_all_is_taken_alone() -> None:
    share = _Share(10, 0.05)
    await share.take(11)
    with pytest.raises(Retryable):
        await share.take(1)
    share.give(11)
    await share.take(1)
    with pytest.raises(Retryable):
        await share.take(11)


async def test_who_gives_up_lets_those_behind_him_go_on() -> None:
    share = _Share(10, 30)
    await share.take(6)
    first, second = asyncio.create_task(share.take(10)), asyncio.create_task(share.take(4))
    await asyncio.sleep(0)
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert share.used == 10


async def test_who_is_given_his_part_while_he_gives_up_gives_it_back() -> None:
    share = _Share(10, 30)
    await share.take(10)
    asking = asyncio.create_task(share.take(10))
    await asyncio.sleep(0)
    share.give(10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert share.used == 0


async def test_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "_WAITING", 3)
    share = _Share(1, 0.2)
    await share.take(1)
    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*(share.take(1) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Retryable] * 5
    assert asyncio.get_running_loop().time() - began < 2


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (Body(bytes(5000)), 5000),
        # Of a call and its task there is more than of its few bytes.
        (Body(b"12345"), 4096),
        (Body(b""), 4096),
        (Body(gzip.compress(bytes(3 * MIB)), coding="gzip"), 3 * MIB),
        (Body(zlib.compress(bytes(MIB + 1)), coding="deflate"), MIB + 1),
        (Body(gzip.compress(bytes(2000)) + gzip.compress(bytes(3000)), coding="gzip"), 5000),
        # While it is decoded JSON takes far more.
        (Body(bytes(10_000), codec.JSON), 20_000),
    ],
)
async def test_room_is_taken_by_what_is_there_after_decompression(body: Body, size: int) -> None:
    admission = Admission()
    with await admission.room(body):
        assert admission.used == (0, size)
    assert admission.used == (0, 0)


@pytest.mark.parametrize("element", [b"\x12\x00", b"\x12\x02\x10\x01", b"\x32\x02\x12\x00", b"\x0a\x03\x42\x01\x00"])
async def test_tiny_messages_weigh_more(element: bytes) -> None:
    """An empty LogRecord is two bytes on the wire, and 130 once it is decoded."""
    for size in (100, 5 * MIB):
        body = element * (size // len(element))
        least = len(body) * (16 // len(element))
        assert least * 0.7 < await codec.weigh(body) <= 8 * size
        assert least * 0.7 < await codec.weigh(gzip.compress(body), "gzip") <= 8 * size


@pytest.mark.parametrize("size", [100, 4096, 5 * MIB])
async def test_what_programs_send_weighs_what_it_has(size: int) -> None:
    """Also where the attributes are as short as can be."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    while len(records) * 100 < size:
        record = records.add(time_unix_nano=1_768_471_200_000_000_000, severity_number=9)
        record.body.string_value = "said"
        for key in ("http.method", "code", "user.id"):
            record.attributes.add(key=key).value.int_value = 1
    body = request.SerializeToString()
    assert await codec.weigh(body) == await codec.weigh(gzip.compress(body), "gzip") == len(body)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (Body(gzip.compress(bytes(101)), coding="gzip", limit=100), TooLarge),
        (Body(gzip.compress(bytes(100))[:-1], coding="gzip"), Malformed),
        (Body(b"no gzip", coding="gzip"), Malformed),
        (Body(gzip.compress(b"") * 65, coding="gzip"), Malformed),
    ],
)
async def test_what_cannot_be_decompressed_takes_no_room(body: Body, error: type[Exception]) -> None:
    admission = Admission()
    with pytest.raises(error):
        await admission.room(body)
    assert admission.used == (0, 0)


async def test_large_requests_keep_no_small_ones_out() -> None:
    admission = Admission()
    with await admission.room(Body(bytes(15 * MIB))):
        # At once: its place is worth more.
        with pytest.raises(Retryable):
            await asyncio.wait_for(admission.room(Body(bytes(3 * MIB))), 0.5)
        with await admission.room(Body(bytes(MIB))):
            pass


@dataclass
class Servers:
    """Both servers before an ingest that takes nothing until it is let."""

    admission: Admission
    go: asyncio.Event
    working: int = 0
    most: int = 0
    taken: int = 0
    grpc_port: int = 0
    http: str = ""

    async def __call__(self, _signal: Signal, request: ExportRequest, _encoded: bytes | None = None, /) -> Outcome:
        self.working += 1
        self.most = max(self.most, self.working)
        try:
            await self.go.wait()
            self.taken += isinstance(request, ExportLogsServiceRequest) and len(request.resource_logs)
        finally:
            self.working -= 1
        return Outcome()

    async def until_given_back(self) -> None:
        async with asyncio.timeout(5):
            while self.admission.used != (0, 0):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Servers]:
    servers = Servers(Admission(), asyncio.Event())
    server, servers.grpc_port = create_server(servers, address="127.0.0.1:0", admission=servers.admission)
    await server.start()
    app = Starlette(routes=routes(servers, admission=servers.admission))
    http = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    listener = listen("127.0.0.1:0", "a test")
    servers.http = f"http://127.0.0.1:{listener.getsockname()[1]}"
    task = asyncio.create_task(http.serve([listener]))
    try:
        yield servers
    finally:
        await server.stop(0)
        http.should_exit = True
        await task


async def _begin_a_large_body(servers: Servers) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(servers.http.rpartition(":")[2]))
    writer.write(b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: 1000000\r\n\r\n{")
    await writer.drain()
    return reader, writer


async def test_of_many_large_requests_at_once_few_are_in_memory_and_the_others_come_again() -> None:
    body = logs(12 * MIB)
    small = gzip.compress(body)
    async with (
        serving() as servers,
        httpx.AsyncClient(base_url=servers.http, timeout=30, limits=httpx.Limits(max_connections=20)) as client,
        aio.insecure_channel(f"127.0.0.1:{servers.grpc_port}", compression=grpc.Compression.Gzip) as channel,
    ):
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(Signal.LOGS.method)

        async def over_grpc() -> str:
            try:
                await call(body)
            except aio.AioRpcError as error:
                asked = "google.rpc.retryinfo-bin" in {key for key, _ in error.trailing_metadata() or ()}
                return error.code().name if asked else "no RetryInfo"
            return "OK"

        async def over_http() -> str:
            answer = await client.post(Signal.LOGS.path, content=small, headers=GZIPPED)
            assert answer.status_code == 200 or answer.headers["retry-after"]
            return "OK" if answer.status_code == 200 else "UNAVAILABLE"

        asking = [asyncio.create_task(each()) for _ in range(10) for each in (over_grpc, over_http)]
        _done, waiting = await asyncio.wait(asking, timeout=4)
        # Meanwhile what is not large is taken.
        servers.go.set()
        assert (await client.post(Signal.LOGS.path, content=logs(MIB), headers=PROTOBUF)).status_code == 200
        answers = await asyncio.gather(*asking)
    assert len(waiting) == 1
    assert sorted(answers) == ["OK"] + ["UNAVAILABLE"] * 19
    assert servers.most <= 2
    assert servers.admission.used == (0, 0)


async def test_of_many_small_requests_at_once_no_more_are_taken_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By their bytes alone all of them were: a hundred thousand, each a call, a task and what it waits for."""
    monkeypatch.setattr(admission_module, "ROOM_BYTES", 10 * admission_module.LEAST_BYTES)
    async with serving() as servers, aio.insecure_channel(f"127.0.0.1:{servers.grpc_port}") as channel:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(Signal.LOGS.method)
        asking = [asyncio.ensure_future(call(logs(10)).code()) for _ in range(60)]
        await asyncio.wait(asking, timeout=3)
        assert servers.working == 10
        servers.go.set()
        codes = await asyncio.gather(*asking)
    assert (codes.count(grpc.StatusCode.OK), codes.count(grpc.StatusCode.UNAVAILABLE)) == (10, 50)
    assert servers.admission.used == (0, 0)


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_grpc_messages_are_decompressed_here(compression: grpc.Compression | None) -> None:
    async with serving() as servers:
        servers.go.set()
        async with aio.insecure_channel(f"127.0.0.1:{servers.grpc_port}", compression=compression) as channel:
            call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(Signal.LOGS.method)
            for size in (0, 100, 3 * MIB):
                assert await call(logs(size)) == b""
            assert await call(b"") == b""
    assert servers.taken == 3


async def test_a_call_without_a_message_is_malformed() -> None:
    async with serving() as servers, aio.insecure_channel(f"127.0.0.1:{servers.grpc_port}") as channel:
        call: aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(Signal.LOGS.method)
        with pytest.raises(aio.AioRpcError, match="no message") as error:
            await call(iter(()))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert servers.admission.used == (0, 0)


async def test_senders_that_go_away_give_back_what_they_had() -> None:
    async with (
        serving() as servers,
        aio.insecure_channel(f"127.0.0.1:{servers.grpc_port}") as channel,
    ):
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(Signal.LOGS.method)
        for _ in range(5):
            # Some are cancelled in the ingest, some in their wait.
            calls = [call(logs(3 * MIB)) for _ in range(10)]
            _, writer = await _begin_a_large_body(servers)
            await asyncio.sleep(0.2)
            for each in calls:
                each.cancel()
            writer.close()
            await writer.wait_closed()
        # What has reached the ingest is in memory until that ends, whoever waits for it.
        assert servers.admission.used[1] == 5 * len(logs(3 * MIB))
        servers.go.set()
        await servers.until_given_back()
        assert servers.taken == servers.most == 5
        assert await call(logs(3 * MIB)) == b""


async def test_who_sends_nothing_holds_no_place_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (grpc_server, http_server):
        monkeypatch.setattr(module, "_READ_SECONDS", 0.3)

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.sleep(30)
        yield b""

    async with (
        serving() as servers,
        httpx.AsyncClient(base_url=servers.http, timeout=30) as client,
        aio.insecure_channel(f"127.0.0.1:{servers.grpc_port}") as channel,
    ):
        servers.go.set()
        call: aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(Signal.LOGS.method)
        calls = [call(silent()) for _ in range(admission_module.PLACES)]
        await asyncio.sleep(0.1)
        assert servers.admission.used == (admission_module.PLACES, 0)
        # It waits for a place, and gets one.
        assert (await client.post(Signal.LOGS.path, content=logs(MIB), headers=PROTOBUF)).status_code == 200
        for each in calls:
            with pytest.raises(aio.AioRpcError, match="did not come") as error:
                await each
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        reader, writer = await _begin_a_large_body(servers)
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 503")
        writer.close()
        assert servers.admission.used == (0, 0)


async def test_small_bodies_need_no_place() -> None:
    async with (
        serving() as servers,
        httpx.AsyncClient(base_url=servers.http) as client,
        contextlib.AsyncExitStack() as s,
    ):
        servers.go.set()
        for _ in range(admission_module.PLACES):
            await s.enter_async_context(servers.admission.place())
        assert (await client.post(Signal.LOGS.path, content=logs(100), headers=PROTOBUF)).status_code == 200
        large = await client.post(Signal.LOGS.path, content=logs(MIB), headers=PROTOBUF)
        assert (large.status_code, large.headers["retry-after"]) == (503, "2")


def test_all_servers_of_a_process_share_what_it_has() -> None:
    for function in (create_server, routes):
        assert inspect.signature(function).parameters["admission"].default is ADMISSION
