"""When a receiver is asked: at multiples of its interval by the wall clock, so that all nodes share one grid.

A late tick keeps its scheduled time. A tick that is later than one interval (the host slept) is not made up. No tick
comes twice, also when the clock is set back: then the next tick waits until the clock is past the last one, or, where
that would take more than `CLOCK_STEP`, starts anew from the clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import structlog

from otel_receivers.receiver import Tick

# A step of the clock that is corrected by waiting; a larger one is a clock that was wrong before.
CLOCK_STEP = 300.0
_NANOS = 1_000_000_000
_log = structlog.get_logger()


def upcoming(now: int, interval: int, last: int) -> int:
    """The scheduled time of the tick to make next; at or before ``now``: make it at once.

    Args:
        now: the wall clock, nanoseconds.
        interval: nanoseconds.
        last: the scheduled time of the tick before.
    """
    return max(last + interval, now - now % interval)


async def ticks(interval: int, *, clock: Callable[[], int] = time.time_ns) -> AsyncIterator[Tick]:
    """Yield each tick when it is due, without end; the first at the next multiple of the interval.

    Args:
        interval: seconds.
        clock: nanoseconds since 1970; the wall clock.
    """
    nanos = interval * _NANOS
    last = clock() // nanos * nanos
    while True:
        now = clock()
        due = upcoming(now, nanos, last)
        if due - now > CLOCK_STEP * _NANOS + nanos:
            _log.warning("the clock was set back; ticks start anew", seconds=(last - now) / _NANOS)
            last = now // nanos * nanos
        elif due > now:
            # The clock may be set while this sleeps; it is asked again afterwards.
            await asyncio.sleep(min((due - now) / _NANOS, interval))
        else:
            last = due
            yield Tick(due)
