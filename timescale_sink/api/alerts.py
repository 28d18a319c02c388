"""Alerts as people see them: what is wrong, who looks after it, what is silenced, what changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from timescale_sink.api.access import Access, BadQueryError
from timescale_sink.api.queries import query
from timescale_sink.api.shared import Shared

DAY_S = 86400
State = Literal["pending", "firing", "resolved"]


@dataclass(frozen=True, slots=True)
class Alert:
    """A subject of a rule for which it is, or within a week was, so.

    Attributes:
        labels: which subject.
        since: since when it is in this state.
        seen: when it was last wrong.
    """

    rule: str
    labels: Mapping[str, str]
    state: State
    severity: str
    title: str
    value: float
    details: Mapping[str, Any]
    since: datetime
    seen: datetime
    silenced: bool
    acknowledged_by: str | None
    acknowledged_at: datetime | None


@dataclass(frozen=True, slots=True)
class Change:
    """An alert that began to fire, or was resolved."""

    time: datetime
    rule: str
    labels: Mapping[str, str]
    state: Literal["firing", "resolved"]
    value: float


@dataclass(frozen=True, slots=True)
class Silence:
    """What is told to nobody for a time: alerts of the rule (None: of each) that have all of the labels."""

    id: UUID
    rule: str | None
    labels: Mapping[str, str]
    starts: datetime
    ends: datetime
    author: str
    reason: str


@dataclass(frozen=True, slots=True)
class Latest:
    """All of it as it is now, with the changes of a day."""

    alerts: Sequence[Alert]
    silences: Sequence[Silence]
    changes: Sequence[Change]


class AlertReader:
    """Reads alerts, and writes what people say of them; what its methods raise is told by `Access.connection`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._latest: Shared[Latest] = Shared()

    async def close(self) -> None:
        """End what is still being asked."""
        await self._latest.close()

    async def latest(self) -> Latest:
        """What there is now, asked once for all who ask at about the same time."""
        return await self._latest.get("latest", self._ask_latest)

    async def alerts(self, state: State | None = None) -> list[Alert]:
        """Those in a state, or all: what is worst and newest first, a thousand at most."""
        return [Alert(**row) for row in await self._ask("alerts", state=state)]

    async def changes(self, start: float, stop: float) -> list[Change]:
        """What began to fire and what was resolved between two moments (epoch seconds), newest first."""
        return [Change(**row) for row in await self._ask("alert_changes", start=start, stop=stop)]

    async def silences(self) -> list[Silence]:
        """What is silenced, now or later."""
        return [Silence(**row) for row in await self._ask("silences")]

    async def acknowledge(self, rule: str, labels: Mapping[str, str], author: str) -> bool:
        """Say who looks after an alert; False where none such is pending or firing."""
        return bool(await self._write("acknowledge", rule=rule, labels=Jsonb(dict(labels)), author=author))

    async def silence(
        self,
        *,
        rule: str | None,
        labels: Mapping[str, str],
        ends: datetime,
        author: str,
        reason: str,
        starts: datetime | None = None,
    ) -> Silence:
        """Tell nobody for a time, from now where ``starts`` is None.

        Raises:
            BadQueryError: it would end before it starts.
        """
        values = {"rule": rule, "labels": Jsonb(dict(labels)), "author": author, "reason": reason}
        try:
            (row,) = await self._write("silence", starts=starts, ends=ends, **values)
        except psycopg.errors.CheckViolation:
            raise BadQueryError("ends: must be after `starts`") from None
        return Silence(**row)

    async def end_silence(self, silence: UUID) -> bool:
        """End a silence now; False where there is none such."""
        return bool(await self._write("end_silence", id=silence))

    async def _ask_latest(self) -> Latest:
        now = time.time()
        # What the database's clock is ahead is no reason to leave out what changed last.
        changes = await self.changes(now - DAY_S, now + DAY_S)
        return Latest(await self.alerts(), await self.silences(), changes)

    async def _write(self, name: str, **values: Any) -> list[dict[str, Any]]:
        rows = await self._ask(name, **values)
        self._latest.forget()
        return rows

    async def _ask(self, name: str, **values: Any) -> list[dict[str, Any]]:
        async with self._access.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query(name), values)
            return await cursor.fetchall()
