"""What the spool keeps: serialized OTLP requests, and how several become one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from postel.otlp.signal import Signal


@dataclass(frozen=True, slots=True)
class Request:
    """A serialized OTLP export request.

    Attributes:
        signal: metrics or logs.
        body: the protobuf message's bytes.
        items: its data points or log records.
        begins: it holds the point with which a counter of a typed table was first met. Readers count that point as
            nothing and every other first point in full, so it leaves the spool unsent last of all.
    """

    signal: Signal
    body: bytes
    items: int
    begins: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Requests of one signal, joined in order: concatenated messages of one type are their merged message.

    Source: protobuf encoding, "Last One Wins" (repeated fields are concatenated).
    """

    signal: Signal
    body: bytes
    items: int
    ids: tuple[int, ...]


def joined(signal: Signal, requests: Iterable[tuple[int, int, bytes]], limit: int) -> Block | None:
    """The first requests, together at most ``limit`` bytes (one alone may be larger); None where there is none.

    Args:
        signal: of all of them.
        requests: id, items and body of each, in order.
        limit: bytes.
    """
    bodies: list[bytes] = []
    ids: list[int] = []
    size = items = 0
    for request_id, count, body in requests:
        if bodies and size + len(body) > limit:
            break
        bodies.append(body)
        ids.append(request_id)
        size += len(body)
        items += count
        if size >= limit:
            break
    return Block(signal, b"".join(bodies), items, tuple(ids)) if ids else None
