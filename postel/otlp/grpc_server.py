"""OTLP/gRPC as a grpc.aio server whose handlers get raw bytes, so that every answer is ours.

Contract: a request is answered by the table in `postel.otlp.answers`; OK only after `ingest` returned. A
deserializer of grpc's own would answer INTERNAL to a broken message; so the bytes are decoded here. gRPC itself
answers RESOURCE_EXHAUSTED to a message over the limit, as sent or after decompression, and adds no RetryInfo.

Source: OTLP specification 1.x, "OTLP/gRPC"; ``opentelemetry/proto/collector/*/v1/*_service.proto``.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias

import grpc
from grpc import aio

from postel.errors import AddressInUseError
from postel.listening import listen
from postel.otlp import codec
from postel.otlp import token as bearer
from postel.otlp.answers import Ingest
from postel.otlp.refusals import Refusals
from postel.otlp.signal import TRACE_METHOD, Signal

_CODES = {code.value[0]: code for code in grpc.StatusCode}

Context: TypeAlias = aio.ServicerContext[bytes, bytes]
# Generic in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


def create_server(
    ingest: Ingest,
    *,
    address: str,
    limit: int = codec.DEFAULT_LIMIT,
    token: str | None = None,
    setting: str = "[sink] grpc_address",
) -> tuple[aio.Server, int]:
    """Build an OTLP/gRPC server bound to `address`; the caller starts and stops it.

    Args:
        ingest: takes every decoded request.
        address: ``host:port``; port 0 picks a free one.
        limit: bytes of a message at most, both as sent and after decompression.
        token: what the metadata ``authorization: Bearer`` must carry; None: every sender is taken.
        setting: the key that a user changes when the port is taken.

    Returns:
        The server, and the port that it is bound to.

    Raises:
        AddressInUseError: another program listens there.
        PostelError: the address cannot be listened on, for the reason that the message gives.
    """
    server = aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            # Linux lets two servers share a port with SO_REUSEPORT; half of the data would go astray in silence.
            ("grpc.so_reuseport", 0),
        ]
    )
    refusals = Refusals()
    for signal in Signal:
        handler: Handler = grpc.unary_unary_rpc_method_handler(_receiver(ingest, signal, refusals, limit, token))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(signal.service, {"Export": handler}),))
    service = TRACE_METHOD.split("/")[1]
    refuse: Handler = grpc.unary_unary_rpc_method_handler(_refuse_traces)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": refuse}),))
    # gRPC writes the reason of a failure to stderr in its own words, and raises without it. So the system is asked
    # first; what takes the port between the two lines is told less well.
    listen(address, setting).close()
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressInUseError(address, setting) from error
    return server, port


def _receiver(ingest: Ingest, signal: Signal, refusals: Refusals, limit: int, token: str | None) -> Any:
    async def receive(body: bytes, context: Context) -> bytes:
        try:
            bearer.check(_authorization(context), token)
            message = await codec.decode_aside(signal, body, codec.PROTOBUF, limit=limit)
            outcome = await ingest(signal, message)
        except Exception as error:  # noqa: BLE001 - the table of answers has one for each
            answer = refusals.answer(error, signal, context.peer())
            await context.abort(_CODES[answer.code], answer.reason, answer.trailers)
        return signal.response(outcome.rejected, outcome.reason).SerializeToString()

    return receive


def _authorization(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            return value
    return ""


async def _refuse_traces(_body: bytes, context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Postel takes metrics and logs, no traces")
