from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, NumberDataPoint, Sum

from postel.otlp import json_mapping
from postel.otlp.errors import Malformed


def read(value: Any, kind: type[Message]) -> Any:
    message = kind()
    json_mapping.decode(json.dumps(value).encode(), message)
    return message


def written(message: Message) -> Any:
    return json.loads(json_mapping.encode(message))


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 8) -> Message:
    """Any message of a type: each field or oneof set or not, lists up to two long, enums of their known numbers."""
    message = GetMessageClass(descriptor)()
    groups: dict[str, list[FieldDescriptor]] = {}
    for field in descriptor.fields:
        groups.setdefault(field.containing_oneof.name if field.containing_oneof else field.name, []).append(field)
    for fields in groups.values():
        usable = [f for f in fields if f.message_type is None or depth > 0]
        if not usable or not draw(st.booleans()):
            continue
        field = draw(st.sampled_from(usable))
        if field.message_type is not None:
            if field.is_repeated:
                items = draw(st.lists(messages(field.message_type, depth - 1), max_size=2))
                getattr(message, field.name).extend(items)
            else:
                getattr(message, field.name).CopyFrom(draw(messages(field.message_type, depth - 1)))
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(scalars(field), max_size=3)))
        else:
            setattr(message, field.name, draw(scalars(field)))
    return message


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return {
        FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
        FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False),  # NaN is not equal to itself
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_STRING: st.binary(max_size=6)
        if field.type == FieldDescriptor.TYPE_BYTES
        else st.text(max_size=5),
    }[field.cpp_type]


requests = st.one_of(messages(ExportLogsServiceRequest.DESCRIPTOR), messages(ExportMetricsServiceRequest.DESCRIPTOR))


@given(requests)
def test_json_and_back_is_the_same_message(request: Message) -> None:
    again = type(request)()
    json_mapping.decode(json_mapping.encode(request), again)
    assert again == request


@given(requests)
def test_but_for_ids_it_reads_what_protobuf_itself_reads(request: Message) -> None:
    for kind in (LogRecord, Exemplar):
        _clear_ids(request, kind.DESCRIPTOR)
    ours = type(request)()
    json_mapping.decode(json_format.MessageToJson(request).encode(), ours)
    assert ours == request


