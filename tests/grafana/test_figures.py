"""What Grafana's queries count: shared queues once, zones without their whole, counters over restarts and gaps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from support.grafana import Range, expand
from support.page import Rows
from support.postgres import SERVERS, fresh_database, migrate_now
from tools.grafana import counters, queries

# An hour with a minute a step; rollups need a longer range of the same rows.
BEGIN = 1_800_000_000
_HOUR = Range(datetime.fromtimestamp(BEGIN, UTC), datetime.fromtimestamp(BEGIN + 3600, UTC))
_LONG = {"rows": 60_000, "5m": 300_000, "1h": 3_600_000, "daily": 86_400_000}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    with fresh_database(request.getfixturevalue(request.param)) as url:
        migrate_now(url)
        yield url


@pytest.fixture
def database(server: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server) as connection:
        yield connection
        connection.rollback()


def _ask(
    database: psycopg.Connection[Any], sql: str, interval: int = 60_000, over: Range = _HOUR
) -> list[tuple[Any, ...]]:
    return database.execute(expand(sql, over, interval, timescale=False).encode()).fetchall()


@pytest.mark.parametrize("interval", _LONG.values(), ids=_LONG)
def test_a_queue_that_instances_share_is_counted_once(database: psycopg.Connection[Any], interval: int) -> None:
    rows = Rows(database)
    for at in range(BEGIN + 30, BEGIN + 3600, 30):
        for node, size in (("a", 40), ("b", 42)):
            rows.zonemta(at, node, queue_id="shared", queue_size=size, deferred_size=7, oldest_age=90.0)
            rows.zonemta(at, node, zone="default", queue_id="shared", queue_size=30, deferred_size=5)
        rows.zonemta(at, "c", queue_size=5, deferred_size=1, oldest_age=20.0)
        rows.zonemta(at, "c", zone="default", queue_size=2, deferred_size=0)
    depth = {"queue_size": "queued", "deferred_size": "deferred"}
    whole = _ask(database, queries.queue(depth, zones=False), interval)
    # Of two that say different figures at the same time the greater one stands.
    assert {(metric, value) for _, metric, value in whole} == {("queued", 47), ("deferred", 8)}
    zones = _ask(database, queries.queue({"queue_size": "queued"}, zones=True), interval)
    assert {(metric, value) for _, metric, value in zones} == {("default", 32)}
    oldest = _ask(database, queries.queue({"oldest_age": "oldest"}, zones=False), interval)
    assert {value for _, _, value in oldest} == {90}
    assert _ask(database, queries.queue_now(zones=False)) == [(47, 8, 90)]
    assert _ask(database, queries.queue_now(zones=True)) == [("default", 32, 5, None)]


@pytest.mark.parametrize("interval", _LONG.values(), ids=_LONG)
def test_zones_are_not_counted_beside_their_whole(database: psycopg.Connection[Any], interval: int) -> None:
    rows = Rows(database)
    for number, at in enumerate(range(BEGIN + 30, BEGIN + 3600, 30), 1):
        for zone, each in (("", 30), ("default", 20), ("bulk", 10)):
            rows.zonemta(at, "a", zone=zone, started=BEGIN, delivered_total=each * number)
        # A server that tells no zones.
        rows.zonemta(at, "b", started=BEGIN, delivered_total=3 * number)
    told = {"delivered_total": "delivered"}
    total = counters.totals("metrics_zonemta", ["delivered_total"], {"Delivered": "delivered_total"})
    assert _ask(database, total, interval) == [(33 * 119,)]
    rates = _ask(database, counters.rates("metrics_zonemta", told), interval)
    assert {round(value, 9) for _, _, value in rates} == {1.1}
    zones = _ask(database, counters.rates("metrics_zonemta", told, by="zone"), interval)
    assert {(zone, round(value, 9)) for _, zone, value in zones} == {
        ("default", round(2 / 3, 9)),
        ("bulk", round(1 / 3, 9)),
        ("all zones", 0.1),
    }


@pytest.mark.parametrize("interval", _LONG.values(), ids=_LONG)
def test_a_total_is_exact_over_restarts_gaps_and_zones_that_come_late(
    database: psycopg.Connection[Any], interval: int
) -> None:
    rows = Rows(database)
    # Before the range, and an outage over its begin: what it rose by meanwhile is told in the range.
    rows.zonemta(BEGIN - 7200, "a", zone="default", started=BEGIN - 9000, delivered_total=100)
    rows.zonemta(BEGIN + 600, "a", zone="default", started=BEGIN - 9000, delivered_total=160)
    # Killed, and started anew: what it has counted since is new.
    rows.zonemta(BEGIN + 630, "a", zone="default", started=BEGIN + 610, delivered_total=5)
    rows.zonemta(BEGIN + 660, "a", zone="default", started=BEGIN + 610, delivered_total=9)
    # A zone of which nothing was counted before.
    rows.zonemta(BEGIN + 660, "a", zone="late", started=BEGIN + 610, delivered_total=4)
    # One that says no start, and fell.
    rows.zonemta(BEGIN + 600, "b", zone="default", delivered_total=50)
    rows.zonemta(BEGIN + 630, "b", zone="default", delivered_total=52)
    rows.zonemta(BEGIN + 660, "b", zone="default", delivered_total=3)
    total = counters.totals("metrics_zonemta", ["delivered_total"], {"Delivered": "delivered_total"})
    # The day in which the range begins belongs to it.
    before = 100 if interval == _LONG["daily"] else 0
    assert _ask(database, total, interval) == [(before + 60 + 9 + 4 + 2 + 3,)]


def test_a_rate_covers_the_time_since_the_row_before(database: psycopg.Connection[Any]) -> None:
    rows = Rows(database)
    for at, value in ((0, 0), (30, 30), (60, 60), (1860, 1860), (1890, 1890)):
        rows.zonemta(BEGIN + at, "a", zone="default", started=BEGIN - 60, delivered_total=value)
    sql = counters.rates("metrics_zonemta", {"delivered_total": "delivered"})
    told = [(int(at), round(value, 9)) for at, _, value in _ask(database, sql)]
    # An outage of half an hour makes no peak, and no rate is told of the time of which nothing is known.
    assert told == [(BEGIN, 1.0), (BEGIN + 60, 1.0), (BEGIN + 1860, 1.0)]


def test_of_a_row_without_any_before_it_nobody_knows_a_rate(database: psycopg.Connection[Any]) -> None:
    rows = Rows(database)
    rows.zonemta(BEGIN + 900, "a", zone="default", started=BEGIN - 90_000, delivered_total=1000)
    rows.zonemta(BEGIN + 930, "a", zone="default", started=BEGIN - 90_000, delivered_total=1060)
    sql = counters.rates("metrics_zonemta", {"delivered_total": "delivered"})
    assert [(int(at), value) for at, _, value in _ask(database, sql)] == [(BEGIN + 900, 2.0)]


def test_hosts_that_are_called_alike_are_told_apart(database: psycopg.Connection[Any]) -> None:
    rows = Rows(database)
    for id_, host in (("1234567890", "mx"), ("abcdefghij", "mx"), ("c", "")):
        rows.node(id_, host, seen=BEGIN)
        rows.system(BEGIN + 60, id_, cpu_load=12.0)
    sql = queries.gauges("metrics_system", {"cpu_load": "CPU"})
    assert [metric for _, metric, _ in _ask(database, sql)] == ["c", "mx (12345678)", "mx (abcdefgh)"]


def test_a_bucket_in_which_the_range_begins_belongs_to_it(database: psycopg.Connection[Any]) -> None:
    rows = Rows(database)
    rows.system(BEGIN + 60, "a", cpu_load=12.0)
    sql = queries.gauges("metrics_system", {"cpu_load": "CPU"})
    late = Range(_HOUR.begin + timedelta(minutes=4), _HOUR.end)
    assert _ask(database, sql, over=late) == []
    assert [value for *_, value in _ask(database, sql, 300_000, over=late)] == [12]
