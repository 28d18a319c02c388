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
from support.markdown import reading
from support.page import Rows
from support.postgres import SERVERS, fresh_database, migrate_now
from support.requirements import require
from support.running_postel import running, until

FOLDER = Path(__file__).parents[2] / "dashboards" / "grafana"
RANGES = {
    "an hour": timedelta(hours=1),
    "six hours": timedelta(hours=6),
    "two days": timedelta(days=2),
    "a week": timedelta(days=7),
    "a month": timedelta(days=30),
    "half a year": timedelta(days=182),
    "a year": timedelta(days=365),
    "ten years": timedelta(days=3650),
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
    with reading("docs/grafana.md") as page:
        (statements,) = page.take("sql")
    # Roles are the whole server's.
    role = f"grafana_{uuid4().hex[:12]}"
    made = re.sub(r"\bgrafana\b", role, statements)
    # Rolled back: nothing of it stays.
    with platform.database.transaction(force_rollback=True):
        platform.database.execute(made.encode())
        platform.database.execute(f"SET LOCAL ROLE {role}".encode())
        # A minute asks of the same tables as an hour.
        for query in QUERIES:
            _ask(platform, query, platform.range(timedelta(minutes=1)))


@dataclass(frozen=True)
class Reading:
    """A query, and which rollups of a table it reads, by what their names have before the size.

    Attributes:
        besides: what else may be read.
    """

    query: str
    table: str
    kind: str = ""
    node: str = "*"
    besides: frozenset[str] = frozenset()

    def relations(self, size: str) -> tuple[set[str], set[str]]:
        """What there is, and what is read of it; an empty size: the rows."""
        if not self.table.endswith("_events"):
            return {f"{self.table}{each}" for each in _LENGTHS}, {f"{self.table}{size}", *self.besides}
        there = {
            f"{self.table}{kind}{each}"
            for kind in ("", "_nodes", "_domains", "_totals")
            for each in set(_EVENT_SIZES.values()) - {""}
        }
        return {self.table, *there}, {f"{self.table}{self.kind}{_EVENT_SIZES[size]}" if size else self.table}


_LENGTHS = {
    "": timedelta(hours=6),
    "_5m": timedelta(days=2),
    "_15m": timedelta(days=7),
    "_1h": timedelta(days=30),
    "_6h": timedelta(days=200),
    "_daily": timedelta(days=365),
    "_weekly": timedelta(days=3000),
}
# Events have three sizes.
_EVENT_SIZES = {
    "": "",
    "_5m": "_5m",
    "_15m": "_5m",
    "_1h": "_1h",
    "_6h": "_1h",
    "_daily": "_daily",
    "_weekly": "_daily",
}
_READINGS = [
    Reading("overview: Waiting", "metrics_zonemta"),
    # What has no predecessor in the range is asked of the rows, by the view of increases.
    Reading("overview: Outbound", "metrics_zonemta", besides=frozenset({"metrics_zonemta"})),
    Reading("deliverability: Attempts by outcome", "delivery_events", "_totals"),
    Reading("deliverability: Attempts by outcome", "delivery_events", "_nodes", DEMO_NODE),
    Reading("deliverability: Domains", "delivery_events", "_domains"),
    Reading("deliverability: Domains", "delivery_events", "", DEMO_NODE),
]


@pytest.mark.parametrize("size", _LENGTHS, ids=[size or "rows" for size in _LENGTHS])
@pytest.mark.parametrize("reading", _READINGS, ids=[f"{one.query} of {one.node}" for one in _READINGS])
def test_the_range_and_the_nodes_decide_what_is_read(platform: Platform, reading: Reading, size: str) -> None:
    """Whoever reads one of the others divides by nothing."""
    query, over = _named(reading.query), platform.range(_LENGTHS[size])

    def told() -> list[dict[str, Any]]:
        rows = _ask(platform, query, over, node=[reading.node])
        # A sum of floats is another in its last digit where they come in another order.
        return [
            {name: round(value, 9) if isinstance(value, float) else value for name, value in row.items()}
            for row in rows
        ]

    there, read = reading.relations(size)
    assert read < there
    before = told()
    assert before
    with platform.database.transaction(force_rollback=True):
        for relation in there - read:
            kind = "TABLE" if relation == reading.table else "VIEW"
            platform.database.execute(f"ALTER {kind} {relation} RENAME TO kept_{relation}".encode())
            platform.database.execute(
                f"CREATE VIEW {relation} AS SELECT * FROM kept_{relation} WHERE 1 / (random() * 0) > 0".encode()
            )
            with pytest.raises(psycopg.errors.DivisionByZero), platform.database.transaction():
                platform.database.execute(f"SELECT count(*) FROM {relation}".encode())
        assert told() == before
