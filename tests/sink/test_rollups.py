"""The rollups against the rows and a tally kept beside them, on every kind of server that runs here."""

from __future__ import annotations

import itertools
import json
import random
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from postel.signals import load_all
from support.plans import blocks_read, make_history
from support.postgres import SERVERS, fresh_database, migrate_now
from support.rollup_rows import Data, inserts, made
from timescale_sink.store import event_rollups
from timescale_sink.store.database import Tier
from timescale_sink.store.event_rollups import DOMAINS, NODES, TOTALS, rolled
from timescale_sink.store.migrate import Script, scripts
from timescale_sink.store.rollups import KEY, SIZES, state_columns, typed_tables

BEGIN = datetime(2026, 3, 28, tzinfo=UTC)
# The Monday before: all of the rows are of its week.
WEEK = datetime(2026, 3, 23, tzinfo=UTC)
END = BEGIN + timedelta(days=2)
LENGTHS = {size.name: size.length for size in SIZES}
TABLES = typed_tables(load_all())


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database of the module's own; each test writes at another time or into another table."""
    with fresh_database(request.getfixturevalue(request.param)) as url:
        migrate_now(url)
        yield url


@pytest.fixture(scope="module")
def data() -> Data:
    return made(load_all(), begin=BEGIN, end=END, step=timedelta(seconds=151), seed=3)


@pytest.fixture(scope="module")
def filled(server: str, data: Data) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(inserts(data.rows).encode())
    return server


