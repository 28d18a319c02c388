"""OTLP/HTTP as Starlette routes: ``/v1/metrics`` and ``/v1/logs`` in protobuf or JSON, plain or compressed.

Contract: a request is answered by the table in `postel.otlp.answers`; 200 only after `ingest` returned. The body is
read no further than the limit, and decompressed no further than the limit; what all requests together have in memory is
bounded by `postel.otlp.admission`. A sender that goes away while it sends gets no answer and leaves no error in the
log. ``/v1/traces`` is 404.

Source: OTLP specification 1.x, "OTLP/HTTP" (binary and JSON request, response, failures, throttling).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager

from google.rpc import code_pb2  # type: ignore[import-untyped]
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from postel.otlp import codec
from postel.otlp import token as bearer
from postel.otlp.admission import ADMISSION, Admission, Body
from postel.otlp.answers import Failure, Ingest, failure
from postel.otlp.errors import Retryable, TooLarge, UnsupportedMedia
from postel.otlp.refusals import Refusals
from postel.otlp.signal import TRACE_PATH, Signal

# A body of this size at most, which is what the system and uvicorn read ahead anyway, takes no place while it is read.
_SMALL_BYTES = 64 << 10
# The time in which a body must be there: what an exporter waits for its answer at most, by default, is 10 s.
_READ_SECONDS = 10.0


def routes(
    ingest: Ingest,
    *,
    limit: int = codec.DEFAULT_LIMIT,
    token: str | None = None,
    signals: Iterable[Signal] = tuple(Signal),
    admission: Admission = ADMISSION,
) -> list[Route]:
    """Build the routes of one OTLP/HTTP receiver.

    Args:
        ingest: takes every decoded request.
        limit: bytes of a body at most, both as sent and after decompression.
        token: what ``Authorization: Bearer`` must carry; None: every sender is taken.
        signals: what is taken; the others are 404.
        admission: how much is in memory at once.
    """
    refusals = Refusals()

    def receiver(signal: Signal) -> Route:
        async def receive(request: Request) -> Response:
            return await _receive(ingest, signal, request, refusals, admission, limit=limit, token=token)

        return Route(signal.path, receive, methods=["POST"], name=f"otlp_{signal.value}")

    return [*map(receiver, signals), Route(TRACE_PATH, _refuse_traces, methods=["POST"], name="otlp_traces")]


async def _receive(
    ingest: Ingest,
    signal: Signal,
    request: Request,
    refusals: Refusals,
    admission: Admission,
    *,
    limit: int,
    token: str | None,
) -> Response:
    async def take() -> Response:
        bearer.check(request.headers.get("authorization", ""), token)
        # Both are looked at before the body is read, so that nobody uploads 16 MiB to hear 415.
        media_type = codec.media_type(request.headers.get("content-type", ""))
        coding = codec.content_coding(request.headers.get("content-encoding", ""))
        async with _place(request, admission, limit):
            body = Body(await _read(request, limit), media_type, coding, limit)
            room = await admission.room(body)
        outcome = await admission.finish(room, ingest, signal, body)
        response = signal.response(outcome.rejected, outcome.reason)
        return Response(codec.encode(response, media_type), media_type=media_type)

    return await answered(request, signal, refusals, take)


async def answered(
    request: Request, signal: Signal, refusals: Refusals, take: Callable[[], Awaitable[Response]]
) -> Response:
    """What `take` answers, or, by the table of answers, what it raises; also when the server stops meanwhile."""
    content_type = request.headers.get("content-type", "")
    try:
        return await take()
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    except asyncio.CancelledError:
        # The server stops, and has waited for this one as long as it may.
        return _refuse(failure(Retryable(reason="the receiver is stopping")), content_type)
    except Exception as error:  # noqa: BLE001 - the table of answers has one for each
        sender = request.client.host if request.client else ""
        return _refuse(refusals.answer(error, signal, sender), content_type)


async def read_body(request: Request, limit: int, admission: Admission = ADMISSION) -> bytes:
    """The body of a request that is not OTLP, plain.

    Raises:
        TooLarge: it has more than `limit` bytes.
        Retryable: there is no place for it, or it does not come in time.
    """
    async with _place(request, admission, limit):
        return await _read(request, limit)


def _place(request: Request, admission: Admission, limit: int) -> AbstractAsyncContextManager[None]:
    """The place to read the body in, by the length that it is declared to have.

    Raises:
        TooLarge: it is over the limit.
    """
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal():
        return admission.place()
    if int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes, the limit is {limit}")
    return contextlib.nullcontext() if int(declared) <= _SMALL_BYTES else admission.place()


async def _read(request: Request, limit: int) -> bytes:
    """Read the body, and no more than `limit` bytes of it.

    Raises:
        Retryable: it does not come in time.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"the body has more than {limit} bytes")
    except TimeoutError:
        raise Retryable(None, f"the body did not come within {_READ_SECONDS:g} s") from None
    return bytes(body)


async def _refuse_traces(request: Request) -> Response:
    answer = Failure(code_pb2.UNIMPLEMENTED, 404, "Postel takes metrics and logs, no traces")
    return _refuse(answer, request.headers.get("content-type", ""))


def _refuse(answer: Failure, content_type: str) -> Response:
    """Answer with a Status in the request's media type; JSON where that is unknown, for the eyes of a human."""
    try:
        media_type = codec.media_type(content_type)
    except UnsupportedMedia:
        media_type = codec.JSON
    return Response(codec.encode(answer.status, media_type), answer.http_status, answer.headers, media_type=media_type)
