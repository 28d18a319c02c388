"""Turns answers of Zone-MTA's REST into what they say: how much waits in each zone, and what of it is the oldest.

Pure: bytes in, values out. An answer is used as a whole or not at all. A zone's name is whatever its operator chose;
one without any name is left out, because '' is what an instance says of itself as a whole.

Source: Zone-MTA, lib/api-server.js (`/counter/:type/:zone`, `/queued/:type/:zone`), lib/mail-queue.js (`count`,
`listQueued`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from otel_receivers.answers import decode
from otel_receivers.points import INT64_MAX
from otel_receivers.prometheus import PageError

QUEUED = "queued"
DEFERRED = "deferred"
# What an answer to `/counter/zone/` calls them. A recipient is deferred while its next attempt is not due.
_COUNTED_AS = {QUEUED: "active", DEFERRED: "deferred"}
# Of Date.prototype.toISOString; a year that four digits do not hold has a sign in front.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z").fullmatch


@dataclass(frozen=True, slots=True)
class Depth:
    """Recipients that wait in one zone, by state."""

    zone: str
    queued: int
    deferred: int

    def states(self) -> tuple[str, ...]:
        """The states in which anything waits."""
        return tuple(state for state, count in ((DEFERRED, self.deferred), (QUEUED, self.queued)) if count)


@dataclass(frozen=True, slots=True)
class Depths:
    """All of an answer to ``GET /counter/zone/``; ``nameless``: recipients in a zone whose name is empty."""

    zones: tuple[Depth, ...]
    nameless: int = 0


def depths(body: bytes) -> Depths:
    """Read an answer to ``GET /counter/zone/``: the zones that are enabled in the configuration of who answers.

    Raises:
        PageError: it is no whole answer, or its two halves do not speak of the same zones.
    """
    content = answer(body)
    counts = {state: _counts(content.get(name), name) for state, name in _COUNTED_AS.items()}
    if counts[QUEUED].keys() != counts[DEFERRED].keys():
        raise PageError("unexpected_page", "active and deferred are not of the same zones")
    found = [Depth(zone, counts[QUEUED][zone], counts[DEFERRED][zone]) for zone in counts[QUEUED]]
    nameless = sum(depth.queued + depth.deferred for depth in found if not depth.zone)
    return Depths(tuple(depth for depth in found if depth.zone), nameless)


def oldest(body: bytes, *, zone: str, state: str) -> float | None:
    """Read an answer to ``GET /queued/STATE/ZONE?pageSize=1&sort=created&order=asc``.

    Returns:
        When its one recipient was taken into the queue, seconds since 1970; None where nothing waits.

    Raises:
        PageError: it is no whole answer, or not to this question.
    """
    content = answer(body)
    listed = content.get("list")
    if content.get("zone") != zone or content.get("type") != state or not isinstance(listed, list):
        raise PageError("unexpected_page", f"no list of what is {state} in the zone that was asked for")
    if not listed:
        return None
    first = listed[0]
    if len(listed) > 1 or not isinstance(first, dict) or first.get("zone") != zone:
        raise PageError("unexpected_page", "more or other than the one recipient that was asked for")
    return _seconds(first.get("created"))


def answer(body: bytes) -> Mapping[str, Any]:
    """The JSON object that an answer is.

    Raises:
        PageError: it is none.
    """
    content = decode(body)
    if not isinstance(content, dict):
        raise PageError("unexpected_page", "no JSON object")
    return content


def count_of(value: Any) -> int | None:
    """A whole number from 0 to what a point can hold; None for all else."""
    return value if type(value) is int and 0 <= value <= INT64_MAX else None


def _counts(part: Any, name: str) -> dict[str, int]:
    entries = part.get("entries") if isinstance(part, dict) else None
    if not isinstance(entries, list):
        raise PageError("unexpected_page", f"{name} has no list of entries")
    counts: dict[str, int] = {}
    for entry in entries:
        zone, count = (entry.get("key"), count_of(entry.get("value"))) if isinstance(entry, dict) else (None, None)
        if not isinstance(zone, str) or count is None:
            raise PageError("malformed", f"{name} has an entry that counts no zone")
        if zone in counts:
            raise PageError("malformed", f"{name} counts a zone twice")
        counts[zone] = count
    return counts


def _seconds(text: Any) -> float:
    if not isinstance(text, str) or not _TIME(text):
        raise PageError("malformed", "a recipient says no time at which it came into the queue")
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise PageError("malformed", "a recipient came into the queue at a time that is none") from None
