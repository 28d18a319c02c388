"""Series of rollups and of rows: the same figures, whichever way the database tells them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from postel.signals import load_all
from support.postgres import fresh_database, migrate_now
from support.rollup_rows import Data, inserts, made
from timescale_sink.api.access import Access
from timescale_sink.api.rolled import FEWEST, MOST, SECONDS, begin, end, size_for, step_for
from timescale_sink.api.series import Answer, Query, Reader
from timescale_sink.store.database import create_pool

DECLARED = load_all()
BEGIN = datetime(2026, 1, 14, tzinfo=UTC)
DAYS = timedelta(days=3)
STEPS = (60, 300, 900, 3600, 4 * 3600, 86400)
GAUGES, COUNTERS = (
    [
        (table, columns)
        for table in sorted(DECLARED.tables)
        if (columns := tuple(c.name for c in DECLARED.columns_of(table) if c.counter == counter))
    ]
    for counter in (False, True)
)
Cells = dict[tuple[str, str, str, str, str], tuple[float | None, ...]]


def rows(seed: int) -> Data:
    """Restarts, rows without a start or from before it, gaps, missing cells."""
    return made(DECLARED, begin=BEGIN, end=BEGIN + DAYS, step=timedelta(seconds=311), seed=seed)


@pytest.fixture(scope="module", params=[1, 2])
def plain(postgres: str, migrated_template: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with fresh_database(postgres, migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(inserts(rows(request.param).rows).encode())
        yield url


@pytest.fixture(scope="module")
def rolled_up(timescale: str) -> Iterator[str]:
    """With two of the days in the rollups, and the third made of the rows as it is asked."""
    with fresh_database(timescale) as url:
        migrate_now(url)
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(inserts(rows(3).rows).encode())
            for size in reversed([*SECONDS]):
                for table in DECLARED.tables:
                    database.execute(
                        "CALL refresh_continuous_aggregate(%s, NULL, %s)",
                        (f"{table}_{size}_1", BEGIN + timedelta(days=2)),
                    )
        yield url


class Asked(Reader):
    """A reader that asks either the rollups or the rows."""

    aggregated = False

    async def _aggregated(self, _: object) -> bool:
        return self.aggregated


@pytest.fixture
async def reader() -> AsyncIterator[Asked]:
    access = Access()
    reader = Asked(access, DECLARED)
    yield reader
    await reader.close()
    await access.close()


async def ask(reader: Asked, url: str, asked: Query, *, aggregated: bool = False) -> Answer:
    access = reader._access
    if access.pool is None:
        access.pool = create_pool(url, 1)
        await access.pool.open()
    reader.aggregated = aggregated
    return await reader._ask_series(asked)


def question(table: str, columns: tuple[str, ...], step: int, *, since: timedelta = timedelta(0)) -> Query:
    start, stop = begin((BEGIN + since).timestamp(), step), end((BEGIN + DAYS).timestamp(), step)
    return Query(table, columns, start, stop, step, "increase")


def cells(answer: Answer) -> Cells:
    return {(one.column, one.node, one.instance, one.zone, one.queue): one.values for one in answer.series}


@pytest.mark.parametrize(("table", "counters"), COUNTERS)
@pytest.mark.parametrize("step", STEPS)
async def test_increases_are_those_of_the_view(
    plain: str, reader: Asked, table: str, counters: tuple[str, ...], step: int
) -> None:
    asked = question(table, counters, step, since=timedelta(hours=7))
    told = cells(await ask(reader, plain, asked))
    sums = defaultdict[tuple[str, str, str, int], float](float)
    with psycopg.connect(plain) as database:
        database.execute("SET timezone = 'UTC'")
        for name in counters:
            rises = (
                f"SELECT zone, floor(extract(epoch FROM time) / {step})::bigint, sum({name})::float8"
                f" FROM {table}_increase WHERE time >= to_timestamp({asked.start}) AND {name} IS NOT NULL GROUP BY 1, 2"
            )
            for zone, bucket, rise in database.execute(rises.encode()):
                sums[name, zone, "", bucket * step] = rise
    found = {
        (name, zone, "", asked.start + place * step): value
        for (name, _, _, zone, _), values in told.items()
        for place, value in enumerate(values)
        if value is not None
    }
    assert found == dict(sums)


@pytest.mark.parametrize("columns", [*(one for one in GAUGES if not DECLARED.tables[one[0]].labels), *COUNTERS])
@pytest.mark.parametrize(
    ("step", "hours"), [(300, 29), (900, 0), (3600, 29), (4 * 3600, 0), (21600, 29), (86400, 0), (604800, 0)]
)
async def test_a_rollup_tells_what_its_rows_tell(
    rolled_up: str, reader: Asked, columns: tuple[str, tuple[str, ...]], step: int, hours: int
) -> None:
    asked = question(*columns, step, since=timedelta(hours=hours))
    by_rows = cells(await ask(reader, rolled_up, asked))
    by_buckets = cells(await ask(reader, rolled_up, asked, aggregated=True))
    assert by_rows.keys() == by_buckets.keys()
    counter = reader.column(asked.table, asked.columns[0]).counter
    for key, values in by_rows.items():
        # Rows from before their epoch's start rose by nothing, and are in no state.
        told = [value or 0 for value in values] if counter else values
        found = [value or 0 for value in by_buckets[key]] if counter else by_buckets[key]
        assert found == pytest.approx(told), key


@pytest.mark.parametrize(("table", "counters"), COUNTERS)
@pytest.mark.parametrize("size", SECONDS)
async def test_what_nothing_can_be_before_needs_no_second_question(
    rolled_up: str, reader: Asked, table: str, counters: tuple[str, ...], size: str
) -> None:
    """Of the oldest bucket; and what the first question knows is what the one that costs more says."""
    asked = question(table, counters, SECONDS[size])
    values = {
        "step": asked.step, "since": asked.start - asked.step, "start": asked.start, "stop": asked.stop,
        "node": None, "instance": None, "zone": None,
    }  # fmt: skip
    with psycopg.connect(rolled_up) as database:
        rows = database.execute(reader.text(asked, size), values).fetchall()
        exact = {row[:5]: row[5:] for row in database.execute(reader.text(asked, size, exact=True), values).fetchall()}
    known = {row[:5]: row[5:-1] for row in rows if not row[-1]}
    first = min(row[0] for row in rows)
    assert {row[-1] for row in rows if row[0] == first} == {False}
    assert known == {key: exact[key] for key in known}
    assert known.keys() <= exact.keys() == {row[:5] for row in rows}


async def test_of_a_shared_queue_a_rollup_tells_one_value(timescale: str, reader: Asked) -> None:
    """Also in a bucket in which an instance restarted."""
    with fresh_database(timescale) as url:
        await asyncio.to_thread(migrate_now, url)
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(
                "INSERT INTO metrics_zonemta (time, node_id, instance, zone, started_at, queue_id, queue_size)"
                " SELECT to_timestamp(%s) + i * interval '30 seconds', node, '', '',"
                " to_timestamp(%s) + CASE WHEN i > 15 THEN 16 ELSE 0 END * interval '30 seconds', queue, size"
                " FROM generate_series(0, 29) AS i,"
                " (VALUES ('n1', 'shared', 70), ('n2', 'shared', 71), ('n3', NULL, 5)) AS told (node, queue, size)",
                (BEGIN.timestamp(), BEGIN.timestamp()),
            )
        answer = await ask(reader, url, question("metrics_zonemta", ("queue_size",), 300), aggregated=True)
        # Before the database goes.
        await reader._access.close()
    assert {(one.node, one.queue): one.values[:4] for one in answer.series} == {
        ("n1", "shared"): (71, 71, 71, None),
        ("n3", "n3/"): (5, 5, 5, None),
    }


def test_the_largest_buckets_that_make_up_a_step_are_asked() -> None:
    assert [size_for(step) for step in (15, 300, 600, 900, 3600, 10800, 43200, 86400, 172800, 1209600)] == [
        None, "5m", "5m", "15m", "1h", "1h", "6h", "daily", "daily", "weekly",
    ]  # fmt: skip
    assert size_for(1209600, pending={"weekly"}) == "daily"


def test_a_range_is_told_by_about_as_many_points_as_are_asked_for() -> None:
    hour, day = 3600, 86400
    steps = {
        seconds: step_for(seconds, 15, 240) for seconds in (900, hour, 6 * hour, day, 7 * day, 30 * day, 365 * day)
    }
    assert steps == {900: 15, hour: 15, 6 * hour: 300, day: 600, 7 * day: hour, 30 * day: 3 * hour, 365 * day: 2 * day}
    assert step_for(hour, 300, 240) == 300


@pytest.mark.parametrize("series", [1, 40, 100, 300, 1000])
def test_of_many_series_few_buckets_are_read_and_told(series: int) -> None:
    hour, day = 3600, 86400
    for seconds in (6 * hour, day, 7 * day, 30 * day, 365 * day):
        step = step_for(seconds, 15, 240, series=series)
        size = size_for(step)
        assert size
        assert step >= step_for(seconds, 15, 240)
        assert seconds / step >= FEWEST
        if series < 1000:
            assert series * seconds / SECONDS[size] <= max(MOST, series * seconds / SECONDS["weekly"])
            assert series * seconds / step <= MOST
    # Some dozens of points of each, however long the range.
    if series == 300:
        steps = [step_for(seconds, 30, 240, series=series) for seconds in (hour, 6 * hour, day, 7 * day, 30 * day)]
        assert steps == [90, 900, hour, 6 * hour, day]


async def test_a_step_is_longer_where_many_series_are_told(
    postgres: str, migrated_template: str, reader: Asked
) -> None:
    day = 86400
    with fresh_database(postgres, migrated_template) as url:
        reader._access.pool = create_pool(url, 1)
        await reader._access.pool.open()
        assert await reader.step("metrics_rspamd", day, 240) == step_for(day, 30, 240)
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(
                "INSERT INTO metrics_system (time, node_id, instance, load_1m) SELECT %s + i * interval '15 seconds',"
                " 'n' || node, '', 1 FROM generate_series(1, 4) AS i, generate_series(1, 1000) AS node",
                (BEGIN,),
            )
        assert await reader.step("metrics_system", day, 240) == step_for(day, 15, 240, series=1000) == 3600
        assert await reader.step("metrics_system", day, 240, node="n7") == step_for(day, 15, 240) == 600
        await reader._access.close()


def test_weeks_begin_on_mondays() -> None:
    monday = datetime(2026, 1, 12, tzinfo=UTC)
    for days in (0, 3, 6.9):
        assert begin((monday + timedelta(days=days)).timestamp(), SECONDS["weekly"]) == monday.timestamp()
