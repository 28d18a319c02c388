"""A real Zone-MTA, scraped: the points are its page, and the increase is its attempts, over restarts and kills."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from testbed.fixtures import NewZoneMta
from testbed.zone_mta import ZoneMta

from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Batch, ScrapeError, Target, Tick
from otel_receivers.zone_mta.receiver import ZoneMtaReceiver
from postel.signals import load_all

SECOND = 1_000_000_000
ATTEMPTS = "zonemta.delivery.attempts"
pytestmark = pytest.mark.slow

# (zone, outcome) -> [(time, start, value)]
History = dict[tuple[str, str], list[tuple[int, int, int]]]


class Scraper:
    """Scrapes as the agent does, at ticks of a second, and keeps all points."""

    def __init__(self, server: ZoneMta, folder: Path) -> None:
        self.epochs = Epochs()
        self.history: History = {}
        self._node = identify(folder, setting="node-1")
        self._target = Target("127.0.0.1", server.api_port)
        self._last = 0

    async def scrape(self) -> dict[tuple[str, str], int]:
        receiver = ZoneMtaReceiver(load_all()["zone_mta"], self._node, self.epochs, interval=1, target=self._target)
        while (tick := time.time_ns() // SECOND * SECOND) <= self._last:
            time.sleep(0.02)  # noqa: ASYNC251 - nothing else runs in this loop
        self._last = tick
        try:
            batch = await receiver.collect(Tick(tick))
        finally:
            await receiver.close()
        found = {}
        for point in points(batch, ATTEMPTS):
            key = (point.attributes["zonemta.zone"], point.attributes["zonemta.outcome"])
            self.history.setdefault(key, []).append((point.time_unix_nano, point.start_time_unix_nano, point.value))
            found[key] = point.value
        return found

    def increase(self) -> int:
        """By the design's rule ("Rollups")."""
        total = 0
        for series in self.history.values():
            before: tuple[int, int, int] | None = None
            for at, start, value in series:
                if before is not None and before[1] == start:
                    assert value >= before[2]
                    total += value - before[2]
                elif at != start:
                    total += value
                before = (at, start, value)
        return total


def points(batch: Batch, name: str) -> list[Any]:
    return [
        point
        for resource in batch.metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


async def test_the_points_are_the_page(zone_mta: ZoneMta, tmp_path: Path) -> None:
    zone_mta.send(3, "ok")
    zone_mta.send(2, "ok", zone="bulk")
    zone_mta.send(2, "reject", zone="bulk")
    zone_mta.send(1, "defer-then-ok")
    zone_mta.wait_until_idle()
    scraper = Scraper(zone_mta, tmp_path)
    assert await scraper.scrape() == zone_mta.delivery_status()
    assert {zone for zone, _ in scraper.history} == {"default", "bulk"}


async def test_restarted_when_idle_the_increase_is_the_attempts(zone_mta: ZoneMta, tmp_path: Path) -> None:
    scraper = Scraper(zone_mta, tmp_path)
    await scraper.scrape()
    for _ in range(2):
        zone_mta.send(5, "ok")
        zone_mta.send(3, "reject", zone="bulk")
        zone_mta.send(2, "defer-then-ok")
        zone_mta.wait_until_idle()
        await scraper.scrape()
        zone_mta.stop()
        with pytest.raises(ScrapeError):
            await scraper.scrape()
        zone_mta.start()
    zone_mta.send(4, "ok", zone="bulk")
    zone_mta.wait_until_idle()
    await scraper.scrape()
    attempts = len(zone_mta.sink.attempts())
    assert attempts > 20
    assert scraper.increase() == attempts


async def test_killed_under_load_it_falls_short_by_no_more_than_since_the_last_scrape(
    new_zone_mta: NewZoneMta, tmp_path: Path
) -> None:
    server = new_zone_mta(("default",))
    server.sink.delay = 0.05
    scraper = Scraper(server, tmp_path)
    await scraper.scrape()
    server.send(60, "ok")
    before = sum((await scraper.scrape()).values())
    time.sleep(0.7)  # noqa: ASYNC251 - as above
    server.kill()
    # What the sink answered is the truth of each attempt, whatever Zone-MTA had the time to count; also what it answers
    # now to those who are dead already.
    time.sleep(10 * server.sink.delay)  # noqa: ASYNC251 - as above
    killed_at = len(server.sink.attempts())
    assert before < killed_at < 60, "killed under load, with attempts that no scrape has seen"
    server.sink.delay = 0
    server.start()
    server.wait_until_idle()
    await scraper.scrape()
    happened = len(server.sink.attempts())
    assert happened - (killed_at - before) <= scraper.increase() <= happened


async def test_in_the_first_seconds_and_without_any_delivery_it_is_up(zone_mta: ZoneMta, tmp_path: Path) -> None:
    assert await Scraper(zone_mta, tmp_path).scrape() == {}
