"""The queue by zones: what is asked of Zone-MTA, how often at most, and what becomes of answers that do not come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_receivers.node import identify
from otel_receivers.receiver import Batch, ScrapeError, Target, Tick
from otel_receivers.zone_mta.instance import resource_of
from otel_receivers.zone_mta.queue import ZoneMtaQueueReceiver
from otel_receivers.zone_mta.rest import Share
from postel.signals import load_all
from support.batches import data_points
from support.ports import free_port
from support.raw_http_server import server
from support.stand_in import Request, standing_in
from support.zone_mta_answers import StandIn, counter, listed

NOW = 1_795_600_000.0
TICK = Tick(int(NOW) * 10**9)
COUNT, AGE = "zonemta.queue.message.count", "zonemta.queue.oldest_message.age"
Points = dict[tuple[str, ...], float]


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Took(Share):
    """A share of the time in which each answer took so many seconds."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        super().__init__(0.05, clock)
        self._seconds = seconds

    def spend(self, seconds: float) -> None:
        del seconds
        super().spend(self._seconds)


@asynccontextmanager
async def receiver(
    port: int, tmp_path: Path, interval: int = 30, **options: Any
) -> AsyncIterator[ZoneMtaQueueReceiver]:
    declaration, target = load_all()["zone_mta"], Target("127.0.0.1", port)
    made = ZoneMtaQueueReceiver(
        declaration,
        resource_of(declaration, identify(tmp_path, setting="node-1"), target),
        interval=interval,
        target=target,
        now=lambda: NOW,
        **options,
    )
    try:
        yield made
    finally:
        await made.close()


def points(batch: Batch) -> Points:
    return {(name, *map(str, point.attributes.values())): point.value for name, point in data_points(batch)}


def counts(zone: str, queued: int, deferred: int) -> Points:
    return {(COUNT, "queued", zone): queued, (COUNT, "deferred", zone): deferred}


async def test_each_zone_says_how_much_waits_and_since_when(tmp_path: Path) -> None:
    stand_in = StandIn(
        {
            "default": ([NOW - 10, NOW - 20], [NOW - 300]),
            "bulk": ([NOW - 4000], []),
            "bounces": ([], []),
        }
    )
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as queue:
        batch = await queue.collect(TICK)
    assert points(batch) == {
        **counts("default", 2, 1),
        **counts("bulk", 1, 0),
        **counts("bounces", 0, 0),
        (AGE, "default"): 300,
        (AGE, "bulk"): 4000,
        (AGE, "bounces"): 0,
        (AGE,): 4000,
    }
    assert batch.problems == ()
    assert stand_in.paths() == [
        "/counter/zone/",
        "/queued/deferred/default",
        "/queued/queued/default",
        "/queued/queued/bulk",
    ]


async def test_of_an_empty_queue_only_the_counter_is_asked(tmp_path: Path) -> None:
    stand_in = StandIn({"default": ([], []), "bulk": ([], [])})
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as queue:
        found = points(await queue.collect(TICK))
    assert stand_in.paths() == ["/counter/zone/"]
    assert found[(AGE,)] == found[AGE, "bulk"] == 0


async def test_without_any_zone_nothing_waits(tmp_path: Path) -> None:
    async with standing_in(StandIn()) as port, receiver(port, tmp_path) as queue:
        assert points(await queue.collect(TICK)) == {(AGE,): 0}


@pytest.mark.parametrize("zone", ["a/b", "100%", "#1 ?x=y&z", "süd ö", "%2e%2e", "日本", "...", "a\nb"])
async def test_a_zone_of_any_name_is_asked_for_under_it(zone: str, tmp_path: Path) -> None:
    stand_in = StandIn({zone: ([NOW - 5], [])})
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as queue:
        assert points(await queue.collect(TICK))[AGE, zone] == 5


async def test_a_zone_that_has_no_path_is_counted_and_not_asked_for(tmp_path: Path) -> None:
    stand_in = StandIn({"..": ([NOW - 5], []), "default": ([NOW - 3], [])})
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as queue:
        found = points(await queue.collect(TICK))
    # Nor is the age of the whole told, which would need that zone's.
    assert found == {**counts("..", 1, 0), **counts("default", 1, 0), (AGE, "default"): 3}


async def test_a_zone_without_a_name_is_never_taken_for_the_whole(tmp_path: Path) -> None:
    stand_in = StandIn({"": ([NOW - 5] * 7, []), "default": ([], [])})
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as queue:
        batch = await queue.collect(TICK)
    assert points(batch) == {**counts("default", 0, 0), (AGE, "default"): 0}
    assert [problem.error_type for problem in batch.problems] == ["undeclared_value"]


async def test_a_clock_that_is_behind_makes_no_age_below_zero(tmp_path: Path) -> None:
    async with standing_in(StandIn({"default": ([NOW + 90], [])})) as port, receiver(port, tmp_path) as queue:
        assert points(await queue.collect(TICK))[(AGE,)] == 0


