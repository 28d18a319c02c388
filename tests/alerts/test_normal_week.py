"""No shipped rule fires where nothing is wrong; in an hour of trouble those that are for it do, and no other.

All rules, by the queries and the evaluator of production, at moments of the week's own time, over what had come by
then. The whole week, minute by minute, is a soak: 10,080 evaluations. `make test` has a night and a day of it, with
less mail.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from postel.settings import Alerts
from support.alert_cases import RULES
from support.normal_week import BIG, DAY, HOUR, MINUTE, MONDAY, Week
from timescale_sink.alerts.evaluate import Evaluator
from timescale_sink.store.database import connect

# What rules look back to: the same hour of seven days, a sender's week that ended a day ago.
BEFORE = 9 * DAY
TROUBLE = MONDAY + 2 * DAY + 13 * HOUR
EXPECTED = {
    ("deferral-rate", ""),
    ("provider-blocking", BIG),
    ("queue-growth", "shared"),
    # What the large destination takes once it does again has waited.
    ("delivery-slow", "mx1 mx1 default"),
    ("delivery-slow", "mx2 mx2 default"),
    ("rspamd-down", "mx1 127.0.0.1:11334"),
    ("sender-volume", "user39"),
}
# After the hour's end: a rate is of the hour before, and what is tried again comes to its end by and by.
FIRED_AFTER, OVER_AFTER, OVER_IN_THE_NIGHT = HOUR, 5 * HOUR, 14 * HOUR
Change = tuple[datetime, str, str, str]


def _live(url: str, week: Week, *spans: tuple[datetime, timedelta]) -> Sequence[Change]:
    """Let the days before be, then the week; what fired and was resolved: when, rule, subject, state.

    Args:
        url: of a migrated database.
        week: not begun.
        spans: until when the rules are evaluated how often.
    """

    async def live() -> Sequence[Change]:
        evaluator = Evaluator([*RULES.values()], Alerts(), "")
        with psycopg.connect(url, autocommit=True) as database:
            database.execute("SET synchronous_commit = off")
            moment = week.now + BEFORE
            week.go_on(moment - DAY, metrics=False)
            week.write(database, everything=True)
            week.go_on(moment)
            week.write(database, everything=True)
            database.execute("ANALYZE")
            async with await connect(url) as connection:
                for end, every in spans:
                    while moment < end:
                        moment += every
                        week.go_on(moment)
                        week.write(database)
                        await evaluator.evaluate(connection, moment)
            return _changes(database)

    return asyncio.run(live())


def _changes(database: psycopg.Connection[Any]) -> Sequence[Change]:
    rows = database.execute("SELECT time, rule, labels, state FROM alert_change ORDER BY id").fetchall()
    return [(at, rule, " ".join(labels[name] for name in sorted(labels)), state) for at, rule, labels, state in rows]


def _is_trouble_and_nothing_else(changes: Sequence[Change], over_after: timedelta) -> None:
    assert {(rule, subject) for _, rule, subject, _ in changes} == EXPECTED
    for rule, subject in EXPECTED:
        # What had to wait for hours is delivered at last, and slow again among a night's little mail.
        (fired, first), *_, (over, last) = [(at, state) for at, *which, state in changes if which == [rule, subject]]
        assert (first, last) == ("firing", "resolved")
        assert TROUBLE < fired <= TROUBLE + HOUR + FIRED_AFTER, (rule, fired)
        assert fired < over <= TROUBLE + HOUR + over_after, (rule, over)


@pytest.mark.slow
def test_a_night_is_quiet_and_an_hour_of_trouble_is_told(migrated_postgres: str) -> None:
    begin = TROUBLE - 13 * HOUR - HOUR / 2
    week = Week(begin - BEFORE, TROUBLE, share=0.2)
    night, day = (TROUBLE, 30 * MINUTE), (TROUBLE + HOUR + OVER_AFTER, 10 * MINUTE)
    changes = _live(migrated_postgres, week, night, day)
    _is_trouble_and_nothing_else(changes, OVER_AFTER)


@pytest.mark.soak
@pytest.mark.parametrize("trouble", [None, TROUBLE], ids=["normal", "with an hour of trouble"])
def test_a_whole_week_minute_by_minute(migrated_postgres: str, trouble: datetime | None) -> None:
    begun = time.monotonic()
    changes = _live(migrated_postgres, Week(MONDAY - BEFORE, trouble), (MONDAY + 7 * DAY, MINUTE))
    took = time.monotonic() - begun
    print(f"\n{7 * DAY // MINUTE:,} evaluations of {len(RULES)} rules, {took:,.0f} s", *changes, sep="\n")  # noqa: T201 - the figures
    if trouble is None:
        assert changes == []
    else:
        _is_trouble_and_nothing_else(changes, OVER_IN_THE_NIGHT)
