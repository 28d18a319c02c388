"""Asks less and less often while a server refuses (401, 403): a wrong password does not get right by repetition."""

from __future__ import annotations

import time
from collections.abc import Callable

from otel_receivers.receiver import ScrapeError

REFUSED = frozenset({"401", "403"})
# Seconds after which what was refused is tried again, at most.
_PATIENCE_SECONDS = 900.0


class Patience:
    """Remembers a refusal for one receiver.

    Args:
        interval: seconds from one tick of the receiver to the next.
        clock: seconds that only rise.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._refusal: ScrapeError | None = None
        self._pause = 0.0
        self._again_at = 0.0

    def check(self) -> None:
        """Call it at each tick, before the first question.

        Raises:
            ScrapeError: the server refused so lately that asking again would only be noise; what was said then.
        """
        if self._refusal is not None and self._clock() < self._again_at:
            # Anew each time: an exception that is raised again and again holds on to more frames with each.
            raise ScrapeError(self._refusal.error_type, str(self._refusal))

    def answered(self) -> None:
        """The server answered as it should."""
        self._refusal, self._pause = None, 0.0

    def refused(self, refusal: ScrapeError) -> None:
        """Ask at the next tick again, then after twice as long, and so on."""
        self._refusal = refusal
        self._pause = min(max(2 * self._pause, self._interval), _PATIENCE_SECONDS)
        # Half a tick early, so that the tick that is meant is not missed by a hair.
        self._again_at = self._clock() + self._pause - self._interval / 2
