"""What is asked of a year of a platform, on TimescaleDB Community: `make bench`, figures in docs/benchmarks.md.

Series as the API asks for them, counts of events by their rollups, and events by any of their ids; each question again
and again with other windows, nodes, domains and ids. `POSTEL_YEAR_EVENTS` is how many millions of events there are,
`POSTEL_YEAR_NODES` of how many nodes, and `POSTEL_YEAR_DATABASE` names a database that was filled before, or is to be
filled and kept.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from postel.signals import load_all
from support.generated_year import Year, fill
from support.node_observer import cpu_seconds
from support.postgres import fresh_database, migrate_now, named
from timescale_sink.api import rolled, sources
from timescale_sink.api.access import Access
from timescale_sink.api.filters import Filter
from timescale_sink.api.leaders import depths, leaders_query, names_of
from timescale_sink.api.queries import query
from timescale_sink.api.series import Query, Reader
from timescale_sink.api.tallies import Asked, top_query

EVENTS = int(float(os.environ.get("POSTEL_YEAR_EVENTS", "50")) * 1e6)
NODES = int(os.environ.get("POSTEL_YEAR_NODES", "100"))
BOUND_S = 0.2
TIMES = 20
HOUR, DAY = 3600, 86400
RANGES = {"1 h": HOUR, "6 h": 6 * HOUR, "24 h": DAY, "7 d": 7 * DAY, "30 d": 30 * DAY, "365 d": 365 * DAY}
DECLARED = load_all()

pytestmark = [pytest.mark.bench, pytest.mark.timeout(0)]


Asking = Generator[tuple[sql.SQL | sql.Composed, Mapping[str, Any]], list[tuple[Any, ...]]]
"""Queries one after the other, with their values; each is sent the rows of the one before."""


@dataclass(frozen=True)
class Question:
    """Queries that are drawn anew each time, or their values are."""

    name: str
    draw: Callable[[random.Random], Asking]


@dataclass(frozen=True)
class Filled:
    """A year in a database."""

    url: str
    year: Year


@pytest.fixture(scope="module")
def filled(timescale: str) -> Iterator[Filled]:
    year = Year(EVENTS, nodes=NODES)
    name = os.environ.get("POSTEL_YEAR_DATABASE")
    if name is None:
        with fresh_database(timescale) as url:
            make(url, year)
            yield Filled(url, year)
        return
    url = named(timescale, name)
    with psycopg.connect(timescale, autocommit=True) as server:
        known = server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if not known:
            server.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
            make(url, year)
    with psycopg.connect(url) as database:
        ((end,),) = database.execute("SELECT max(last_seen) FROM node").fetchall()
    yield Filled(url, Year(EVENTS, nodes=NODES, end=end))


def make(url: str, year: Year) -> None:
    """Migrate the database and fill it."""
    migrate_now(url)
    fill(url, year, community=True)


def series(year: Year, database: psycopg.Connection[Any]) -> Iterator[Question]:
    """Each typed table's gauges and counters over each range, of all nodes and of one, in the API's own steps."""
    reader = Reader(Access(), DECLARED)
    for table in sorted(DECLARED.tables):
        found = len(database.execute(query("series", table), {"seconds": 600}).fetchall())
        for counter in (False, True):
            names = tuple(column.name for column in DECLARED.columns_of(table) if column.counter == counter)[:4]
            for (told, seconds), (scope, count) in product(
                RANGES.items(), (("all nodes", found), ("a node", found // year.nodes))
            ):
                step = rolled.step_for(seconds, DECLARED.tables[table].interval, 240, series=count)
                if names:
                    size = rolled.size_for(step)
                    asked = Query(table, names, 0, seconds, step)
                    text = reader.text(asked, size)
                    exact = reader.text(asked, size, exact=True) if counter else None

                    def draw(
                        chance: random.Random,
                        seconds: int = seconds,
                        step: int = step,
                        scope: str = scope,
                        before: int = rolled.look_back(size),
                    ) -> Mapping[str, Any]:
                        # Small buckets are as many as they would be of the days alone that rows are kept, and rows come
                        # at the tables' own interval in the last two.
                        back = 2 * DAY if step < rolled.SECONDS["5m"] else year.kept * DAY
                        end = window_end(chance, year, seconds, back)
                        start, stop = rolled.begin(end - seconds, step), rolled.end(end, step)
                        node = f"node-{chance.randrange(year.nodes):03}" if scope == "a node" else None
                        return {
                            "step": step, "since": start - before, "start": start, "stop": stop,
                            "node": node, "instance": None, "zone": None,
                        }  # fmt: skip

                    kind = "counters" if counter else "gauges"
                    name = f"{table} {kind} {told}, {scope}, {step} s of {size or 'rows'}"
                    yield Question(name, drawn(text, draw, exact))


def drawn(
    text: sql.SQL | sql.Composed,
    draw: Callable[[random.Random], Mapping[str, Any]],
    exact: sql.SQL | sql.Composed | None = None,
) -> Callable[..., Asking]:
    """Always the same query, and behind it the one that costs more where it says of a row that it does not know."""

    def asking(chance: random.Random) -> Asking:
        values = draw(chance)
        rows = yield text, values
        if exact and any(row[-1] for row in rows):
            yield exact, values

    return asking


def window_end(chance: random.Random, year: Year, seconds: int, back: int) -> int:
    """The end of a window of so many seconds within the last ``back`` of them; a long one ends with the data."""
    end = int(year.end.timestamp())
    return end - int(chance.random() * max(0, back - seconds))


_COUNTS = """
SELECT date_bin(make_interval(secs => %(step)s), bucket, 'epoch') AS at, {by}, sum({count})
FROM {rollup}
WHERE bucket >= to_timestamp(%(start)s) AND bucket < to_timestamp(%(stop)s){condition}
GROUP BY 1, {by} ORDER BY 1, {by}
"""


def counts(year: Year) -> Iterator[Question]:
    """Events by outcome over each range: of all nodes, of one, of one domain; and the API's lists of domains."""
    for table, by, count in (("email_events", "outcome", "messages"), ("delivery_events", "status", "attempts")):
        for told, seconds in RANGES.items():
            step = max(300, rolled.step_for(seconds, 300, 240))
            size = rolled.size_for(step, sources.SECONDS)
            for scope, rollup, condition in (
                ("all nodes", f"{table}_totals_{size}", ""),
                ("a node", f"{table}_nodes_{size}", " AND node_id = %(node)s"),
                ("the largest domain", f"{table}_domains_{size}", " AND domain = 'domain1.example.com'"),
                ("a domain", f"{table}_domains_{size}", " AND domain = %(domain)s"),
            ):
                text = sql.SQL(_COUNTS.format(by=by, count=count, rollup=rollup, condition=condition))

                def draw(chance: random.Random, seconds: int = seconds, step: int = step) -> Mapping[str, Any]:
                    stop = window_end(chance, year, seconds, 30 * DAY) // step * step
                    return {
                        "step": step, "start": stop - seconds // step * step, "stop": stop,
                        "node": f"node-{chance.randrange(year.nodes):03}",
                        "domain": f"domain{int(year.domains ** chance.random())}.example.com",
                    }  # fmt: skip

                yield Question(f"{table} counts {told}, {scope}", drawn(text, draw))
    for told, seconds in RANGES.items():

        def top(chance: random.Random, seconds: int = seconds) -> Asking:
            stop = datetime.fromtimestamp(window_end(chance, year, seconds, 30 * DAY) // 300 * 300, UTC)
            wanted = Asked("domain", Filter("delivery_events", ()), stop - timedelta(seconds=seconds), stop, 20)
            columns = ("to_domain", "status")
            source = sources.rollup("delivery_events", wanted.start, wanted.stop, columns)
            among = None
            if source:
                for depth in depths(wanted.limit):
                    among = names_of((yield leaders_query(source, wanted.limit, depth)))
                    if among is not None:
                        break
            yield top_query(wanted, source or sources.rows("delivery_events", wanted.start, wanted.stop), among)

        yield Question(f"delivery_events counts {told}, top domains", top)


def searches(year: Year, database: psycopg.Connection[Any]) -> Iterator[Question]:
    """Events of all time by each of their ids."""
    for table in sorted(DECLARED.event_tables):
        found = some(database, table, year)
        columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in DECLARED.event_tables[table].columns)
        for id_ in ("event_id", "message_id", "queue_id"):
            text = sql.SQL(
                "SELECT time, event_id, node_id, instance, event_name, {}, attributes FROM {}"
                " WHERE {} = %(id)s ORDER BY time DESC, event_id DESC LIMIT 500"
            ).format(columns, sql.Identifier(table), sql.Identifier(id_))
            ids = [row[id_] for row in found]
            draw = drawn(text, lambda chance, ids=ids: {"id": chance.choice(ids)})  # type: ignore[misc]
            yield Question(f"{table} by {id_}", draw)
        text = sql.SQL(
            "SELECT time, event_id, node_id, instance, event_name, {}, attributes FROM {}"
            " WHERE message_id = ANY(%(ids)s) OR queue_id = ANY(%(ids)s)"
            " ORDER BY time DESC, event_id DESC LIMIT 500"
        ).format(columns, sql.Identifier(table))
        messages = [row["message_id"] for row in found]
        draw = drawn(text, lambda chance, ids=messages: {"ids": [chance.choice(ids)]})  # type: ignore[misc]
        yield Question(f"{table} by an id of any kind", draw)


