"""Asks WildDuck's API: four times within a second at most, one question at a time, and patiently where it refuses.

The answers' bytes go to :mod:`otel_receivers.wildduck.parse`. The token goes into a header and is in no message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from otel_receivers.http_page import TIMEOUT, StatusError, client, fetch
from otel_receivers.patience import REFUSED, Patience
from otel_receivers.receiver import ScrapeError, Target
from otel_receivers.wildduck.parse import error_code

# Seconds from one question to the next, all receivers of a WildDuck together: four within any second, also where one
# comes late by 0.2 s, so that with the look that discovery takes every 30 s it is five at most.
SPACING = 0.3
_ANSWER_BYTES = 4 << 20
_TRIES = 3
# Faults that may pass by themselves.
PASSING = frozenset({"connection", "incomplete", "timeout", "500", "502", "503", "504"})
_ELSEWHERE = {"301", "302", "303", "307", "308", "404", "405"}


class Pace:
    """Lets one question through at a time, each at least ``spacing`` seconds after the one before."""

    def __init__(self, spacing: float = SPACING) -> None:
        self._spacing = spacing
        self._lock = asyncio.Lock()
        self._last = time.monotonic() - spacing

    async def turn(self) -> None:
        """Wait until a question may be asked."""
        async with self._lock:
            # From when the one before really began: a timer that was late brings none of them nearer together.
            await asyncio.sleep(self._last + self._spacing - time.monotonic())
            self._last = time.monotonic()


class Api:
    """The API of one WildDuck, for one receiver.

    Args:
        target: where it listens.
        token: its access token; None: it asks for none.
        pace: of all questions to this WildDuck.
        interval: seconds from one tick of the receiver to the next.
        timeout: seconds for a whole answer.
        clock: seconds that only rise.

    Attributes:
        took: seconds that WildDuck took over the last answer.
    """

    def __init__(
        self,
        target: Target,
        token: str | None,
        pace: Pace,
        *,
        interval: float,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = f"http://{target}"
        self._pace = pace
        self._timeout = timeout
        self._client = client({"Accept": "application/json", **({"X-Access-Token": token} if token else {})})
        self.took = 0.0
        self._patience = Patience(interval, clock)

    def be_patient(self) -> None:
        """Call it at each tick, before the first question.

        Raises:
            ScrapeError: WildDuck refused (401, 403) so lately that asking again would only be noise; what it said then.
        """
        self._patience.check()

    async def get(self, path: str, query: str = "", *, shown: str = "", retried: frozenset[str] = PASSING) -> bytes:
        """Ask once, and up to twice more after a fault that may pass.

        Args:
            path: of the call, as in ``/users``.
            query: behind the question mark.
            shown: the path as messages show it: the same for all users, so that one fault is one line of the log.
            retried: ``error.type`` of the faults after which it is asked again.

        Raises:
            StatusError: the status is not 200.
            ScrapeError: as of :func:`~otel_receivers.http_page.fetch`.
        """
        url = f"{self._base}{path}{query and '?'}{query}"
        for left in reversed(range(_TRIES)):
            await self._pace.turn()
            began = time.monotonic()
            try:
                body = await fetch(self._client, url, limit=_ANSWER_BYTES, timeout=self._timeout)
            except ScrapeError as error:
                if left == 0 or error.error_type not in retried:
                    raise self._said(error, url, f"{self._base}{shown or path}") from None
            else:
                self._patience.answered()
                return body
            finally:
                self.took = time.monotonic() - began
        raise AssertionError("the last try returns or raises")

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    def _said(self, error: ScrapeError, url: str, shown: str) -> ScrapeError:
        message = str(error).replace(url, shown)
        if not isinstance(error, StatusError):
            return ScrapeError(error.error_type, message)
        code = error_code(error.body)
        message += f" {code}" if code else ""
        if error.error_type in REFUSED:
            message += "; set [discovery] wildduck_api_token to a token of WildDuck's that may list all users"
            self._patience.refused(ScrapeError(error.error_type, message))
        elif error.error_type in _ELSEWHERE and code != "UserNotFound":
            message += "; if that is no WildDuck, see [discovery] wildduck_api_port"
        return StatusError(int(error.error_type), message, error.body)
