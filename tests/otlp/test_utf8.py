"""What is no UTF-8 costs a character, whatever stands around it, and nothing else of the request."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from postel.otlp import codec, json_mapping
from postel.otlp.errors import Malformed
from postel.otlp.signal import Signal
from postel.otlp.utf8 import mend_json, mend_protobuf

# Stands where wrong bytes will, of the same length: every length around it stays right.
MARK, WRONG, MENDED = "@@@@", b"\xff\xfe\xc3\x28", "\ufffd\ufffd\ufffd("

texts = st.sampled_from(["", "ok", "grün", "☂" * 50, f"a{MARK}b", MARK * 40])
values: st.SearchStrategy[AnyValue] = st.recursive(
    st.one_of(
        st.builds(AnyValue, string_value=texts),
        st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(AnyValue, bytes_value=st.binary(max_size=5).filter(lambda found: b"@" not in found)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda v: AnyValue(array_value=ArrayValue(values=v)), st.lists(inner, max_size=3)),
        st.builds(
            lambda v: AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=x) for x in v])),
            st.lists(inner, max_size=2),
        ),
    ),
    max_leaves=8,
)
requests = st.builds(
    lambda records: ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=r)]) for r in records]
    ),
    st.lists(
        st.lists(
            st.builds(
                LogRecord,
                time_unix_nano=st.integers(0, 2**64 - 1),
                severity_text=texts,
                body=values,
                attributes=st.lists(st.builds(KeyValue, key=texts, value=values), max_size=3),
            ),
            max_size=3,
        ),
        max_size=3,
    ),
)


def _with_the_mended(request: Any) -> Any:
    return type(request).FromString(_put(request, MENDED))


def _put(request: Any, text: str) -> bytes:
    """The request with another text where the mark stands."""
    return codec.encode(
        _decoded_json(codec.encode(request, codec.JSON).replace(MARK.encode(), text.encode())), codec.PROTOBUF
    )


def _decoded_json(body: bytes) -> Any:
    message = ExportLogsServiceRequest()
    json_mapping.decode(body, message)
    return message


@given(requests)
def test_wrong_bytes_of_texts_are_put_right_and_nothing_else_is_touched(request: ExportLogsServiceRequest) -> None:
    wrong = request.SerializeToString().replace(MARK.encode(), WRONG)
    assert codec.decode(Signal.LOGS, wrong, codec.PROTOBUF) == _with_the_mended(request)
    wrong_json = codec.encode(request, codec.JSON).replace(MARK.encode(), WRONG)
    assert codec.decode(Signal.LOGS, wrong_json, codec.JSON) == _with_the_mended(request)


@given(requests)
def test_what_is_right_stays_the_same(request: ExportLogsServiceRequest) -> None:
    body = request.SerializeToString()
    assert mend_protobuf(body, request.DESCRIPTOR) == body
    assert mend_json(codec.encode(request, codec.JSON)) == codec.encode(request, codec.JSON)


def test_fields_of_a_later_version_are_kept_beside_what_is_mended() -> None:
    record = b"\xfa\x06\x03abc" + b"\x1a\x01\xff" + b"\xf5\x06abcd" + b"\xf1\x06abcdefgh" + b"\xf8\x06\x96\x01"
    assert mend_protobuf(record, LogRecord.DESCRIPTOR) == record.replace(b"\x1a\x01\xff", b"\x1a\x03\xef\xbf\xbd")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x0a\x05\xff", id="cut short"),
        pytest.param(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xff", id="a length beyond all"),
        pytest.param(b"\xff" * 11, id="no varint"),
        pytest.param(b"\x0a", id="a tag without a value"),
        pytest.param(b"\x0e\x00", id="an unknown wire type"),
    ],
)
def test_what_is_broken_otherwise_stays_broken(body: bytes) -> None:
    with pytest.raises(Malformed, match="no protobuf"):
        codec.decode(Signal.LOGS, body, codec.PROTOBUF)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\udE00\uD83d"', "\ufffd\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\\ud83d"', r"\ud83d"),
        (rb'"\\\ud83d"', "\\\ufffd"),
        (b'"caf\xe9"', "caf\ufffd"),
    ],
)
def test_halves_of_pairs_and_wrong_bytes_of_json(body: bytes, text: str) -> None:
    record = LogRecord()
    json_mapping.decode(b'{"severityText":' + body + b"}", record)
    assert record.severity_text == text


def test_the_deepest_text_of_a_large_request_is_found_in_time() -> None:
    """Read anew at each level, what lies deepest would be read fifty times: 14 s."""
    value = AnyValue(string_value=MARK)
    items = ArrayValue(values=[*(AnyValue(string_value="x" * 100) for _ in range(20_000)), value])
    for _ in range(40):
        items = ArrayValue(values=[AnyValue(array_value=items)])
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.array_value.CopyFrom(items)
    body = request.SerializeToString().replace(MARK.encode(), WRONG)
    began = time.process_time()
    decoded = codec.decode(Signal.LOGS, body, codec.PROTOBUF)
    assert time.process_time() - began < 2
    assert MENDED.encode() in decoded.SerializeToString()


async def test_a_small_body_is_mended_beside_the_event_loop() -> None:
    """The worst of 64 KiB took a tenth of a second, in which nobody else was answered."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(severity_text=MARK)
    wrong = request.SerializeToString().replace(MARK.encode(), WRONG)
    decoded, encoded = await codec.decode_aside(Signal.LOGS, wrong, codec.PROTOBUF)
    assert decoded == _with_the_mended(request)
    assert encoded == decoded.SerializeToString()
    worst = asyncio.ensure_future(codec.decode_aside(Signal.LOGS, b"\x0a\x00" * 32_000 + b"\x0a", codec.PROTOBUF))
    # Its turn of the loop; what it does itself it would have done by then.
    await asyncio.sleep(0)
    assert not worst.done()
    with pytest.raises(Malformed):
        await worst
