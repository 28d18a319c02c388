"""Sums and histograms of events: what they hold, since when, and how many there are at most."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers import totals
from otel_receivers.derived import Instance, Measurement, Occurrence, Series
from otel_receivers.points import OVERFLOW
from otel_receivers.totals import Histogram, Sum, Totals

NOW = 1_768_471_200_000_000_000
SECOND = 1_000_000_000
DAY = 86_400 * SECOND
ONE = Instance("haraka", "haraka", "node-1", "node-1:25")
TWO = Instance("haraka", "haraka", "node-2", "node-2:25")
BOUNDS = (0.1, 1.0, 10.0)
LOST = Series("d", tuple(OVERFLOW.items()))


def count(name: str = "c", value: float = 1, **attributes: str) -> Measurement:
    return Measurement(Series(name, tuple(sorted(attributes.items()))), value, None)


def took(value: float, bounds: tuple[float, ...] = BOUNDS) -> Measurement:
    return Measurement(Series("h", ()), value, bounds)


def of(*measurements: Measurement, instance: Instance = ONE) -> Occurrence:
    return Occurrence(b"", instance, f"{instance.host_id}.example.org", measurements)


def add(known: Totals, *occurrences: Occurrence, now: int = NOW) -> None:
    known.keep(known.counted(occurrences, now))


def reopened(changes: Sequence[totals.Change]) -> Totals:
    """As the spool stores them: a row in the place of the one before, a sender that is forgotten without a trace."""
    rows: dict[tuple[str, str], str] = {}
    for change in changes:
        gone = set(change.gone())
        rows = {key: text for key, text in rows.items() if key[0] not in gone}
        rows |= {(sender, series): text for sender, series, text in change.rows()}
    return Totals((sender, series, text) for (sender, series), text in rows.items())


def test_sums_add_up_by_series_and_sender() -> None:
    known = Totals()
    add(known, of(count(a="x"), count(a="y")), of(count(a="x")), of(count(a="x"), instance=TWO))
    add(known, of(count(a="x", value=5)))
    assert known.totals[ONE] == {count(a="x").series: Sum(7), count(a="y").series: Sum(1)}
    assert known.totals[TWO] == {count(a="x").series: Sum(1)}


@given(st.lists(st.floats(0, 2**53), min_size=1, max_size=30))
def test_a_histogram_holds_what_it_was_given(values: list[float]) -> None:
    known = Totals()
    for value in values:
        add(known, of(took(value)))
    found = known.totals[ONE][took(0).series]
    assert isinstance(found, Histogram)
    # OTLP: a bucket's upper bound belongs to it, its lower one does not.
    edges = [float("-inf"), *BOUNDS, float("inf")]
    assert list(found.counts) == [sum(lower < value <= upper for value in values) for lower, upper in pairwise(edges)]
    assert (found.lowest, found.highest) == (min(values), max(values))
    assert found.total == pytest.approx(sum(values))


def test_all_series_of_a_sender_began_when_its_first_event_came_and_go_on() -> None:
    known, changes = Totals(), []
    for step, occurrence in enumerate([of(count()), of(took(1)), of(count(a="x")), of(took(2), instance=TWO)]):
        changes.append(known.counted([occurrence], NOW + step * SECOND))
        known.keep(changes[-1])
    again = reopened(changes)
    assert (again.senders, again.totals) == (known.senders, known.totals)
    histograms = [
        total for series in again.totals.values() for total in series.values() if isinstance(total, Histogram)
    ]
    assert [histogram.start for histogram in histograms] == [again.senders[ONE].start, again.senders[TWO].start]
    assert NOW - SECOND < again.senders[ONE].start < NOW
    assert again.senders[ONE].host_name == "node-1.example.org"


def test_what_is_not_kept_never_was() -> None:
    known = Totals()
    add(known, of(count()))
    known.counted([of(count(), took(3)), of(count(), instance=TWO)], NOW)
    assert known.totals == {ONE: {count().series: Sum(1)}}
    assert list(known.senders) == [ONE]


def test_one_series_too_many_is_counted_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "SERIES_OF_METRIC", 5)
    known = Totals()
    for start in range(0, 40, 8):
        add(known, *(of(count("d", a=f"plugin-{number}")) for number in range(start, start + 8)), of(count("c")))
    add(known, of(count("d", a="plugin-1")))
    found = known.totals[ONE]
    assert found[count("d", a="plugin-1").series] == Sum(2)
    assert found[LOST] == Sum(35)
    assert found[count("c").series] == Sum(5)
    assert len(found) == 7
    # Another sender's are its own.
    add(known, of(count("d", a="plugin-30"), instance=TWO))
    assert known.totals[TWO] == {count("d", a="plugin-30").series: Sum(1)}


def test_all_series_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "SERIES", 4)
    known = Totals()
    add(known, *(of(count("d", a=str(number)), instance=each) for number in range(10) for each in (ONE, TWO)))
    assert (
        sum(total.value for found in known.totals.values() for total in found.values() if isinstance(total, Sum)) == 20
    )
    assert sum(len(found) for found in known.totals.values()) == 6


def sender(number: int) -> Instance:
    return Instance("haraka", f"service-{number}", f"node-{number}", "")


def test_senders_are_bounded_and_those_beyond_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "INSTANCES", 3)
    known = Totals()
    add(known, *(of(count(), instance=sender(number)) for number in range(10)))
    together = Instance("haraka", "", "", "otel.metric.overflow")
    assert {i: found[count().series] for i, found in known.totals.items()} == {
        **{sender(number): Sum(1) for number in range(3)},
        together: Sum(7),
    }


def test_a_sender_that_was_quiet_for_a_day_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "INSTANCES", 2)
    known, changes = Totals(), []
    for number, at in ((0, 0), (1, SECOND), (1, DAY), (2, DAY + 2 * SECOND), (0, DAY + 3 * SECOND)):
        changes.append(known.counted([of(count(), count("d", a="x"), instance=sender(number))], NOW + at))
        known.keep(changes[-1])
    assert changes[3].forgotten == [sender(0)]
    # It is back, and there is no room.
    assert set(known.senders) == {sender(1), sender(2), Instance("haraka", "", "", "otel.metric.overflow")}
    assert reopened(changes).totals == known.totals


def test_who_comes_back_in_the_request_that_took_its_place_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "INSTANCES", 2)
    known = Totals()
    changes = [known.counted([of(count(), instance=sender(number)) for number in (0, 1)], NOW)]
    known.keep(changes[0])
    changes.append(known.counted([of(count(), instance=sender(number)) for number in (2, 0)], NOW + 2 * DAY))
    known.keep(changes[1])
    assert {each: found[count().series] for each, found in known.totals.items()} == {
        sender(2): Sum(1),
        sender(0): Sum(1),
    }
    assert known.senders[sender(0)].start > NOW + DAY
    assert reopened(changes).totals == known.totals


def test_other_bounds_begin_a_histogram_anew_and_no_other_series() -> None:
    known = Totals()
    add(known, of(took(1), count()))
    add(known, of(took(2, (5.0,)), count()), now=NOW + DAY)
    found = known.totals[ONE][took(0).series]
    assert isinstance(found, Histogram)
    assert (found.bounds, found.counts) == ((5.0,), (1, 0))
    assert known.senders[ONE].start < NOW < found.start < NOW + DAY
    assert known.totals[ONE][count().series] == Sum(2)


def test_a_start_that_only_a_wrong_clock_can_have_said_is_now() -> None:
    known = Totals()
    add(known, of(count(), took(1)), now=NOW + 30 * DAY)
    add(known, of(count(), instance=TWO))
    known.keep(known.begun_anew(NOW))
    assert NOW - SECOND < known.senders[ONE].start < NOW
    assert known.totals[ONE] == {
        count().series: Sum(1),
        took(1).series: Histogram(known.senders[ONE].start, BOUNDS, (0, 1, 0, 0), 1, 1, 1),
    }
    assert known.begun_anew(NOW).rows() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[1,2]", '"x"', "[1,[1.0],[1],1,1,1]"])
def test_what_cannot_be_read_is_as_if_it_had_never_been(text: str) -> None:
    (own, total) = Totals().counted([of(count())], NOW).rows()
    assert Totals([own, (total[0], total[1], text)]).totals == {ONE: {}}
    assert Totals([own, (total[0], text, total[2])]).totals == {ONE: {}}
    assert Totals([(own[0], own[1], text), total]).totals == {}
    assert Totals([(text, own[1], own[2]), (text, total[1], total[2])]).totals == {}
