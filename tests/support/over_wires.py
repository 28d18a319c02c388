"""Requests to a running sink over gRPC and HTTP: each is taken whole, or the sender is asked to send it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from google.protobuf.message import Message
from grpc import StatusCode, aio

from postel.otlp import codec
from postel.otlp.answers import RETRY_TRAILER, STATUS_TRAILER
from postel.otlp.signal import Signal
from support.sink import RunningSink

Send = Callable[[Signal, Message], Awaitable[bool]]
"""Whether it was taken; another answer than success and one that asks for a retry is an error."""

# Longer than the sink lets anyone wait.
_SECONDS = 60


@asynccontextmanager
async def over_wires(sink: RunningSink, refused: Counter[str]) -> AsyncIterator[Mapping[str, Send]]:
    """Name of a protocol -> what sends over it; each time that a retry is asked for counts in ``refused``."""
    async with aio.insecure_channel(sink.grpc) as channel, httpx.AsyncClient(timeout=_SECONDS) as client:

        async def grpc(signal: Signal, request: Message) -> bool:
            call: Any = channel.unary_unary(signal.method)
            try:
                body = await call(request.SerializeToString(), timeout=_SECONDS)
            except aio.AioRpcError as error:
                if error.code() is not StatusCode.UNAVAILABLE:
                    raise
                trailers = {key for key, _ in error.trailing_metadata() or ()}
            else:
                assert _is_whole(signal, body)
                return True
            assert trailers >= {RETRY_TRAILER, STATUS_TRAILER}
            refused["grpc"] += 1
            return False

        async def http(signal: Signal, request: Message) -> bool:
            answer = await client.post(
                f"{sink.http}{signal.path}",
                content=request.SerializeToString(),
                headers={"content-type": codec.PROTOBUF},
            )
            if answer.status_code == httpx.codes.OK:
                assert _is_whole(signal, answer.content)
                return True
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
            refused["http"] += 1
            return False

        yield {"grpc": grpc, "http": http}


def _is_whole(signal: Signal, body: bytes) -> bool:
    response = signal.response_class()
    response.ParseFromString(body)
    return not response.HasField("partial_success")
