"""A year of a mail platform, made inside a migrated database: rows as they are kept, rollups as the product makes them.

100 nodes, every typed table of each once a minute, and `Year.events` events over the days that rows are kept. Of the
days before, rows come sparsely (metrics each four hours, a fiftieth of the events), are rolled up by the product's own
continuous aggregates and dropped, as retention drops them: so the rollups by day have as many rows as those of a full
year, the older ones by hour a quarter, those of five minutes fewer still, and the domains of the older events are few.

All of it is made by SQL from a seed, an hour of events and a day of metrics at a time, and put into columns as it
ages: the newest `COLUMNS` days stay rows, and so do all events, as the default settings have it. Without
TimescaleDB Community there are only rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from postel.signals import Declarations, load_all
from support.generated_events import EVENTS_AN_HOUR, EVENTS_OF_A_MESSAGE
from timescale_sink.store.rollup_views import rollups_of, stays_rows
from timescale_sink.store.rollups import Size, Typed, typed_tables

T = TypeVar("T")

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
_SPARSE_TICK = 4 * HOUR
COLUMNS = 9
_SPARSE_EVENTS = 50
_ZONES = {"metrics_zonemta": ("", "default", "bulk")}
# What a gauge is about; a counter's mean rise in a second is a thousandth of it.
_SCALE = {
    "memory_used": 8e9,
    "disk_used": 4e11,
    "network_in": 3e9,
    "network_out": 3e9,
    "storage_usage": 9e11,
    "storage_limit": 2e12,
    "mailbox_size": 9e11,
    "queue_size": 2_000,
    "oldest_age": 900,
    "delivered_total": 6_000,
    "inbound_total": 6_000,
    "scanned_total": 6_000,
}


@dataclass(frozen=True)
class Year:
    """How much is made.

    Attributes:
        events: over the days that are kept, both tables together.
        nodes, domains: how many; a few domains have most of the events.
        tick: from a row of a typed table to the next; in the last ``fine`` days the tables' own intervals are.
        kept, rolled_up: days that rows and rollups are kept.
        end: the last day's end, a midnight of UTC.
        seed: between -1 and 1.
    """

    events: int
    nodes: int = 100
    domains: int = 100_000
    tick: timedelta = timedelta(seconds=60)
    fine: int = 2
    kept: int = 30
    rolled_up: int = 365
    end: datetime = field(default_factory=lambda: datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0))
    seed: float = 0.25

    @property
    def kept_since(self) -> datetime:
        """The begin of the first day of which there are rows."""
        return self.end - self.kept * DAY


def fill(url: str, year: Year, say: Callable[[str], object] = lambda _: None, *, community: bool) -> None:
    """Make it in a migrated database without rows, metrics and events side by side.

    Args:
        url: of the database.
        year: how much.
        say: is told what is being made.
        community: whether the database has TimescaleDB Community.
    """
    declarations = load_all()
    with _session(url, year) as database:
        if community:
            # Its jobs would roll up what is rolled up here.
            database.execute("SELECT _timescaledb_functions.stop_background_workers()")
        _make_nodes(database, year)

    def make(source: Metrics | Events) -> None:
        if community:
            with stored_alone(url, year, source.tables):
                make_rolled_up(url, year, source, say)
                make_kept(url, year, source, say, community=True)
        else:
            make_kept(url, year, source, say, community=False)

    sources: tuple[Metrics | Events, ...] = Metrics(year, declarations), Events(year, declarations)
    _side_by_side(make, sources)
    with _session(url, year) as database:
        database.execute("VACUUM ANALYZE")


def _side_by_side(do: Callable[[T], None], each: Iterable[T]) -> None:
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(do, each):
            pass


@contextmanager
def _session(url: str, year: Year) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as database:
        # Of statements this wide it costs seconds to compile what runs for a moment.
        database.execute("SET timezone = 'UTC'; SET jit = off")
        database.execute("SELECT setseed(%s)", (year.seed,))
        yield database


@contextmanager
def stored_alone(url: str, year: Year, tables: list[str]) -> Iterator[None]:
    """Aggregates tell only what is stored of them meanwhile.

    One that is made of another that tells the newest rows too asks for that one's watermark at each row, which is four
    fifths of the time.
    """

    def set_to(*, alone: bool) -> None:
        with _session(url, year) as database:
            for aggregate, _ in [*aggregates(database, tables)]:
                form = sql.SQL("ALTER MATERIALIZED VIEW {} SET (timescaledb.materialized_only = {})")
                database.execute(form.format(sql.Identifier(aggregate), sql.Literal(alone)))

    set_to(alone=True)
    yield
    set_to(alone=False)


def make_rolled_up(url: str, year: Year, source: Metrics | Events, say: Callable[[str], object]) -> None:
    """The days that there are rollups of alone."""
    with _session(url, year) as database:
        for begin, end in _spans(year.end - year.rolled_up * DAY, year.kept_since, 15 * DAY):
            say(f"{begin:%Y-%m-%d}, rollups alone: {', '.join(source.tables)}")
            source.make(database, begin, end, sparsely=True)
            _roll_up(url, year, source.tables, begin, end)
            for table in source.tables:
                database.execute("SELECT drop_chunks(%s::regclass, older_than => %s)", (table, end))
            _put_aggregates_into_columns(database, source.tables, end)


def make_kept(url: str, year: Year, source: Metrics | Events, say: Callable[[str], object], *, community: bool) -> None:
    """The days that rows are kept of; one is rolled up while the next is made."""

    def roll_up(begin: datetime, end: datetime) -> None:
        _roll_up(url, year, source.tables, begin, end)
        with _session(url, year) as database:
            if source.in_columns and end <= year.end - COLUMNS * DAY:
                put_into_columns(database, source.tables, end)
            _put_aggregates_into_columns(database, source.tables, end)

    with _session(url, year) as database, ThreadPoolExecutor(1) as behind:
        rolled_up: Future[None] | None = None
        for begin, end in _spans(year.kept_since, year.end, DAY):
            say(f"{begin:%Y-%m-%d}: {', '.join(source.tables)}")
            source.make(database, begin, end)
            if rolled_up is not None:
                rolled_up.result()
            rolled_up = behind.submit(roll_up, begin, end) if community else None
        if rolled_up is not None:
            rolled_up.result()


def _spans(begin: datetime, end: datetime, length: timedelta) -> Iterator[tuple[datetime, datetime]]:
    while begin < end:
        yield begin, min(begin + length, end)
        begin += length


def _make_nodes(database: psycopg.Connection[Any], year: Year) -> None:
    database.execute(
        """
        INSERT INTO node (id, host, first_seen, last_seen, sources)
        SELECT 'node-' || lpad(n::text, 3, '0'), 'mx' || n || '.example.org', %s, %s, '["system", "zone_mta", "haraka"]'
        FROM generate_series(0, %s) AS n
        """,
        (year.end - year.rolled_up * DAY, year.end, year.nodes - 1),
    )


class Metrics:
    """Rows of the typed tables; those of the last days at the tables' own interval."""

    in_columns = True

    def __init__(self, year: Year, declarations: Declarations) -> None:
        self._year = year
        self._intervals = {
            table: timedelta(seconds=declared.interval) for table, declared in declarations.tables.items()
        }
        self._statements = {table.name: _metrics(table).encode() for table in typed_tables(declarations)}
        self.tables = [*self._statements]

    def make(
        self, database: psycopg.Connection[Any], begin: datetime, end: datetime, *, sparsely: bool = False
    ) -> None:
        """Those from a time on and before another."""
        finely = begin >= self._year.end - self._year.fine * DAY
        for table, statement in self._statements.items():
            tick = _SPARSE_TICK if sparsely else self._intervals[table] if finely else self._year.tick
            database.execute(statement, {"begin": begin, "end": end, "tick": tick, "nodes": self._year.nodes})


