"""Answers of Zone-MTA's REST become exactly what they say; a damaged one never becomes a wrong number."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers.prometheus import PageError
from otel_receivers.zone_mta.answers import Depth, Depths, depths, oldest
from support.zone_mta_answers import COUNTER, NOTHING_QUEUED, TWO_DEFERRED, counter, listed

INT64_MAX = 2**63 - 1
ZONES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
COUNTS = st.integers(0, INT64_MAX)
CREATED = 1_795_534_721.178
ONE_DEFERRED = {**json.loads(TWO_DEFERRED), "list": json.loads(TWO_DEFERRED)["list"][:1]}
JUNK: list[Any] = [None, True, -1, 1.5, 2**63, "6", [], {}, float("inf")]


def changed(part: str, entry: dict[str, Any]) -> bytes:
    content = json.loads(COUNTER)
    content[part]["entries"][1] = entry
    return json.dumps(content).encode()


def test_the_recorded_counter() -> None:
    assert depths(COUNTER) == Depths((Depth("bounces", 0, 0), Depth("default", 0, 6)))
    assert [depth.states() for depth in depths(COUNTER).zones] == [(), ("deferred",)]


def test_the_recorded_lists() -> None:
    assert oldest(NOTHING_QUEUED, zone="default", state="queued") is None
    assert oldest(json.dumps(ONE_DEFERRED).encode(), zone="default", state="deferred") == CREATED


@given(st.dictionaries(ZONES, st.tuples(COUNTS, COUNTS)))
def test_any_zones_and_counts(zones: dict[str, tuple[int, int]]) -> None:
    def half(state: int) -> dict[str, Any]:
        return {"entries": [{"key": zone, "value": counts[state]} for zone, counts in zones.items()]}

    found = depths(json.dumps({"zone": "all", "active": half(0), "deferred": half(1)}).encode())
    assert {depth.zone: (depth.queued, depth.deferred) for depth in found.zones} == {
        zone: counts for zone, counts in zones.items() if zone
    }
    assert found.nameless == sum(zones.get("", (0, 0)))


@pytest.mark.parametrize("body", [b"", b" \n", b"<html></html>", b"[]", b"3", b'"x"', b"{}", b'{"error":"x"}', b"\xff"])
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(PageError):
        depths(body)
    with pytest.raises(PageError):
        oldest(body, zone="default", state="queued")


@pytest.mark.parametrize("length", range(len(COUNTER)))
def test_cut_at_any_byte_it_is_refused(length: int) -> None:
    with pytest.raises(PageError):
        depths(COUNTER[:length])


@pytest.mark.parametrize("part", ["active", "deferred"])
@pytest.mark.parametrize("value", JUNK, ids=repr)
def test_what_is_no_count_makes_no_answer(part: str, value: Any) -> None:
    with pytest.raises(PageError):
        depths(changed(part, {"key": "default", "value": value}))


@pytest.mark.parametrize(
    "entry", [{"key": 3, "value": 1}, {"value": 1}, {"key": "bounces", "value": 1}, {"key": "other", "value": 1}]
)
def test_zones_that_do_not_fit_each_other_make_no_answer(entry: dict[str, Any]) -> None:
    with pytest.raises(PageError):
        depths(changed("active", entry))


@given(st.integers(0, len(COUNTER) - 1), st.integers(0, 255))
def test_with_any_byte_changed_it_gives_counts_or_nothing(place: int, byte: int) -> None:
    body = bytearray(COUNTER)
    body[place] = byte
    try:
        found = depths(bytes(body))
    except PageError:
        return
    assert all(depth.zone and depth.queued >= 0 and depth.deferred >= 0 for depth in found.zones)


@pytest.mark.parametrize(("zone", "state"), [("bulk", "deferred"), ("default", "queued")])
def test_an_answer_to_another_question_is_refused(zone: str, state: str) -> None:
    with pytest.raises(PageError) as caught:
        oldest(json.dumps(ONE_DEFERRED).encode(), zone=zone, state=state)
    assert caught.value.error_type == "unexpected_page"


def test_more_than_was_asked_for_is_refused() -> None:
    with pytest.raises(PageError):
        oldest(TWO_DEFERRED, zone="default", state="deferred")


@pytest.mark.parametrize(
    "created",
    [*JUNK, "yesterday", "2026-02-30T10:00:00.000Z", "2026-11-24T15:38:41.178", "2026-11-24T25:38:41.178Z", 1795534721],
)
def test_a_time_that_is_none_is_refused(created: Any) -> None:
    content = listed("default", "queued", CREATED)
    content["list"][0]["created"] = created
    with pytest.raises(PageError):
        oldest(json.dumps(content).encode(), zone="default", state="queued")


@given(ZONES, st.integers(0, 4_000_000_000))
def test_any_zone_has_its_oldest(zone: str, created: int) -> None:
    assert oldest(json.dumps(listed(zone, "queued", created)).encode(), zone=zone, state="queued") == created


def test_the_stand_in_counts_as_zone_mta_does() -> None:
    assert counter({"bounces": ([], []), "default": ([], [1.0] * 6)}) == json.loads(COUNTER)
