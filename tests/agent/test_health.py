"""The agent's own metrics: every declared one is yielded, and counts what it says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from otel_receivers.agent import Collecting, merged
from otel_receivers.epochs import Epochs
from otel_receivers.health import SpoolReceiver
from otel_receivers.node import Node, identify
from otel_receivers.receiver import Batch, Problem, Receiver, ScrapeError, Target, Tick
from otel_receivers.spool import Spool
from postel.settings import Settings
from postel.signals import load_all
from support.batches import data_points

SECOND = 1_000_000_000
NOW = 4_000_000_000 * SECOND
AGENT = load_all()["agent"]


class Source:
    """A receiver that does what a test says, tick by tick."""

    name = "zone_mta"
    interval = 1
    target: Target | None = Target("127.0.0.1", 12080)

    def __init__(self, *answers: Batch | Exception | None) -> None:
        self.answers = list(answers)

    async def collect(self, tick: Tick) -> Batch:
        del tick
        answer = self.answers.pop(0)
        if answer is None:
            await asyncio.sleep(3600)
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    async def close(self) -> None:
        pass


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return identify(tmp_path, setting="node-1")


@pytest.fixture
def collecting(tmp_path: Path, node: Node) -> Collecting:
    return Collecting(Settings(data_dir=tmp_path), node, Epochs())


async def asked(collecting: Collecting, source: Receiver, ticks: int) -> list[dict[tuple[str, str], Any]]:
    """For each tick: (metric, error type or '') -> value."""
    found = []
    for number in range(ticks):
        collected = await collecting.ask(source, Tick(NOW + number * SECOND))
        found.append(
            {(n, str(p.attributes.get("error.type", ""))): p.value for n, p in data_points(merged(collected.batches))}
        )
    return found


async def test_failures_are_counted_by_kind_and_the_count_stays(collecting: Collecting) -> None:
    source = Source(Batch(), ScrapeError("html", "x"), RuntimeError("bug"), None, ScrapeError("html", "y"), Batch())
    found = await asked(collecting, source, 6)
    assert [tick["postel.receiver.up", ""] for tick in found] == [1, 0, 0, 0, 0, 1]
    errors = [{kind: n for (name, kind), n in tick.items() if name == "postel.scrape.errors"} for tick in found]
    assert errors == [
        {},
        {"html": 1},
        {"html": 1, "RuntimeError": 1},
        {"html": 1, "RuntimeError": 1, "timeout": 1},
        {"html": 2, "RuntimeError": 1, "timeout": 1},
        {"html": 2, "RuntimeError": 1, "timeout": 1},
    ]
    assert all(0 <= tick["postel.scrape.duration", ""] < 1 for tick in found)
    assert found[3]["postel.scrape.duration", ""] == pytest.approx(0.9, abs=0.09)


async def test_how_often_a_source_is_asked_is_told_before_its_first_asking_and_with_each(
    collecting: Collecting, node: Node, tmp_path: Path
) -> None:
    source = Source(Batch(), ScrapeError("html", "x"))
    source.interval = 86400
    ((name, point),) = data_points(merged(collecting.begin(source, Tick(NOW))))
    assert (name, point.value, point.time_unix_nano) == ("postel.receiver.interval", 86400, NOW)
    assert point.attributes == {
        "postel.receiver.name": "zone_mta", "server.address": "127.0.0.1", "server.port": 12080,
    }  # fmt: skip
    found = await asked(collecting, source, 2)
    assert [tick["postel.receiver.interval", ""] for tick in found] == [86400, 86400]
    # The spool is no source.
    spool = await Spool.open(tmp_path / "spool", max_bytes=1 << 20, max_age=60)
    try:
        assert collecting.begin(SpoolReceiver(AGENT, node, spool, interval=15), Tick(NOW)) == ()
    finally:
        await spool.close()


async def test_a_part_left_out_is_an_error_of_a_source_that_is_up(collecting: Collecting) -> None:
    problems = (Problem("invalid_value", "a"), Problem("invalid_value", "b"), Problem("undeclared_label", "c"))
    (found,) = await asked(collecting, Source(Batch(problems=problems)), 1)
    assert found["postel.receiver.up", ""] == 1
    assert found["postel.scrape.errors", "invalid_value"] == 1
    assert found["postel.scrape.errors", "undeclared_label"] == 1


async def test_every_declared_metric_is_yielded(collecting: Collecting, node: Node, tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path / "spool", max_bytes=1 << 20, max_age=60)
    try:
        own = await SpoolReceiver(AGENT, node, spool, interval=15).collect(Tick(NOW))
    finally:
        await spool.close()
    collected = await collecting.ask(Source(ScrapeError("html", "x")), Tick(NOW))
    batches = (*collected.batches, own)
    assert {name for name, _ in data_points(merged(batches))} == set(AGENT.metrics)
    reasons = {p.attributes.get("postel.spool.drop.reason") for n, p in data_points(own) if "dropped" in n}
    assert reasons == set(AGENT.attributes["postel.spool.drop.reason"].enum)
    # What is counted from nothing must not look as if it were met midway.
    assert all(
        p.start_time_unix_nano < p.time_unix_nano for n, p in data_points(merged(batches)) if AGENT.metrics[n].monotonic
    )