async def test_answers_that_take_long_are_asked_for_less_often(tmp_path: Path) -> None:
    clock = Clock()
    stand_in = StandIn({"default": ([], [])})
    async with standing_in(stand_in) as port, receiver(port, tmp_path, counting=Took(3, clock)) as queue:
        asked = []
        for _ in range(20):
            batch = await queue.collect(TICK)
            asked.append(bool(points(batch)))
            clock.now += 30
    # 3 s of answer in every 60: within a twentieth of the time.
    assert asked == [True, False] * 10


async def test_looking_for_the_oldest_goes_over_several_ticks_and_half_of_it_is_never_told(tmp_path: Path) -> None:
    clock = Clock()
    stand_in = StandIn({f"zone-{number}": ([NOW - number], []) for number in range(1, 8)})
    async with (
        standing_in(stand_in) as port,
        receiver(port, tmp_path, counting=Share(1), looking=Took(1, clock)) as queue,
    ):
        ages = []
        for _ in range(14):
            found = points(await queue.collect(TICK))
            assert found[COUNT, "queued", "zone-7"] == 1, "the counts come at every tick all the same"
            ages.append({key[1]: age for key, age in found.items() if key[0] == AGE and len(key) > 1})
            # After a second of answer, the next question is due in 19.
            clock.now += 20
    whole = {f"zone-{number}": number for number in range(1, 8)}
    assert ages == [{}, {}, {}, {}, {}, {}, whole] * 2
    assert sum("/queued/" in path for path in stand_in.paths()) == 14


async def test_a_list_that_fails_leaves_the_counts_and_is_named(tmp_path: Path) -> None:
    def fail(request: Request) -> tuple[int, Any] | None:
        return (500, {"error": "cursor killed"}) if request.path == "/queued/queued/bulk" else None

    stand_in = StandIn({"default": ([NOW - 3], []), "bulk": ([NOW - 4], [])}, instead=fail)
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as queue:
        batch = await queue.collect(TICK)
        assert points(batch) == {**counts("default", 1, 0), **counts("bulk", 1, 0)}
        assert [(problem.error_type, "cursor killed" in problem.message) for problem in batch.problems] == [
            ("500", True)
        ]
        stand_in.instead = lambda _: None
        await asyncio.sleep(queue._counting.wait())
        await asyncio.sleep(queue._looking.wait())
        assert points(await queue.collect(TICK))[(AGE,)] == 4


@pytest.mark.parametrize(
    ("status", "content", "error_type"),
    [
        (500, {"error": "Service not yet started"}, "500"),
        (401, b"", "401"),
        (302, b"", "302"),
        (200, b"", "empty"),
        (200, b"<html>", "html"),
        (200, b'{"zone":"all","active":{"entries":[', "malformed"),
        (200, {"zone": "all"}, "unexpected_page"),
        (200, b" " * (2 << 20), "too_large"),
        (200, counter({"default": ([], [])}) | {"deferred": {"entries": [], "rows": 0}}, "unexpected_page"),
    ],
)
async def test_without_a_whole_counter_there_is_no_point(
    status: int, content: Any, error_type: str, tmp_path: Path
) -> None:
    stand_in = StandIn(instead=lambda _: (status, content))
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as queue:
        with pytest.raises(ScrapeError) as caught:
            await queue.collect(TICK)
    assert caught.value.error_type == error_type
    assert stand_in.paths() == ["/counter/zone/"]


async def test_nobody_listens(tmp_path: Path) -> None:
    async with receiver(free_port(), tmp_path) as queue:
        with pytest.raises(ScrapeError) as caught:
            await queue.collect(TICK)
    assert caught.value.error_type == "connection"


async def test_a_server_that_hangs_is_asked_again_after_twenty_times_as_long(tmp_path: Path) -> None:
    asked = 0

    async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(3600)

    async with server(hang) as port, receiver(port, tmp_path, interval=1) as queue:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(ScrapeError) as caught:
                await queue.collect(TICK)
            assert time.monotonic() - began < 0.9
            assert caught.value.error_type == "timeout"
        # What hangs may be counting; asking again would add to it.
        assert asked == 1
        assert queue._counting.wait() > 8


async def test_an_answer_of_another_zone_is_not_used(tmp_path: Path) -> None:
    def other(request: Request) -> tuple[int, Any] | None:
        return (200, listed("bulk", "queued", NOW - 9)) if "/queued/" in request.path else None

    async with (
        standing_in(StandIn({"default": ([NOW - 3], [])}, instead=other)) as port,
        receiver(port, tmp_path) as queue,
    ):
        batch = await queue.collect(TICK)
    assert points(batch) == counts("default", 1, 0)
    assert [problem.error_type for problem in batch.problems] == ["unexpected_page"]


def test_the_stand_in_lists_as_zone_mta_does() -> None:
    recorded = json.loads(
        (Path(__file__).parents[2] / "otel_receivers/zone_mta/testdata/3.11.0/queued-deferred.json").read_text()
    )
    assert set(listed("default", "deferred", NOW)["list"][0]) == set(recorded["list"][0])
