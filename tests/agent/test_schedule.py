"""Ticks are multiples of the interval: late ones keep their time, none comes twice, none is made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers.schedule import ticks, upcoming

SECOND = 1_000_000_000


@given(st.integers(1, 10**12), st.integers(1, 10**6), st.integers(1, 3600))
def test_upcoming_is_a_later_multiple_and_less_than_an_interval_late(last: int, passed: int, interval: int) -> None:
    last = last // interval * interval
    now = last + passed
    due = upcoming(now, interval, last)
    assert due % interval == 0
    assert due > last
    assert due > now - interval
    assert due == last + interval or due <= now


class Clock:
    """A wall clock that moves only when somebody sleeps, or is set."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.jumps: dict[float, float] = {}

    def __call__(self) -> int:
        return round(self.now * SECOND)

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


async def collected(clock: Clock, interval: int, count: int, work: Callable[[int], float]) -> list[float]:
    times = []
    async for tick in ticks(interval, clock=clock):
        times.append(tick.time_unix_nano / SECOND)
        clock.now += work(len(times))
        if len(times) == count:
            break
    return times


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1007.3)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    return clock


async def test_ticks_stand_on_the_grid(clock: Clock) -> None:
    assert await collected(clock, 15, 4, lambda _: 0.5) == [1020, 1035, 1050, 1065]


async def test_a_late_tick_keeps_its_time_and_none_is_lost(clock: Clock) -> None:
    # The second takes 20 s; the third comes late, the fourth is on time again.
    assert await collected(clock, 15, 5, lambda n: 20 if n == 2 else 0.1) == [1020, 1035, 1050, 1065, 1080]


async def test_ticks_of_a_host_that_slept_are_not_made_up(clock: Clock) -> None:
    assert await collected(clock, 15, 4, lambda n: 3600 if n == 2 else 0.1) == [1020, 1035, 4635, 4650]


async def test_a_clock_set_back_a_little_gives_no_tick_twice(clock: Clock) -> None:
    assert await collected(clock, 15, 4, lambda n: -40 if n == 2 else 0.1) == [1020, 1035, 1050, 1065]


async def test_a_clock_that_was_far_ahead_starts_anew(clock: Clock) -> None:
    clock.now = 100_000.0
    times = await collected(clock, 15, 4, lambda n: -90_000 if n == 2 else 0.1)
    assert times == [100_005, 100_020, 10_035, 10_050]


async def test_ticks_of_the_real_clock_come_on_time() -> None:
    async for tick in ticks(1):
        late = time.time_ns() - tick.time_unix_nano
        assert tick.time_unix_nano % SECOND == 0
        assert 0 <= late < SECOND
        break
    await asyncio.sleep(0)
