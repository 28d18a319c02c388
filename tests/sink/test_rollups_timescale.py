"""The rollups on TimescaleDB Community: the same answers as on plain PostgreSQL, and what only its jobs do.

In process, and on a server where there is one. Background workers do not run: the jobs are run by hand, as they stand
in the database.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from testbed import pglite

from postel.settings import Database
from postel.signals import load_all
from support.node import Node
from support.postgres import SERVERS
from support.rollup_rows import Data, Rises, Row, inserts, made
from support.timescale_database import TimescaleDatabase, in_process, on_server
from timescale_sink.store import event_rollups, housekeeping, increase, retention, rollups
from timescale_sink.store.database import _SESSION_TIMESCALE
from timescale_sink.store.demo_removal import Demo
from timescale_sink.store.housekeeping import _keep
from timescale_sink.store.migrate import scripts
from timescale_sink.store.rolling import fill_rollups, make_rollups
from timescale_sink.store.rollup_views import filled_of, names, rollups_of, stays_rows
from timescale_sink.store.rollups import KEY, ORIGIN, SIZES, Typed, state_columns, typed_tables

pytestmark = pytest.mark.slow

DECLARED = load_all()
DAY = timedelta(days=1)
# Weeks are compared with the days that they are made of: `_assert_weeks_are_their_days`.
LENGTHS = {size.name: size.length for size in SIZES if size.length <= DAY}
TABLES = typed_tables(DECLARED)
_NOTHING = retention.Changes([], [], [])


Opening = AbstractAsyncContextManager[TimescaleDatabase]


@pytest.fixture(params=["pglite", *(server for server in SERVERS if server == "timescale")])
def opening(request: pytest.FixtureRequest) -> Opening:
    """Opens a migrated one."""
    if request.param == "pglite":
        node: Node = request.getfixturevalue("node")
        packages: Path = request.getfixturevalue("pglite_packages")
        return in_process(node, packages, request.getfixturevalue("migrated_pglite"))
    template = request.getfixturevalue("migrated_timescale_template")
    return on_server(request.getfixturevalue(request.param), template)


@pytest.fixture
async def database(opening: Opening) -> AsyncIterator[TimescaleDatabase]:
    """A migrated one, opened."""
    async with opening as opened:
        yield opened


def _refresh(database: TimescaleDatabase, until: str) -> None:
    """One cycle: smaller buckets before larger ones."""
    for name in names(DECLARED):
        database.run(f"CALL refresh_continuous_aggregate('{name}_1', NULL, {until})")


def _run_jobs(database: TimescaleDatabase, kind: str, table: str = "") -> None:
    """Each once, or those of a table's own, the last made first: nothing may hang on their order."""
    jobs = f"SELECT job_id FROM timescaledb_information.jobs WHERE proc_name ~ '{kind}' AND job_id >= 1000"
    if table:
        jobs += f" AND '{table}' IN (hypertable_name, config ->> 'table')"
    for (job,) in database.rows(f"{jobs} ORDER BY job_id DESC"):
        database.run(f"CALL run_job({job})")


def _late(data: Data, chance: random.Random, share: float) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """What comes in time, and what comes late: single rows, anywhere."""
    in_time: dict[str, list[Row]] = {table: [] for table in data.rows}
    late: dict[str, list[Row]] = {table: [] for table in data.rows}
    for table, rows in data.rows.items():
        for row in rows:
            (late if chance.random() < share else in_time)[table].append(row)
    return in_time, late


def _relations() -> Iterator[tuple[str, str]]:
    """Everything that a reader can ask: name -> the columns that say the same on every server."""
    for table in (*DECLARED.tables, *(f"{table}_increase" for table in increase.counters_of(DECLARED))):
        yield table, "whole"
    for table in DECLARED.event_tables:
        # But `xact`: two servers count their transactions apart.
        yield table, f"ROW(whole.time, whole.event_id, {', '.join(f'whole.{c}' for c in _columns(table))})"
    for name in names(DECLARED):
        yield name, "whole"


def _columns(table: str) -> list[str]:
    return [column.name for column in DECLARED.event_tables[table].columns]


