"""What recorded answers of Rspamd's controller yield."""

from __future__ import annotations

from pathlib import Path

from otel_receivers.receiver import Batch
from support.replaying import answered
from support.rspamd_answers import StandIn, standing_in


async def batches(folder: Path) -> list[Batch]:
    """All of it."""
    async with standing_in(StandIn()) as port:
        return await answered("rspamd_controller", port, folder)
