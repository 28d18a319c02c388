"""OTLP/gRPC from the sender's side.

Sources: OTLP specification 1.x, "OTLP/gRPC Response" (the table of retryable codes) and "OTLP/gRPC Throttling"
(RESOURCE_EXHAUSTED is retryable only with RetryInfo).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Literal
from urllib.parse import SplitResult

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc import aio

from postel.errors import SettingsError
from postel.listening import is_loopback
from postel.otlp.answers import RETRY_TRAILER, STATUS_TRAILER
from postel.otlp.errors import Malformed, Refused, Retryable, TooLarge, Unauthenticated
from postel.otlp.sender import Sent, clip_delay
from postel.otlp.signal import Signal
from postel.otlp.tls_files import TlsFiles

RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_REFUSALS: dict[grpc.StatusCode, type[Refused]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Malformed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooLarge,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
}
# gRPC's own backoff grows to two minutes, and a send within it fails unsent; the spool paces the retries already.
_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 500), ("grpc.max_reconnect_backoff_ms", 5000))
_DEFAULT_PORT = 4317


class GrpcSender:
    """Sends over one channel; arguments as in `postel.otlp.client.create_sender`."""

    def __init__(
        self,
        endpoint: SplitResult,
        headers: Mapping[str, str],
        *,
        compression: Literal["gzip", "none"],
        timeout: float,
        files: TlsFiles,
    ) -> None:
        host = endpoint.hostname or ""
        self._target = f"{f'[{host}]' if ':' in host else host}:{endpoint.port or _DEFAULT_PORT}"
        self._files = files
        self._stamp = files.stamp()
        self._credentials = _credentials(files) if endpoint.scheme == "https" else None
        self._metadata = aio.Metadata(*((name.lower(), value) for name, value in headers.items()))
        self._compression = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        self._timeout = timeout
        # As in the HTTP sender: the environment's proxy is the way out of this host.
        self._options = (*_OPTIONS, ("grpc.enable_http_proxy", int(not is_loopback(host))))
        self._channel: aio.Channel | None = None

    async def send(self, signal: Signal, body: bytes) -> Sent:
        """See `postel.otlp.client.Sender.send`."""
        await self._renew()
        if self._channel is None:
            self._channel = self._open()
        # Without serializers the call takes and gives bytes.
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(signal.method)
        try:
            answer = await call(body, metadata=self._metadata, timeout=self._timeout)
        except aio.AioRpcError as error:
            trailers = [(str(key), value) for key, value in error.trailing_metadata() or ()]
            raise verdict(error.code(), f"{self._target}: {error.details()}", trailers) from error
        response = signal.response_class()
        try:
            response.ParseFromString(answer)
        except DecodeError:
            return Sent()  # OK means taken
        return Sent(*signal.partial_success(response))

    async def close(self) -> None:
        """See `postel.otlp.client.Sender.close`."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _renew(self) -> None:
        """As of the HTTP sender; a channel keeps the files that it was opened with."""
        if self._credentials is None or (stamp := self._files.stamp()) == self._stamp:
            return
        with contextlib.suppress(SettingsError):
            self._credentials = _credentials(self._files)
            self._stamp = stamp
            before, self._channel = self._channel, None
            if before is not None:
                # A request of the other signal may be under way on it, and ends within its own time-out.
                await before.close(self._timeout)

    def _open(self) -> aio.Channel:
        if self._credentials is None:
            return aio.insecure_channel(self._target, self._options, self._compression)
        return aio.secure_channel(self._target, self._credentials, self._options, self._compression)


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Raises SettingsError as `TlsFiles.context`, which reads them first: gRPC would take what is no certificate."""
    files.context()
    authorities = files.authorities.read_bytes() if files.authorities else None
    if files.certificate is None:
        return grpc.ssl_channel_credentials(authorities)
    return grpc.ssl_channel_credentials(
        authorities, (files.key or files.certificate).read_bytes(), files.certificate.read_bytes()
    )


def verdict(
    code: grpc.StatusCode, details: str, trailers: Iterable[tuple[str, str | bytes]] = ()
) -> Retryable | Refused:
    """Read a failed call: the exception that says whether the same request may be sent again, and when.

    Args:
        code: the status of the call, not OK.
        details: its words.
        trailers: the trailing metadata.
    """
    delay = retry_delay(trailers)
    reason = f"gRPC {code.name}: {details}"
    if code in RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None):
        return Retryable(delay, reason)
    return _REFUSALS.get(code, Refused)(reason)


def retry_delay(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Find RetryInfo in either trailer that carries it; None where there is none.

    Returns:
        Seconds from 0 to `postel.otlp.answers.MAX_DELAY`.
    """
    for key, value in trailers:
        if not isinstance(value, bytes):
            continue
        try:
            if key == RETRY_TRAILER:
                return _seconds(RetryInfo.FromString(value))
            if key == STATUS_TRAILER:
                for detail in Status.FromString(value).details:
                    info = RetryInfo()
                    if detail.Unpack(info):
                        return _seconds(info)
        except DecodeError:
            continue
    return None


def _seconds(info: RetryInfo) -> float:
    return clip_delay(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
