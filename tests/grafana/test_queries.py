"""Every query of Grafana's dashboards, as Grafana sends it, on a database that the demo has written to."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from postel.collector import find_collector
from postel.settings import DEMO_NODE
from support import demo_rows
from support.grafana import Range, expand
from support.page import Rows
from support.postgres import SERVERS, fresh_database, migrate_now
from support.requirements import require
from support.running_postel import running, until

FOLDER = Path(__file__).parents[2] / "dashboards" / "grafana"
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
    """A database with what a demo has sent up to `end`."""

    database: psycopg.Connection[Any]
    end: datetime
    timescale: bool

    def range(self, length: timedelta) -> Range:
        return Range(self.end - length, self.end)


@contextmanager
def _platform(server: str, *, timescale: bool) -> Iterator[Platform]:
    with fresh_database(server) as url:
        migrate_now(url)
        asyncio.run(demo_rows.fill(url, datetime.now(UTC)))
        with psycopg.connect(url, autocommit=True) as connection:
            # What a reader's session is set to changes nothing, and what docs/grafana.md sets is set.
            connection.execute("SET timezone = 'America/New_York'")
            connection.execute("SET jit = off")
            yield Platform(connection, datetime.now(UTC), timescale)


@pytest.fixture(scope="module")
def platform(postgres: str) -> Iterator[Platform]:
    with _platform(postgres, timescale=False) as platform:
        yield platform


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


def _check(platform: Platform, query: Query, length: timedelta) -> None:
    rows = _ask(platform, query, platform.range(length))
    assert rows
    told = [value for row in rows for column, value in row.items() if column not in ("time", "metric")]
    assert any(value is not None for value in told)
    if query.chart:
        times = [row["time"] for row in rows]
        assert times == sorted(times)
        keys = [(row["time"], row.get("metric")) for row in rows]
        assert len(set(keys)) == len(keys)
        assert all(row.get("metric", "") is not None for row in rows)


@pytest.mark.parametrize("query", QUERIES, ids=[query.name for query in QUERIES])
def test_each_query_answers_on_the_demo_what_grafana_can_show(platform: Platform, query: Query) -> None:
    _check(platform, query, RANGES["an hour"])


@pytest.mark.soak
@pytest.mark.parametrize("server", SERVERS)
def test_each_query_answers_for_each_range_on_each_server(request: pytest.FixtureRequest, server: str) -> None:
    with _platform(request.getfixturevalue(server), timescale=server == "timescale") as platform:
        for query in QUERIES:
            for length in RANGES.values():
                _check(platform, query, length)


@pytest.mark.soak
def test_each_query_answers_on_a_demo_that_runs(tmp_path: Path) -> None:
    require("collector", available=find_collector() is not None)
    sent = (
        "SELECT count(*) FROM otel_metric_point JOIN otel_series USING (series_id) WHERE metric = 'postel.sink.records'"
    )
    with running(tmp_path, "--demo") as postel:
        until(lambda: "day so far is sent" in postel.log.read_text("utf-8"), 180, "the demo's day")
        # The sink reports every minute, and what it rose by is known with the second report.
        until(lambda: len(postel.query(f"{sent} GROUP BY time")) > 2, 300, "what the sink says of itself", pause=5)
        with psycopg.connect(postel.command("db", "url").stdout.strip(), autocommit=True) as connection:
            platform = Platform(connection, datetime.now(UTC), timescale=False)
            for query in QUERIES:
                _check(platform, query, RANGES["an hour"])


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
    cpu, delivered = _named("hosts: CPU"), _named("queues: Delivered")
    with platform.database.transaction(force_rollback=True):
        rows = Rows(platform.database)
        rows.node("7f2c", "mx1.example.org", seen=over.end.timestamp() - 60)
        rows.system(over.end.timestamp() - 60, "7f2c", cpu_load=12.0)
        nodes = {row["__value"]: row["__text"] for row in _ask(platform, _named("overview: $node"), over)}
        assert nodes == {DEMO_NODE: "mail.demo.test", "7f2c": "mx1.example.org"}
        assert {row["metric"] for row in _ask(platform, cpu, over)} == {*nodes.values()}
        assert {row["metric"] for row in _ask(platform, cpu, over, node=["7f2c"])} == {"mx1.example.org"}
    # A name with a quote is a name.
    assert _ask(platform, cpu, over, node=["o'clock"]) == []
    zones = [row["zone"] for row in _ask(platform, _named("queues: $zone"), over)]
    assert zones == ["bounces", "bulk", "default"]
    assert {row["metric"] for row in _ask(platform, delivered, over)} >= {"bulk", "default"}
    assert {row["metric"] for row in _ask(platform, delivered, over, zone=["bulk"])} == {"bulk"}


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
        # A minute asks of the same tables as an hour.
        for query in QUERIES:
            _ask(platform, query, platform.range(timedelta(minutes=1)))


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
