"""When a source that does not answer, or is not told of, is an alert: by how often the agent says that it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from support.alert_cases import MINUTE, T0
from support.judged import Judged, each_time, judged

HOUR = timedelta(hours=1)


@dataclass
class Heard:
    """A source over the time of a platform whose agent is heard of all the while."""

    over: Judged

    async def at(self, moment: datetime) -> list[str]:
        """What fired and was resolved until a moment, at which it is looked."""
        self.over.platform.node(moment)
        await self.over.evaluate(moment)
        return [row[0] for row in self.over.rows("SELECT state FROM alert_change ORDER BY id")]

    async def told(
        self, begin: datetime, times: int, every: timedelta, late: timedelta = timedelta(0), looks: int = 20
    ) -> list[str]:
        """So often, each after an interval, and its points come late; it is looked some times in each interval."""
        changes = []
        moment, told = begin, 0
        while told < times:
            moment += every / looks
            if moment - late >= begin + (told + 1) * every:
                told += 1
                self.over.platform.up(begin + told * every, "wildduck", 1, round(every.total_seconds()))
            changes = await self.at(moment)
        return changes


@pytest.fixture
async def heard(migrated_database: str) -> AsyncIterator[Heard]:
    async with judged(each_time("source-silent"), migrated_database) as over:
        yield Heard(over)


@pytest.mark.parametrize(
    ("every", "silent_after"),
    [(1, 900), (60, 900), (300, 900), (301, 902), (900, 2100), (3600, 7500), (6 * 3600, 43500), (86400, 173100)],
)
async def test_a_source_should_be_heard_of_within_two_intervals(heard: Heard, every: int, silent_after: int) -> None:
    interval, last = timedelta(seconds=every), T0 + 3 * timedelta(seconds=every)
    # An answer may take nine tenths of its interval, and its points have the time of the asking.
    late = interval * 9 / 10
    assert await heard.told(T0, 3, interval, late) == []
    assert await heard.at(last + timedelta(seconds=silent_after)) == []
    assert await heard.at(last + timedelta(seconds=silent_after + 1)) == ["firing"]
    again = max(last + 2 * interval + late, last + timedelta(seconds=silent_after + 2))
    heard.over.platform.up(again - late, "wildduck", 1, every)
    assert await heard.at(again) == ["firing", "resolved"]


async def test_a_source_whose_agent_was_away_has_until_its_first_asking(heard: Heard) -> None:
    await heard.told(T0, 2, HOUR)
    heard.over.platform.asked(T0 + 9 * HOUR + MINUTE, "wildduck", 3600)
    assert await heard.told(T0 + 9 * HOUR, 2, HOUR) == []


async def test_a_source_that_is_asked_less_often_from_now_on_is_not_silent(heard: Heard) -> None:
    await heard.told(T0, 10, MINUTE, looks=1)
    begun = T0 + 20 * MINUTE
    heard.over.platform.asked(begun, "wildduck", 4 * 3600)
    assert await heard.told(begun, 2, 4 * HOUR, looks=60) == []
    # And is, once it is asked often again.
    last = begun + 9 * HOUR
    await heard.told(last - 5 * MINUTE, 5, MINUTE, looks=1)
    assert await heard.at(last + 15 * MINUTE) == []
    assert await heard.at(last + 16 * MINUTE) == ["firing"]


async def test_a_source_in_which_the_agent_hangs_from_the_beginning_is_silent(heard: Heard) -> None:
    heard.over.platform.asked(T0, "wildduck", 30)
    assert await heard.at(T0 + 15 * MINUTE) == []
    assert await heard.at(T0 + 16 * MINUTE) == ["firing"]


async def test_of_an_agent_that_does_not_say_how_often_it_asks_a_quarter_of_an_hour_is_silence(heard: Heard) -> None:
    heard.over.platform.point(T0, "postel.receiver.up", {"postel.receiver.name": "wildduck"}, value_int=1)
    assert await heard.at(T0 + 15 * MINUTE) == []
    assert await heard.at(T0 + 16 * MINUTE) == ["firing"]


async def test_a_source_that_was_taken_away_is_forgotten_after_a_day(heard: Heard) -> None:
    await heard.told(T0, 1, MINUTE)
    assert await heard.at(T0 + 24 * HOUR) == ["firing"]
    # Nobody is told that it is over.
    assert await heard.at(T0 + 24 * HOUR + 2 * MINUTE) == ["firing"]
    assert heard.over.rows("SELECT * FROM alert") == []


async def test_a_source_that_failed_once_and_takes_its_time_then_is_not_unreachable(migrated_database: str) -> None:
    # WildDuck's mailboxes: a connection is refused at once, to read ten thousand users takes four minutes.
    async with judged(each_time("source-unreachable"), migrated_database) as over:
        heard, interval = Heard(over), 5 * MINUTE
        assert await heard.told(T0, 3, interval, looks=8) == []
        failed = T0 + 4 * interval
        over.platform.up(failed, "wildduck", 0, 300)
        moment = failed
        while moment < failed + 3 * interval:
            moment += MINUTE / 2
            due = moment - 4 * MINUTE
            if due > failed and (due - failed) % interval == timedelta(0):
                over.platform.up(due, "wildduck", 1, 300)
            assert await heard.at(moment) == []


@pytest.mark.parametrize("every", [30, 300, 3600, 86400])
async def test_a_source_is_unreachable_five_minutes_after_an_asking_that_failed(
    every: int, migrated_database: str
) -> None:
    async with judged(each_time("source-unreachable"), migrated_database) as over:
        heard, interval = Heard(over), timedelta(seconds=every)
        assert await heard.told(T0, 3, interval, looks=8) == []
        begun = T0 + 4 * interval
        changes, moment = await heard.at(begun), begun
        while moment < begun + 5.5 * MINUTE:
            if (moment - begun) % interval == timedelta(0):
                over.platform.up(moment, "wildduck", 0, every)
            changes = await heard.at(moment)
            assert changes == ([] if moment < begun + 5 * MINUTE else ["firing"])
            moment += MINUTE / 2
        over.platform.up(moment, "wildduck", 1, every)
        assert await heard.at(moment) == ["firing"]
        assert await heard.at(moment + MINUTE) == ["firing", "resolved"]