def _clear_ids(message: Message, kind: Descriptor) -> None:
    for field, value in message.ListFields():
        if message.DESCRIPTOR is kind and field.name in ("trace_id", "span_id"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                _clear_ids(child, kind)


def test_the_line_that_is_written() -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(
        time_unix_nano=2**63 + 1, severity_number=9, trace_id=b"\xab" * 16, span_id=b"\xcd" * 8, event_name="a\nb"
    ).body.bytes_value = b"\xff\xfe"
    assert json_mapping.encode(request) == (
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"9223372036854775809","severityNumber":9,'
        b'"body":{"bytesValue":"//4="},"traceId":"abababababababababababababababab","spanId":"cdcdcdcdcdcdcdcd",'
        b'"eventName":"a\\nb"}]}]}]}'
    )


def test_a_key_of_a_user_is_never_taken_for_an_id() -> None:
    record = LogRecord(attributes=[KeyValue(key="traceId", value=AnyValue(string_value="plain words"))])
    assert written(record)["attributes"] == [{"key": "traceId", "value": {"stringValue": "plain words"}}]
    assert read(written(record), LogRecord) == record


@pytest.mark.parametrize("text", ["5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c", ""])
def test_ids_are_hex_in_any_case(text: str) -> None:
    assert read({"traceId": text}, LogRecord).trace_id == bytes.fromhex(text)


@pytest.mark.parametrize("name", ["timeUnixNano", "time_unix_nano"])
@pytest.mark.parametrize("value", [1544712660300000000, "1544712660300000000"])
def test_times_are_numbers_or_strings_under_either_name(name: str, value: object) -> None:
    assert read({name: value}, LogRecord).time_unix_nano == 1544712660300000000


@pytest.mark.parametrize("value", [2, "AGGREGATION_TEMPORALITY_CUMULATIVE"])
def test_enums_are_read_as_numbers_and_names_and_written_as_numbers(value: object) -> None:
    message = read({"aggregationTemporality": value}, Sum)
    assert message.aggregation_temporality == 2
    assert written(message) == {"aggregationTemporality": 2}


def test_an_enum_number_of_a_later_version_is_kept() -> None:
    assert read({"severityNumber": 77}, LogRecord).severity_number == 77


def test_unknown_fields_and_nulls_are_ignored() -> None:
    value = {"[new.extension]": [1], "newField": {"a": [None]}, "body": None, "eventName": "kept", "attributes": None}
    assert read(value, LogRecord) == LogRecord(event_name="kept")


@pytest.mark.parametrize(("text", "number"), [("NaN", math.nan), ("Infinity", math.inf), ("-Infinity", -math.inf)])
def test_special_numbers_are_words_in_quotes(text: str, number: float) -> None:
    point = read({"asDouble": text}, NumberDataPoint)
    assert point.as_double == number or (math.isnan(point.as_double) and math.isnan(number))
    assert written(point) == {"asDouble": text}


@pytest.mark.parametrize("value", ["_-8=", "/+8=", "_-8", "/+8"])
def test_bytes_are_base64_of_both_alphabets(value: str) -> None:
    assert read({"bytesValue": value}, AnyValue).bytes_value == b"\xff\xef"


def test_zero_and_empty_values_keep_their_presence() -> None:
    assert read({"intValue": "0"}, AnyValue).WhichOneof("value") == "int_value"
    assert read({"arrayValue": {}}, AnyValue).WhichOneof("value") == "array_value"
    assert read({"value": {}}, KeyValue).HasField("value")


def test_of_a_key_given_twice_the_last_counts() -> None:
    record = LogRecord()
    json_mapping.decode(b'{"eventName":"a","eventName":"b"}', record)
    assert record.event_name == "b"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "no JSON"),
        (b"[]", "the body: expected an object"),
        (b'"text"', "the body: expected an object"),
        (b"null", "the body: expected an object"),
        (b'{"resourceLogs":[', "no JSON"),
        (b'{"resourceLogs":[]} {}', "no JSON"),
        (b'{"resourceLogs":{}}', "resourceLogs: expected an array"),
        (b'{"resourceLogs":[null]}', r"resourceLogs\[0\]: expected an object"),
        (b'{"resourceLogs":[],"resource_logs":[]}', "resource_logs: given twice"),
        (b'{"resourceLogs":["\xff"]}', r"resourceLogs\[0\]: expected an object"),
        (b'{"resourceLogs":["\xff"]', "no JSON"),
        (b'{"resourceLogs":["\\ud8"]}', "no JSON"),
        (b'{"resourceLogs":NaN}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":' * 100_000, "no JSON"),
    ],
)
def test_what_is_no_request_is_malformed(body: bytes, place: str) -> None:
    with pytest.raises(Malformed, match=place):
        json_mapping.decode(body, ExportLogsServiceRequest())


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ('{"timeUnixNano":-1}', "timeUnixNano: the integer is not within"),
        ('{"timeUnixNano":18446744073709551616}', "timeUnixNano: the integer is not within"),
        ('{"timeUnixNano":"18446744073709551616"}', "timeUnixNano: the integer is not within"),
        ('{"timeUnixNano":"1e3"}', "timeUnixNano: expected an integer"),
        ('{"timeUnixNano":"٣"}', "timeUnixNano: expected an integer"),
        ('{"timeUnixNano":1.5}', "timeUnixNano: expected an integer"),
        ('{"timeUnixNano":true}', "timeUnixNano: expected an integer"),
        ('{"timeUnixNano":Infinity}', "no JSON"),
        ('{"timeUnixNano":1e999}', "no JSON"),
        ('{"severityNumber":"LOUD"}', "severityNumber: expected a number of the enum SeverityNumber"),
        ('{"severityNumber":true}', "severityNumber: expected a number of the enum"),
        ('{"severityNumber":2147483648}', "severityNumber: the integer is not within"),
        ('{"severityText":1}', "severityText: expected a string"),
        ('{"traceId":"abc"}', "traceId: expected a string of hex digits"),
        ('{"traceId":"zz"}', "traceId: expected a string of hex digits"),
        ('{"traceId":"é"}', "traceId: expected a string of hex digits"),
        ('{"traceId":5}', "traceId: expected a string"),
        ('{"body":"words"}', "body: expected an object"),
        ('{"body":{"intValue":1,"stringValue":"a"}}', "body.stringValue: given twice, or together"),
        ('{"body":{"bytesValue":"a"}}', "body.bytesValue: expected base64"),
        ('{"body":{"bytesValue":"!!!!"}}', "body.bytesValue: expected base64"),
        ('{"body":{"boolValue":1}}', "body.boolValue: expected true or false"),
        ('{"body":{"doubleValue":true}}', "body.doubleValue: expected a number"),
        ('{"body":{"doubleValue":"inf"}}', "body.doubleValue: expected a number"),
        ('{"body":{"doubleValue":"1_0"}}', "body.doubleValue: expected a number"),
        ('{"attributes":[{"key":"a"},{"value":{"arrayValue":{"values":[1]}}}]}', r"attributes\[1\].value.arrayValue"),
    ],
)
def test_a_wrong_value_is_malformed_and_the_place_is_named(record: str, place: str) -> None:
    body = f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}'
    named = place if place == "no JSON" else rf"^resourceLogs\[0\]\.scopeLogs\[0\]\.logRecords\[0\]\.{place}"
    with pytest.raises(Malformed, match=named):
        json_mapping.decode(body.encode(), ExportLogsServiceRequest())


def test_it_goes_as_deep_as_protobuf_and_no_deeper() -> None:
    def nested(levels: int) -> bytes:
        return b'{"arrayValue":{"values":[' * levels + b"{}" + b"]}}" * levels

    deepest = AnyValue()
    json_mapping.decode(nested(50), deepest)
    assert AnyValue.FromString(deepest.SerializeToString()) == deepest
    json_mapping.decode(json_mapping.encode(deepest), AnyValue())
    for levels in (51, 300):
        with pytest.raises(Malformed, match=r"nested deeper than 100|no JSON"):
            json_mapping.decode(nested(levels), AnyValue())