class Events:
    """Rows of the event tables."""

    in_columns = False

    def __init__(self, year: Year, declarations: Declarations) -> None:
        self._year = year
        self.tables = sorted(declarations.event_tables)

    def make(
        self, database: psycopg.Connection[Any], begin: datetime, end: datetime, *, sparsely: bool = False
    ) -> None:
        """Those from a time on and before another: three times as many at noon as at night."""
        hourly = self._year.events / self._year.kept / 24 / (_SPARSE_EVENTS if sparsely else 1)
        for hour, _ in _spans(begin, end, HOUR):
            busy = 1 + 0.6 * math.sin((hour.hour - 8) / 24 * math.tau)
            values = {
                "hour": hour,
                "messages": math.ceil(hourly / EVENTS_OF_A_MESSAGE * busy),
                "nodes": self._year.nodes,
                "domains": self._year.domains,
            }
            database.execute(EVENTS_AN_HOUR, values)


def _metrics(table: Typed) -> str:
    """Rows of a table from a time on and before another, of all nodes."""
    zones = ", ".join(f"('{zone}')" for zone in _ZONES.get(table.name, ("",)))
    cells = dict.fromkeys(table.labels, "node_id || ':queue'")
    for number, (column, counter) in enumerate(table.columns.items()):
        scale = _SCALE.get(column, 100)
        if counter:
            cells[column] = f"({scale / 1000} * weight * (age + 9000 * sin(age / 13751 + {number})))::bigint"
            if table.name in _ZONES:
                cells[column] = f"CASE WHEN zone <> '' THEN {cells[column]} END"
        else:
            cells[column] = (
                f"{scale} * weight * (1 + 0.4 * sin(age / 13751 + {number}) + 0.1 * sin(age * weight * {number + 1}))"
            )
    return f"""
INSERT INTO {table.name} (time, node_id, instance, zone, started_at, {", ".join(cells)})
SELECT time, node_id, node_id, zone, started_at, {", ".join(cells.values())}
FROM (
    SELECT
        time, node_id, zone, weight, started_at, extract(epoch FROM time - started_at)::float8 + 20000 AS age
    FROM generate_series(%(begin)s, %(end)s - interval '1 microsecond', %(tick)s) AS time
    CROSS JOIN LATERAL (
        SELECT
            'node-' || lpad(n::text, 3, '0') AS node_id, 0.2 + n %% 7 * 0.1 AS weight,
            -- A restart each 37 days, of each node at another time.
            date_bin('37 days', time, timestamptz '2020-01-01' + n * interval '9 hours 5 seconds') AS started_at
        FROM generate_series(0, %(nodes)s - 1) AS n
    ) AS node
    CROSS JOIN (VALUES {zones}) AS zones (zone)
) AS tick
"""


