"""OTLP/HTTP as Starlette routes: ``/v1/metrics`` and ``/v1/logs`` in protobuf or JSON, plain or compressed.

Contract: a request is answered by the table in `postel.otlp.answers`; 200 only after `ingest` returned. The body is
read no further than the limit, and decompressed no further than the limit. A sender that goes away while it sends
gets no answer and leaves no error in the log. ``/v1/traces`` is 404.

Source: OTLP specification 1.x, "OTLP/HTTP" (binary and JSON request, response, failures, throttling).
"""

from __future__ import annotations

from google.rpc import code_pb2  # type: ignore[import-untyped]
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from postel.otlp import codec
from postel.otlp import token as bearer
from postel.otlp.answers import Failure, Ingest
from postel.otlp.errors import TooLarge
from postel.otlp.refusals import Refusals
from postel.otlp.signal import TRACE_PATH, Signal


def routes(ingest: Ingest, *, limit: int = codec.DEFAULT_LIMIT, token: str | None = None) -> list[Route]:
    """Build the routes of one OTLP/HTTP receiver.

    Args:
        ingest: takes every decoded request.
        limit: bytes of a body at most, both as sent and after decompression.
        token: what ``Authorization: Bearer`` must carry; None: every sender is taken.
    """
    refusals = Refusals()

    def receiver(signal: Signal) -> Route:
        async def receive(request: Request) -> Response:
            return await _receive(ingest, signal, request, refusals, limit=limit, token=token)

        return Route(signal.path, receive, methods=["POST"], name=f"otlp_{signal.value}")

    return [*map(receiver, Signal), Route(TRACE_PATH, _refuse_traces, methods=["POST"], name="otlp_traces")]


async def _receive(
    ingest: Ingest, signal: Signal, request: Request, refusals: Refusals, *, limit: int, token: str | None
) -> Response:
    content_type = request.headers.get("content-type", "")
    try:
        bearer.check(request.headers.get("authorization", ""), token)
        # Both are looked at before the body is read, so that nobody uploads 16 MiB to hear 415.
        media_type = codec.media_type(content_type)
        coding = codec.content_coding(request.headers.get("content-encoding", ""))
        body = await _read(request, limit)
        message = await codec.decode_aside(signal, body, media_type, coding, limit)
        outcome = await ingest(signal, message)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    except Exception as error:  # noqa: BLE001 - the table of answers has one for each
        sender = request.client.host if request.client else ""
        return _refuse(refusals.answer(error, signal, sender), content_type)
    response = signal.response(outcome.rejected, outcome.reason)
    return Response(codec.encode(response, media_type), media_type=media_type)


async def _read(request: Request, limit: int) -> bytes:
    """Read the body, and no more than `limit` bytes of it."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes, the limit is {limit}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"the body has more than {limit} bytes")
    return bytes(body)


async def _refuse_traces(request: Request) -> Response:
    answer = Failure(code_pb2.UNIMPLEMENTED, 404, "Postel takes metrics and logs, no traces")
    return _refuse(answer, request.headers.get("content-type", ""))


def _refuse(answer: Failure, content_type: str) -> Response:
    """Answer with a Status in the request's media type; JSON where that is unknown, for the eyes of a human."""
    media_type = codec.PROTOBUF if content_type.startswith(codec.PROTOBUF) else codec.JSON
    return Response(codec.encode(answer.status, media_type), answer.http_status, answer.headers, media_type=media_type)
