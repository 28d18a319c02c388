"""Waiting, in a test whose event loop has something to do meanwhile, until something is so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def eventually(condition: Callable[[], object], seconds: float, what: str, *, pause: float = 0.05) -> None:
    """Return once a condition holds; AssertionError where it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(pause)
