"""Recorded Zone-MTA pages become exactly the declared points; a damaged page never becomes a wrong number."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource

from otel_receivers.epochs import Epochs
from otel_receivers.points import Recorder
from otel_receivers.prometheus import PageError
from otel_receivers.receiver import Batch, Tick
from otel_receivers.zone_mta import parse
from postel.signals import load_all
from support.batches import data_points, values
from support.zone_mta_pages import AFTER_TRAFFIC, JUST_STARTED, without_zones

DECLARATION = load_all()["zone_mta"]
OF_THE_PAGE = [metric for metric in DECLARATION.metrics.values() if "prometheus" in metric.source]
NOW = 1_795_600_000_000_000_000
Points = dict[tuple[str, str], Any]
EXPECTED: Points = {
    ("zonemta.queue.message.count", "queued"): 0,
    ("zonemta.queue.message.count", "deferred"): 2,
    ("zonemta.delivery.attempts", "delivered bulk"): 4,
    ("zonemta.delivery.attempts", "rejected bulk"): 1,
    ("zonemta.delivery.attempts", "deferred bulk"): 1,
    ("zonemta.delivery.attempts", "delivered default"): 7,
    ("zonemta.delivery.attempts", "rejected default"): 2,
    ("zonemta.delivery.attempts", "deferred default"): 8,
    ("zonemta.received.messages", "success"): 13,
    ("zonemta.dropped.messages", ""): 0,
    ("zonemta.generated.bounces", ""): 3,
    ("zonemta.connection.reuses", ""): 9,
    ("zonemta.connection.pool.count", ""): 0,
    ("zonemta.blacklist.entry.count", ""): 0,
}


def recorded(page: bytes, epochs: Epochs | None = None, tick: int = NOW) -> Batch:
    recorder = Recorder(DECLARATION, Resource({"service.name": "zone-mta"}), Tick(tick))
    parse.record(parse.read(page, DECLARATION), recorder, epochs or Epochs(), source="zone_mta/a", tick=Tick(tick))
    return recorder.batch()


def changed(old: bytes, new: bytes, page: bytes = AFTER_TRAFFIC) -> bytes:
    assert page.count(old) == 1
    return page.replace(old, new)


def test_a_page_after_traffic() -> None:
    batch = recorded(AFTER_TRAFFIC)
    assert values(batch) == EXPECTED
    assert batch.problems == ()


def test_a_page_of_the_first_ten_seconds_says_nothing_of_the_queue() -> None:
    found = values(recorded(JUST_STARTED))
    assert {name for name, _ in found} == {
        "zonemta.dropped.messages",
        "zonemta.generated.bounces",
        "zonemta.connection.reuses",
        "zonemta.connection.pool.count",
        "zonemta.blacklist.entry.count",
    }
    assert set(found.values()) == {0}


def test_every_declared_metric_and_attribute_value_kind_is_in_the_recordings() -> None:
    seen = {name for name, _ in data_points(recorded(AFTER_TRAFFIC))}
    assert seen == {metric.name for metric in OF_THE_PAGE}
    attributes = {name for _, point in data_points(recorded(AFTER_TRAFFIC)) for name in point.attributes}
    # Those of events come from the plugin, and are compared with what it says in its own tests.
    assert attributes == {name for metric in OF_THE_PAGE for name in metric.attributes}


def test_every_zonemta_family_of_the_page_is_declared() -> None:
    families = set(re.findall(r"^# TYPE (zonemta_\w+) ", AFTER_TRAFFIC.decode(), re.MULTILINE))
    assert families == {metric.source["prometheus"] for metric in OF_THE_PAGE}


def test_a_server_without_zones_speaks_of_the_whole_instance() -> None:
    found = values(recorded(without_zones(AFTER_TRAFFIC)))
    assert found["zonemta.delivery.attempts", "delivered"] == 7
    assert found["zonemta.delivery.attempts", "deferred"] == 8


def test_an_empty_zone_is_no_zone() -> None:
    page = changed(b'status="rejected",zone="default"', b'status="rejected",zone=""')
    assert values(recorded(page))["zonemta.delivery.attempts", "rejected"] == 2


def test_counters_begin_with_the_first_meeting_then_with_the_process() -> None:
    epochs = Epochs()
    start = {point.start_time_unix_nano for name, point in data_points(recorded(AFTER_TRAFFIC, epochs)) if _sum(name)}
    assert start == {NOW}
    later = NOW + 30_000_000_000
    restarted = re.sub(rb"(?m)^process_start_time_seconds .*$", b"process_start_time_seconds 1795600010", AFTER_TRAFFIC)
    batch = recorded(restarted, epochs, later)
    assert {point.start_time_unix_nano for name, point in data_points(batch) if _sum(name)} == {1795600010 * 10**9}


def _sum(name: str) -> bool:
    return DECLARATION.metrics[name].monotonic


@pytest.mark.parametrize(
    ("old", "new", "error_type"),
    [
        (b'{status="delivered",zone="bulk"} 4', b'{status="bounced",zone="bulk"} 4', "undeclared_value"),
        (b'{status="delivered",zone="bulk"} 4', b'{zone="bulk"} 4', "undeclared_value"),
        (b'{status="delivered",zone="bulk"} 4', b'{status="delivered",zone="bulk",pool="a"} 4', "undeclared_label"),
        (b'{status="delivered",zone="bulk"} 4', b'{status="delivered",zone="bulk"} NaN', "invalid_value"),
        (b'{status="delivered",zone="bulk"} 4', b'{status="delivered",zone="bulk"} +Inf', "invalid_value"),
        (b'{status="delivered",zone="bulk"} 4', b'{status="delivered",zone="bulk"} -4', "invalid_value"),
        (b'{status="delivered",zone="bulk"} 4', b'{status="delivered",zone="bulk"} 4.5', "invalid_value"),
        (b'{status="delivered",zone="bulk"} 4', b'{status="delivered",zone="bulk"} 1e30', "invalid_value"),
        (b'{status="delivered",zone="bulk"} 4', b'{status="delivered",zone="bulk"} ' + b"9" * 40, "invalid_value"),
        (b"TYPE zonemta_blacklisted gauge", b"TYPE zonemta_blacklisted counter", "undeclared_type"),
    ],
)
def test_what_is_not_understood_is_left_out_and_named(old: bytes, new: bytes, error_type: str) -> None:
    batch = recorded(changed(old, new))
    assert [problem.error_type for problem in batch.problems] == [error_type]
    found = values(batch)
    missing = {
        ("zonemta.blacklist.entry.count", "")
        if error_type == "undeclared_type"
        else ("zonemta.delivery.attempts", "delivered bulk")
    }
    assert found == {key: value for key, value in EXPECTED.items() if key not in missing}


@pytest.mark.parametrize("value", [b"4.0", b"4e0", b"  4", b"4 1795600000000", b"0004", b"+4", "٤".encode()])
def test_four_in_other_words_is_four(value: bytes) -> None:
    page = changed(b'zone="bulk"} 4', b'zone="bulk"} ' + value)
    assert values(recorded(page)) == EXPECTED


@pytest.mark.parametrize("zone", ["with space", 'quo"te', "back\\slash", "new\nline", "a=b,c}d{", "süd", "#", "日本"])
def test_odd_zone_names_survive(zone: str) -> None:
    escaped = zone.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode()
    page = changed(b'status="delivered",zone="bulk"', b'status="delivered",zone="' + escaped + b'"')
    assert values(recorded(page))["zonemta.delivery.attempts", f"delivered {zone}"] == 4


def test_labels_in_another_order_are_the_same_series() -> None:
    page = changed(b'{status="delivered",zone="bulk"}', b'{zone="bulk",status="delivered"}')
    assert values(recorded(page)) == EXPECTED
    epochs = Epochs()
    recorded(AFTER_TRAFFIC, epochs)
    before = epochs.last("zone_mta/a")
    recorded(page, epochs, NOW + 30_000_000_000)
    assert epochs.last("zone_mta/a") == before


def test_the_same_series_twice_is_no_page() -> None:
    line = b'zonemta_delivery_status{status="delivered",zone="bulk"} 4\n'
    with pytest.raises(PageError, match="twice"):
        recorded(changed(line, line * 2))


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"x", b"-1", b"1e308"])
def test_without_a_process_start_there_is_no_page(value: bytes) -> None:
    page = re.sub(rb"(?m)^process_start_time_seconds .*$", b"process_start_time_seconds " + value, AFTER_TRAFFIC)
    with pytest.raises(PageError):
        recorded(page)


def test_cut_at_any_byte_it_is_refused_or_right() -> None:
    for length in range(len(AFTER_TRAFFIC)):
        try:
            found = values(recorded(AFTER_TRAFFIC[:length]))
        except PageError:
            continue
        # Behind the process's start stand the families of Node.js alone.
        assert found == EXPECTED


def test_a_page_without_its_last_families_is_refused() -> None:
    cut = AFTER_TRAFFIC.index(b"# HELP zonemta_queue_size")
    with pytest.raises(PageError) as caught:
        recorded(AFTER_TRAFFIC[:cut])
    assert caught.value.error_type == "unexpected_page"


@given(st.integers(0, len(AFTER_TRAFFIC) - 1), st.integers(0, 255))
def test_with_any_byte_changed_it_gives_declared_points_or_nothing(place: int, byte: int) -> None:
    page = bytearray(AFTER_TRAFFIC)
    page[place] = byte
    try:
        batch = recorded(bytes(page))
    except PageError:
        return
    for name, point in data_points(batch):
        assert set(point.attributes) <= set(DECLARATION.metrics[name].attributes)
        assert isinstance(point.value, int)
        assert point.value >= 0


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_a_crash(body: bytes) -> None:
    with pytest.raises(PageError):
        parse.read(body, DECLARATION)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(PageError):
        parse.read(AFTER_TRAFFIC.decode().encode(encoding), DECLARATION)