def some(database: psycopg.Connection[Any], table: str, year: Year) -> list[dict[str, Any]]:
    """The ids of events of all times."""
    chance = random.Random(7)  # noqa: S311 - repeatable
    found = []
    for _ in range(TIMES):
        at = year.kept_since.timestamp() + chance.random() * year.kept * DAY * 0.999
        row = database.execute(
            f"SELECT event_id, message_id, queue_id FROM {table} WHERE time >= to_timestamp({at})"
            f" AND time < to_timestamp({at + HOUR}) LIMIT 1".encode()
        ).fetchone()
        assert row
        found.append(dict(zip(("event_id", "message_id", "queue_id"), row, strict=True)))
    return found


def test_a_year_is_read_in_time(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(3)  # noqa: S311 - repeatable
    with psycopg.connect(filled.url, autocommit=True) as database:
        database.execute("SET timezone = 'UTC'; SET jit = off")
        questions = [*series(filled.year, database), *counts(filled.year), *searches(filled.year, database)]
        taken: dict[str, list[float]] = {}
        lines = []
        for question in questions:
            before = cpu_seconds([database.info.backend_pid])
            times = taken[question.name] = sorted(ask(database, question, chance) for _ in range(TIMES))
            used = (cpu_seconds([database.info.backend_pid]) - before) / TIMES
            lines.append(f"{question.name}: {times[TIMES // 2] * 1e3:.0f} / {p95(times) * 1e3:.0f}, {used * 1e3:.0f}")
        slowest = max(questions, key=lambda question: p95(taken[question.name]))
        plan = explained(database, slowest, chance)
        told = [
            "ms, p50 / p95, CPU of the server on average:",
            *lines,
            f"slowest: {slowest.name}",
            *plan,
            *sizes(database),
        ]
    with capsys.disabled():
        print("", *told, sep="\n")  # noqa: T201 - the figures
    late = {name: p95(times) for name, times in taken.items() if p95(times) > BOUND_S}
    assert not late


def p95(times: list[float]) -> float:
    """Of sorted ones."""
    return times[int(len(times) * 0.95)] if len(times) > 20 else times[-2]


def ask(database: psycopg.Connection[Any], question: Question, chance: random.Random) -> float:
    """Seconds until the last row is there."""
    begun = time.perf_counter()
    for _ in asked(database, question, chance):
        pass
    return time.perf_counter() - begun


def asked(
    database: psycopg.Connection[Any], question: Question, chance: random.Random
) -> Iterator[tuple[sql.SQL | sql.Composed, Mapping[str, Any]]]:
    """Each query with its values, once it was answered."""
    asking = question.draw(chance)
    query = next(asking, None)
    while query:
        rows = database.execute(*query).fetchall()
        yield query
        try:
            query = asking.send(rows)
        except StopIteration:
            return


def explained(database: psycopg.Connection[Any], question: Question, chance: random.Random) -> list[str]:
    """Plans, with times and blocks."""
    with psycopg.ClientCursor(database) as cursor:
        return [
            line
            for text, values in asked(database, question, chance)
            for (line,) in cursor.execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) ") + text, values).fetchall()
        ]


