from datetime import UTC, date, datetime
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from postel.demo_traffic import STEP_SECONDS, Moment, moments

days = st.dates(date(2020, 1, 1), date(2035, 1, 1))


@settings(max_examples=8, deadline=None)
@given(days)
def test_a_day_is_the_same_whenever_it_is_asked(day: date) -> None:
    assert list(moments(day)) == list(moments(day))


@settings(max_examples=8, deadline=None)
@given(days)
def test_a_day_adds_up(day: date) -> None:
    whole = list(moments(day))
    assert [moment.time for moment in whole[:2]] == [
        datetime(day.year, day.month, day.day, tzinfo=UTC),
        datetime(day.year, day.month, day.day, 0, 0, STEP_SECONDS, tzinfo=UTC),
    ]
    assert len(whole) == 86_400 // STEP_SECONDS
    for before, after in pairwise(whole):
        assert all(after.attempts[key] >= value for key, value in before.attempts.items())
        assert after.network_out >= before.network_out
        assert after.received >= before.received
    # Every recipient that came in is delivered, rejected or still waits.
    assert _final(whole[-1]) + whole[-1].queued + whole[-1].deferred == whole[-1].received + whole[-1].bounces
    assert max(moment.deferred for moment in whole) > 100
    assert all(0 <= moment.cpu <= 100 for moment in whole)


def _final(moment: Moment) -> int:
    return sum(count for (_, outcome), count in moment.attempts.items() if outcome in {"delivered", "rejected"})
