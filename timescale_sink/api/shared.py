"""Answers that many who ask the same at about the same time have together."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from postel.tasks import end

# A page open in many browsers asks once in this time; new rows come every 15 s.
KEEP_S = 2.0
_KEPT_ANSWERS = 256

T = TypeVar("T")


class Shared(Generic[T]):
    """Answers kept for a moment: whoever asks the same meanwhile gets the same answer, or waits for it together."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[Hashable, tuple[float, asyncio.Task[T]]] = OrderedDict()

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]], keep_s: float = KEEP_S) -> T:
        """The answer to what ``key`` stands for: a kept one, or what ``ask`` gives."""
        now = time.monotonic()
        kept = self._tasks.get(key)
        if kept is None or (kept[1].done() and now - kept[0] > keep_s):
            task = asyncio.ensure_future(_run(ask))
            self._tasks[key] = (now, task)
            self._tasks.move_to_end(key)
            while len(self._tasks) > _KEPT_ANSWERS:
                self._tasks.popitem(last=False)
        else:
            task = kept[1]
        # One that leaves (a closed page) must not take the answer from the others.
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Ask anew from now on: what was asked about was changed."""
        self._tasks = OrderedDict((key, kept) for key, kept in self._tasks.items() if not kept[1].done())

    async def close(self) -> None:
        """End what is still being asked."""
        await end(*(task for _, task in self._tasks.values()))


async def _run(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()
