"""What recorded answers of Zone-MTA yield, and recorded events of its plugin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from otel_receivers.receiver import Batch
from support.replaying import answered, derived
from support.stand_in import Request, standing_in
from support.zone_mta_answers import COUNTER, NOTHING_QUEUED, TWO_DEFERRED, StandIn
from support.zone_mta_pages import AFTER_TRAFFIC, RECORDINGS

EVENTS = RECORDINGS / "3.11.0" / "events.jsonl"


def _recorded(request: Request) -> tuple[int, Any]:
    match request.path.split("/")[1:]:
        case ["metrics"]:
            return 200, AFTER_TRAFFIC
        case ["counter", *_]:
            return 200, COUNTER
        case [_, "deferred", *_]:
            # It was recorded with a larger page than the agent asks for.
            page = json.loads(TWO_DEFERRED)
            return 200, {**page, "list": page["list"][: int(request.query["pageSize"])]}
    return 200, NOTHING_QUEUED


async def batches(folder: Path) -> list[Batch]:
    """All of it."""
    async with standing_in(StandIn(instead=_recorded)) as port:
        return [*await answered("zone_mta", port, folder), *await derived(EVENTS, folder)]
