"""The end of tasks that run until they are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

# So long a task may take to end at a cancellation before it is cancelled again.
_AGAIN_S = 1.0


async def end(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Cancel tasks until they are over; what each gave or raised, as `asyncio.gather` returns it.

    The pool waits for a connection by `asyncio.wait_for`, which before Python 3.12 passes over a cancellation that
    comes with what it waits for (python/cpython#86296): the task would go on, and who waits for its end would wait for
    ever.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_AGAIN_S)
    return await asyncio.gather(*tasks, return_exceptions=True)
