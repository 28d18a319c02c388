"""How things stand, for the pages: what waits for a further attempt, who stores how much, and which scores came.

Each question is asked of the database once for all who ask it at about the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from psycopg.rows import class_row

from timescale_sink.api.access import Access, asked_again
from timescale_sink.api.queries import query
from timescale_sink.api.shared import Shared

# They read three days of attempts, or two of users.
_KEEP_S = 15.0
SCORE_STEP = 5
Nodes = tuple[str, ...] | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Recipients that wait for a further attempt at one destination, and the last answer from there."""

    to_domain: str | None
    mx: str | None
    category: str | None
    recipients: int
    since: datetime | None
    last_attempt: datetime
    response: str | None


@dataclass(frozen=True, slots=True)
class Quota:
    """What a user stores, in bytes; ``allowed`` None: without a limit."""

    name: str
    used: float
    allowed: float | None
    time: datetime


@dataclass(frozen=True, slots=True)
class Score:
    """Messages with a score from ``score`` to below the next step, which is `SCORE_STEP` points on."""

    score: int
    messages: int
    rejected: int


class StandingReader:
    """Reads how things stand; what its methods raise is told by `Access.connection`. ``nodes`` None: of each."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._answers: Shared[Sequence[Any]] = Shared()

    async def close(self) -> None:
        """End what is still being asked."""
        await self._answers.close()

    async def waiting(
        self, nodes: Nodes, limit: int, *, zone: str = "", domain: str = "", provider: str = ""
    ) -> Sequence[Waiting]:
        """Where the deferred mail wants to go, most recipients first: now, by the events of three days.

        Args:
            nodes: only of these.
            limit: so many destinations.
            zone: only what is in it; '': in any.
            domain: only what goes to it; '': to any.
            provider: only what a mail exchanger has whose name contains it; '': any.
        """
        values = {"nodes": nodes, "limit": limit, "zone": zone, "domain": domain, "provider": provider}
        return await self._ask(Waiting, "deferred_destinations", values)

    async def quotas(self, nodes: Nodes, stop: datetime, limit: int, *, nearest: bool) -> Sequence[Quota]:
        """Users with the most in store, or nearest to their limit, as they were last told of before a time."""
        values = {"nodes": nodes, "stop": stop, "limit": limit, "nearest": nearest}
        return await self._ask(Quota, "quotas", values)

    async def scores(self, nodes: Nodes, start: datetime, stop: datetime) -> Sequence[Score]:
        """How many messages had which score, the lowest first."""
        return await self._ask(Score, "scores", {"nodes": nodes, "start": start, "stop": stop, "step": SCORE_STEP})

    async def _ask(self, kind: Callable[..., T], name: str, values: Mapping[str, Hashable]) -> Sequence[T]:
        @asked_again
        async def ask() -> Sequence[T]:
            told = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
            async with self._access.connection() as connection, connection.cursor(row_factory=_rows(kind)) as cursor:
                await cursor.execute(query(name), told)
                return await cursor.fetchall()

        return await self._answers.get((name, *values.values()), ask, _KEEP_S)


def _rows(kind: Callable[..., T]) -> Any:
    return class_row(kind)  # type: ignore[arg-type]