@pytest.fixture
def database(filled: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(filled) as connection:
        # Buckets are of UTC whatever a reader's zone is; this one changes its clocks on the second day.
        connection.execute("SET timezone = 'Europe/Berlin'")
        yield connection
        connection.rollback()


def _one(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row
    return row[0]


def _aggregated(connection: psycopg.Connection[Any]) -> bool:
    """Whether continuous aggregates stand under the rollups."""
    return bool(_one(connection, "SELECT to_regproc('aggregates_of') IS NOT NULL"))


def test_each_typed_table_and_event_table_has_its_rollups(database: psycopg.Connection[Any]) -> None:
    for size in SIZES:
        for table in TABLES:
            columns = database.execute(f"SELECT * FROM {table.name}_{size.name} LIMIT 0".encode()).description
            assert columns
            names = {column.name for column in columns}
            assert names == {"bucket", *KEY, *state_columns(table), *table.columns}
            assert table.columns.keys() == {column.name for column in load_all().columns_of(table.name)}
    for events in rolled(load_all().event_tables):
        for size in events.sizes:
            columns = database.execute(f"SELECT * FROM {events.name}_{size.name} LIMIT 0".encode()).description
            assert columns
            assert [column.name for column in columns] == ["bucket", *events.columns]


def test_each_declared_column_is_in_a_frozen_aggregate_of_each_size() -> None:
    """One that is declared later is in one that is made later (tests/sink/test_rollups_timescale.py says how)."""
    frozen = "".join(script.text for script in scripts("migrations") if script.name.endswith(".community.sql"))
    made: dict[str, str] = {}
    for name, text in re.findall(r"CREATE MATERIALIZED VIEW (\w+?)_\d+ WITH(.*?)WITH NO DATA;", frozen, re.DOTALL):
        made[name] = made.get(name, "") + text
    wanted = {f"{table.name}_{size.name}": {*state_columns(table)} for table in TABLES for size in SIZES}
    for events in rolled(load_all().event_tables):
        wanted |= {f"{events.name}_{size.name}": {*events.columns} for size in events.sizes}
    assert made.keys() == wanted.keys()
    for rollup, columns in wanted.items():
        assert columns <= set(re.findall(r"(?: AS |^    )(\w+),?$", made[rollup], re.MULTILINE)), rollup


def test_a_script_is_for_the_servers_that_its_name_says() -> None:
    for name, plain, apache in (("1", True, True), ("1.timescale", False, True), ("1.community", False, False)):
        fitting = [Script(f"{name}.sql", "").fits(tier) for tier in (Tier.PLAIN, Tier.APACHE, Tier.COMMUNITY)]
        assert fitting == [plain, apache, True]


@pytest.mark.parametrize("size", LENGTHS)
def test_increases_of_any_window_are_those_of_the_rows_and_of_the_tally(
    database: psycopg.Connection[Any], data: Data, size: str
) -> None:
    chance = random.Random(size)  # noqa: S311 - repeatable
    length, some = LENGTHS[size], 0
    begin = WEEK if size == "weekly" else BEGIN
    windows = int((END - begin) / length)
    for table, counter in data.rises.found:
        for _ in range(2):
            first, last = (0, 1) if windows == 1 else sorted(chance.choices(range(windows + 1), k=2))
            window = (begin + first * length, begin + last * length)
            truth = data.rises.over(table, counter, *window)
            query = f"SELECT coalesce(sum({counter}), 0) FROM {table}{{}} WHERE {{}} >= %s AND {{}} < %s"
            assert _one(database, query.format("_increase", "time", "time"), *window) == truth, (table, counter)
            assert _one(database, query.format(f"_{size}", "bucket", "bucket"), *window) == truth, (table, counter)
            some += truth
    assert some > 0


@pytest.mark.parametrize("size", LENGTHS)
def test_no_bucket_says_that_a_counter_fell(database: psycopg.Connection[Any], size: str) -> None:
    for table in TABLES:
        for column in (name for name, counter in table.columns.items() if counter):
            assert _one(database, f"SELECT count(*) FROM {table.name}_{size} WHERE {column} < 0") == 0
            assert _one(database, f"SELECT count(*) FROM {table.name}_{size} WHERE {column} > 0") > 0


@pytest.mark.parametrize("size", LENGTHS)
def test_gauges_are_those_of_the_rows(database: psycopg.Connection[Any], data: Data, size: str) -> None:
    for table in TABLES:
        groups: dict[Any, list[dict[str, Any]]] = {}
        for row in sorted(data.rows[table.name], key=lambda row: row["time"]):
            bucket = WEEK + (row["time"] - WEEK) // LENGTHS[size] * LENGTHS[size]
            groups.setdefault((bucket, *(row[key] for key in KEY)), []).append(row)
        for column in (name for name, counter in table.columns.items() if not counter):
            expected = {}
            for key, rows in groups.items():
                values = [(row[column], row["time"]) for row in rows if row[column] is not None]
                numbers = [value for value, _ in values]
                mean = sum(numbers) / len(numbers) if numbers else None
                last = values[-1] if values else (None, None)
                total = sum(numbers) if numbers else None
                low, high = min(numbers, default=None), max(numbers, default=None)
                expected[key] = (len(rows), mean, total, len(numbers), low, high, *last)
            states = ", ".join(f"{column}_{name}" for name in ("sum", "count", "min", "max", "last", "last_time"))
            found = database.execute(
                f"SELECT bucket, {', '.join(KEY)}, row_count, {column}, {states} FROM {table.name}_{size}".encode()
            ).fetchall()
            assert {row[:5]: row[5:] for row in found} == expected
            assert len(found) == len(expected)


def test_event_rollups_count_and_sum_the_events(database: psycopg.Connection[Any], data: Data) -> None:
    for size, length in ((size.name, size.length) for size in event_rollups.SIZES):
        expected: dict[Any, list[Any]] = {}
        for row in data.rows["delivery_events"]:
            bucket = BEGIN + (row["time"] - BEGIN) // length * length
            key = (bucket, *(row[name] for name in ("node_id", "instance", "zone", "to_domain", "status", "category")))
            counts = expected.setdefault(key, [0, 0, None, 0])
            counts[0] += 1
            counts[1] += row["attempt"] == 1
            if row["duration"] is not None:
                counts[2] = (counts[2] or 0) + row["duration"]
                counts[3] += 1
        found = database.execute(
            "SELECT bucket, node_id, instance, zone, domain, status, category,"
            f" attempts, first_attempts, duration_sum, duration_count FROM delivery_events_{size}".encode()
        ).fetchall()
        assert {row[:7]: [*row[7:]] for row in found} == expected
        domains = database.execute(
            "SELECT direction, domain, sum(messages)::int, sum(size_bytes_sum)::int, max(spam_score_max)"
            f" FROM email_events_{size} GROUP BY 1, 2 ORDER BY 1, 2".encode()
        ).fetchall()
        assert domains == _domains(data)
        # Whatever the domain, the node, or both, by all else.
        for (table, sums), family in itertools.product(
            (("email_events", "messages, size_bytes_sum"), ("delivery_events", "attempts, duration_sum")),
            (NODES, DOMAINS, TOTALS),
        ):
            by = [*family[table].by]
            summed = ", ".join(f"sum({name})::float8" for name in sums.split(", "))
            query = f"SELECT bucket, {', '.join(by)}, {{}} FROM {{}}_{size}"
            whole = database.execute(f"{query.format(summed, table)} GROUP BY 1, {', '.join(by)}".encode()).fetchall()
            found = database.execute(query.format(sums, family[table].name).encode()).fetchall()
            assert sorted(found, key=repr) == sorted(whole, key=repr)


def test_the_lists_of_leading_domains_tell_how_many_attempts_each_had(
    database: psycopg.Connection[Any], data: Data
) -> None:
    for size in ("1h", "daily"):
        buckets: dict[datetime, Counter[str | None]] = {}
        for row in data.rows["delivery_events"]:
            bucket = BEGIN + (row["time"] - BEGIN) // LENGTHS[size] * LENGTHS[size]
            buckets.setdefault(bucket, Counter())[row["to_domain"]] += 1
        found = database.execute(
            f"SELECT bucket, names, counts FROM delivery_events_leaders_{size}".encode()
        ).fetchall()
        assert {bucket: dict(zip(names, counts, strict=True)) for bucket, names, counts in found} == buckets
        assert all(counts == sorted(counts, reverse=True) for _, _, counts in found)
    few = "SELECT leading_names({0}, 2), leading_counts({0}, 2)".format("'{b,a,c,a,NULL}', '{2,1,2,2,1}'")
    assert database.execute(few.encode()).fetchone() == (["a", "b"], [3, 2])


def test_the_rollup_of_senders_counts_what_each_sent(database: psycopg.Connection[Any], data: Data) -> None:
    expected: dict[tuple[datetime, str | None], list[int]] = {}
    for row in data.rows["email_events"]:
        if (row["direction"], row["outcome"]) != ("outbound", "accepted"):
            continue
        sent = json.loads(row["attributes"])
        address = row["from_domain"] and "@".join(filter(None, (row["from_user"], row["from_domain"])))
        hour = row["time"].replace(minute=0, second=0, microsecond=0)
        counts = expected.setdefault((hour, sent.get("user.name", address)), [0, 0])
        counts[0] += 1
        counts[1] += len(sent.get("email.to.address", "1"))
    found = database.execute(
        "SELECT bucket, sender, sum(messages)::int, sum(recipients)::int FROM email_events_senders_1h GROUP BY 1, 2"
    ).fetchall()
    assert {row[:2]: [*row[2:]] for row in found} == expected
    assert {sender for _, sender in expected} == {
        "ann",
        "bob@a.example",
        "bob@b.example",
        "a.example",
        "b.example",
        None,
    }


def _domains(data: Data) -> list[tuple[Any, ...]]:
    """By hand: who sent what came in, where to what goes out."""
    found: dict[tuple[str, str | None], list[Any]] = {}
    for row in data.rows["email_events"]:
        domain = row["to_domain"] if row["direction"] == "outbound" else row["from_domain"]
        found.setdefault((row["direction"], domain), []).append(row)
    return [
        (
            *key,
            len(rows),
            sum(row["size_bytes"] or 0 for row in rows),
            max(row["spam_score"] for row in rows if row["spam_score"] is not None),
        )
        for key, rows in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] is None, item[0][1]))
    ]


