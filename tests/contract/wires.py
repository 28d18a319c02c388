"""The ways in which a request of the contract reaches the sink, and the one form in which they give its answer.

JSON and protobuf go through the sink's own routes, gRPC through its own server on a free port. The table of answers
says the same on all of them, so an answer is told by its HTTP status; what gRPC has no row for is not sent over it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc import Compression, StatusCode, aio
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette

from postel.otlp import codec, json_mapping
from postel.otlp.answers import RETRY_TRAILER, STATUS_TRAILER, Ingest
from postel.otlp.grpc_server import create_server
from postel.otlp.http_server import routes
from postel.otlp.signal import TRACE_METHOD, TRACE_PATH, Signal

# The rows of the table of answers that both protocols have: HTTP status -> gRPC code.
CODES = {
    200: StatusCode.OK,
    400: StatusCode.INVALID_ARGUMENT,
    404: StatusCode.UNIMPLEMENTED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
}
_STATUSES = {code: status for status, code in CODES.items()}


@dataclass(frozen=True)
class Answer:
    """What became of a request; `rejected` is None where partial_success is unset, `retry` whether one is asked for."""

    status: int
    reason: str = ""
    rejected: int | None = None
    retry: bool = False


class Wire(Protocol):
    """Sends a request of a case; None where its kind does not go over this wire."""

    async def __call__(self, request: Mapping[str, Any], /) -> Answer | None: ...


def _signal(request: Mapping[str, Any]) -> Signal:
    return Signal.METRICS if "metrics" in request else Signal.LOGS


def _json(request: Mapping[str, Any]) -> bytes:
    signal = _signal(request).value
    return json.dumps({f"resource{signal.title()}": request[signal]}).encode()


def _protobuf(request: Mapping[str, Any]) -> bytes:
    message = _signal(request).request_class()
    json_mapping.decode(_json(request), message)
    return message.SerializeToString()


def _body(request: Mapping[str, Any]) -> bytes:
    body = request["body"]
    return body.encode() if isinstance(body, str) else bytes(body)


def _taken(signal: Signal, body: bytes, media_type: str) -> Answer:
    response = signal.response_class()
    if media_type == codec.JSON:
        json_mapping.decode(body, response)
    else:
        response.ParseFromString(body)
    if not response.HasField("partial_success"):
        return Answer(200)
    rejected, reason = signal.partial_success(response)
    return Answer(200, reason, rejected)


@asynccontextmanager
async def http_wire(ingest: Ingest, media_type: str, *, compress: bool = False) -> AsyncIterator[Wire]:
    """OTLP/HTTP in JSON or protobuf, where the case gives no bytes of its own."""
    transport = ASGITransport(Starlette(routes=list(routes(ingest))))

    async def send(request: Mapping[str, Any]) -> Answer:
        headers = {"content-type": request.get("content_type", media_type)}
        if "body" in request:
            body, path = _body(request), request.get("path", Signal.LOGS.path)
        else:
            body, path = (_json if media_type == codec.JSON else _protobuf)(request), _signal(request).path
        if (coding := request.get("content_encoding", "gzip" if compress and "body" not in request else "")) == "gzip":
            body = gzip.compress(body)
        if coding:
            headers["content-encoding"] = coding
        async with AsyncClient(transport=transport, base_url="http://sink.test") as client:
            response = await client.post(path, content=body, headers=headers)
        assert response.headers["content-type"] in (headers["content-type"], codec.JSON)
        if response.status_code == 200:
            return _taken(Signal(path.rpartition("/")[2]), response.content, response.headers["content-type"])
        status = Status()
        if response.headers["content-type"] == codec.JSON:
            status.message = response.json()["message"]
            status.code = response.json()["code"]
        else:
            status.ParseFromString(response.content)
        assert response.status_code == 415 or CODES[response.status_code].value[0] == status.code
        return Answer(response.status_code, status.message, retry="retry-after" in response.headers)

    yield send


@asynccontextmanager
async def grpc_wire(ingest: Ingest) -> AsyncIterator[Wire]:
    """OTLP/gRPC; of a case's own bytes, those that are protobuf."""
    server, port = create_server(ingest, address="127.0.0.1:0")
    await server.start()
    channel = aio.insecure_channel(f"127.0.0.1:{port}")

    async def send(request: Mapping[str, Any]) -> Answer | None:
        if "body" not in request:
            signal, method, body = _signal(request), _signal(request).method, _protobuf(request)
        elif request.get("content_type") == codec.PROTOBUF:
            path = request.get("path", Signal.LOGS.path)
            signal = next((each for each in Signal if each.path == path), Signal.LOGS)
            method = TRACE_METHOD if path == TRACE_PATH else signal.method
            body = _body(request)
        else:
            return None
        compression = Compression.Gzip if request.get("content_encoding") == "gzip" else Compression.NoCompression
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        try:
            return _taken(signal, await call(body, compression=compression), codec.PROTOBUF)
        except aio.AioRpcError as error:
            trailers = {key for key, _ in error.trailing_metadata() or ()}
            retry = RETRY_TRAILER in trailers
            assert retry == (STATUS_TRAILER in trailers)
            return Answer(_STATUSES[error.code()], error.details() or "", retry=retry)

    try:
        yield send
    finally:
        await channel.close()
        await server.stop(0)
