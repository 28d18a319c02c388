"""What a listener with a recorded certificate yields."""

from __future__ import annotations

from pathlib import Path

from otel_receivers.agent import Collecting
from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Batch, Tick
from postel.settings import Discovery, Settings
from support.tls_listeners import served, until_it_leaves


async def batches(folder: Path) -> list[Batch]:
    """All of it."""
    async with served(until_it_leaves, certificate="lasting") as port:
        settings = Settings(data_dir=folder, discovery=Discovery(tls_listeners=(f"127.0.0.1:{port}",)))
        (receiver,) = Collecting(settings, identify(folder, setting="node-1"), Epochs()).standing()
        return [await receiver.collect(Tick(1_795_600_000_000_000_000))]