ROWS = """
INSERT INTO metrics_zonemta (time, node_id, instance, zone, started_at, queue_id, delivered_total) VALUES
"""


def _delivered(connection: psycopg.Connection[Any], size: str) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT to_char(bucket AT TIME ZONE 'UTC', 'DD HH24:MI'), delivered_total::int, queue_id"
        f" FROM metrics_zonemta_{size} WHERE node_id = 'x' ORDER BY bucket, started_at".encode()
    ).fetchall()


def test_a_queue_that_only_some_rows_name_splits_no_bucket(database: psycopg.Connection[Any]) -> None:
    """Grouped by queue_id, each group would find a value before its first that the other counted from too."""
    database.execute(
        ROWS
        + """
        ('2026-05-01 00:00+00', 'x', '', 'z', '2026-05-01 00:00+00', 'q', 0),
        ('2026-05-01 00:05+00', 'x', '', 'z', '2026-05-01 00:00+00', 'q', 5),
        ('2026-05-01 00:06+00', 'x', '', 'z', '2026-05-01 00:00+00', NULL, 7),
        ('2026-05-01 00:07+00', 'x', '', 'z', '2026-05-01 00:00+00', 'r', 9),
        ('2026-05-01 00:08+00', 'x', '', 'z', '2026-05-01 00:00+00', NULL, 11)
        """
    )
    assert _delivered(database, "5m") == [("01 00:00", 0, "q"), ("01 00:05", 11, "r")]
    assert _delivered(database, "daily") == [("01 00:00", 11, "r")]


