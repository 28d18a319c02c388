"""Asks Zone-MTA's REST, which has no authentication and could delete: GET alone, every name escaped.

What a question costs Zone-MTA's database grows with the queue: a count reads an index entry for each recipient, the
oldest of a zone may lie behind all of another's. So a :class:`Share` lets the next question wait until the answers
before took no more than a share of the time, whatever the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import quote, urlencode

from otel_receivers.http_page import StatusError, client, fetch
from otel_receivers.prometheus import PageError
from otel_receivers.receiver import ScrapeError, Target

T = TypeVar("T")
SHARE = 0.05


class Share:
    """Lets through as many questions as Zone-MTA answers in a share of the time.

    Args:
        share: of the time.
        clock: seconds that only rise.
    """

    def __init__(self, share: float = SHARE, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._free_at = clock()

    def wait(self) -> float:
        """Seconds until the next question may be asked; 0: now."""
        return max(0.0, self._free_at - self._clock())

    def spend(self, seconds: float) -> None:
        """An answer took this long, or did not come in this time: the database works on all the same."""
        self._free_at = self._clock() + seconds * (1 / self._share - 1)


class Rest:
    """The REST of one Zone-MTA.

    Args:
        target: where it listens.
        limit: bytes of an answer at most.
    """

    def __init__(self, target: Target, *, limit: int = 1 << 20) -> None:
        self._base = f"http://{target}"
        self._limit = limit
        self._client = client({"Accept": "application/json"})

    async def ask(
        self,
        make: Callable[[bytes], T],
        *path: str,
        query: Mapping[str, str] | None = None,
        timeout: float,  # noqa: ASYNC109 - of the whole answer
    ) -> T:
        """Ask once.

        Args:
            make: makes of the answer what the caller wants.
            path: its parts, each still to be escaped; the last may be empty.
            query: what follows the question mark.
            timeout: seconds for a whole answer.

        Raises:
            ScrapeError: as of :func:`~otel_receivers.http_page.fetch`, or ``make`` raised a PageError.
        """
        url = (
            self._base
            + "".join(f"/{quote(part, safe='')}" for part in path)
            + (f"?{urlencode(query)}" if query else "")
        )
        try:
            return make(await fetch(self._client, url, limit=self._limit, timeout=timeout))
        except PageError as error:
            raise ScrapeError(error.error_type, f"{url}: {error}") from None
        except StatusError as error:
            raise StatusError(int(error.error_type), _said(error), error.body) from None

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def can_be_asked_for(part: str) -> bool:
    """Whether a name can be a part of a path: dots, escaped or not, mean this folder and the one above (RFC 3986)."""
    return part not in {"", ".", ".."}


def _said(error: StatusError) -> str:
    """What Zone-MTA says of its refusal, in a line; ``{"error": "Service not yet started"}`` and the like."""
    said = " ".join(error.body.decode("utf-8", "replace").split())
    return f"{error} {said}" if said.isprintable() and len(said) <= 200 else str(error)  # noqa: PLR2004 - of a line
