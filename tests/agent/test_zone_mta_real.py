"""A real Zone-MTA, scraped: the points are its page, and the increase is its attempts, over restarts and kills."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from testbed.fixtures import NewZoneMta
from testbed.program import until
from testbed.zone_mta import OLDER_IN_SOAK, RELEASES, SENDER, ZoneMta

from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.privacy import Privacy
from otel_receivers.receiver import ScrapeError, Target, Tick
from otel_receivers.zone_mta.instance import resource_of
from otel_receivers.zone_mta.lookup import Lookup
from otel_receivers.zone_mta.queue import ZoneMtaQueueReceiver
from otel_receivers.zone_mta.receiver import ZoneMtaReceiver
from otel_receivers.zone_mta.rest import Share
from postel.signals import load_all
from support.batches import Increase, points_of
from support.markdown import reading, run, variables
from support.ports import free_port
from support.running_agent import agent, environment

SECOND = 1_000_000_000
ATTEMPTS = "zonemta.delivery.attempts"
pytestmark = pytest.mark.slow


class Scraper:
    """Scrapes as the agent does, at ticks of a second, and keeps the increase of the attempts."""

    def __init__(self, server: ZoneMta, folder: Path) -> None:
        self.epochs = Epochs()
        self.increase = Increase(ATTEMPTS)
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
        self.increase.add(batch)
        return {
            (point.attributes["zonemta.zone"], point.attributes["zonemta.outcome"]): point.value
            for point in points_of(batch, ATTEMPTS)
        }


async def test_the_points_are_the_page_and_none_without_any_delivery(zone_mta: ZoneMta, tmp_path: Path) -> None:
    scraper = Scraper(zone_mta, tmp_path)
    # In its first seconds its page does not even have the size of the queue.
    assert await scraper.scrape() == {}
    zone_mta.send(3, "ok")
    zone_mta.send(2, "ok", zone="bulk")
    zone_mta.send(2, "reject", zone="bulk")
    zone_mta.send(1, "defer-then-ok")
    zone_mta.wait_until_idle()
    found = await scraper.scrape()
    assert found == zone_mta.delivery_status()
    assert {zone for zone, _ in found} == {"default", "bulk"}


# The whole way to the database over such a restart is in `make test`: tests/e2e/test_zone_mta.py.
@pytest.mark.soak
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
    assert scraper.increase.total == attempts


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
    assert happened - (killed_at - before) <= scraper.increase.total <= happened


class QueueAsker:
    """Asks for a server's queue by zones, as the agent does."""

    def __init__(self, server: ZoneMta, folder: Path) -> None:
        declaration, target = load_all()["zone_mta"], Target("127.0.0.1", server.api_port)
        resource = resource_of(declaration, identify(folder, setting="node-1"), target)
        self._receiver = partial(
            ZoneMtaQueueReceiver, declaration, resource, interval=30, target=target, counting=Share(1), looking=Share(1)
        )

    async def ask(self) -> tuple[dict[tuple[str, str], int], dict[str, float]]:
        """(zone, state) -> recipients, and zone -> seconds, '' for the whole."""
        receiver = self._receiver()
        try:
            batch = await receiver.collect(Tick(time.time_ns() // SECOND * SECOND))
        finally:
            await receiver.close()
        assert batch.problems == ()
        counts = {
            (point.attributes["zonemta.zone"], point.attributes["zonemta.queue.state"]): point.value
            for point in points_of(batch, "zonemta.queue.message.count")
        }
        ages = {
            point.attributes.get("zonemta.zone", ""): point.value
            for point in points_of(batch, "zonemta.queue.oldest_message.age")
        }
        return counts, ages


@pytest.mark.parametrize("version", OLDER_IN_SOAK)
async def test_each_zone_of_the_queue_says_what_waits_in_it(
    version: str, new_zone_mta: NewZoneMta, tmp_path: Path
) -> None:
    odd = "a/b 100%25 ..?x=y#"
    sink_zone = {"disabled": False, "host": "127.0.0.1", "port": 1, "processes": 1, "connections": 1, "pool": "default"}
    server = new_zone_mta(version=version, settings={"zones": {odd: sink_zone}}, defer_times_s=(600,))
    queue = QueueAsker(server, tmp_path)
    zones = ("bulk", "default", odd)
    nothing = {(zone, state): 0 for zone in zones for state in ("queued", "deferred")}
    assert await queue.ask() == (nothing, dict.fromkeys(("", *zones), 0.0))

    began = time.time()
    server.send(3, "defer")
    time.sleep(1)  # noqa: ASYNC251 - nothing else runs in this loop
    server.send(2, "defer", zone="bulk")
    # Nobody listens where this zone delivers to.
    server.send(1, "ok", zone=odd)
    until(lambda: len(server.sink.attempts()) >= 5, 30, "the first attempts")
    expected = {**nothing, ("default", "deferred"): 3, ("bulk", "deferred"): 2, (odd, "deferred"): 1}
    deadline = time.monotonic() + 30
    while (found := await queue.ask())[0] != expected:
        assert time.monotonic() < deadline, found
    counts, ages = found
    assert sum(counts.values()) == server.queued()
    waited = time.time() - began
    assert ages[""] == ages["default"]
    assert 1 < ages["bulk"] + 1 <= ages["default"] <= waited
    assert 0 < ages[odd] < ages["bulk"]


@pytest.mark.parametrize("version", RELEASES)
def test_a_message_is_found_while_it_waits(version: str, new_zone_mta: NewZoneMta, tmp_path: Path) -> None:
    server = new_zone_mta(("default",), version=version, defer_times_s=(600,))
    (recipient,) = server.send(1, "defer")
    listing = f"{server.api}/queued/deferred/default"
    until(lambda: httpx.get(listing).json()["list"], 30, "it is deferred")
    queue_id = httpx.get(listing).json()["list"][0]["id"]

    def look_up() -> dict[str, Any] | None:
        return asyncio.run(Lookup(lambda: [Target("127.0.0.1", server.api_port)], Privacy("keep")).find(queue_id))

    found = look_up()
    assert found
    assert (found["id"], found["from_address"], found["interface"]) == (queue_id, SENDER, "feeder")
    (only,) = found["recipients"]
    assert (only["address"], only["zone"], only["status"], only["attempts"]) == (recipient, "default", "deferred", 1)
    assert only["response"].startswith("451")
    due = datetime.fromisoformat(only["next_attempt"]) - datetime.fromisoformat(only["last_deferred"])
    assert due.total_seconds() == 600
    assert any(line["text"] == f"RCPT TO:<{recipient}>" for line in only["log"])

    with reading("otel_receivers/zone_mta/README.md", instead={"1a20e35f47d000e1ae": queue_id}) as page:
        (command,) = page.take("sh")
        # No agent is there to ask: the command asks Zone-MTA itself.
        shown = run(
            command,
            tmp_path,
            variables(
                POSTEL_DATA_DIR=str(tmp_path),
                POSTEL_INTAKE__ADDRESS=f"127.0.0.1:{free_port()}",
                POSTEL_DISCOVERY__ZONE_MTA_PORT=str(server.api_port),
            ),
        )
    assert recipient in shown

    assert httpx.delete(f"{server.api}/message/{queue_id}/001").json() == {"success": True}
    assert look_up() is None


async def test_two_that_share_a_database_say_one_queue(new_zone_mta: NewZoneMta, tmp_path: Path) -> None:
    first = new_zone_mta(defer_times_s=(600,))
    shared = json.loads(first.config_path.read_text())["dbs"]["mongo"]
    second = new_zone_mta(defer_times_s=(600,), settings={"dbs": {"mongo": shared}})
    first.send(2, "defer")
    second.send(1, "defer", zone="bulk")
    until(lambda: len(first.sink.attempts()) + len(second.sink.attempts()) == 3, 30, "three attempts")
    until(lambda: b'zonemta_queue_size{type="deferred"} 3' in first.metrics_page(), 30, "the first counts them")
    until(lambda: b'zonemta_queue_size{type="deferred"} 3' in second.metrics_page(), 30, "the second counts them")

    variables = environment(
        tmp_path,
        "http://127.0.0.1:1",
        DISCOVERY__ZONE_MTA_PORT=first.api_port,
        DISCOVERY__ZONE_MTA_INSTANCES=json.dumps([f"127.0.0.1:{second.api_port}"]),
        DISCOVERY__ZONE_MTA_QUEUE_ID="shared",
    )
    async with agent(variables, "--once") as process:
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    told: dict[tuple[str, str], int] = {}
    for line in out.decode().splitlines():
        for resource in json.loads(line).get("resourceMetrics", []):
            who = {each["key"]: next(iter(each["value"].values())) for each in resource["resource"]["attributes"]}
            for metric in (metric for scope in resource["scopeMetrics"] for metric in scope["metrics"]):
                if metric["name"] == "zonemta.queue.message.count":
                    assert who["zonemta.queue.id"] == "shared"
                    for point in metric["gauge"]["dataPoints"]:
                        named = {each["key"]: each["value"]["stringValue"] for each in point["attributes"]}
                        if named["zonemta.queue.state"] == "deferred":
                            zone = named.get("zonemta.zone", "")
                            told[who["service.instance.id"], zone] = int(point["asInt"])
    instances = [f"node-1:{server.api_port}" for server in (first, second)]
    assert told == {
        (instance, zone): count for instance in instances for zone, count in (("", 3), ("default", 2), ("bulk", 1))
    }
