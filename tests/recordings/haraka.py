"""What recorded events of Haraka's plugin yield."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from otel_receivers.receiver import Batch
from support.replaying import derived

EVENTS = Path(str(files("otel_receivers"))) / "haraka" / "testdata" / "3.3.4" / "events.jsonl"


async def batches(folder: Path) -> list[Batch]:
    """All of it."""
    return await derived(EVENTS, folder)
