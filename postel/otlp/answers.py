"""The table of answers: what `ingest` says of a request, as gRPC and as HTTP.

| what came                                   | gRPC                                      | HTTP                  |
|---------------------------------------------|-------------------------------------------|-----------------------|
| stored, a duplicate, or empty               | OK, `partial_success` unset               | 200                   |
| some dead-lettered                          | OK + `partial_success`                    | 200                   |
| `Malformed`                                 | INVALID_ARGUMENT                          | 400                   |
| `Retryable` and every unforeseen exception  | UNAVAILABLE + RetryInfo in both trailers  | 503 + Retry-After     |
| `TooLarge`                                  | RESOURCE_EXHAUSTED, no RetryInfo          | 413                   |
| `Unauthenticated`                           | UNAUTHENTICATED                           | 401                   |
| `UnsupportedMedia`                          | INVALID_ARGUMENT                          | 415                   |

Pure: no I/O, no gRPC import (status codes are the numbers of ``google/rpc/code.proto``, so that an agent without
gRPC does not load it). Sources: OTLP specification 1.x, "OTLP/gRPC Response", "OTLP/gRPC Throttling" (RetryInfo),
"OTLP/HTTP Response" (a Status body in the request's media type), "OTLP/HTTP Throttling" (Retry-After);
RFC 9110 section 10.2.3. An unforeseen exception is retryable because a bug in the receiver must not cost the sender
its data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from postel.otlp.errors import Malformed, Retryable, TooLarge, Unauthenticated, UnsupportedMedia
from postel.otlp.signal import ExportRequest, Signal

# What a server asks for when the one who raised Retryable named no delay, in seconds.
DEFAULT_DELAY = 5.0
# Seconds. More is a mistake, of a receiver's code or of a proxy's header, that would keep a sender away for days.
MAX_DELAY = 3600.0
# Bytes of a reason. It travels in HTTP/2 trailers, percent-encoded and once more in the details, and clients take
# 8 KiB for all of them together.
MAX_REASON = 1024

STATUS_TRAILER = "grpc-status-details-bin"
RETRY_TRAILER = "google.rpc.retryinfo-bin"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request that was taken.

    Args:
        rejected: data points or log records of it that were not stored (and are now in `dead_letter`).
        reason: why, in words for a human; without `rejected` it is a warning to the sender.
    """

    rejected: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        if self.rejected < 0:
            raise ValueError(f"rejected is a count, not {self.rejected}")


class Ingest(Protocol):
    """Takes a decoded request and returns only when it is safe (committed, or in the spool).

    Raises `Retryable` when it cannot now; whatever else it raises is answered as retryable too, and logged.
    """

    async def __call__(self, signal: Signal, request: ExportRequest, encoded: bytes | None = None, /) -> Outcome:
        """Take a request.

        Args:
            signal: what it is.
            request: a message of `signal.request_class`.
            encoded: it as protobuf, where it came so: what was sent, in whatever of protobuf's ways.
        """


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to a request that was not taken.

    Args:
        code: number of ``google/rpc/code.proto``.
        http_status: the HTTP status code.
        reason: for a human, at most `MAX_REASON` bytes of UTF-8.
        delay: seconds until a retry; None: do not retry.
        foreseen: False for an exception that nobody raised on purpose; it belongs into the log.
    """

    code: int
    http_status: int
    reason: str
    delay: float | None = None
    foreseen: bool = True

    @property
    def status(self) -> Status:
        """The Status message: the HTTP body, and the gRPC details where a retry is asked for."""
        status = Status(code=self.code, message=self.reason)
        if self.delay is not None:
            status.details.add().Pack(self._retry_info(self.delay))
        return status

    @property
    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """The gRPC trailing metadata: RetryInfo under both names in use, nothing for what is final."""
        if self.delay is None:
            return ()
        return (
            (STATUS_TRAILER, self.status.SerializeToString()),
            (RETRY_TRAILER, self._retry_info(self.delay).SerializeToString()),
        )

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that this answer carries beside its body."""
        if self.delay is not None:
            # RFC 9110: whole seconds; rounding up never brings the sender back too early.
            return {"Retry-After": str(max(1, math.ceil(self.delay)))}
        if self.code == code_pb2.UNAUTHENTICATED:
            return {"WWW-Authenticate": "Bearer"}
        return {}

    @staticmethod
    def _retry_info(delay: float) -> RetryInfo:
        nanos = round(delay * 1e9)
        return RetryInfo(retry_delay=Duration(seconds=nanos // 10**9, nanos=nanos % 10**9))


_FINAL: tuple[tuple[type[Exception], int, int], ...] = (
    (Malformed, code_pb2.INVALID_ARGUMENT, 400),
    (TooLarge, code_pb2.RESOURCE_EXHAUSTED, 413),
    (Unauthenticated, code_pb2.UNAUTHENTICATED, 401),
    (UnsupportedMedia, code_pb2.INVALID_ARGUMENT, 415),
)


def failure(error: Exception) -> Failure:
    """Look the answer to `error` up in the table; what is not in it is retryable and not foreseen."""
    for kind, code, http_status in _FINAL:
        if isinstance(error, kind):
            return Failure(code, http_status, _cut(str(error)))
    if isinstance(error, Retryable):
        asked = error.delay
        delay = asked if asked is not None and 0 <= asked <= MAX_DELAY else DEFAULT_DELAY
        return Failure(code_pb2.UNAVAILABLE, 503, _cut(error.reason), delay)
    # Its text stays in the log: it may hold what is no business of the sender.
    return Failure(code_pb2.UNAVAILABLE, 503, "internal error, try again", DEFAULT_DELAY, foreseen=False)


def _cut(reason: str) -> str:
    return reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore")
