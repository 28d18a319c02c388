"""What recorded answers of WildDuck's API and its own page yield."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from otel_receivers.receiver import Batch
from support.raw_http_server import server, sized
from support.replaying import answered
from support.stand_in import Request, standing_in
from support.wildduck_answers import MAILBOXES, METRICS, OLD_LAST_USERS, TWO_WORKERS, StandIn


def _recorded(request: Request) -> tuple[int, Any]:
    if request.path.endswith("/mailboxes"):
        return 200, MAILBOXES
    return 200, OLD_LAST_USERS


async def batches(folder: Path) -> list[Batch]:
    """All of it; the mailboxes are asked for on a slower turn."""
    async with standing_in(StandIn(instead=_recorded)) as port:
        # The first tick tells who the users are, the second goes round their mailboxes.
        asked = await answered("wildduck", port, folder, ticks=2)
    for page in (METRICS, TWO_WORKERS):
        async with server(sized(page)) as port:
            asked += await answered("wildduck_metrics", port, folder)
    return asked
