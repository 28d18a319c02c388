"""OTLP/gRPC as a grpc.aio server whose handlers get raw bytes, so that every answer is ours.

Contract: a request is answered by the table in `postel.otlp.answers`; OK only after `ingest` returned. A
deserializer of grpc's own would answer INTERNAL to a broken message; so the bytes are decoded here. gRPC itself
answers RESOURCE_EXHAUSTED to a message over the limit, as sent or after decompression, and adds no RetryInfo.

What all requests together have in memory is bounded by `postel.otlp.admission`. Of a unary handler gRPC reads and
decompresses the message first; so these are handlers of a stream, which is the same on the wire, and read its one
message when they have a place. gRPC's own `maximum_concurrent_rpcs` is of no use: it answers RESOURCE_EXHAUSTED
without RetryInfo, which a sender must take as "never".

Source: OTLP specification 1.x, "OTLP/gRPC"; ``opentelemetry/proto/collector/*/v1/*_service.proto``.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, TypeAlias

import grpc
from grpc import aio

from postel.errors import AddressInUseError
from postel.listening import listen
from postel.otlp import codec
from postel.otlp import token as bearer
from postel.otlp.admission import ADMISSION, Admission, Body
from postel.otlp.answers import Failure, Ingest, Outcome
from postel.otlp.errors import Malformed, Retryable
from postel.otlp.handshakes import Handshakes
from postel.otlp.refusals import Refusals
from postel.otlp.signal import TRACE_METHOD, Signal
from postel.otlp.tls_door import Shown, TlsDoor

# The time in which a message must be there: what an exporter waits for its answer at most, by default, is 10 s.
_READ_SECONDS = 10.0
_HANDSHAKE_MS = 10_000
_STREAMS = 100
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
    admission: Admission = ADMISSION,
    tls: TlsDoor | None = None,
    connections: int = 1000,
) -> tuple[aio.Server, int]:
    """Build an OTLP/gRPC server bound to `address`; the caller starts and stops it.

    Args:
        ingest: takes every decoded request.
        address: ``host:port``; port 0 picks a free one.
        limit: bytes of a message at most, both as sent and after decompression.
        token: what the metadata ``authorization: Bearer`` must carry; None: every sender is taken.
        setting: the key that a user changes when the port is taken.
        admission: how much is in memory at once.
        tls: what it shows; None: no TLS.
        connections: at once at most; who comes then is closed at once, and comes again.

    Returns:
        The server, and the port that it is bound to.

    Raises:
        AddressInUseError: another program listens there.
        PostelError: the address cannot be listened on, for the reason that the message gives.
    """
    server = aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            # Decompressed here, once there is room for it.
            ("grpc.per_message_decompression", 0),
            # Otherwise up to several MiB of each message are read ahead, before anybody asks for it.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_allowed_incoming_connections", connections),
            # TLS, and the first words of HTTP/2: who is slower only holds a connection.
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            # Of one connection. A Collector has eight requests under way, and what waits is bounded for all together.
            ("grpc.max_concurrent_streams", _STREAMS),
            # Who went away without a word, or asks for nothing, frees its connection; a sender opens another one.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.max_connection_idle_ms", 300_000),
            # Linux lets two servers share a port with SO_REUSEPORT; half of the data would go astray in silence.
            ("grpc.so_reuseport", 0),
        ]
    )
    refusals = Refusals()
    handshakes = Handshakes(setting, 2 * _HANDSHAKE_MS / 1000) if tls else None
    for signal in Signal:
        receive = _receiver(ingest, signal, refusals, admission, handshakes, limit=limit, token=token)
        handler: Handler = grpc.stream_unary_rpc_method_handler(receive)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(signal.service, {"Export": handler}),))
    service = TRACE_METHOD.split("/")[1]
    refuse: Handler = grpc.stream_unary_rpc_method_handler(_refuse_traces)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": refuse}),))
    # gRPC writes the reason of a failure to stderr in its own words, and raises without it. So the system is asked
    # first; what takes the port between the two lines is told less well.
    listen(address, setting).close()
    try:
        if tls and handshakes:
            port = server.add_secure_port(address, _credentials(tls, handshakes))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressInUseError(address, setting) from error
    return server, port


def _credentials(tls: TlsDoor, handshakes: Handshakes) -> grpc.ServerCredentials:
    """What is asked at each handshake what it shows.

    Where senders show certificates, each handshake is given a configuration of its own. gRPC has no switch for
    sessions, and one that is taken up again shows no certificate: an expired one would be taken for days. With another
    configuration gRPC forgets the keys of the tickets that it gave.
    """
    given = tls.shown()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        handshakes.begun()
        shown = tls.shown()
        if shown is given and not tls.wants_certificates:
            return None
        given = shown
        return _configuration(shown)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        renewed,  # type: ignore[arg-type] # None is "no other", by grpc's documentation
        require_client_authentication=tls.wants_certificates,
    )


def _configuration(shown: Shown) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(shown.key, shown.chain)], root_certificates=shown.clients)


def _receiver(
    ingest: Ingest,
    signal: Signal,
    refusals: Refusals,
    admission: Admission,
    handshakes: Handshakes | None,
    *,
    limit: int,
    token: str | None,
) -> Any:
    async def receive(_messages: object, context: Context) -> bytes:
        if handshakes:
            handshakes.called(context.peer())
        answer: Outcome | Failure
        try:
            answer = await take(context)
        except Exception as error:  # noqa: BLE001 - the table of answers has one for each
            answer = refusals.answer(error, signal, context.peer())
        if isinstance(answer, Failure):
            # Not inside the `except`, nor in the frame that has the message: gRPC keeps the exception of an abort, and
            # with it these, until a garbage collection.
            await context.abort(_CODES[answer.code], answer.reason, answer.trailers)
        return signal.response(answer.rejected, answer.reason).SerializeToString()

    async def take(context: Context) -> Outcome:
        bearer.check(_authorization(context), token)
        async with admission.place():
            message = await _read(context)
            body = Body(message, coding=_coding(message), limit=limit)
            del message
            room = await admission.room(body)
        return await admission.finish(room, ingest, signal, body)

    return receive


async def _read(context: Context) -> bytes:
    """The one message of a call; by `read`, because the iterator of messages would keep the last one.

    Raises:
        Malformed: there is none.
        Retryable: it does not come in time.
    """
    try:
        async with asyncio.timeout(_READ_SECONDS):
            message = await context.read()
    except TimeoutError:
        raise Retryable(None, f"the message did not come within {_READ_SECONDS:g} s") from None
    if not isinstance(message, bytes):
        raise Malformed("the call brings no message")
    return message


def _coding(message: bytes) -> str:
    """How a message is compressed; gRPC keeps from its handlers what the sender says of it.

    No request begins like that: field 1 is the only one that it has.
    """
    if message[:2] == b"\x1f\x8b":
        return "gzip"
    # RFC 1950 section 2.2: deflate with a window of 32 KiB, and a check of the two bytes.
    if message[:1] == b"\x78" and int.from_bytes(message[:2], "big") % 31 == 0:
        return "deflate"
    return ""


def _authorization(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str):
            return value
    return ""


async def _refuse_traces(_messages: object, context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Postel takes metrics and logs, no traces")