def _roll_up(url: str, year: Year, tables: list[str], begin: datetime, end: datetime) -> None:
    # What is made of one table waits for nothing that is made of another.
    def of_table(table: str) -> None:
        with _session(url, year) as database:
            for aggregate, size in aggregates(database, [table]):
                # A week that began before is over now, or later.
                since, until = size.begin(begin), size.begin(end)
                if since < until:
                    database.execute("CALL refresh_continuous_aggregate(%s, %s, %s)", (aggregate, since, until))

    _side_by_side(of_table, tables)


def aggregates(
    database: psycopg.Connection[Any], tables: list[str], *, in_columns: bool = False
) -> Iterator[tuple[str, Size]]:
    """The continuous aggregates of these tables, those of smaller buckets first; all, or those that go into columns."""
    for table in tables:
        for name, size in rollups_of(table):
            if in_columns and stays_rows(name, size):
                continue
            rows = database.execute("SELECT aggregates_of(%s)", (f"{name}_{size.name}",)).fetchall()
            yield from ((aggregate, size) for (aggregate,) in rows)


def _put_aggregates_into_columns(database: psycopg.Connection[Any], tables: list[str], end: datetime) -> None:
    """What of them is older than their newest days, as made until then: the disk never holds all of a year as rows."""
    made = [aggregate for aggregate, _ in aggregates(database, tables, in_columns=True)]
    put_into_columns(database, made, end - (COLUMNS + 1) * DAY)


def put_into_columns(database: psycopg.Connection[Any], relations: list[str], older: datetime) -> None:
    """The chunks of tables or aggregates that end before a time."""
    for relation in relations:
        database.execute(
            "SELECT compress_chunk(chunk, if_not_compressed => true) FROM show_chunks(%s::regclass, older_than => %s)"
            " AS chunk",
            (relation, older),
        )
