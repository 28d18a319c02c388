"""What can stand in the way of an OTLP request, the same on both ends of the wire.

    OtlpError
    |-- Retryable              try the same request again later
    `-- Refused                the same request will never be taken
        |-- Malformed          cannot be decoded
        |-- TooLarge           over the limit, before or after decompression
        |-- UnsupportedMedia   media type or content encoding that OTLP does not have
        `-- Unauthenticated    no or wrong token

A server raises them (its `ingest` too) and `postel.otlp.answers` turns them into the answer; a sender raises them
from the answer that it got. Source: OTLP specification 1.x, "Failures", "Failures 1", "OTLP/HTTP Throttling".
"""

from __future__ import annotations

from postel.errors import PostelError


class OtlpError(PostelError):
    """Base of everything that can go wrong between a sender and a server of OTLP."""


class Retryable(OtlpError):  # noqa: N818 - named for what the sender may do
    """The request was not taken now and may be sent again.

    Args:
        delay: seconds to wait first. None on a server: its default; None from a sender: the server named none.
        reason: why, for the log and the answer.
    """

    def __init__(self, delay: float | None = None, reason: str = "not now, try again") -> None:
        super().__init__(reason)
        self.delay = delay
        self.reason = reason


class Refused(OtlpError):  # noqa: N818 - as Retryable, and so its kinds
    """The request was refused for good; sending it again unchanged is of no use."""


class Malformed(Refused):
    """The body is not what its media type, encoding and schema say; the message names the place."""


class TooLarge(Refused):
    """The body is over the limit, as sent or after decompression."""


class UnsupportedMedia(Refused):
    """The media type is not protobuf or JSON, or the content encoding is not gzip, deflate or identity."""


class Unauthenticated(Refused):
    """The request carries no token, or not the one that is asked for."""
