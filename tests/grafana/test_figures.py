"""What Grafana's queries count: shared queues once, zones without their whole, counters over restarts and gaps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from support.grafana import Range, expand
from support.page import Rows
from support.postgres import SERVERS, fresh_database, migrate_now
from timescale_sink.store.migrate import scripts
from timescale_sink.store.rollups import SIZES
from tools.grafana import counters, queries

# An hour with a minute a step; rollups need a longer range of the same rows.
BEGIN = 1_800_000_000
_HOUR = Range(datetime.fromtimestamp(BEGIN, UTC), datetime.fromtimestamp(BEGIN + 3600, UTC))
_LONG = {
    "rows": 60_000,
    "5m": 300_000,
    "15m": 1_800_000,
    "1h": 3_600_000,
    "6h": 43_200_000,
    "daily": 86_400_000,
    "weekly": 604_800_000,
}


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
    database: psycopg.Connection[Any],
    sql: str,
    interval: int = 60_000,
    over: Range = _HOUR,
    **variables: Sequence[str],
) -> list[tuple[Any, ...]]:
    return database.execute(expand(sql, over, interval, variables, timescale=False).encode()).fetchall()


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
    # The bucket in which the range begins belongs to it.
    before = 100 if interval >= _LONG["6h"] else 0
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


@pytest.mark.parametrize("table", ["email_events", "delivery_events"])
def test_events_are_counted_alike_whichever_rollup_answers(database: psycopg.Connection[Any], table: str) -> None:
    """Of all nodes and of some, with domains and without: by the rows, and by each size of each kind of rollup."""
    rows = Rows(database)
    numbers = count(1)
    kinds: list[dict[str, Any]]
    if table == "email_events":
        kinds = [
            {"direction": "inbound", "from_domain": "a.test", "outcome": "accepted", "spam_action": "no action"},
            {"direction": "outbound", "to_domain": "b.test", "outcome": "queued"},
            {"outcome": "connection_denied"},
        ]
        shown = {"events": "sum(events)::float8", "score": "sum(spam_score_sum)::float8", "n": "sum(spam_score_count)"}
        measured: dict[str, Any] = {"spam_score": 2.5}
        keys = "coalesce(direction, '') || outcome || coalesce(spam_action, '')"
    else:
        kinds = [
            {"status": "delivered", "to_domain": "a.test", "zone": "default"},
            {"status": "deferred", "to_domain": "b.test", "zone": "bulk", "category": "greylist"},
            {"status": "rejected", "zone": "bulk"},
        ]
        shown = {"events": "sum(events)::float8", "took": "sum(duration_sum)", "n": "sum(duration_count)"}
        measured = {"duration": 0.25}
        keys = "status || coalesce(category, '') || coalesce(zone, '')"
    for number, kind in enumerate(kinds):
        for node in ("a", "b", "c"):
            for at in range(BEGIN + 60, BEGIN + 3600, 300 * (number + 1)):
                rows.event(table, at, next(numbers), "told", node=node, **kind, **(measured if number else {}))
    expressions = ", ".join(f'{expression} AS "{label}"' for label, expression in shown.items())
    domains = queries.event_table(
        table, {"key": f"coalesce(domain, '') || {keys}", **shown}, rest="GROUP BY 1 ORDER BY 1"
    )
    whole = f"{queries.told(table)}\nSELECT {keys}, {expressions} FROM told GROUP BY 1 ORDER BY 1"
    for sql in (domains, whole):
        for nodes in (["*"], ["b"], ["a", "c"], ["o'clock"]):
            by_rows, *by_rollups = (_ask(database, sql, interval, node=nodes) for interval in _LONG.values())
            assert by_rollups == [by_rows] * len(by_rollups)
            assert len(by_rows) == (0 if nodes == ["o'clock"] else 3)


def test_what_is_still_being_made_is_left_alone(database: psycopg.Connection[Any]) -> None:
    """As the API leaves it: asked for before it is made of the others, it is made as it is read."""
    Rows(database).event("delivery_events", BEGIN + 60, 1, "told", node="a", status="delivered")
    sql = f"{queries.told('delivery_events')}\nSELECT sum(events)::int FROM told"
    for relation in ("delivery_events_totals_1h", "delivery_events_nodes_1h", "delivery_events_totals_5m"):
        # Whoever reads it nevertheless finds nothing.
        database.execute(f"ALTER VIEW {relation} RENAME TO kept_{relation}".encode())
        database.execute(f"CREATE VIEW {relation} AS SELECT * FROM kept_{relation} LIMIT 0".encode())
        assert _ask(database, sql, _LONG["1h"]) == [(None,)]
        database.execute(
            "INSERT INTO retention (relation, pending) VALUES (%s, true)"
            " ON CONFLICT (relation) DO UPDATE SET pending = true",
            (relation,),
        )
        assert _ask(database, sql, _LONG["1h"]) == [(1,)]


def test_the_function_knows_all_sizes_of_buckets() -> None:
    (text,) = (script.text for script in scripts("views") if "FUNCTION by_step" in script.text)
    known = dict(re.findall(r"\('(\w+)', interval '(\d+) (?:minutes?|hours?)'\)", text))
    assert list(known) == [size.name for size in SIZES]
    assert list(map(int, known.values())) == [int(size.interval.split()[0]) for size in SIZES]


def test_a_week_stands_in_the_step_of_its_thursday(database: psycopg.Connection[Any]) -> None:
    """Grafana's weeks begin on Thursdays where it does not ask TimescaleDB, rollups' on Mondays."""
    rows = Rows(database)
    monday = datetime(2027, 1, 11, tzinfo=UTC)
    rows.system(monday.timestamp(), "a", cpu_load=12.0)
    rows.system((monday + timedelta(days=6)).timestamp(), "a", cpu_load=14.0)
    sql = queries.gauges("metrics_system", {"cpu_load": "CPU"})
    over = Range(monday - timedelta(days=3000), monday + timedelta(days=10))
    ((at, _, value),) = _ask(database, sql, over.interval(queries.POINTS, "30s"), over)
    assert (datetime.fromtimestamp(int(at), UTC), value) == (monday + timedelta(days=3), 13)
