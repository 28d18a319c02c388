"""What the agent says of itself: of a source that answers nobody, and of its spool."""

from __future__ import annotations

from pathlib import Path

from otel_receivers.agent import Collecting
from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Batch, Target, Tick
from otel_receivers.spool import Spool
from postel.settings import Settings
from support.ports import free_port

_TICK = Tick(1_795_600_000_000_000_000)


async def batches(folder: Path) -> list[Batch]:
    """All of it, at one tick."""
    collecting = Collecting(Settings(data_dir=folder), identify(folder, setting="node-1"), Epochs())
    spool = await Spool.open(folder, max_bytes=1 << 20, max_age=60)
    receivers = [*collecting.source("zone_mta", Target("127.0.0.1", free_port())), collecting.spool(spool)]
    try:
        return [batch for receiver in receivers for batch in (await collecting.ask(receiver, _TICK)).batches]
    finally:
        for receiver in receivers:
            await receiver.close()
        await spool.close()