async def test_every_table_rollup_and_increase_is_as_on_plain_postgresql(
    database: TimescaleDatabase, migrated_postgres: str
) -> None:
    """With rows that came before a refresh, after it, and late into what was refreshed."""
    begin = datetime(2026, 1, 14, tzinfo=UTC)
    data = made(DECLARED, begin=begin, end=begin + 3 * DAY, step=timedelta(seconds=311), seed=11)
    in_time, late = _late(data, random.Random(11), 0.1)  # noqa: S311 - repeatable
    database.run(inserts(in_time))
    _refresh(database, "'2026-01-16 12:00+00'")
    materialized = database.rows("SELECT count(*)::int FROM metrics_zonemta_5m_1 WHERE bucket < '2026-01-16 12:00+00'")
    assert materialized > [(500,)]
    database.run(inserts(late))
    _refresh(database, "'2026-01-16 12:00+00'")
    with _twin(migrated_postgres, data.rows) as plain:
        for relation, columns in _relations():
            _assert_same(database, plain, relation, columns)
            assert _types(plain.execute, relation) == _types(database.rows, relation)


@contextmanager
def _twin(url: str, rows: Mapping[str, Sequence[Row]]) -> Iterator[psycopg.Connection[Any]]:
    """Plain PostgreSQL with the same rows: its rollups are views of them."""
    with psycopg.connect(url, autocommit=True) as plain:
        plain.execute("SET timezone = 'UTC'")
        plain.execute(inserts(rows).encode())
        plain.execute("ANALYZE")
        yield plain


def _assert_same(
    database: TimescaleDatabase, plain: psycopg.Connection[Any], relation: str, columns: str, where: str = "true"
) -> None:
    """Row by row, and not without any."""
    query = f"SELECT ({columns})::text FROM {relation} AS whole WHERE {where}"
    found = sorted(row for (row,) in database.rows(query))
    assert found == sorted(row for (row,) in plain.execute(query.encode()).fetchall()), relation
    assert found, relation


def _types(ask: Any, relation: str) -> list[tuple[Any, ...]]:
    found = ask(
        "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute"
        f" WHERE attrelid = '{relation}'::regclass AND attnum > 0 ORDER BY attnum"
    )
    return [tuple(row) for row in found]


@pytest.mark.timeout(600)
async def test_rollups_equal_the_rows_over_restarts_late_data_columns_and_retention(
    database: TimescaleDatabase, migrated_postgres: str
) -> None:
    """Two weeks, of which ten days are kept; the jobs as they are set; rows a week late, into chunks in columns."""
    await retention.apply(database.connection, Database(raw_days=10, columnstore_days=9), DECLARED)
    now = database.rows("SELECT date_trunc('minute', now())")[0][0]
    begin = (now - 14 * DAY).replace(hour=0, minute=0)
    data = made(DECLARED, begin=begin, end=now, step=timedelta(minutes=13), seed=5)
    in_time, late = _late(data, random.Random(5), 0.1)  # noqa: S311 - repeatable
    week = now - 7 * DAY - timedelta(hours=12)
    late = {table: [row for row in rows if row["time"] >= week] for table, rows in late.items()}
    in_time = {table: [row for row in rows if row not in late[table]] for table, rows in data.rows.items()}
    database.run(inserts(in_time))
    # What was there before the rollups were is the housekeeping's to refresh, what is new the jobs'. Retention waits.
    _run_jobs(database, "retention")
    await _keep(database.connection, DECLARED)
    _run_jobs(database, "refresh")
    _run_jobs(database, "compression")
    database.run("SELECT compress_chunk(chunk, if_not_compressed => true) FROM show_chunks('metrics_zonemta') AS chunk")
    in_columns = "SELECT count(*)::int FROM timescaledb_information.chunks WHERE is_compressed AND hypertable_name = "
    assert database.rows(f"{in_columns} 'metrics_zonemta'") >= [(14,)]
    assert database.rows(f"{in_columns} 'metrics_system'") >= [(4,)]
    assert sum(map(len, late.values())) > 100
    database.run(inserts(late))
    _run_jobs(database, "refresh")
    _run_jobs(database, "retention")
    _run_jobs(database, "refresh")
    await _keep(database.connection, DECLARED)

    kept = database.rows("SELECT kept_since('metrics_zonemta')")[0][0]
    assert kept == (now - 10 * DAY).replace(hour=0, minute=0)
    assert database.rows("SELECT min(time) >= kept_since('metrics_zonemta') FROM metrics_zonemta") == [(True,)]
    assert database.rows("SELECT kept_since('metrics_zonemta_5m') < now() - interval '364 days'") == [(True,)]
    _compare(database, data.rises, begin, now, rows_since=kept)
    rollups_ = {*names(DECLARED)}
    with _twin(migrated_postgres, data.rows) as plain:
        for relation, columns in _relations():
            # Rollups outlive their rows: all of them, gauges, labels and those of events too.
            if relation in rollups_:
                _assert_same(database, plain, relation, columns)
            elif not relation.endswith("_increase"):
                # Those of counters know of the row before theirs, which is gone here: they are compared above.
                since = database.rows(f"SELECT kept_since('{relation}')")[0][0]
                assert since >= begin, relation
                _assert_same(database, plain, relation, columns, f"time >= '{since}'")


