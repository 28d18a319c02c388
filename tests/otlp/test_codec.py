from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from postel.otlp import codec
from postel.otlp.errors import Malformed, Refused, TooLarge, UnsupportedMedia
from postel.otlp.signal import Signal


def logs(body: str = "delivered") -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    record = (
        request.resource_logs.add()
        .scope_logs.add()
        .log_records.add(
            time_unix_nano=1_795_000_000_000_000_000,
            event_name="zonemta.delivery.accepted",
            severity_number=9,
            trace_id=bytes(range(16)),
            span_id=bytes(range(8)),
        )
    )
    record.body.string_value = body
    return request


def nested(levels: int) -> bytes:
    """A log record whose body is an array in an array in an array, by hand: protobuf writes nothing deeper than 100."""
    value = b"\x18\x01"  # AnyValue.int_value 1
    for _ in range(levels):
        value = field(5, field(1, value))  # AnyValue.array_value.values
    return field(1, field(2, field(2, field(5, value))))  # resource_logs, scope_logs, log_records, body


def field(number: int, content: bytes) -> bytes:
    length = len(content)
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *varint, length]) + content


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}


@pytest.mark.parametrize("content_type", [codec.PROTOBUF, codec.JSON, "application/json; charset=utf-8"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_media_type_in_every_encoding_reads_the_same(content_type: str, encoding: str) -> None:
    body = ENCODINGS[encoding](codec.encode(logs(), content_type))
    assert codec.decode(Signal.LOGS, body, content_type, encoding) == logs()


def test_an_empty_body_is_an_empty_request_in_protobuf_and_malformed_in_json() -> None:
    assert codec.decode(Signal.METRICS, b"", codec.PROTOBUF) == Signal.METRICS.request_class()
    with pytest.raises(Malformed, match="no JSON"):
        codec.decode(Signal.METRICS, b"", codec.JSON)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-protobufs", "application/json2", "json"])
def test_other_media_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMedia, match=r"media type"):
        codec.decode(Signal.LOGS, b"{}", content_type)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip,"])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedMedia, match="content encoding"):
        codec.decode(Signal.LOGS, b"{}", codec.JSON, encoding)


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_the_limit_holds_to_the_byte(encoding: str) -> None:
    plain = logs("x" * 5000).SerializeToString()
    body = ENCODINGS[encoding](plain)
    assert codec.decode(Signal.LOGS, body, codec.PROTOBUF, encoding, limit=len(plain)) == logs("x" * 5000)
    with pytest.raises(TooLarge, match=f"limit is {len(plain) - 1}|more than {len(plain) - 1}"):
        codec.decode(Signal.LOGS, body, codec.PROTOBUF, encoding, limit=len(plain) - 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_costs_no_more_memory_than_the_limit(encoding: str) -> None:
    bomb = ENCODINGS[encoding](bytes(200 << 20))
    limit = 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="after decompression"):
            codec.decode(Signal.LOGS, bomb, codec.PROTOBUF, encoding, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * limit


def test_a_gzip_stream_may_have_members_but_not_a_million() -> None:
    plain = logs("y" * 100).SerializeToString()
    members = gzip.compress(plain[:50]) + gzip.compress(plain[50:])
    assert codec.decode(Signal.LOGS, members, codec.PROTOBUF, "gzip") == logs("y" * 100)
    with pytest.raises(Malformed, match="members"):
        codec.decode(Signal.LOGS, gzip.compress(b"") * 100_000, codec.PROTOBUF, "gzip")


@pytest.mark.parametrize("cut", [0, 1, 9, 10, 15, -8, -1])
def test_a_cut_stream_is_malformed(cut: int) -> None:
    body = gzip.compress(logs().SerializeToString())[:cut]
    with pytest.raises(Malformed, match="gzip stream"):
        codec.decode(Signal.LOGS, body, codec.PROTOBUF, "gzip")


def test_what_follows_a_stream_is_malformed() -> None:
    with pytest.raises(Malformed, match="no gzip stream"):
        codec.decode(Signal.LOGS, gzip.compress(b"") + b"more", codec.PROTOBUF, "gzip")


def test_a_wrong_checksum_is_malformed() -> None:
    body = bytearray(gzip.compress(logs().SerializeToString()))
    body[-8] ^= 1
    with pytest.raises(Malformed, match="data check"):
        codec.decode(Signal.LOGS, bytes(body), codec.PROTOBUF, "gzip")


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\x05ab",  # shorter than its length says
        b"\x1f\x8b",  # a wire type that does not exist
    ],
)
def test_broken_protobuf_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="no protobuf ExportLogsServiceRequest"):
        codec.decode(Signal.LOGS, body, codec.PROTOBUF)


def test_protobuf_nested_to_its_limit_is_read_and_deeper_is_malformed() -> None:
    # Two messages a level, below the four of resource, scope, record and body: 100.
    assert codec.decode(Signal.LOGS, nested(48), codec.PROTOBUF).SerializeToString() == nested(48)
    for levels in (49, 5000):
        with pytest.raises(Malformed):
            codec.decode(Signal.LOGS, nested(levels), codec.PROTOBUF)


VALID = [
    (media, encoding, compress(codec.encode(logs(), media)))
    for media in (codec.PROTOBUF, codec.JSON)
    for encoding, compress in (("", bytes), ("gzip", gzip.compress))
]


@given(
    sample=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    keep=st.floats(0, 1),
    tail=st.binary(max_size=8),
)
def test_mutated_bytes_are_read_or_refused(
    sample: tuple[str, str, bytes], changes: list[tuple[float, int]], keep: float, tail: bytes
) -> None:
    media, encoding, original = sample
    body = bytearray(original)
    for place, byte in changes:
        body[int(place * len(body))] = byte
    mutated = bytes(body[: round(keep * len(body))]) + tail
    with contextlib.suppress(Refused):
        request = codec.decode(Signal.LOGS, mutated, media, encoding, limit=1 << 16)
        # What was read can be stored and sent on.
        assert codec.decode(Signal.LOGS, request.SerializeToString(), codec.PROTOBUF) == request


@given(st.binary(max_size=200), st.sampled_from([codec.PROTOBUF, codec.JSON]), st.sampled_from(["", "gzip", "deflate"]))
def test_any_bytes_are_read_or_refused(body: bytes, media: str, encoding: str) -> None:
    with contextlib.suppress(Refused):
        assert isinstance(codec.decode(Signal.METRICS, body, media, encoding), ExportMetricsServiceRequest)


async def test_a_big_body_is_decoded_beside_the_event_loop_with_the_same_result() -> None:
    big = logs("z" * 100_000)
    body = big.SerializeToString()
    assert await codec.decode_aside(Signal.LOGS, body, codec.PROTOBUF) == (big, body)
    with pytest.raises(Malformed):
        await codec.decode_aside(Signal.LOGS, b"\xff" * 100_000, codec.PROTOBUF)
