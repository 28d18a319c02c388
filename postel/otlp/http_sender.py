"""OTLP/HTTP from the sender's side, in protobuf.

Sources: OTLP specification 1.x, "OTLP/HTTP Response" (429, 502, 503 and 504 are retryable, all other failures are
not) and "OTLP/HTTP Throttling"; RFC 9110 section 10.2.3 (Retry-After in seconds or as a date).
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import SplitResult

import httpx
import orjson
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from postel.errors import SettingsError
from postel.listening import is_loopback
from postel.otlp import codec, json_mapping
from postel.otlp.errors import Malformed, Refused, Retryable, TooLarge, Unauthenticated, UnsupportedMedia
from postel.otlp.sender import Sent, clip_delay
from postel.otlp.signal import Signal
from postel.otlp.tls_files import TlsFiles

RETRYABLE = frozenset({429, 502, 503, 504})
_REFUSALS: dict[int, type[Refused]] = {
    400: Malformed,
    401: Unauthenticated,
    403: Unauthenticated,
    413: TooLarge,
    415: UnsupportedMedia,
}
# An answer is a short Status; a proxy's error page is not worth more memory.
_MAX_ANSWER = 64 << 10
# Level 1 makes a request of points a tenth of its size; level 6 takes four times as long for a fifth less.
_GZIP_LEVEL = 1


class HttpSender:
    """Sends over one pool of kept connections; arguments as in `postel.otlp.client.create_sender`."""

    def __init__(
        self,
        endpoint: SplitResult,
        headers: Mapping[str, str],
        *,
        compression: Literal["gzip", "none"],
        timeout: float,
        files: TlsFiles,
    ) -> None:
        self._base = endpoint.geturl().rstrip("/")
        self._gzip = compression == "gzip"
        self._timeout = timeout
        self._hint = "; does it want another certificate?" if endpoint.scheme == "https" else "; does it want https?"
        self._files = files
        self._stamp = files.stamp()
        self._context = _trust(endpoint.scheme, files)
        self._client = httpx.AsyncClient(
            headers={"content-type": codec.PROTOBUF, **headers},
            timeout=timeout,
            verify=self._context,
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=2),
            # The environment's proxy is the way out of this host, not the way to its own Collector.
            trust_env=not is_loopback(endpoint.hostname or ""),
        )

    async def send(self, signal: Signal, body: bytes) -> Sent:
        """See `postel.otlp.client.Sender.send`."""
        self._renew()
        headers = {}
        if self._gzip:
            body = await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL, mtime=0)
            headers["content-encoding"] = "gzip"
        try:
            # httpx's own timeout is per read; a receiver that trickles bytes would hold the spool for ever.
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", self._base + signal.path, content=body, headers=headers) as response,
            ):
                answer = await _read(response)
        except TimeoutError as error:
            raise Retryable(None, f"{self._base}: no answer within {self._timeout:g} s") from error
        except (httpx.TransportError, ssl.SSLError) as error:
            # Who wants TLS, or another certificate than is shown (TLS 1.3 has that said when the handshake is over: an
            # SSLError, which httpx hands on as it is), may be gone before its word is read.
            why = str(error) or f"{type(error).__name__}, the receiver ended the connection{self._hint}"
            raise Retryable(None, f"{self._base}: {why}") from error
        return verdict(signal, response.status_code, response.headers, answer)

    async def close(self) -> None:
        """See `postel.otlp.client.Sender.close`."""
        await self._client.aclose()

    def _renew(self) -> None:
        """Let new connections have what TLS's files hold; where one is half written, those of the next request."""
        stamp = self._files.stamp()
        if stamp != self._stamp:
            with contextlib.suppress(SettingsError):
                self._files.load_into(self._context)
                self._stamp = stamp


def verdict(signal: Signal, status: int, headers: Mapping[str, str], body: bytes | None) -> Sent:
    """Read an answer.

    Args:
        signal: what was sent.
        status: the HTTP status code.
        headers: of the answer, with names in any case that the mapping understands.
        body: of the answer, decompressed; None: it cannot be.

    Raises:
        Retryable: the status is one of `RETRYABLE`.
        Refused: every other status but 2xx; a 2xx with a body that is no OTLP answer (a captive portal, another
            server's port): nobody said that the request was taken.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110 section 15.3
        return _taken(signal, status, media_type, body)
    reason = f"HTTP {status}: {_reason(media_type, body)}".removesuffix(": ")
    if status in RETRYABLE:
        raise Retryable(retry_after(headers.get("retry-after", "")), reason)
    refusal = _REFUSALS.get(status, Refused)
    if refusal is Malformed and media_type not in (codec.PROTOBUF, codec.JSON):
        # Not the words of an OTLP receiver: nginx, say, that was asked for HTTP on its HTTPS port. The request is
        # not to blame.
        refusal = Refused
    raise refusal(reason)


def _taken(signal: Signal, status: int, media_type: str, body: bytes | None) -> Sent:
    """Read the body of a 2xx; an empty one is a whole success.

    Protobuf answers protobuf ("OTLP/HTTP Response"). Receivers that answer it in JSON have taken the request all the
    same, but where nothing in that JSON is OTLP's it is somebody else's.
    """
    response = signal.response_class()
    try:
        if media_type == codec.JSON and body:
            json_mapping.decode(body, response)
            if orjson.loads(body).keys() - {"partialSuccess", "partial_success"}:
                raise Malformed("not OTLP's")  # noqa: TRY301 - caught with the decoder's own
        elif media_type == codec.PROTOBUF and body is not None:
            response.ParseFromString(body)
        elif body != b"":
            raise Malformed("not OTLP's")  # noqa: TRY301
    except (Malformed, DecodeError):
        reason = _reason(media_type, body)
        raise Refused(f"HTTP {status}, but the answer is not OTLP's: {reason}".removesuffix(": ")) from None
    return Sent(*signal.partial_success(response))


def retry_after(value: str, now: datetime | None = None) -> float | None:
    """Read a Retry-After header.

    Args:
        value: seconds or an HTTP date; empty where there is none.
        now: the time that a date counts from; None: now.

    Returns:
        Seconds from 0 to `postel.otlp.answers.MAX_DELAY`; None where the header says nothing.
    """
    value = value.strip()
    if value.isdecimal():
        return clip_delay(float(value))
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return clip_delay((date.replace(tzinfo=date.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds())


def _reason(media_type: str, body: bytes | None) -> str:
    """The words of a Status body, or the beginning of whatever else came."""
    body = body or b""
    try:
        if media_type == codec.PROTOBUF:
            return str(Status.FromString(body).message)
        if media_type == codec.JSON:
            return str(orjson.loads(body)["message"])
    except (DecodeError, orjson.JSONDecodeError, KeyError, TypeError):
        pass
    return " ".join(body[:200].decode(errors="replace").split())


async def _read(response: httpx.Response) -> bytes | None:
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MAX_ANSWER:
                break
    except httpx.DecodingError:
        return None
    return bytes(body[:_MAX_ANSWER])


def _trust(scheme: str, files: TlsFiles) -> ssl.SSLContext:
    if scheme == "http":
        # Nothing is verified on plain HTTP; an empty context saves the 2 MiB of the usual authorities.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return files.context()
