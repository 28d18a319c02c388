"""Every query of Grafana's dashboards, as Grafana sends it, on a database that a whole platform has written to."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from otel_receivers.exporter import messages
from otel_receivers.receiver import Batch
from postel import demo
from postel.otlp.signal import Signal
from postel.settings import DEMO_NODE
from postel.signals import Declarations, load_all
from support import platform_rows
from support.grafana import Range, expand
from support.postgres import SERVERS, fresh_database, migrate_now
from support.sink import ingesting

FOLDER = Path(__file__).parents[2] / "dashboards" / "grafana"
# Batches in one request.
_TOGETHER = 60
RANGES = {
    "an hour": timedelta(hours=1),
    "six hours": timedelta(hours=6),
    "two days": timedelta(days=2),
    "a month": timedelta(days=30),
    "a year": timedelta(days=365),
}


@dataclass(frozen=True)
class Query:
    """A query of a checked-in dashboard; `chart`: its answer is a time series."""

    name: str
    sql: str
    chart: bool
    points: int
    interval: str


def _panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in dashboard["panels"]:
        yield from panel.get("panels", [])
        if panel["type"] != "row":
            yield panel


def _queries() -> Iterator[Query]:
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text("utf-8"))
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield Query(
                    f"{path.stem}: ${variable['name']}", variable["query"], chart=False, points=300, interval="1s"
                )
        for panel in _panels(dashboard):
            (target,) = panel["targets"]
            yield Query(
                f"{path.stem}: {panel['title']}",
                target["rawSql"],
                chart=target["format"] == "time_series",
                points=panel["maxDataPoints"],
                interval=panel["interval"],
            )


QUERIES = list(_queries())


@dataclass(frozen=True)
class Platform:
    """A database with a day or two of the demo and two hours of everything, up to `end`."""

    database: psycopg.Connection[Any]
    end: datetime
    timescale: bool

    def range(self, length: timedelta) -> Range:
        return Range(self.end - length, self.end)


@pytest.fixture(scope="module", params=SERVERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with fresh_database(request.getfixturevalue(request.param)) as url:
        migrate_now(url)
        asyncio.run(_fill(url, datetime.now(UTC)))
        with psycopg.connect(url, autocommit=True) as connection:
            # What a reader's session is set to changes nothing.
            connection.execute("SET timezone = 'America/New_York'")
            yield Platform(connection, datetime.now(UTC), request.param == "timescale")


async def _fill(url: str, end: datetime) -> None:
    declarations = load_all()
    async with ingesting(url) as ingest:
        made = [*platform_rows.batches(declarations, end), demo._registration(declarations), *_demo(declarations, end)]
        for first in range(0, len(made), _TOGETHER):
            together = made[first : first + _TOGETHER]
            whole = Batch(
                metrics=[metrics for batch in together for metrics in batch.metrics],
                events=[events for batch in together for events in batch.events],
            )
            for message in messages(whole):
                await ingest(Signal.LOGS if hasattr(message, "resource_logs") else Signal.METRICS, message)


def _demo(declarations: Declarations, end: datetime) -> Iterator[Batch]:
    """What a demo that was started a day ago has sent: the last hours in full, what was before at five minutes."""
    begin = (end - timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    for moment in islice(demo._since(begin), 12_000):
        if moment.time > end:
            return
        if moment.time >= end - timedelta(hours=2) or not (moment.time - begin) % demo.COARSE:
            yield from demo._batches(declarations, moment)


def _ask(platform: Platform, query: Query, over: Range, **variables: Sequence[str]) -> list[dict[str, Any]]:
    interval = over.interval(query.points, query.interval)
    answers = []
    for timescale in {False, platform.timescale}:
        sql = expand(query.sql, over, interval, variables, timescale=timescale)
        cursor = platform.database.execute(sql.encode())
        assert cursor.description
        names = [column.name for column in cursor.description]
        assert len(set(names)) == len(names), names
        answers.append([dict(zip(names, row, strict=True)) for row in cursor.fetchall()])
    # With its switch for TimescaleDB Grafana groups by time_bucket; the same steps come of it.
    assert len(answers) == 1 or [len(one) for one in answers] == [len(answers[0])] * 2
    return answers[0]


@pytest.mark.parametrize("query", QUERIES, ids=[query.name for query in QUERIES])
def test_each_query_answers_what_grafana_can_show(platform: Platform, query: Query) -> None:
    for name, length in RANGES.items():
        rows = _ask(platform, query, platform.range(length))
        assert rows, name
        told = [value for row in rows for column, value in row.items() if column not in ("time", "metric")]
        assert any(value is not None for value in told), name
        if query.chart:
            times = [row["time"] for row in rows]
            assert times == sorted(times), name
            keys = [(row["time"], row.get("metric")) for row in rows]
            assert len(set(keys)) == len(keys), name
            assert all(row.get("metric", "") is not None for row in rows), name


def _named(name: str) -> Query:
    (query,) = (one for one in QUERIES if one.name == name)
    return query


_DELIVERED = """
SELECT sum(delivered_total)::float8 FROM metrics_zonemta_increase
WHERE time > %s AND time <= %s AND (%s OR node_id = %s)
"""


def _delivered(platform: Platform, over: Range, node: str = "") -> float:
    row = platform.database.execute(_DELIVERED, (over.begin, over.end, not node, node)).fetchone()
    assert row
    return float(row[0])


@pytest.mark.parametrize("length", RANGES.values(), ids=RANGES)
def test_a_total_is_the_increase_whichever_rollup_answers(platform: Platform, length: timedelta) -> None:
    over = platform.range(length)
    (told,) = _ask(platform, _named("overview: Outbound"), over)
    # Rows tell what is in the range, and the longer ones hold all that there is: no bucket is cut.
    assert told["Delivered"] == _delivered(platform, over) > 500


def test_rates_times_their_steps_are_the_increase(platform: Platform) -> None:
    over = platform.range(timedelta(hours=1))
    query = _named("overview: Delivery attempts")
    # Its rows are 30 seconds apart, as the steps are.
    told = _ask(platform, query, over, node=[DEMO_NODE])
    rates = [row["value"] for row in told if row["metric"] == "delivered" and row["value"] is not None]
    assert over.interval(query.points, query.interval) == 30_000
    assert sum(rates) * 30 == pytest.approx(_delivered(platform, over, DEMO_NODE))


def test_a_node_and_a_zone_narrow_an_answer(platform: Platform) -> None:
    over = platform.range(timedelta(hours=1))
    nodes = {row["__value"]: row["__text"] for row in _ask(platform, _named("overview: $node"), over)}
    assert nodes == {DEMO_NODE: "mail.demo.test", platform_rows.NODE.id: platform_rows.NODE.host}
    cpu = _named("hosts: CPU")
    assert {row["metric"] for row in _ask(platform, cpu, over)} == {"mail.demo.test"}
    assert _ask(platform, cpu, over, node=[platform_rows.NODE.id]) == []
    # A name with a quote is a name.
    assert _ask(platform, cpu, over, node=["o'clock"]) == []

    zones = [row["zone"] for row in _ask(platform, _named("queues: $zone"), over)]
    assert {"default", platform_rows.ZONE} <= set(zones)
    delivered = _named("queues: Delivered")
    assert {row["metric"] for row in _ask(platform, delivered, over)} >= {"default", platform_rows.ZONE}
    narrowed = _ask(platform, delivered, over, zone=[platform_rows.ZONE])
    assert {row["metric"] for row in narrowed} == {platform_rows.ZONE}


def test_the_role_of_the_page_may_ask_all_of_it(platform: Platform) -> None:
    """docs/grafana.md says how it is made."""
    page = (Path(__file__).parents[2] / "docs/grafana.md").read_text("utf-8")
    statements = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert statements
    # Roles are the whole server's.
    role = f"grafana_{uuid4().hex[:12]}"
    made = re.sub(r"\bgrafana\b", role, statements[1])
    # Rolled back: nothing of it stays.
    with platform.database.transaction(force_rollback=True):
        platform.database.execute(made.encode())
        platform.database.execute(f"SET LOCAL ROLE {role}".encode())
        for query in QUERIES:
            assert _ask(platform, query, platform.range(timedelta(hours=1))), query.name


@pytest.mark.parametrize(
    ("length", "read"),
    [
        (timedelta(hours=6), ""),
        (timedelta(days=2), "_5m"),
        (timedelta(days=30), "_1h"),
        (timedelta(days=365), "_daily"),
    ],
)
def test_the_range_decides_what_is_read(platform: Platform, length: timedelta, read: str) -> None:
    """Whoever reads one of the others divides by nothing."""
    query = _named("overview: Waiting")
    before = _ask(platform, query, platform.range(length))
    with platform.database.transaction(force_rollback=True):
        for relation in ("", "_5m", "_1h", "_daily"):
            if relation == read:
                continue
            name, kind = f"metrics_zonemta{relation}", "VIEW" if relation else "TABLE"
            platform.database.execute(f"ALTER {kind} {name} RENAME TO kept{relation}".encode())
            platform.database.execute(
                f"CREATE VIEW {name} AS SELECT * FROM kept{relation} WHERE 1 / (random() * 0) > 0".encode()
            )
            with pytest.raises(psycopg.errors.DivisionByZero), platform.database.transaction():
                platform.database.execute(f"SELECT count(queue_size) FROM {name}".encode())
        assert _ask(platform, query, platform.range(length)) == before