def sizes(database: psycopg.Connection[Any]) -> Iterator[str]:
    """Of each table and rollup, in GB: all of it, and what was put into columns, before and after."""
    for name, total, before, after in database.execute(
        """
        SELECT coalesce(view_name, hypertable.hypertable_name)::text,
            hypertable_size(format('%I.%I', hypertable.hypertable_schema, hypertable.hypertable_name)::regclass),
            coalesce(sum(stats.before_compression_total_bytes), 0)::bigint,
            coalesce(sum(stats.after_compression_total_bytes), 0)::bigint
        FROM timescaledb_information.hypertables AS hypertable
        LEFT JOIN timescaledb_information.continuous_aggregates AS aggregate
            ON aggregate.materialization_hypertable_name = hypertable.hypertable_name
        LEFT JOIN LATERAL hypertable_columnstore_stats(
            format('%I.%I', hypertable.hypertable_schema, hypertable.hypertable_name)::regclass
        ) AS stats ON true
        GROUP BY 1, 2 ORDER BY 1
        """
    ).fetchall():
        yield f"{name}: {total / 1e9:.2f} GB; in columns {before / 1e9:.2f} -> {after / 1e9:.2f}"
    (whole,) = database.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
    yield f"all: {whole / 1e9:.1f} GB of {conninfo.conninfo_to_dict(database.info.dsn)['dbname']}"
