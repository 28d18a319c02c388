"""What a sender of serialized OTLP requests is, and what it hears back.

Contract: `Sender.send` sends once and returns `Sent` when the receiver took the request (all of it, or all but
`rejected` items that must not be sent again). It raises `Retryable` when the same bytes may be sent later, and a
kind of `Refused` when they may not. It never retries by itself: the spool decides, with the delay that the receiver
asked for.

Source: OTLP specification 1.x, "OTLP/gRPC Response" and "OTLP/HTTP Response" (partial success, failures, throttling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from postel.otlp.answers import MAX_DELAY
from postel.otlp.signal import Signal


@dataclass(frozen=True, slots=True)
class Sent:
    """The receiver took the request.

    Args:
        rejected: data points or log records in it that it did not take and does not want again.
        reason: why, or a warning when `rejected` is 0.
    """

    rejected: int = 0
    reason: str = ""


class Sender(Protocol):
    """One connection to one receiver."""

    async def send(self, signal: Signal, body: bytes) -> Sent:
        """Send one request.

        Args:
            signal: what `body` is.
            body: a serialized `signal.request_class`, not compressed.

        Raises:
            Retryable: the receiver is away, busy or slow; `delay` is what it asked for, in seconds, or None.
            Refused: the receiver will never take this request; its kind and message say why.
        """

    async def close(self) -> None:
        """Give the connection back."""


def clip_delay(seconds: float) -> float:
    """Bring a delay that a receiver named into 0 to `postel.otlp.answers.MAX_DELAY` seconds."""
    return min(max(seconds, 0.0), MAX_DELAY)
