"""What a receiver may record: what its declaration names, and nothing else."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource

from otel_receivers import exporter
from otel_receivers.points import Recorder, UndeclaredError
from otel_receivers.receiver import Tick
from postel.otlp.signal import Signal
from postel.signals import load_all

NOW = 1_795_000_000_000_000_000
ATTRIBUTES: dict[str, str | int] = {
    "postel.receiver.name": "zone_mta",
    "server.address": "127.0.0.1",
    "server.port": 12080,
}


def recorder(source: str = "agent") -> Recorder:
    return Recorder(load_all()[source], Resource({"service.name": source, "host.id": "n"}), Tick(NOW))


@pytest.mark.parametrize(
    ("key", "value", "attributes"),
    [
        ("postel_receiver_upp", 1, {}),
        ("postel_receiver_up", 1, {"server.name": "x"}),
        ("postel_receiver_up", 1, {"error.type": "x"}),
        ("postel_receiver_up", 1, {"server.port": "12080"}),
        ("postel_receiver_up", 1, {"server.port": True}),
        ("postel_receiver_up", 1, {"postel.receiver.name": 1}),
        ("postel_receiver_up", 0.5, {}),
        ("postel_receiver_up", True, {}),
        ("postel_receiver_up", 2**63, {}),
        ("postel_scrape_duration", float("nan"), {}),
        ("postel_scrape_duration", float("inf"), {}),
        ("postel_scrape_errors", -1, {}),
        ("postel_spool_dropped_requests", 1, {"postel.spool.drop.reason": "boredom"}),
    ],
)
def test_what_is_not_declared_is_refused(key: str, value: float, attributes: dict[str, Any]) -> None:
    with pytest.raises(UndeclaredError):
        recorder().number(key, value, attributes, start_unix_nano=NOW - 1)


def test_a_sum_needs_a_start() -> None:
    with pytest.raises(UndeclaredError, match="start"):
        recorder().number("postel_scrape_errors", 1, {})


def test_the_same_point_twice_is_refused() -> None:
    twice = recorder()
    twice.number("postel_receiver_up", 1, ATTRIBUTES)
    twice.number("postel_receiver_up", 1, {**ATTRIBUTES, "server.port": 1})
    with pytest.raises(UndeclaredError, match="twice"):
        twice.number("postel_receiver_up", 0, dict(reversed(list(ATTRIBUTES.items()))))


def test_a_histogram_is_no_number_and_a_number_no_histogram() -> None:
    with pytest.raises(UndeclaredError, match="no histogram"):
        recorder().histogram(
            "postel_receiver_up", bounds=[1], counts=[1, 2], total=3, lowest=1, highest=2, start_unix_nano=1
        )


@pytest.mark.parametrize(
    ("key", "attributes"),
    [("node_registred", {}), ("node_booted", {"service.version": "1"}), ("node_booted", {"host.boot.id": 1})],
)
def test_an_event_that_is_not_declared_is_refused(key: str, attributes: dict[str, Any]) -> None:
    with pytest.raises(UndeclaredError):
        recorder().event(key, "text", attributes)


def test_names_that_are_no_utf_8_stay_apart_and_can_be_sent() -> None:
    odd = recorder("system")
    for name in (b"eth\xff", b"eth\xfe"):
        odd.number(
            "system_network_io",
            1,
            {"network.interface.name": name.decode("utf-8", "surrogateescape"), "network.io.direction": "receive"},
            start_unix_nano=1,
        )
    (request,) = exporter.requests(odd.batch(), 1 << 20)
    assert request.items == 2
    assert b"eth\\udcff" in request.body
    assert b"eth\\udcfe" in request.body


def test_points_on_the_wire() -> None:
    good = recorder()
    good.number("postel_receiver_up", 1.0, ATTRIBUTES)
    good.number("postel_scrape_errors", 3, {"error.type": "timeout"}, start_unix_nano=NOW - 5)
    (message,) = exporter.messages(good.batch())
    (resource,) = message.resource_metrics  # type: ignore[union-attr]
    assert resource.scope_metrics[0].scope.name == "postel.agent"
    up, errors = resource.scope_metrics[0].metrics
    assert (up.name, up.unit) == ("postel.receiver.up", "1")
    point = up.gauge.data_points[0]
    assert (point.as_int, point.time_unix_nano) == (1, NOW)
    assert {a.key: a.value.WhichOneof("value") for a in point.attributes} == {
        "postel.receiver.name": "string_value",
        "server.address": "string_value",
        "server.port": "int_value",
    }
    assert errors.sum.is_monotonic
    assert errors.sum.aggregation_temporality == 2
    assert errors.sum.data_points[0].start_time_unix_nano == NOW - 5


def test_an_event_on_the_wire() -> None:
    good = recorder()
    good.event(
        "node_registered", "The agent started.", {"postel.node.sources": ["zone_mta", "imap"]}, time_unix_nano=NOW - 7
    )
    (message,) = exporter.messages(good.batch())
    (record,) = message.resource_logs[0].scope_logs[0].log_records  # type: ignore[union-attr]
    attributes = {a.key: a.value for a in record.attributes}
    assert record.event_name == "postel.node.registered"
    assert record.time_unix_nano == NOW - 7
    assert record.observed_time_unix_nano > 0
    assert (record.severity_number, record.severity_text) == (9, "INFO")
    assert uuid.UUID(attributes["log.record.uid"].string_value).version == 7
    assert [v.string_value for v in attributes["postel.node.sources"].array_value.values] == ["zone_mta", "imap"]


def test_requests_fit_the_limit_and_lose_no_point() -> None:
    many = recorder("zone_mta")
    for number in range(500):
        many.number(
            "zonemta_delivery_attempts",
            number,
            {"zonemta.outcome": "delivered", "zonemta.zone": f"zone-{number}"},
            start_unix_nano=NOW - 5,
        )
    many.number("zonemta_connection_pool_count", 4)
    batch = many.batch()
    requests = exporter.requests(batch, 4096)
    assert len(requests) > 5
    assert all(len(request.body) <= 4096 for request in requests)
    assert sum(request.items for request in requests) == 501
    (whole,) = exporter.requests(batch, 1 << 20)
    merged, expected = Signal.METRICS.request_class(), Signal.METRICS.request_class()
    for request in requests:
        merged.MergeFromString(request.body)
    expected.ParseFromString(whole.body)
    assert sorted(_points(merged)) == sorted(_points(expected))


def _points(request: Any) -> list[str]:
    return [
        f"{metric.name} {point}"
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in (metric.sum if metric.HasField("sum") else metric.gauge).data_points
    ]


@pytest.mark.parametrize(("start", "begins"), [(NOW, True), (NOW - 1, False)])
def test_the_request_of_a_first_meeting_is_marked(start: int, *, begins: bool) -> None:
    met = recorder("system")
    typed = next(m for m in load_all()["system"].metrics.values() if m.columns and m.monotonic)
    met.number(typed.key, 3, dict(typed.columns[0].when), start_unix_nano=start)
    assert [request.begins for request in exporter.requests(met.batch(), 1 << 20)] == [begins]


def test_a_counter_that_feeds_no_typed_column_marks_nothing() -> None:
    met = recorder()
    met.number("postel_scrape_errors", 3, start_unix_nano=NOW)
    assert [request.begins for request in exporter.requests(met.batch(), 1 << 20)] == [False]


def test_equal_resources_do_not_swallow_each_other() -> None:
    one, two = recorder(), recorder()
    one.number("postel_receiver_up", 1, ATTRIBUTES)
    two.number("postel_scrape_duration", 1.5, ATTRIBUTES)
    both = exporter.requests(type(one.batch())(metrics=[*one.batch().metrics, *two.batch().metrics]), 1 << 20)
    assert [request.items for request in both] == [2]


def test_a_map_is_one_of_numbers() -> None:
    recording = recorder("haraka")
    recording.event("accepted", "", {"rspamd.symbols": {"BAYES_SPAM": 5.1}})
    (logs,) = recording.batch().events
    attributes = {a.key: a.value for a in logs.scope_logs[0].log_records[0].attributes}
    symbols = attributes["rspamd.symbols"].kvlist_value.values
    assert [(symbol.key, symbol.value.double_value) for symbol in symbols] == [("BAYES_SPAM", 5.1)]
    with pytest.raises(UndeclaredError, match="map"):
        recording.event("accepted", "", {"rspamd.symbols": ["BAYES_SPAM"]})
