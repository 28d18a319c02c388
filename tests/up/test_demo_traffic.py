"""The demo's platform: what a day of it holds together, whenever it is asked."""

from datetime import UTC, date, datetime
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postel.demo_shapes import STEP_SECONDS
from postel.demo_traffic import Moment, moments

days = st.dates(date(2020, 1, 1), date(2035, 1, 1))


@settings(max_examples=3, deadline=None)
@given(days)
def test_a_day_is_the_same_whenever_it_is_asked(day: date) -> None:
    assert list(islice(moments(day), 1000)) == list(islice(moments(day), 1000))


# A day takes seconds: `make test` has one, `make soak` any.
def test_a_day_adds_up_and_tells_what_becomes_of_each_message_in_its_order() -> None:
    adds_up(date(2028, 2, 29))


@pytest.mark.soak
@settings(max_examples=10)
@given(days)
def test_any_day_adds_up(day: date) -> None:
    adds_up(day)


def adds_up(day: date) -> None:
    tried: dict[int, int] = {}
    over: set[int] = set()
    before = None
    steps = most = 0
    for after in moments(day):
        assert {recipient.number for _, recipient in after.taken}.isdisjoint(tried)
        tried |= {recipient.number: 0 for _, recipient in after.taken}
        for attempt in after.made:
            number = attempt.recipient.number
            assert number not in over
            assert attempt.number == tried[number] + 1
            tried[number] = attempt.number
            if attempt.outcome != "deferred":
                over.add(number)
        assert 0 <= after.cpu <= 100
        if before:
            _rises(before, after)
        before, steps, most = after, steps + 1, max(most, after.deferred)
    assert before
    assert (steps, most > 100) == (86_400 // STEP_SECONDS, True)
    assert before.time == datetime(day.year, day.month, day.day, 23, 59, 45, tzinfo=UTC)
    # Every recipient that came in is delivered, rejected or still waits, and goes with the queue at midnight.
    assert len(over) == _final(before) == sum(sum(times.counts) for times in before.in_queue.values())
    assert _final(before) + before.queued + before.deferred == before.received + before.bounces == len(tried)
    assert {recipient.number for recipient in before.ended} == tried.keys() - over


def _rises(before: Moment, after: Moment) -> None:
    assert all(after.attempts[key] >= value for key, value in before.attempts.items())
    assert sum(after.attempts.values()) - sum(before.attempts.values()) == len(after.made)
    assert sum(after.inbound.messages.values()) - sum(before.inbound.messages.values()) == len(after.inbound.came)
    assert sum(after.inbound.actions.values()) == sum(after.inbound.messages.values())
    assert after.network_out >= before.network_out
    assert after.received >= before.received


def _final(moment: Moment) -> int:
    return sum(count for (_, outcome), count in moment.attempts.items() if outcome in {"delivered", "rejected"})
