"""The end of tasks, also of those that a cancellation does not reach."""

from __future__ import annotations

import asyncio

from postel.tasks import end


async def test_a_cancellation_that_comes_with_what_was_waited_for_ends_a_task_too() -> None:
    came = asyncio.Event()

    async def wait_for_it() -> None:
        while True:
            await asyncio.wait_for(came.wait(), 60)
            came.clear()

    async def fail() -> None:
        raise ValueError

    tasks = [asyncio.create_task(wait_for_it()), asyncio.create_task(fail())]
    await asyncio.sleep(0.01)
    came.set()
    # What `wait_for` waits for is over, and it does not know yet.
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        waited, failed = await end(*tasks)
    assert isinstance(waited, asyncio.CancelledError)
    assert isinstance(failed, ValueError)
