from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_receivers.epochs import Epochs
from otel_receivers.system.receiver import SystemReceiver
from postel.signals import Declaration, load_all
from support.hosts import INTERVAL, Recorded, node


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