def _compare(
    database: TimescaleDatabase, rises: Rises, begin: datetime, end: datetime, *, rows_since: datetime
) -> None:
    chance = random.Random(1)  # noqa: S311 - repeatable
    for table in TABLES:
        for size, length in LENGTHS.items():
            first, last = sorted(chance.sample(range(int((end - begin) / length) + 1), 2))
            some = (begin + first * length, begin + last * length)
            truth = _tally(rises, table, some)
            assert _sums(database, table, size, some) == truth, (table, size, some)
            if some[0] > rows_since:
                assert _sums(database, table, "increase", some) == truth, (table, size, some)
            assert _sums(database, table, size, (begin, end)) == _tally(rises, table, (begin, end)), (table, size)
        _assert_weeks_are_their_days(database, table)


def _assert_weeks_are_their_days(database: TimescaleDatabase, table: Typed) -> None:
    """By counts of rows and increases, and those of gauges by their sums; also where a part is made of rows."""
    sums = ", ".join(
        f"coalesce(sum({column if counter else f'{column}_sum'}), 0)::int" for column, counter in table.columns.items()
    )
    week = f"date_bin('168 hours', bucket, '{ORIGIN}')"
    told = f"SELECT {week}, node_id, zone, started_at, sum(row_count)::int, {sums} FROM {table.name}_{{}}"
    weeks, days = (database.rows(f"{told.format(size)} GROUP BY 1, 2, 3, 4") for size in ("weekly", "daily"))
    assert sorted(weeks, key=repr) == sorted(days, key=repr)
    assert len(weeks) > 0


def _counters(table: Typed) -> list[str]:
    return [name for name, counter in table.columns.items() if counter]


def _tally(rises: Rises, table: Typed, window: tuple[datetime, datetime]) -> list[int]:
    return [rises.over(table.name, counter, *window) for counter in _counters(table)]


def _sums(database: TimescaleDatabase, table: Typed, of: str, window: tuple[datetime, datetime]) -> list[int]:
    """The increase of each counter, by a rollup or the view over the rows."""
    time = "time" if of == "increase" else "bucket"
    sums = ", ".join(f"coalesce(sum({counter}), 0)::int" for counter in _counters(table))
    where = f"{time} >= '{window[0]}' AND {time} < '{window[1]}'"
    return [*database.rows(f"SELECT {sums} FROM {table.name}_{of} WHERE {where}")[0]]


async def test_a_rollup_outlives_its_rows_and_still_knows_what_came_before(database: TimescaleDatabase) -> None:
    await retention.apply(database.connection, Database(), DECLARED)
    day = database.rows("SELECT date_trunc('day', now(), 'UTC')")[0][0]
    key = {"node_id": "n", "instance": "", "zone": "", "started_at": day - 29 * DAY}
    rows = [
        {**key, "time": day - age, "network_in": value}
        for age, value in ((28 * DAY, 100), (27 * DAY, 130), (2 * DAY, 190))
    ]
    database.run(inserts({"metrics_system": rows}))
    await _keep(database.connection, DECLARED)
    _run_jobs(database, "refresh")
    rolled = "SELECT network_in::int FROM metrics_system_{} ORDER BY bucket"
    assert database.rows(rolled.format("daily")) == [(100,), (30,), (60,)]
    # As if two weeks had passed for the rows.
    await retention.apply(database.connection, Database(raw_days=14, columnstore_days=9), DECLARED)
    await _keep(database.connection, DECLARED)
    _run_jobs(database, "retention")
    await _keep(database.connection, DECLARED)
    _run_jobs(database, "refresh")
    assert database.rows("SELECT network_in::int FROM metrics_system_increase") == [(0,)]
    for size in LENGTHS:
        assert database.rows(rolled.format(size)) == [(100,), (30,), (60,)]
    assert sum(rise for (rise,) in database.rows(rolled.format("weekly"))) == 190