def test_a_value_that_falls_without_a_new_start_began_anew(database: psycopg.Connection[Any]) -> None:
    """Within a bucket, and between two of them; state of first, last, least and greatest could not tell."""
    database.execute(
        ROWS
        + """
        ('2026-05-01 00:00+00', 'x', '', 'z', NULL, NULL, 5),
        ('2026-05-01 00:01+00', 'x', '', 'z', NULL, NULL, 9),
        ('2026-05-01 00:02+00', 'x', '', 'z', NULL, NULL, 6),
        ('2026-05-01 00:03+00', 'x', '', 'z', NULL, NULL, 12),
        ('2026-05-01 00:07+00', 'x', '', 'z', NULL, NULL, 3),
        ('2026-05-01 00:08+00', 'x', '', 'z', NULL, NULL, 4)
        """
    )
    assert [rise for _, rise, _ in _delivered(database, "5m")] == [4 + 6 + 6, 3 + 1]
    assert [rise for _, rise, _ in _delivered(database, "1h")] == [20]


def test_where_retention_took_the_value_before_a_bucket_rose_by_what_it_shows(
    database: psycopg.Connection[Any],
) -> None:
    day = _one(database, "SELECT date_trunc('day', now() - interval '3 days', 'UTC')")
    rows = [
        ("a", day - timedelta(hours=1), day + timedelta(minutes=1), 1_000),
        ("a", day - timedelta(hours=1), day + timedelta(minutes=2), 1_004),
        ("a", day - timedelta(hours=1), day + timedelta(minutes=7), 1_010),
        # Its whole epoch is kept.
        ("b", day, day + timedelta(minutes=2), 50),
    ]
    with database.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO metrics_zonemta (node_id, instance, zone, started_at, time, delivered_total)"
            " VALUES ('x', '', %s, %s, %s, %s)",
            rows,
        )
    rises = "SELECT zone, delivered_total::int FROM metrics_zonemta{} WHERE node_id = 'x' ORDER BY zone, {}"
    assert database.execute(rises.format("_5m", "bucket").encode()).fetchall() == [("a", 1_004), ("a", 6), ("b", 50)]
    database.execute("SELECT keep('metrics_zonemta', '3 days')")
    increases = database.execute(rises.format("_increase", "time").encode()).fetchall()
    assert increases == [("a", 0), ("a", 4), ("a", 6), ("b", 50)]
    if _aggregated(database):
        # Rollups outlive their rows, and know as long what came before.
        whole = database.execute(rises.format("_5m", "bucket").encode()).fetchall()
        assert whole == [("a", 1_004), ("a", 6), ("b", 50)]
        for size in LENGTHS:
            database.execute("SELECT keep(%s, '3 days')", (f"metrics_zonemta_{size}",))
    assert database.execute(rises.format("_5m", "bucket").encode()).fetchall() == [("a", 4), ("a", 6), ("b", 50)]
    assert database.execute(rises.format("_daily", "bucket").encode()).fetchall() == [("a", 10), ("b", 50)]


