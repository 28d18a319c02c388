"""Recorded answers of Zone-MTA's REST, and a stand-in for it that gives such answers of a made-up queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from support.stand_in import Request
from support.zone_mta_pages import RECORDINGS

COUNTER = (RECORDINGS / "3.11.0" / "counter-zone.json").read_bytes()
TWO_DEFERRED = (RECORDINGS / "3.11.0" / "queued-deferred.json").read_bytes()
NOTHING_QUEUED = (RECORDINGS / "3.11.0" / "queued-queued-empty.json").read_bytes()
MESSAGE = (RECORDINGS / "3.11.0" / "message.json").read_bytes()
MESSAGE_ID = "1a20e35f47d000e1ae"
NO_MESSAGE = (RECORDINGS / "3.11.0" / "message-not-found.json").read_bytes()

# zone -> when its queued recipients, and its deferred ones, were taken into the queue; seconds since 1970.
Queue = Mapping[str, tuple[list[float], list[float]]]


def counter(queue: Queue) -> dict[str, Any]:
    """As `/counter/zone/` says it."""

    def half(state: int) -> dict[str, Any]:
        entries = [{"key": zone, "value": len(waiting[state])} for zone, waiting in queue.items()]
        return {"entries": entries, "rows": sum(entry["value"] for entry in entries)}

    return {"zone": "all", "active": half(0), "deferred": half(1)}


def listed(zone: str, state: str, created: float | None) -> dict[str, Any]:
    """As `/queued/STATE/ZONE?pageSize=1` says it."""
    entries = []
    if created is not None:
        text = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entries = [{"id": MESSAGE_ID, "zone": zone, "recipient": "a@two.test", "created": text, "queued": text}]
    return {"zone": zone, "type": state, "list": [{**entry, "deferred": 0} for entry in entries]}


@dataclass
class StandIn:
    """Answers as Zone-MTA's REST does; `instead` may answer something else."""

    queue: Queue = field(default_factory=dict)
    instead: Callable[[Request], tuple[int, Any] | None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    name = "restify"

    def paths(self) -> list[str]:
        """The paths that were asked for."""
        return [request.path for request in self.requests]

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and JSON."""
        if (other := self.instead(request)) is not None:
            return other
        match request.path.split("/")[1:]:
            case ["counter", "zone", ""]:
                return 200, counter(self.queue)
            case ["queued", ("queued" | "deferred") as state, zone]:
                waiting = self.queue[unquote(zone)][state == "deferred"]
                assert request.query == {"pageSize": "1", "sort": "created", "order": "asc"}
                return 200, listed(unquote(zone), state, min(waiting, default=None))
        return 404, {"code": "ResourceNotFound", "message": f"{request.path} does not exist"}
