"""What was counted of events, at each tick: whole, sender by sender, and in full from the first point on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint

from otel_receivers import derived_receiver, exporter, totals
from otel_receivers.derived import Derivation
from otel_receivers.derived_receiver import DerivedReceiver
from otel_receivers.node import Node
from otel_receivers.receiver import Batch, ScrapeError, Tick
from otel_receivers.spool import Spool
from postel.signals import load_all
from support.mail_events import HARAKA, ZONE_MTA, attempt, event, request, requests, uid

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
DERIVATION = Derivation(load_all())
NODE = Node("node-9", "setting", "mx9.example.org", boot_id="", boot_time_unix_nano=0)
MESSAGE = {"email.direction": "inbound", "haraka.data.size": 2000}


class Counting:
    """A spool that takes events, and the receiver that tells of them."""

    def __init__(self, spool: Spool, state: Mapping[str, str] | None = None) -> None:
        self.spool = spool
        self.receiver = DerivedReceiver(load_all(), spool, NODE, interval=1, state=state)

    async def take(self, *records: Any, resource: Mapping[str, Any] = ZONE_MTA, scope: str = "postel.zone_mta") -> None:
        message = request(*records, resource=resource, scope=scope)
        await self.spool.take(exporter.log_requests(message, 1 << 20), DERIVATION.occurrences(message))

    async def haraka(self, name: str, number: int, **attributes: Any) -> None:
        await self.take(event(f"haraka.{name}", attributes, uid=uid(number)), resource=HARAKA, scope="postel.haraka")

    async def points(self, seconds: float = 1) -> dict[tuple[str, str, tuple[tuple[str, Any], ...]], Any]:
        """(instance, metric, attributes) -> point at the tick in so many seconds."""
        batch = await self.receiver.collect(Tick(time.time_ns() + int(seconds * SECOND)))
        assert not batch.problems
        return points(batch)


def points(batch: Batch) -> dict[tuple[str, str, tuple[tuple[str, Any], ...]], Any]:
    return {
        (str(resource.resource.attributes.get("service.instance.id", "")), metric.name, _key(point.attributes)): point
        for resource in batch.metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def _key(attributes: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(dict(attributes).items()))


@asynccontextmanager
async def counting(tmp_path: Path) -> AsyncIterator[Counting]:
    spool = await Spool.open(tmp_path, max_bytes=64 << 20, max_age=3600)
    try:
        yield Counting(spool, await spool.state())
    finally:
        await spool.close()


DELIVERED = (("zonemta.outcome", "delivered"), ("zonemta.zone", "default"))
WHERE = ("node-1:12080", "zonemta.delivery.duration", DELIVERED)


async def test_points_add_up_from_a_start_before_the_first(tmp_path: Path) -> None:
    async with counting(tmp_path) as own:
        await own.take(attempt(1), attempt(2, duration=3))
        first = (await own.points())[WHERE]
        await own.take(attempt(2, duration=3), attempt(3))
        second = (await own.points(2))[WHERE]
    assert isinstance(first, HistogramDataPoint)
    assert (first.count, first.sum, first.min, first.max) == (2, 3.2, 0.2, 3)
    assert first.start_time_unix_nano < first.time_unix_nano
    assert (second.count, second.start_time_unix_nano) == (3, first.start_time_unix_nano)


async def test_they_go_on_over_restarts_and_a_new_epoch_begins_with_a_new_spool(tmp_path: Path) -> None:
    async with counting(tmp_path) as own:
        await own.take(attempt(1))
        before = (await own.points())[WHERE]
    async with counting(tmp_path) as own:
        # What was counted before the end may have had no point yet.
        assert (await own.points(2))[WHERE].count == 1
        await own.take(attempt(2))
        after = (await own.points(3))[WHERE]
    assert (after.count, after.start_time_unix_nano) == (2, before.start_time_unix_nano)
    async with counting(tmp_path / "another") as own:
        assert await own.points() == {}
        await own.take(attempt(2))
        anew = (await own.points(2))[WHERE]
    assert anew.count == 1
    assert anew.start_time_unix_nano > before.start_time_unix_nano


async def test_the_resource_is_who_sent_it_and_nothing_that_changes(tmp_path: Path) -> None:
    async with counting(tmp_path) as own:
        await own.take(attempt(1))
        await own.take(attempt(2), resource={**ZONE_MTA, "process.pid": 1, "host.name": "new", "service.version": "4"})
        await own.take(attempt(3), resource={**ZONE_MTA, "host.id": "node-2", "host.name": "mx2.example.org"})
        batch = await own.receiver.collect(Tick(time.time_ns() + SECOND))
    assert [dict(each.resource.attributes) for each in batch.metrics] == [
        {
            "service.name": "zone-mta",
            "service.instance.id": "node-1:12080",
            "host.id": f"node-{number}",
            "host.name": f"mx{number}.example.org",
        }
        for number in (1, 2)
    ]
    assert {scope.scope.name for each in batch.metrics for scope in each.scope_metrics} == {"postel.zone_mta"}


async def test_senders_that_are_too_many_are_told_as_of_the_agents_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "INSTANCES", 1)
    async with counting(tmp_path) as own:
        for number in (1, 2, 3):
            host = {"host.id": f"node-{number}", "host.name": f"mx{number}.example.org"}
            await own.take(attempt(number), resource={**ZONE_MTA, **host})
        batch = await own.receiver.collect(Tick(time.time_ns() + SECOND))
    _, together = [dict(each.resource.attributes) for each in batch.metrics]
    assert (together["host.id"], together["host.name"]) == (NODE.id, NODE.host)


async def test_every_typed_column_has_its_point_from_the_first_tick_on(tmp_path: Path) -> None:
    columns = load_all().columns_of("metrics_haraka")
    async with counting(tmp_path) as own:
        heartbeat = event("postel.plugin.heartbeat", {}, uid=uid(1))
        await own.take(heartbeat, resource=HARAKA, scope="postel.haraka")
        found = await own.points()
        assert {key[1:]: point.value for key, point in found.items()} == {
            (column.metric, _key(column.when)): 0 for column in columns
        }
        await own.haraka("message.accepted", 2, **MESSAGE)
        await own.haraka("message.rejected", 3, **MESSAGE, **{"rspamd.action": "reject", "haraka.denial": "deny"})
        await own.haraka("delivery.deferred", 4)
        found = await own.points(2)
    values = {column.name: found["node-1:25", column.metric, _key(column.when)].value for column in columns}
    assert values == {
        "inbound_total": 2,
        "spam_count": 1,
        "rejected_count": 1,
        "delivered_count": 0,
        "bounce_count": 0,
        "deferred_count": 1,
    }
    starts = {point.start_time_unix_nano for point in found.values()}
    assert len(starts) == 1, "one row has one start"


async def test_every_derived_metric_has_its_point(tmp_path: Path) -> None:
    denial = {"haraka.plugin": "rspamd", "haraka.hook": "data_post", "haraka.denial": "deny", "rspamd.action": "reject"}
    async with counting(tmp_path) as own:
        await own.take(attempt(1))
        await own.haraka("message.rejected", 2, **MESSAGE, **denial)
        await own.haraka("connection.closed", 3, **{"haraka.session.duration": 0.5})
        found = await own.points()
    assert {name for _, name, _ in found} == {m.name for m in load_all().metrics.values() if "events" in m.source}
    size = found["node-1:25", "haraka.message.size", ()]
    assert (size.count, size.sum) == (1, 2000)
    denials = found["node-1:25", "haraka.denials", (("haraka.hook", "data_post"), ("haraka.plugin", "rspamd"))]
    assert isinstance(denials, NumberDataPoint)
    assert denials.value == 1


async def test_what_is_one_too_many_is_in_the_overflow_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "SERIES_OF_METRIC", 3)
    async with counting(tmp_path) as own:
        for number in range(10):
            denial = {"haraka.plugin": f"p{number}", "haraka.hook": "rcpt", "haraka.denial": "deny"}
            await own.haraka("connection.denied", number, **denial)
        found = await own.points()
    denials = {key[2]: point.value for key, point in found.items() if key[1] == "haraka.denials"}
    assert denials[(("otel.metric.overflow", True),)] == 7
    assert len(denials) == 4
    assert sum(denials.values()) == 10


async def test_what_was_first_counted_after_the_ticks_time_comes_with_the_next(tmp_path: Path) -> None:
    async with counting(tmp_path) as own:
        await own.take(attempt(1))
        await own.haraka("message.accepted", 2, **MESSAGE)
        assert await own.points(-5) == {}
        assert (await own.points())[WHERE].count == 1


async def test_a_time_that_was_passed_before_has_no_second_point(tmp_path: Path) -> None:
    async with counting(tmp_path) as own:
        await own.take(attempt(1))
        batch = await own.receiver.collect(Tick(time.time_ns() + 100 * SECOND))
        assert points(batch)
        await own.take(attempt(2))
        set_back = await own.receiver.collect(Tick(time.time_ns() + 50 * SECOND))
        assert points(set_back) == {}
        assert [problem.error_type for problem in set_back.problems] == ["clock"]
        await own.spool.append([], batch.state)
    async with counting(tmp_path) as own:
        assert points(await own.receiver.collect(Tick(time.time_ns() + 60 * SECOND))) == {}
        assert (await own.points(101))[WHERE].count == 2


async def test_a_clock_that_was_far_ahead_is_believed_when_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = time.time() + 10 * 86_400
    async with counting(tmp_path) as own:
        with monkeypatch.context() as clock:
            clock.setattr(time, "time", lambda: ahead)
            await own.take(attempt(1))
            await own.points(10 * 86_400 + 60)
        await own.take(attempt(2))
        await own.points()
        point = (await own.points(2))[WHERE]
    assert point.count == 2
    assert abs(point.start_time_unix_nano - time.time_ns()) < 60 * SECOND


async def test_a_sender_that_is_not_heard_has_no_points_and_goes_on_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counting(tmp_path) as own:
        await own.take(attempt(1))
        start = (await own.points())[WHERE].start_time_unix_nano
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + derived_receiver._QUIET_SECONDS + 1)
        assert await own.points(2) == {}
        await own.take(attempt(2))
        point = (await own.points(3))[WHERE]
    assert (point.count, point.start_time_unix_nano) == (2, start)


async def test_a_sender_that_was_gone_long_before_the_agent_ended_stays_gone(tmp_path: Path) -> None:
    at = Tick(time.time_ns() + 3600 * SECOND)
    async with counting(tmp_path) as own:
        await own.take(attempt(1))
        await own.spool.append([], (await own.receiver.collect(at)).state)
    async with counting(tmp_path) as own:
        assert await own.points(3601) == {}
        assert points(await DerivedReceiver(load_all(), own.spool, NODE, interval=1).collect(at))


async def test_what_an_older_postel_counted_under_other_names_is_left_out_and_said(tmp_path: Path) -> None:
    rows: Sequence[tuple[str, str]] = [
        ('["zonemta.gone.metric"]', "3"),
        ('["zonemta.delivery.duration",["zonemta.outcome","lost"]]', "[1,[1.0],[1,0],1.0,1.0,1.0]"),
    ]
    async with counting(tmp_path) as own:
        await own.take(attempt(1))

        def add(file: Any) -> None:
            file._db.executemany("INSERT INTO total SELECT sender, ?, ? FROM total WHERE series = ''", rows)
            file._events.rolled_back()

        await own.spool._call(lambda store: store.on_file(add))
        batch = await own.receiver.collect(Tick(time.time_ns() + SECOND))
    assert {name for _, name, _ in points(batch)} == {"zonemta.delivery.duration", "zonemta.message.queue.duration"}
    (problem,) = batch.problems
    assert "'lost' is none of" in problem.message


async def test_a_disk_that_gives_nothing_is_a_failed_asking(tmp_path: Path) -> None:
    async with counting(tmp_path) as own:
        await own.take(attempt(1))
        await own.spool._call(lambda store: store.on_file(lambda file: file._events.rolled_back()))
        await own.spool._call(lambda store: store.on_file(lambda file: file._db.execute("DROP TABLE total")))
        with pytest.raises(ScrapeError, match="no such table"):
            await own.points()


async def test_many_senders_of_one_request(tmp_path: Path) -> None:
    parts = [({**ZONE_MTA, "host.id": f"n{n}"}, "postel.zone_mta", [attempt(n), attempt(n + 100)]) for n in range(20)]
    async with counting(tmp_path) as own:
        message = requests(parts)
        await own.spool.take(exporter.log_requests(message, 1 << 20), DERIVATION.occurrences(message))
        batch = await own.receiver.collect(Tick(time.time_ns() + SECOND))
    assert len(batch.metrics) == 20
    assert sum(p.count for each in batch.metrics for p in points(Batch(metrics=[each])).values()) == 80