async def test_rows_are_dropped_once_their_rollups_are_there(
    database: TimescaleDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database of before the rollups, whose oldest row is of a clock that began in 1970; then a shorter setting."""
    key = {"node_id": "n", "instance": "", "zone": "", "started_at": datetime(1969, 12, 31, tzinfo=UTC)}
    day = database.rows("SELECT date_trunc('day', now(), 'UTC')")[0][0]
    ages = (100, 60, 25, 3)
    rows = [{**key, "time": day - age * DAY, "network_in": 1000 - age} for age in ages]
    rows.append({**key, "time": datetime(1970, 1, 1, tzinfo=UTC), "network_in": 1})
    counted = [f"SELECT count(*)::int, sum(network_in)::int FROM metrics_system_{size}" for size in LENGTHS]

    async def _cycle() -> int:
        _run_jobs(database, "retention")
        _run_jobs(database, "refresh")
        _run_jobs(database, "retention")
        return len(database.rows("SELECT FROM metrics_system"))

    database.run(inserts({"metrics_system": rows}))
    await retention.apply(database.connection, Database(rollup_days=0), DECLARED)
    assert await _cycle() == 5
    with monkeypatch.context() as patched:
        # The database's clock may be years ahead: what would seem old is not dropped.
        patched.setattr(housekeeping, "_APART_SECONDS", -1)
        await _keep(database.connection, DECLARED)
    assert await _cycle() == 5
    await _keep(database.connection, DECLARED)
    assert await _cycle() == 2
    assert [database.rows(count) for count in counted] == [[(5, 997)]] * len(counted)
    # What comes late meanwhile, a setting that drops more does not take along.
    database.run(inserts({"metrics_system": [{**key, "time": day - 20 * DAY, "network_in": 980}]}))
    await retention.apply(database.connection, Database(raw_days=10), DECLARED)
    assert await _cycle() == 3
    assert database.rows("SELECT kept_since('metrics_system') < now() - interval '29 days'") == [(True,)]
    await _keep(database.connection, DECLARED)
    assert await _cycle() == 1
    assert [database.rows(count) for count in counted] == [[(6, 997)]] * len(counted)


async def test_what_comes_later_than_the_jobs_look_back_is_the_housekeepings(database: TimescaleDatabase) -> None:
    await retention.apply(database.connection, Database(), DECLARED)
    key = {"node_id": "n", "instance": "", "zone": "", "started_at": None}
    day = database.rows("SELECT date_trunc('day', now(), 'UTC')")[0][0]
    rows = [{**key, "time": day - age * DAY, "network_in": 100 - age} for age in (20, 12, 5, 2)]
    in_time, week_late, later = [rows[0], rows[3]], [rows[2]], [rows[1]]
    (system,) = (table for table in TABLES if table.name == "metrics_system")
    counts = [
        f"SELECT row_count::int FROM metrics_system_{size} WHERE bucket < now() - interval '1 day' ORDER BY bucket"
        for size in LENGTHS
    ]
    database.run(inserts({"metrics_system": in_time}))
    await _keep(database.connection, DECLARED)
    _run_jobs(database, "refresh")
    for late, after_jobs, after_housekeeping in ((week_late, 3, 3), (later, 3, 4)):
        database.run(inserts({"metrics_system": late}))
        _run_jobs(database, "refresh")
        assert [len(database.rows(count)) for count in counts] == [after_jobs] * len(LENGTHS)
        _assert_weeks_are_their_days(database, system)
        await _keep(database.connection, DECLARED)
        assert [len(database.rows(count)) for count in counts] == [after_housekeeping] * len(LENGTHS)
        _assert_weeks_are_their_days(database, system)
    # Of a day that was dropped, rollups are never made anew: they would be of what came later alone.
    await retention.apply(database.connection, Database(raw_days=10, columnstore_days=9), DECLARED)
    await _keep(database.connection, DECLARED)
    _run_jobs(database, "retention")
    assert len(database.rows("SELECT FROM metrics_system")) == 2
    database.run(inserts({"metrics_system": [{**rows[1], "node_id": "other"}]}))
    await _keep(database.connection, DECLARED)
    assert [len(database.rows(count)) for count in counts] == [4] * len(LENGTHS)
    _assert_weeks_are_their_days(database, system)
    assert database.rows("SELECT count(*)::int FROM metrics_system_daily WHERE node_id = 'other'") == [(0,)]


async def test_what_is_kept_for_ever_is_rolled_up_however_late_it_comes(database: TimescaleDatabase) -> None:
    await retention.apply(database.connection, Database(raw_days=0, rollup_days=0), DECLARED)
    await _keep(database.connection, DECLARED)
    key = {"node_id": "n", "instance": "", "zone": "", "started_at": None}
    now = database.rows("SELECT now()")[0][0]
    for count, age in enumerate((400, 40, 4000), 1):
        database.run(inserts({"metrics_system": [{**key, "time": now - age * DAY, "network_in": 1}]}))
        # Not by `_keep`, which says of a step that fails no more than a line in the log.
        await make_rollups(database.connection, "metrics_system", begin=True)
        aggregate = "SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)"
        where = "FROM timescaledb_information.continuous_aggregates WHERE view_name = 'metrics_system_daily_1'"
        [(kept,)] = database.rows(f"{aggregate} {where}")
        assert database.rows(f"SELECT count(*)::int FROM {kept}") == [(count,)]


async def test_a_rollup_that_comes_later_is_made_of_those_of_a_year(database: TimescaleDatabase) -> None:
    """As where 0031 to 0035 come to a database of whose older rollups the rows are gone."""
    table = "delivery_events"
    filled = filled_of(table)
    for rollup in reversed([*filled]):
        database.run(f"DROP VIEW {rollup}; DROP MATERIALIZED VIEW {rollup}_1")
    day = database.rows("SELECT date_trunc('day', now(), 'UTC')")[0][0]
    begin = day - 24 * DAY
    rows = made(DECLARED, begin=begin, end=day + DAY / 24, step=DAY, seed=4).rows[table]
    database.run(inserts({table: rows}))
    await retention.apply(database.connection, Database(raw_days=10), DECLARED)
    await make_rollups(database.connection, table, begin=True)
    _run_jobs(database, "refresh", table)
    _run_jobs(database, "retention", table)
    assert database.rows(f"SELECT min(time) > now() - interval '12 days' FROM {table}") == [(True,)]

    database.run("DELETE FROM retention WHERE relation ~ '_(domains|totals|leaders)_'")
    added = [made for made in event_rollups.rolled([table]) if made.made_of]
    _migrate(database, [rollup for made in added for rollup in (f"{made.name}_{size.name}" for size in made.sizes)])
    for made_of in added:
        for size in made_of.sizes:
            database.run(event_rollups.view(made_of, size, [f"{made_of.name}_{size.name}_1"]))
    first = (await retention.apply(database.connection, Database(), DECLARED)).first
    assert {*filled} <= {*first}
    pending = f"SELECT count(*)::int FROM retention WHERE pending AND relation ~ '^{table}_'"
    # The last week is made by a job, but only once what is older was, or nobody would look for that any more.
    _run_jobs(database, "refresh", table)
    assert database.rows(pending) == [(len(filled),)]
    _assert_alike(database, filled, begin)
    await fill_rollups(database.connection, table)
    assert database.rows(pending) == [(0,)]
    for rollup, source in filled.items():
        database.run(f"ALTER MATERIALIZED VIEW {rollup}_1 SET (timescaledb.materialized_only = true)")
        # From the first to what is a day old, which the jobs will not leave out if the filling took them a week.
        edges = "SELECT min(bucket), max(bucket) FROM {} WHERE bucket < " + f"'{day - DAY}'"
        assert database.rows(edges.format(rollup)) == database.rows(edges.format(source)), rollup
        held = database.rows(f"SELECT count(*)::int FROM {rollup} WHERE bucket < now() - interval '12 days'")
        assert held > [(10 if "leaders" in rollup else 100,)]
        database.run(f"ALTER MATERIALIZED VIEW {rollup}_1 SET (timescaledb.materialized_only = false)")
    # What comes late reaches it as it reaches the others.
    late = [{**row, "event_id": uuid.UUID(int=number)} for number, row in enumerate(rows)]
    database.run(inserts({table: [row for row in late if row["time"] > day - 5 * DAY]}))
    _run_jobs(database, "refresh", table)
    _assert_alike(database, filled, begin)


def _migrate(database: TimescaleDatabase, rollups: Collection[str]) -> None:
    """As the migrations of later rollups do it."""
    for script in scripts("migrations"):
        if script.name[:4] in ("0031", "0033", "0034", "0035"):
            texts = (text for text in script.text.split(";") if any(f" {rollup}_1" in text for rollup in rollups))
            database.run(";".join(texts))


async def test_sizes_that_come_later_are_made_of_those_of_a_year(database: TimescaleDatabase) -> None:
    (typed,) = (table for table in TABLES if table.name == "metrics_zonemta")
    filled = filled_of(typed.name)
    assert filled == {
        f"{typed.name}_{size}": f"{typed.name}_{of}" for size, of in (("weekly", "daily"), ("6h", "1h"), ("15m", "5m"))
    }
    for rollup in filled:
        database.run(f"DROP VIEW {rollup}; DROP MATERIALIZED VIEW {rollup}_1")
    day = database.rows("SELECT date_trunc('day', now(), 'UTC')")[0][0]
    begin = day - 40 * DAY
    data = made(DECLARED, begin=begin, end=day + DAY / 24, step=DAY / 12, seed=4)
    database.run(inserts({typed.name: data.rows[typed.name]}))
    await retention.apply(database.connection, Database(raw_days=10), DECLARED)
    await make_rollups(database.connection, typed.name, begin=True)
    _run_jobs(database, "refresh", typed.name)
    _run_jobs(database, "retention", typed.name)
    assert database.rows(f"SELECT min(time) > now() - interval '12 days' FROM {typed.name}") == [(True,)]

    database.run("DELETE FROM retention WHERE relation ~ '_(15m|6h|weekly)$'")
    _migrate(database, filled)
    for size in SIZES:
        if size.later:
            database.run(rollups.view(typed, size, {f"{typed.name}_{size.name}_1": state_columns(typed)}))
    assert {*filled} <= {*(await retention.apply(database.connection, Database(), DECLARED)).first}
    pending = f"SELECT count(*)::int FROM retention WHERE pending AND relation ~ '^{typed.name}_'"
    _run_jobs(database, "refresh", typed.name)
    assert database.rows(pending) == [(len(filled),)]
    await fill_rollups(database.connection, typed.name)
    assert database.rows(pending) == [(0,)]
    for size in (size for size in SIZES if size.later):
        # Up to what is a day old, which the jobs will not leave out if the filling took them a week.
        counted = "SELECT sum(row_count)::int FROM {} WHERE " + f"bucket < '{size.begin(day - DAY)}'"
        rollup = f"{typed.name}_{size.name}"
        database.run(f"ALTER MATERIALIZED VIEW {rollup}_1 SET (timescaledb.materialized_only = true)")
        assert database.rows(counted.format(rollup)) == database.rows(counted.format(filled[rollup])), rollup
        database.run(f"ALTER MATERIALIZED VIEW {rollup}_1 SET (timescaledb.materialized_only = false)")
        whole = (size.begin(begin), day + DAY)
        assert _sums(database, typed, size.name, whole) == _tally(data.rises, typed, (begin, day + DAY)), rollup
    _assert_weeks_are_their_days(database, typed)


def _assert_alike(database: TimescaleDatabase, filled: Mapping[str, str], begin: datetime) -> None:
    for rollup, source in filled.items():
        if "leaders" in rollup:
            _assert_leading(database, rollup, source, begin)
            continue
        by = "zone, status, category" if "totals" in rollup else "domain, zone, status, category"
        query = (
            f"SELECT bucket, {by}, sum(attempts)::int, sum(duration_sum)::float8 FROM {{}}"
            f" WHERE bucket >= '{begin}' GROUP BY bucket, {by}"
        )
        found = database.rows(query.format(rollup))
        assert len(found) > 100
        assert sorted(found, key=repr) == sorted(database.rows(query.format(source)), key=repr), rollup


def _assert_leading(database: TimescaleDatabase, rollup: str, source: str, begin: datetime) -> None:
    lists = f"SELECT bucket, names, counts FROM {rollup} WHERE bucket >= '{begin}' ORDER BY bucket"
    whole = (
        'SELECT bucket, array_agg(domain ORDER BY attempts DESC, domain COLLATE "C"),'
        ' array_agg(attempts ORDER BY attempts DESC, domain COLLATE "C")'
        f" FROM (SELECT bucket, domain, sum(attempts)::bigint AS attempts FROM {source} GROUP BY 1, 2) AS told"
        f" WHERE bucket >= '{begin}' GROUP BY 1 ORDER BY 1"
    )
    found = database.rows(lists)
    assert len(found) >= 3
    assert found == database.rows(whole)


async def test_a_demo_goes_with_its_rollups_and_unpacks_no_other_nodes_rows(database: TimescaleDatabase) -> None:
    times = "now() - interval '12 days' + i * interval '1 hour'"
    rows = "INSERT INTO {} SELECT " + times + ", {} FROM generate_series(1, 100) AS i"
    for node, demo in (("real", False), ("demo", True)):
        database.run(f"INSERT INTO node (id, first_seen, last_seen, demo) VALUES ('{node}', now(), now(), {demo})")
        database.run(rows.format("metrics_system (time, node_id, instance, zone, load_1m)", f"'{node}', '', '', i"))
        database.run(
            "INSERT INTO otel_series (series_id, node_id, instance, metric, unit, kind, temporality, monotonic,"
            " description, attributes, resource, scope)"
            f" VALUES (md5('{node}')::uuid, '{node}', '', 'm', '', 'gauge', '', false, '', '{{}}', '{{}}', '{{}}')"
        )
        database.run(rows.format("otel_metric_point (time, series_id, value)", f"md5('{node}')::uuid, i"))
    chance = random.Random(5)  # noqa: S311 - repeatable
    day = database.rows("SELECT date_trunc('day', now(), 'UTC') - interval '20 days'")[0][0]
    for row in (events := made(DECLARED, begin=day, end=day + 3 * DAY, step=DAY, seed=6).rows["delivery_events"]):
        row["node_id"] = chance.choice(("real", "real", "demo"))
        if row["node_id"] == "real":
            # An address without a domain, and none: two rows of a bucket that are easily taken for one.
            row["to_domain"] = chance.choice((row["to_domain"], row["to_domain"], "", None))
    database.run(inserts({"delivery_events": events}))
    await _keep(database.connection, DECLARED)
    for table in ("metrics_system", "otel_metric_point", *(f"{name}_1" for name in filled_of("delivery_events"))):
        database.run(f"SELECT compress_chunk(chunk) FROM show_chunks('{table}') AS chunk")
    # Of a part of the rows there is only what was made of them.
    database.run("SELECT drop_chunks('metrics_system', older_than => now() - interval '10 days')")
    database.run("SELECT drop_chunks('delivery_events', older_than => now())")
    nodes = "SELECT DISTINCT node_id FROM metrics_system_{} ORDER BY 1"
    assert [database.rows(nodes.format(size)) for size in LENGTHS] == [[("demo",), ("real",)]] * len(LENGTHS)
    await Demo(database.connection).remove()
    assert [database.rows(nodes.format(size)) for size in LENGTHS] == [[("real",)]] * len(LENGTHS)
    left = sum(row["node_id"] == "real" for row in events)
    assert database.rows(nodes.format("weekly")) == [("real",)]
    for size in (size.name for size in event_rollups.SIZES):
        sums = "SELECT domain, sum(attempts)::int, max(duration_max) FROM delivery_events{}_{} GROUP BY bucket, domain"
        by_domain = database.rows(sums.format("_domains", size))
        assert sorted(by_domain, key=repr) == sorted(database.rows(sums.format("", size)), key=repr)
        assert sum(count for _, count, _ in by_domain) == left
        totals = "SELECT bucket, sum(attempts)::int, max(duration_max) FROM delivery_events{}_{} GROUP BY 1 ORDER BY 1"
        assert database.rows(totals.format("_totals", size)) == database.rows(totals.format("", size))
        if size != "5m":
            _assert_leading(database, f"delivery_events_leaders_{size}", f"delivery_events_{size}", day)
    for table in ("metrics_system", "otel_metric_point"):
        chunks = [chunk for (chunk,) in database.rows(f"SELECT chunk::text FROM show_chunks('{table}') AS chunk")]
        assert sum(database.rows(f"SELECT count(*)::int FROM ONLY {chunk}")[0][0] for chunk in chunks) == 0
        assert database.rows(f"SELECT count(*)::int > 20 FROM {table}") == [(True,)]


async def test_a_session_takes_what_comes_late_into_chunks_in_columns(database: TimescaleDatabase) -> None:
    """However many rows have to be unpacked for it; with TimescaleDB's limit it would be refused each time anew."""
    database.run(
        "INSERT INTO metrics_system (time, node_id, instance, zone, load_1m)"
        " SELECT '2026-01-14'::timestamptz + i * interval '15 seconds', 'n', '', '', i FROM generate_series(1, 500) i"
    )
    database.run("SELECT compress_chunk(chunk) FROM show_chunks('metrics_system') AS chunk")
    fill = "UPDATE metrics_system SET cpu_load = 1 WHERE node_id = 'n' AND cpu_load IS NULL"
    database.run("SET timescaledb.max_tuples_decompressed_per_dml_transaction = 10")
    with pytest.raises((pglite.PgliteError, psycopg.Error), match="tuple decompression limit exceeded"):
        database.run(fill)
    database.run(_SESSION_TIMESCALE)
    database.run(fill)
    assert database.rows("SELECT count(*)::int, sum(cpu_load) FROM metrics_system") == [(500, 500)]


async def test_jobs_are_what_the_settings_say_and_are_left_alone_when_they_are(database: TimescaleDatabase) -> None:
    jobs = "SELECT proc_name::text, count(*)::int FROM timescaledb_information.jobs WHERE job_id >= 1000 GROUP BY 1"
    rollup_count, table_count = len(names(DECLARED)), len(retention.tables(DECLARED))
    refreshes = {"refresh_rollups": len(retention.rolled_up(DECLARED))}
    retained = {"policy_retention": table_count + rollup_count}
    rows = [
        (rolled, size.name)
        for table in retention.rolled_up(DECLARED)
        for rolled, size in rollups_of(table)
        if stays_rows(rolled, size)
    ]
    assert rows == [
        *((table.name, size) for table in TABLES for size in ("daily", "weekly")),
        ("delivery_events_leaders", "1h"),
        ("delivery_events_leaders", "daily"),
    ]
    in_columns = {"policy_compression": table_count + rollup_count - len(DECLARED.event_tables) - len(rows)}
    assert database.rows(jobs) == []
    for settings, expected in (
        (Database(), {**refreshes, **retained, **in_columns}),
        (Database(columnstore_days=0), {**refreshes, **retained}),
        (Database(raw_days=0, rollup_days=0, columnstore_days=0), refreshes),
        (Database(raw_days=30, rollup_days=365, columnstore_days=9), {**refreshes, **retained, **in_columns}),
        # What is not set stays as it is.
        (Database(raw_days=20), {**refreshes, **retained, **in_columns}),
    ):
        assert await retention.apply(database.connection, settings, DECLARED) != _NOTHING
        await _keep(database.connection, DECLARED)
        assert dict(database.rows(jobs)) == expected
        before = database.rows("SELECT job_id FROM timescaledb_information.jobs ORDER BY job_id")
        assert await retention.apply(database.connection, settings, DECLARED) == _NOTHING
        assert database.rows("SELECT job_id FROM timescaledb_information.jobs ORDER BY job_id") == before
    dropped = "SELECT DISTINCT (config ->> 'drop_after')::interval = '480 hours' FROM timescaledb_information.jobs"
    assert database.rows(f"{dropped} WHERE proc_name = 'policy_retention' AND hypertable_name = 'metrics_system'") == [
        (True,)
    ]


async def test_a_column_that_comes_later_is_an_aggregate_beside_the_first(database: TimescaleDatabase) -> None:
    """What the first holds stays as it is; the view has both, and the new column is refreshed into the past."""
    (declared,) = [table for table in TABLES if table.name == "metrics_haraka"]
    stored = database.rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'metrics_haraka'::regclass ORDER BY attnum"
    )
    table = replace(declared, columns={name: True for (name,) in stored if name in declared.columns})
    later = Typed("metrics_haraka", [], {"fresh_total": True, "fresh_size": False})
    both = Typed("metrics_haraka", [], {**table.columns, **later.columns})
    database.run("ALTER TABLE metrics_haraka ADD COLUMN fresh_total bigint, ADD COLUMN fresh_size bigint")
    database.run(
        "INSERT INTO metrics_haraka (time, node_id, instance, zone, started_at, inbound_total, fresh_total, fresh_size)"
        " SELECT '2026-01-14 00:00+00'::timestamptz + i * interval '2 minutes', 'n', '', '', NULL, 3 * i,"
        " CASE WHEN i >= 10 THEN i END, i FROM generate_series(0, 719) AS i"
    )
    for size in SIZES[:1]:
        database.run(
            f"CREATE MATERIALIZED VIEW metrics_haraka_5m_2 WITH (timescaledb.continuous) AS SELECT"
            f" time_bucket('{size.interval}', time) AS bucket, {', '.join(KEY)}, {rollups.state_of_rows(later)}"
            " FROM metrics_haraka GROUP BY 1, 2, 3, 4, 5 WITH NO DATA"
        )
        database.run("CALL refresh_continuous_aggregate('metrics_haraka_5m_2', NULL, NULL)")
        aggregates = {
            "metrics_haraka_5m_1": ["bucket", *KEY, *state_columns(table)],
            "metrics_haraka_5m_2": ["bucket", *KEY, *state_columns(later)],
        }
        database.run(rollups.view(both, size, aggregates))
    ((inbound, fresh, mean, buckets),) = database.rows(
        "SELECT sum(inbound_total)::int, sum(fresh_total)::int, avg(fresh_size)::float8, count(*)::int"
        " FROM metrics_haraka_5m"
    )
    assert (inbound, fresh, buckets) == (3 * 719, 709, 288)
    assert mean == pytest.approx(359.5, abs=0.5)
