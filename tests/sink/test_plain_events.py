"""Plain events go from protobuf's bytes to COPY's: what they become is what the way by objects makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from postel.otlp import varint
from postel.otlp.signal import Signal
from postel.signals import load_all
from support.otlp_requests import EVENTS, FEEDS, resources, values, words
from timescale_sink.ingest import plain_events
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.rows import Rows

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)
TIME = 1_768_471_200_000_000_000
DAY = 86_400_000_000_000
ID = "019bc119-0100-7000-8000-0000000000aa"
BY_OBJECTS = Mapper(load_all())
BY_OBJECTS._records._is_plain = lambda above, scope: False  # type: ignore[method-assign, assignment]  # noqa: ARG005


def mapped(mapper: Mapper, *requests: ExportLogsServiceRequest, encoded: bytes | None = None) -> dict[str, Any]:
    """All that comes of requests in one transaction."""
    rows = Rows()
    reasons = [mapper.map(Signal.LOGS, request, NOW, rows, encoded) for request in requests]
    return {"reasons": reasons, **{name: getattr(rows, name) for name in ("logs", "dead", "parts", "nodes", "ledger")}}


def request_of(*records: LogRecord, **resource: str) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    above = request.resource_logs.add()
    above.resource.attributes.extend(text(name.replace("_", "."), value) for name, value in resource.items())
    above.scope_logs.add().log_records.extend(records)
    return request


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def event(*pairs: KeyValue, name: str = "zonemta.delivery.accepted", time: int = TIME) -> LogRecord:
    return LogRecord(time_unix_nano=time, event_name=name, attributes=[text("log.record.uid", ID), *pairs])


addresses = st.sampled_from(["a@example.org", "B@EXAMPLE.ORG", "c@example.net", "nobody", "", "@", "a@b@example.org"])
several = st.lists(addresses, max_size=3).map(
    lambda found: AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=each) for each in found]))
)
ids = st.one_of(
    st.sampled_from([ID, ID.upper(), ID.replace("-", ""), f"urn:uuid:{ID}", f"{{{ID}}}", ID[:-1] + "é", "", "-" * 36]),
    st.uuids().map(str),
)
known_pairs = st.one_of(
    st.builds(text, st.just("log.record.uid"), ids),
    st.builds(
        KeyValue,
        key=st.one_of(st.sampled_from(FEEDS), words),
        value=st.one_of(
            values,
            several,
            st.builds(lambda value: AnyValue(string_value=value), addresses),
            st.builds(lambda size: AnyValue(string_value="x" * size), st.sampled_from([125, 126, 128, 2000, 2001])),
        ),
    ),
)
known_records = st.builds(
    LogRecord,
    time_unix_nano=st.sampled_from([0, 1, 999, 1000, TIME, TIME + DAY, TIME + DAY + 1000, 2**64 - 1]),
    observed_time_unix_nano=st.sampled_from([0, TIME]),
    event_name=st.one_of(st.sampled_from(EVENTS), st.just("postel.node.registered"), words),
    attributes=st.tuples(st.just(text("log.record.uid", ID)), st.lists(known_pairs, max_size=6)).flatmap(
        lambda found: st.permutations([found[0], *found[1]])
    ),
    flags=st.sampled_from([0, 1]),
)
known_requests = st.builds(
    lambda resource, records: ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=resource, scope_logs=[ScopeLogs(log_records=records)])]
    ),
    resources,
    st.lists(known_records, min_size=1, max_size=5),
)


@pytest.fixture(params=["one by one", "by columns", "by columns, no value known"])
def plain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Mapper:
    """A mapper of events by their bytes."""
    if request.param != "one by one":
        monkeypatch.setattr(plain_events, "_FEWEST", 1)
    if request.param == "by columns, no value known":
        monkeypatch.setattr(plain_events, "_VALUES", 0)
    return Mapper(load_all())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=known_requests, other=known_requests)
def test_both_ways_agree(plain: Mapper, one: ExportLogsServiceRequest, other: ExportLogsServiceRequest) -> None:
    assert mapped(plain, one, other, one) == mapped(BY_OBJECTS, one, other, one)
    assert mapped(plain, one, encoded=one.SerializeToString()) == mapped(BY_OBJECTS, one)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [text("zonemta.zone", "z"), text("zonemta.zone", "y")],
        [text("zonemta.message.id", "m"), text("haraka.transaction.id", "t")],
        [KeyValue(key="zonemta.message.id", value=AnyValue(int_value=1)), text("haraka.transaction.id", "t")],
        [KeyValue(key="zonemta.zone")],
        [KeyValue()],
        [KeyValue(value=AnyValue(string_value="of no key"))],
        [text("k" * 127, "v"), text("k" * 128, "v")],
        [text("a\0", "1"), text("a\ufffd", "2"), text("b", "c\0d"), text("zonemta.zone", "z\0")],
        [text("smtp.response.text", "é" * 1000), text("smtp.response.enhanced_code", "é" * 1001)],
        [text("email.to.address", "a@example.org"), text("email.from.address", "B@EXAMPLE.ORG")],
        [KeyValue(key="zonemta.attempt.duration", value=AnyValue(double_value=each)) for each in (math.nan, -0.0)],
        [text("", "empty"), text('"', '"\\\u2028'), text("!", "1"), text(" ", "2"), text("\U0001f600", "3")],
    ],
    ids=str,
)
def test_they_agree_at_every_edge(plain: Mapper, name: str, pairs: list[KeyValue]) -> None:
    record = event(*pairs, name=name)
    # Also what protobuf does not know, and what another one had in a column.
    unknown = LogRecord.FromString(record.SerializeToString() + b"\xa2\x06\x01x")
    request = request_of(record, unknown, event(*pairs[:1], name=name), host_id="n1", service_instance_id="i")
    for _ in range(2):
        assert mapped(plain, request) == mapped(BY_OBJECTS, request)


# What protobuf reads and does not write itself: a value, then another; a key behind its value, or twice; lengths
# in more bytes than they need; an empty value before what only looks like a text; a text and a number, of which one
# counts.
ODD_PAIRS = [
    b"\x0a\x0czonemta.zone\x12\x03\x0a\x01a\x12\x03\x0a\x01b",
    b"\x12\x03\x0a\x01a\x0a\x0czonemta.zone",
    b"\x0a\x01k\x12\x03\x0a\x01a\x0a\x0czonemta.zone",
    b"\x0a\x8c\x00zonemta.zone\x12\x83\x00\x0a\x01a",
    b"\x0a\x0czonemta.zone\x12\x84\x00\x0a\x81\x00a",
    b"\x0a\x0czonemta.zone\x12\x00\x0a\x01k",
    b"\x0a\x0czonemta.zone\x12\x05\x0a\x01a\x18\x01",
    b"\x0a\x0czonemta.zone\x12\x05\x18\x01\x0a\x01a",
    b"\x0a\x0czonemta.zone\x12\x03\x0a\x01a\x1a\x01x",
]


@pytest.mark.parametrize("pair", ODD_PAIRS, ids=bytes.hex)
@pytest.mark.parametrize("where", ["before", "behind"])
def test_they_agree_on_what_was_written_in_another_way(plain: Mapper, pair: bytes, where: str) -> None:
    record = event(text("k", "v")).SerializeToString()
    attribute = b"\x32" + bytes([len(pair)]) + pair
    odd = attribute + record if where == "before" else record + attribute
    # A time and another one, of which the last counts.
    odd += b"\x09" + (TIME + 1000).to_bytes(8, "little")
    level = odd
    for tag in (b"\x12", b"\x12", b"\x0a"):
        level = tag + varint.encoded(len(level)) + level
    request = ExportLogsServiceRequest.FromString(level)
    for _ in range(2):
        assert mapped(plain, request, encoded=level) == mapped(BY_OBJECTS, request)


def many(change: Callable[[int, LogRecord], LogRecord]) -> ExportLogsServiceRequest:
    """Forty deliveries with other values each, and some of them changed."""
    made = []
    for number in range(40):
        pairs = [
            text("zonemta.message.id", f"m{number}"),
            text("zonemta.zone", f"zone-{number % 3}"),
            text("email.from.address", f"u{number}@example.org"),
            text("email.message_id", f"<{number}@example.org>"),
            KeyValue(key="smtp.response.status_code", value=AnyValue(int_value=250)),
        ]
        record = event(*pairs, time=TIME + number * 1_000_000)
        record.attributes[0].value.string_value = f"{ID[:-2]}{number:02x}"
        made.append(change(number, record))
    return request_of(*made, host_id="n1", service_instance_id="i")


def changed(number: int, record: LogRecord, position: int, pair: KeyValue) -> LogRecord:
    """Another attribute in a few."""
    if number % 13 == 7:
        record.attributes[position].CopyFrom(pair)
    return record


@pytest.mark.parametrize(
    "pair",
    [
        text("email.message_id", "of two\nlines"),
        text("email.message_id", "what looks\\n like it"),
        text("email.message_id", '"\\"'),
        text("email.message_id", "a\0b"),
        text("email.message_id", "x" * 125),
        text("email.message_id", "x" * 126),
        text("email.message_id", ""),
        text("another", "key"),
        text("zonemta.zone", "twice"),
        text("smtp.response.text", "é" * 1001),
        text("log.record.uid", ID),
        text("log.record.uid", ID.upper()),
        text("log.record.uid", ID.replace("-", "") + "----"),
        text("log.record.uid", "-" * 36),
        text("log.record.uid", "no id"),
        KeyValue(key="email.message_id", value=AnyValue(int_value=7)),
        KeyValue(key="email.message_id"),
        KeyValue(
            key="email.to.address",
            value=AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=each) for each in "ab"])),
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("position", range(6))
def test_they_agree_where_some_of_many_are_different(plain: Mapper, position: int, pair: KeyValue) -> None:
    request = many(lambda number, record: changed(number, record, position, pair))
    for _ in range(2):
        assert mapped(plain, request) == mapped(BY_OBJECTS, request)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _, record: record, id="none"),
        pytest.param(lambda n, record: LogRecord(time_unix_nano=TIME) if n == 3 else record, id="one of no table"),
        pytest.param(lambda n, record: event(time=0) if n == 3 else record, id="one without a time"),
        pytest.param(lambda n, _: event(time=TIME + n % 5 * 1000), id="keys that come again"),
        pytest.param(lambda n, record: event(*record.attributes[1 : 1 + n % 5], time=TIME + n * 1000), id="sizes"),
        pytest.param(
            lambda n, record: event(*record.attributes[1:], name=EVENTS[n % len(EVENTS)], time=TIME + n * 1000),
            id="names",
        ),
    ],
)
def test_they_agree_on_many_records(plain: Mapper, change: Callable[[int, LogRecord], LogRecord]) -> None:
    request = many(change)
    for _ in range(2):
        assert mapped(plain, request, request) == mapped(BY_OBJECTS, request, request)


def test_an_event_goes_by_its_bytes() -> None:
    """Otherwise the two ways would be one, and agree."""
    mapper = Mapper(load_all())
    mapper._records._take_record = None  # type: ignore[method-assign, assignment]
    rows = Rows()
    pairs = [text("zonemta.zone", "z"), text("k", "v"), text("email.to.address", "a@example.org")]
    assert mapper.map(Signal.LOGS, request_of(event(*pairs)), NOW, rows) == []
    assert rows.logs["delivery_events"].keys() == {(UUID(ID).bytes, TIME // 1000)}


@pytest.mark.parametrize(("size", "count"), [(10, 3000), (1500, 3000), (800, 60_000)])
def test_what_is_remembered_of_attributes_is_bounded(size: int, count: int) -> None:
    plan = Mapper(load_all())._records._plain.plan("zonemta.delivery.accepted")
    assert plan is not None
    most = 0
    for number in range(count):
        key = f"k{number % (1 if count < 10_000 else 97)}"
        pair = text(key, f"{number:0{size}}").SerializeToString()
        assert plan[pair] == (key, f'"{key}":"{number:0{size}}"'.encode())
        most = max(most, 2 * sum(map(len, plan)) if number % 1000 == 0 else 0)
    assert most < 16 << 20
    assert len(plan) <= plain_events._VALUES * (1 if count < 10_000 else 97)
    assert (len(plan) > 0) == (size < 1024)
