"""Each row of the design's table of answers, over the wire: gRPC, HTTP with protobuf, HTTP with JSON."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc import aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from structlog.testing import capture_logs

from postel.errors import AddressInUseError, PostelError
from postel.otlp import codec
from postel.otlp.answers import Outcome
from postel.otlp.errors import Malformed, Retryable, TooLarge
from postel.otlp.grpc_server import create_server
from postel.otlp.signal import TRACE_METHOD, TRACE_PATH, Signal
from support.otlp_receiver import Receiver, running_receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROTOBUF = {"content-type": codec.PROTOBUF}
JSON = {"content-type": codec.JSON}

REQUEST = ExportLogsServiceRequest()
REQUEST.resource_logs.add().scope_logs.add().log_records.add(event_name="postel.node.booted", trace_id=b"\x01" * 16)


@dataclass
class Reply:
    """What a gRPC call came to."""

    code: grpc.StatusCode
    details: str = ""
    trailers: dict[str, Any] | None = None
    body: bytes = b""


@dataclass
class Wires:
    receiver: Receiver
    http: httpx.AsyncClient
    channel: aio.Channel

    async def call(self, body: bytes, method: str = Signal.LOGS.method, **arguments: Any) -> Reply:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        try:
            return Reply(grpc.StatusCode.OK, body=await call(body, **arguments))
        except aio.AioRpcError as error:
            trailers = {str(key): value for key, value in error.trailing_metadata() or ()}
            return Reply(error.code(), error.details() or "", trailers)

    async def post(self, body: bytes, headers: dict[str, str], path: str = Signal.LOGS.path) -> httpx.Response:
        return await self.http.post(path, content=body, headers=headers)


async def _wires(**settings: Any) -> AsyncIterator[Wires]:
    async with (
        running_receiver(**settings) as receiver,
        httpx.AsyncClient(base_url=receiver.http) as http,
        aio.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel,
    ):
        yield Wires(receiver, http, channel)


# One server for all tests of a limit or token: uvicorn takes 0.2 s to end.
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_wires() -> AsyncIterator[Wires]:
    async for each in _wires():
        yield each


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small_wires() -> AsyncIterator[Wires]:
    async for each in _wires(limit=100_000):
        yield each


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def locked_wires() -> AsyncIterator[Wires]:
    async for each in _wires(token="s3cret"):  # noqa: S106 - of this test only
        yield each


def _fresh(wires: Wires) -> Wires:
    wires.receiver.answer = Outcome()
    wires.receiver.taken.clear()
    return wires


@pytest.fixture
def wires(open_wires: Wires) -> Wires:
    return _fresh(open_wires)


@pytest.fixture
def small(small_wires: Wires) -> Wires:
    return _fresh(small_wires)


@pytest.fixture
def locked(locked_wires: Wires) -> Wires:
    return _fresh(locked_wires)


def status_of(response: httpx.Response) -> Status:
    """The Status in an HTTP answer, whose media type must be that of the request."""
    assert response.headers["content-type"] == response.request.headers["content-type"]
    if response.headers["content-type"] == codec.JSON:
        body = json.loads(response.content)
        return Status(code=body["code"], message=body["message"])
    return Status.FromString(response.content)


async def test_stored_is_ok_with_partial_success_unset(wires: Wires) -> None:
    assert await wires.call(REQUEST.SerializeToString()) == Reply(grpc.StatusCode.OK, body=b"")
    protobuf = await wires.post(REQUEST.SerializeToString(), PROTOBUF)
    assert (protobuf.status_code, protobuf.content, protobuf.headers["content-type"]) == (200, b"", codec.PROTOBUF)
    as_json = await wires.post(codec.encode(REQUEST, codec.JSON), JSON)
    assert (as_json.status_code, as_json.content, as_json.headers["content-type"]) == (200, b"{}", codec.JSON)
    assert wires.receiver.taken == [(Signal.LOGS, REQUEST)] * 3


async def test_an_empty_request_is_stored(wires: Wires) -> None:
    assert (await wires.call(b"")).code is grpc.StatusCode.OK
    assert (await wires.post(b"", PROTOBUF)).status_code == 200
    assert (await wires.post(b"{}", JSON)).status_code == 200


@pytest.mark.parametrize("signal", list(Signal))
async def test_dead_lettered_is_ok_with_count_and_reason(wires: Wires, signal: Signal) -> None:
    wires.receiver.answer = Outcome(2, "a NUL in a text")
    expected = signal.response(2, "a NUL in a text")
    assert (await wires.call(b"", signal.method)).body == expected.SerializeToString()
    protobuf = await wires.post(b"", PROTOBUF, signal.path)
    assert (protobuf.status_code, protobuf.content) == (200, expected.SerializeToString())
    as_json = await wires.post(b"{}", JSON, signal.path)
    key = "rejectedDataPoints" if signal is Signal.METRICS else "rejectedLogRecords"
    assert as_json.json() == {"partialSuccess": {key: "2", "errorMessage": "a NUL in a text"}}


async def test_what_cannot_be_decoded_is_an_invalid_argument(wires: Wires) -> None:
    reply = await wires.call(b"\xff\xff")
    assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no protobuf ExportLogsServiceRequest" in reply.details
    protobuf = await wires.post(b"\xff\xff", PROTOBUF)
    assert (protobuf.status_code, status_of(protobuf).code) == (400, 3)
    as_json = await wires.post(b'{"resourceLogs":[{"scopeLogs":7}]}', JSON)
    assert as_json.status_code == 400
    assert status_of(as_json) == Status(code=3, message="resourceLogs[0].scopeLogs: expected an array")
    assert wires.receiver.taken == []


async def test_traces_are_refused(wires: Wires) -> None:
    reply = await wires.call(b"", TRACE_METHOD)
    assert (reply.code, reply.details) == (grpc.StatusCode.UNIMPLEMENTED, "Postel takes metrics and logs, no traces")
    for headers, body in ((PROTOBUF, b""), (JSON, b"{}")):
        response = await wires.post(body, headers, TRACE_PATH)
        assert response.status_code == 404
        assert status_of(response) == Status(code=12, message="Postel takes metrics and logs, no traces")


@pytest.mark.parametrize(
    ("error", "seconds", "header"),
    [(Retryable(2.5, "busy"), 2.5, "3"), (Retryable(), 5, "5"), (KeyError("x"), 5, "5"), (TimeoutError(), 5, "5")],
)
async def test_not_now_is_unavailable_with_a_delay(wires: Wires, error: Exception, seconds: float, header: str) -> None:
    wires.receiver.answer = error
    reply = await wires.call(b"")
    assert reply.code is grpc.StatusCode.UNAVAILABLE
    assert reply.trailers is not None
    info = RetryInfo.FromString(reply.trailers["google.rpc.retryinfo-bin"])
    assert info.retry_delay.ToNanoseconds() == seconds * 1e9
    detail = RetryInfo()
    assert Status.FromString(reply.trailers["grpc-status-details-bin"]).details[0].Unpack(detail)
    assert detail == info
    for headers, body in ((PROTOBUF, b""), (JSON, b"{}")):
        response = await wires.post(body, headers)
        assert (response.status_code, response.headers["retry-after"]) == (503, header)
        assert status_of(response).code == 14


async def test_an_unforeseen_exception_is_logged_and_not_told(wires: Wires) -> None:
    wires.receiver.answer = ValueError("password=hunter2")
    with capture_logs() as records:
        reply = await wires.call(b"")
        response = await wires.post(b"", PROTOBUF)
    assert "hunter2" not in reply.details + response.text
    assert [(record["log_level"], record["signal"]) for record in records] == [("error", "logs")] * 2


async def test_a_foreseen_exception_is_no_record_of_the_log(wires: Wires) -> None:
    wires.receiver.answer = Retryable(1, "busy")
    with capture_logs() as records:
        await wires.call(b"")
        await wires.post(b"", PROTOBUF)
    assert records == []


async def test_a_sender_that_is_refused_again_and_again_is_one_line_of_each_server() -> None:
    with capture_logs() as records:
        # Servers of its own: those of the other tests have said all this within the minute.
        async for wires in _wires():
            wires.receiver.answer = Malformed("it makes no sense")
            for _ in range(3):
                await wires.call(b"")
                await wires.post(b"", PROTOBUF)
            wires.receiver.answer = TooLarge("another kind")
            await wires.post(b"", PROTOBUF)
    reasons = [(record["event"], record["reason"], record["requests"]) for record in records]
    assert reasons == [
        ("refused OTLP requests", "it makes no sense", 1),
        ("refused OTLP requests", "it makes no sense", 1),
        ("refused OTLP requests", "another kind", 1),
    ]
    assert all("127.0.0.1" in record["sender"] for record in records)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_too_large_over_grpc_asks_for_no_retry(small: Wires, compression: grpc.Compression) -> None:
    # The compressed form of the second is a thousandth of the limit: what counts is what it decompresses to.
    reply = await small.call(bytes(100_001), compression=compression)
    assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not {"grpc-status-details-bin", "google.rpc.retryinfo-bin"} & set(reply.trailers or ())
    fits = b"\x0a\x00" * 50_000
    assert (await small.call(fits, compression=compression)).code is grpc.StatusCode.OK


async def test_too_large_over_http_is_413(small: Wires) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield bytes(10_000)

    fits = b"\x0a\x00" * 50_000
    assert (await small.post(fits, PROTOBUF)).status_code == 200
    gzipped = {**PROTOBUF, "content-encoding": "gzip"}
    assert (await small.post(gzip.compress(fits), gzipped)).status_code == 200
    for response in (
        await small.post(bytes(100_001), PROTOBUF),
        await small.http.post(Signal.LOGS.path, content=chunks(), headers=PROTOBUF),
        await small.post(gzip.compress(bytes(100_001)), gzipped),
        await small.post(gzip.compress(bytes(5_000_000)), {**JSON, "content-encoding": "gzip"}),
    ):
        assert response.status_code == 413
        assert "retry-after" not in response.headers
        assert status_of(response).code == 8


async def test_a_body_without_end_is_cut_off_at_the_limit(small: Wires) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", small.receiver.http_port)
    writer.write(
        b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(11):
        writer.write(b"2710\r\n" + bytes(10_000) + b"\r\n")
    # No last chunk: the answer comes while the sender would go on.
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 413")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("value", [None, "Bearer wrong", "Bearer", "Basic s3cret", "s3cret", "Bearer s3cret2"])
async def test_no_or_a_wrong_token_is_unauthenticated(locked: Wires, value: str | None) -> None:
    metadata = (("authorization", value),) if value is not None else ()
    assert (await locked.call(b"", metadata=metadata)).code is grpc.StatusCode.UNAUTHENTICATED
    headers = {"authorization": value} if value is not None else {}
    for media, body in ((PROTOBUF, b""), (JSON, b"{}")):
        response = await locked.post(body, {**media, **headers})
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert status_of(response).code == 16
    assert locked.receiver.taken == []


@pytest.mark.parametrize("value", ["Bearer s3cret", "bearer s3cret"])
async def test_the_right_token_opens(locked: Wires, value: str) -> None:
    assert (await locked.call(b"", metadata=(("authorization", value),))).code is grpc.StatusCode.OK
    assert (await locked.post(b"", {**PROTOBUF, "authorization": value})).status_code == 200


async def test_bytes_that_are_no_text_are_no_token(locked: Wires) -> None:
    response = await locked.http.post(
        Signal.LOGS.path, headers=[(b"authorization", b"Bearer \xff\xe9"), (b"content-type", b"application/json")]
    )
    assert response.status_code == 401


async def test_a_token_may_be_any_text() -> None:
    async with running_receiver(token="grün ☂") as receiver, httpx.AsyncClient(base_url=receiver.http) as http:  # noqa: S106
        for value, status in (("Bearer grün ☂", 200), ("Bearer grun ☂", 401)):
            headers = [(b"authorization", value.encode()), (b"content-type", codec.JSON.encode())]
            assert (await http.post(Signal.LOGS.path, content=b"{}", headers=headers)).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {},
        {**PROTOBUF, "content-encoding": "zstd"},
        {**JSON, "content-encoding": "gzip, gzip"},
    ],
)
async def test_a_wrong_media_type_or_encoding_is_415(wires: Wires, headers: dict[str, str]) -> None:
    response = await wires.post(b"{}", headers)
    assert response.status_code == 415
    assert response.headers["content-type"] == headers.get("content-type", codec.JSON).replace("text/plain", codec.JSON)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_parameters_and_case_of_a_media_type_do_not_matter(wires: Wires, content_type: str) -> None:
    response = await wires.post(b"{}", {"content-type": content_type})
    assert (response.status_code, response.headers["content-type"]) == (200, codec.JSON)


@pytest.mark.parametrize("path", [Signal.LOGS.path, Signal.METRICS.path, TRACE_PATH])
@pytest.mark.parametrize(
    ("content_type", "answered"),
    [
        ("Application/X-Protobuf", codec.PROTOBUF),
        ("application/x-protobuf ; charset=utf-8", codec.PROTOBUF),
        ("APPLICATION/JSON", codec.JSON),
        ("application/x-protobuf2", codec.JSON),
    ],
)
async def test_a_refusal_reads_the_media_type_as_a_request_does(
    wires: Wires, path: str, content_type: str, answered: str
) -> None:
    response = await wires.post(b"\xff", {"content-type": content_type}, path)
    assert response.status_code == (404 if path == TRACE_PATH else 400 if "2" not in content_type else 415)
    assert response.headers["content-type"] == answered
    if answered == codec.PROTOBUF:
        assert Status.FromString(response.content).message
    else:
        assert json.loads(response.content)["message"]


@pytest.mark.parametrize("path", [Signal.LOGS.path, Signal.METRICS.path])
async def test_another_method_is_405(wires: Wires, path: str) -> None:
    response = await wires.http.get(path)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_other_paths_and_methods_do_not_exist(wires: Wires) -> None:
    assert (await wires.post(b"", PROTOBUF, "/v1/profiles")).status_code == 404
    assert (await wires.call(b"", "/some.Service/Export")).code is grpc.StatusCode.UNIMPLEMENTED


async def test_the_ingest_may_refuse_too(wires: Wires) -> None:
    for error, code, status in ((Malformed("m"), "INVALID_ARGUMENT", 400), (TooLarge("t"), "RESOURCE_EXHAUSTED", 413)):
        wires.receiver.answer = error
        assert (await wires.call(b"")).code.name == code
        assert (await wires.post(b"", PROTOBUF)).status_code == status


async def test_a_sender_that_goes_away_costs_nothing(wires: Wires) -> None:
    with capture_logs() as records:
        _, writer = await asyncio.open_connection("127.0.0.1", wires.receiver.http_port)
        writer.write(
            b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await wires.post(b"{}", JSON)).status_code == 200
    assert records == []
    assert len(wires.receiver.taken) == 1


async def test_broken_requests_get_an_answer_of_the_table_and_the_server_lives(wires: Wires) -> None:
    chance = random.Random(4)  # noqa: S311 - a test that is the same each time
    bodies = {codec.PROTOBUF: REQUEST.SerializeToString(), codec.JSON: codec.encode(REQUEST, codec.JSON)}
    for media, original in bodies.items():
        for _ in range(100):
            body = bytearray(original)
            for _ in range(chance.randint(1, 4)):
                body[chance.randrange(len(body))] = chance.randrange(256)
            response = await wires.post(bytes(body), {"content-type": media})
            assert response.status_code in (200, 400)
            if media == codec.PROTOBUF:
                assert (await wires.call(bytes(body))).code.name in ("OK", "INVALID_ARGUMENT")
    assert (await wires.post(b"{}", JSON)).status_code == 200


async def test_a_slow_ingest_does_not_hold_up_others(wires: Wires) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(_signal: Signal, _request: object, _encoded: bytes | None = None, /) -> Outcome:
        started.set()
        await release.wait()
        return Outcome()

    server, port = create_server(slow, address="127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(Signal.LOGS.method)
        waiting = asyncio.ensure_future(call(b""))
        await started.wait()
        assert (await wires.call(b"")).code is grpc.StatusCode.OK
        assert not waiting.done()
        release.set()
        assert ExportLogsServiceResponse.FromString(await waiting) == ExportLogsServiceResponse()
    await server.stop(0)


async def test_a_port_in_use_is_named_with_its_setting(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUseError, match=rf"^{address} is in use.* set \[intake\] address"):
            create_server(Receiver(), address=address, setting="[intake] address")
    assert capfd.readouterr().err == ""  # the words of gRPC's C core are none for a user


async def test_two_servers_never_share_a_port(wires: Wires) -> None:
    with pytest.raises(AddressInUseError):
        create_server(Receiver(), address=f"127.0.0.1:{wires.receiver.grpc_port}")


async def test_an_address_of_another_host_is_named_with_the_reason() -> None:
    with pytest.raises(PostelError, match=r"cannot listen on 192\.0\.2\.1:4417: .*; set \[sink\] grpc_address"):
        create_server(Receiver(), address="192.0.2.1:4417")
