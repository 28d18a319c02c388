"""A sink and a Collector that sends to it, both ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postel.collector import find_collector
from support.collector import Collector, Sink
from support.ports import free_port
from support.requirements import require


@pytest.fixture(scope="session")
def program() -> Path:
    found = find_collector()
    require("collector", available=found, how="`make collector` builds it")
    assert found
    return found


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink(free_port())
    yield sink
    sink.stop()


@pytest.fixture
def collector(program: Path, tmp_path: Path, sink: Sink) -> Iterator[Collector]:
    collector = Collector(program, tmp_path, int(sink.address.rpartition(":")[2]))
    yield collector
    collector.end()
