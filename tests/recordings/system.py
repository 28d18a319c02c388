"""What a recorded host yields at its second tick; shares of time need two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_receivers.epochs import Epochs
from otel_receivers.receiver import Batch
from otel_receivers.system.receiver import SystemReceiver
from postel.signals import load_all
from support.hosts import INTERVAL, Recorded, node


async def batches(folder: Path) -> list[Batch]:
    """Both ticks."""

    def make(epochs: Epochs | None = None, **options: Any) -> SystemReceiver:
        return SystemReceiver(load_all()["system"], node(), epochs or Epochs(), interval=INTERVAL, **options)

    with pytest.MonkeyPatch.context() as patch:
        host = Recorded(folder / "host", make, patch)
        receiver = host.receiver()
        try:
            first = host.collect(receiver)
            host.change("stat", "cpu  250000 1000 90000 4000000 12000", "cpu  250600 1000 90150 4000700 12050")
            return [first, host.collect(receiver, 1)]
        finally:
            await receiver.close()