def test_who_may_read_a_rollup_needs_no_other_right(database: psycopg.Connection[Any]) -> None:
    """Not even where what retention took is asked for."""
    database.execute(
        "INSERT INTO metrics_zonemta (time, node_id, instance, zone, started_at, delivered_total)"
        " VALUES ('2026-05-01+00', 'x', '', '', '2026-04-01+00', 5)"
    )
    role = f"reader_{uuid.uuid4().hex[:12]}"
    database.execute(f"CREATE ROLE {role}".encode())
    for relation in ("metrics_zonemta_5m", "metrics_zonemta_increase", "delivery_events_1h"):
        database.execute(f"GRANT SELECT ON {relation} TO {role}".encode())
    database.execute(f"SET LOCAL ROLE {role}".encode())
    assert _delivered(database, "5m") == [("01 00:00", 5, None)]
    assert _one(database, "SELECT sum(delivered_total) FROM metrics_zonemta_increase WHERE node_id = 'x'") == 5
    assert _one(database, "SELECT count(*) FROM delivery_events_1h") > 0


def test_a_clock_that_began_in_1970_makes_no_millions_of_buckets(database: psycopg.Connection[Any]) -> None:
    database.execute("INSERT INTO metrics_haraka (time, node_id, instance) VALUES ('1970-01-01+00', 'x', '')")
    assert _one(database, "SELECT count(*) FROM metrics_haraka_daily WHERE node_id = 'x'") == 1
    database.execute("SELECT keep('metrics_haraka', '300 days'), keep('metrics_rspamd', '30 days')")
    database.execute("SET LOCAL statement_timeout = '2s'")
    # Of an aggregate no buckets are counted out: it has that of 1970 until a job drops it.
    left = 1 if _aggregated(database) else 0
    assert _one(database, "SELECT count(*) FROM metrics_haraka_5m WHERE node_id = 'x'") == left
    assert _one(database, "SELECT count(*) FROM metrics_haraka_5m") > 0
    database.execute("DELETE FROM metrics_rspamd")
    assert _one(database, "SELECT count(*) FROM metrics_rspamd_5m") == 0
    database.execute("SELECT keep('metrics_rspamd', NULL)")
    assert _one(database, "SELECT count(*) FROM metrics_rspamd_5m") == 0


def test_what_a_setting_may_have_taken_stays_known(database: psycopg.Connection[Any]) -> None:
    kept = "SELECT kept_since('metrics_zonemta') = date_trunc('day', now() - interval '3 days', 'UTC')"
    assert _one(database, "SELECT kept_since('metrics_zonemta') = '-infinity'")
    assert _one(database, "SELECT keep('metrics_zonemta', '3 days')")
    assert _one(database, kept)
    assert not _one(database, "SELECT keep('metrics_zonemta', '3 days')")
    for longer in ("'30 days'", "NULL"):
        assert _one(database, f"SELECT keep('metrics_zonemta', {longer})")
        assert _one(database, kept)


def test_a_window_of_a_rollup_reads_no_history(any_server: str) -> None:
    with fresh_database(any_server) as url:
        migrate_now(url)
        with psycopg.connect(url, autocommit=True) as database:
            make_history(database)
            if _aggregated(database):
                # As its job leaves it; before that, all is read from the rows.
                until = "to_timestamp(1000000 + 30 * 19980)"
                database.execute(f"CALL refresh_continuous_aggregate('metrics_zonemta_5m_1', NULL, {until})".encode())
            read = blocks_read(
                database,
                "SELECT sum(delivered_total), sum(queue_size_sum)"
                " FROM metrics_zonemta_5m WHERE bucket >= to_timestamp(1000000 + 30 * 19900)"
                " AND bucket < to_timestamp(1000000 + 30 * 20000)",
            )
    # 200 rows in ten buckets and a look into the index for each; the history has 40,000 in 600 pages.
    assert read < 400
