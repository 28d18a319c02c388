"""Requests that are wrong in every way that a sender can be wrong, each the same again by its seed.

What hypothesis makes (`support.otlp_requests`) is right but odd; here its bytes, its JSON, its compression and its
headers are broken on top of that.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import orjson
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given

from postel.otlp import codec
from postel.otlp.signal import TRACE_METHOD, TRACE_PATH, ExportRequest, Signal
from support.otlp_requests import any_request


@dataclass(frozen=True)
class Sending:
    """What goes over the wire.

    Args:
        signal: of the request; of traces, too, it is one.
        body: as it is sent.
        headers: of HTTP; empty: it goes over gRPC.
        method: the gRPC method, or HTTP's path.
    """

    signal: Signal
    body: bytes
    method: str
    headers: Mapping[str, str] = field(default_factory=dict)


def structures(seed: int, count: int) -> list[tuple[Signal, ExportRequest]]:
    """So many requests of hypothesis's, the same for the same seed."""
    found: list[tuple[Signal, ExportRequest]] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(any_request)
    def collect(request: tuple[Signal, ExportRequest]) -> None:
        found.append(request)

    collect()
    return found


def mutants(chance: random.Random, signal: Signal, request: Message, count: int) -> Iterator[Sending]:
    """So many ways to send a request wrongly."""
    protobuf, json = codec.encode(request, codec.PROTOBUF), codec.encode(request, codec.JSON)
    for _ in range(count):
        media, body = chance.choice([(codec.PROTOBUF, protobuf), (codec.JSON, json)])
        if media == codec.JSON and chance.random() < 0.5:
            body = orjson.dumps(_broken_value(chance, orjson.loads(body)))
        if chance.random() < 0.7:
            body = _broken_bytes(chance, body)
        coding, body = ("gzip", _BOMB) if chance.random() < 0.005 else chance.choice(_CODINGS)(chance, body)
        if media == codec.PROTOBUF and chance.random() < 0.5:
            yield Sending(signal, body, chance.choices([signal.method, TRACE_METHOD], [30, 1])[0])
        else:
            headers = {"content-type": media, **({"content-encoding": coding} if coding else {})}
            path = chance.choices([signal.path, TRACE_PATH, _other(signal).path], [30, 1, 1])[0]
            of = _other(signal) if path == _other(signal).path else signal
            yield Sending(of, body, path, _broken_headers(chance, headers))


def _other(signal: Signal) -> Signal:
    return Signal.LOGS if signal is Signal.METRICS else Signal.METRICS


def _plain(_chance: random.Random, body: bytes) -> tuple[str, bytes]:
    return "", body


def _gzip(_chance: random.Random, body: bytes) -> tuple[str, bytes]:
    return "gzip", gzip.compress(body, 1)


def _broken_gzip(chance: random.Random, body: bytes) -> tuple[str, bytes]:
    return "gzip", _broken_bytes(chance, gzip.compress(body, 1))


def _members(chance: random.Random, body: bytes) -> tuple[str, bytes]:
    middle = chance.randint(0, len(body))
    return "gzip", gzip.compress(body[:middle], 1) + gzip.compress(body[middle:], 1)


def _deflate(_chance: random.Random, body: bytes) -> tuple[str, bytes]:
    return "deflate", zlib.compress(body, 1)


def _not_what_it_says(chance: random.Random, body: bytes) -> tuple[str, bytes]:
    return chance.choice([("gzip", body), ("", gzip.compress(body, 1)), ("identity", body)])


# 17 MiB, in as many KiB.
_BOMB = gzip.compress(bytes(17 << 20), 1)
_Coding = Callable[[random.Random, bytes], tuple[str, bytes]]
_CODINGS: list[_Coding] = [_plain] * 6 + [_gzip, _gzip, _broken_gzip, _members, _deflate, _not_what_it_says]


def _broken_bytes(chance: random.Random, body: bytes) -> bytes:
    broken = bytearray(body)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at = chance.randint(0, len(broken))
        end = min(len(broken), at + chance.choice([1, 1, 2, 8, 64]))
        match chance.randrange(6):
            case 0:
                broken[at:end] = chance.randbytes(end - at)
            case 1:
                broken[at:end] = b""
            case 2:
                broken[at:at] = broken[at:end] * chance.choice([1, 2, 50])
            case 3:
                broken[at:end] = chance.choice(_ENDS)
            case 4 if at < len(broken):
                broken[at] ^= 1 << chance.randrange(8)
            case _:
                del broken[at:]
    return bytes(broken)


# Lengths, the ends of the ranges of numbers, and a message in a message in a message.
_ENDS = [b"\xff" * 9 + b"\x01", b"\x80", b"\x00", b"\xff", b"\x7f", b"\x0a" * 120]
_NUMBERS: list[Any] = [None, True, -1, 0, 2**63, -(2**63), 2**64 - 1, 1.5, 1e300]
_TEXTS = ["", "NaN", "-Infinity", "1e3", "٣", "18446744073709551616", "\0", "\ufffd" * 3000, "x" * 70_000]
_ODD = [*_NUMBERS, *_TEXTS, [], {}, [[]], {"": {}}, ["a", 1], {"stringValue": "s", "intValue": 1}]
_NAMES = ["", "unknown", "value", "timeUnixNano", "asInt", "as_int", "dataPoints", "logRecords"]


def _broken_value(chance: random.Random, value: Any) -> Any:
    """JSON with one value or name replaced, at a depth of chance."""
    if isinstance(value, (dict, list)) and value and chance.random() < 0.9:
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        if isinstance(value, dict) and chance.random() < 0.1:
            value[chance.choice(_NAMES)] = value.pop(key)
        else:
            value[key] = _broken_value(chance, value[key])
        return value
    return chance.choice(_ODD)


def _broken_headers(chance: random.Random, headers: dict[str, str]) -> dict[str, str]:
    if chance.random() < 0.9:
        return headers
    odd = [
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": ""},
        {"content-type": "application/x-protobuf"},
        {"content-encoding": "zstd"},
        {"content-encoding": "gzip, gzip"},
        {"authorization": "Bearer nobody asked for it"},
    ]
    return {**headers, **chance.choice(odd)}
