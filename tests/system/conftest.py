from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from otel_receivers.epochs import Epochs
from otel_receivers.system.receiver import SystemReceiver
from postel.signals import Declaration, load_all
from support.hosts import INTERVAL, Recorded, node
from support.requirements import require


@pytest.fixture(autouse=True)
def _psutil_forgets() -> None:
    """psutil remembers by process what devices counted, and hosts change from test to test."""
    psutil.net_io_counters.cache_clear()  # type: ignore[attr-defined] # an attribute set at run time
    psutil.disk_io_counters.cache_clear()  # type: ignore[attr-defined]


@pytest.fixture
def proc() -> Path:
    """This host's own /proc."""
    require("proc", available=Path("/proc/net/tcp").exists(), how="the tests of this source run on Linux")
    return Path("/proc")


@pytest.fixture(scope="session")
def declaration() -> Declaration:
    return load_all()["system"]


@pytest.fixture
def make_receiver(declaration: Declaration) -> Iterator[Callable[..., SystemReceiver]]:
    made: list[SystemReceiver] = []

    def make(epochs: Epochs | None = None, boot_id: str = "b007", **kwargs: Any) -> SystemReceiver:
        receiver = SystemReceiver(declaration, node(boot_id), epochs or Epochs(), interval=INTERVAL, **kwargs)
        made.append(receiver)
        return receiver

    yield make
    for receiver in made:
        receiver._instruments.close()
        receiver._host.prober.close()
        receiver._log.close()


@pytest.fixture
def recorded(tmp_path: Path, make_receiver: Callable[..., SystemReceiver], monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(tmp_path / "host", make_receiver, monkeypatch)
