"""The domains with most attempts, by the lists of each day and hour: the same as when all are counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from postel.signals import load_all
from support.postgres import fresh_database
from timescale_sink.api import sources
from timescale_sink.api.access import Access
from timescale_sink.api.filters import Filter, parse
from timescale_sink.api.leaders import depths, leaders_query, names_of
from timescale_sink.api.tallies import Asked, TallyReader, top_query
from timescale_sink.store.database import create_pool
from timescale_sink.store.event_rollups import LED
from timescale_sink.store.rollup_views import filled_of

DAY = timedelta(days=1)
# Few domains have most, few days a list that is whole; then days of which no list can tell.
MANY, ALIKE, CHANGING = (datetime(2026, month, 10, tzinfo=UTC) for month in (3, 4, 5))
# What the API is asked for: days, and hours at both ends.
RANGE = MANY + DAY / 3, MANY + 2.5 * DAY
DECLARED = load_all()
_ATTEMPTS = """
INSERT INTO delivery_events (time, event_id, node_id, instance, event_name, status, to_domain, zone, attributes)
SELECT {time}, gen_random_uuid(), {node}, '', 'zonemta.delivery.' || status, status, {domain}, 'bulk', '{{}}'
FROM {count}, LATERAL (SELECT (ARRAY['delivered', 'deferred'])[1 + i % 2] AS status) AS told
"""


@pytest.fixture(
    scope="module", params=[("postgres", "migrated_template"), ("timescale", "migrated_timescale_template")]
)
def database(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    server, template = (request.getfixturevalue(name) for name in request.param)
    with fresh_database(server, template) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'; SELECT setseed(0.3)")
        for time, domain, count in (
            (
                f"'{MANY}'::timestamptz + random() * interval '4 days'",
                "CASE WHEN random() > 0.01 THEN 'd' || floor(power(3000, random())) END",
                "generate_series(1, 60000) AS i",
            ),
            (
                f"'{ALIKE}'::timestamptz + i * interval '1 minute'",
                "'d' || i % 720",
                "generate_series(0, 4319) AS i",
            ),
            # Each day other domains have eleven, and one has ten each day: the most of all, and in no list.
            (
                f"'{CHANGING}'::timestamptz + day * interval '1 day' + i * interval '1 second'",
                f"CASE WHEN i < 10 THEN 'steady' ELSE 'd' || day || '_' || i % {LED + 50} END",
                f"generate_series(0, 2) AS day, generate_series(0, 10 + 11 * {LED + 50} - 1) AS i",
            ),
        ):
            connection.execute(_ATTEMPTS.format(time=time, domain=domain, count=count, node="'n'").encode())
        rare = {"time": f"'{MANY + DAY}'::timestamptz", "domain": "'rare'", "count": "generate_series(1, 3) AS i"}
        connection.execute(_ATTEMPTS.format(**rare, node="'other'").encode())
        if connection.execute("SELECT to_regproc('aggregates_of')").fetchone() != (None,):
            names = ["delivery_events_5m", "delivery_events_1h", "delivery_events_daily", *filled_of("delivery_events")]
            for name in names:
                connection.execute("CALL refresh_continuous_aggregate(%s, NULL, %s)", (f"{name}_1", CHANGING + DAY))
        yield connection


def told(
    database: psycopg.Connection[Any], begin: datetime, end: datetime, limit: int
) -> tuple[bool, list[Any], list[Any]]:
    """Whether lists told the names, what is found with them, and what is without."""
    asked = Asked("domain", Filter("delivery_events", ()), begin, end, limit)
    source = sources.rollup("delivery_events", begin, end, ("to_domain", "status"))
    assert source
    queries = [leaders_query(source, limit, depth) for depth in (min(LED, 2 * limit), *depths(limit))]
    told = [names_of(database.execute(*query).fetchall()) for query in queries]
    among = next((names for names in told if names is not None), None)
    by_lists, by_all = (database.execute(*top_query(asked, source, names)).fetchall() for names in (among, None))
    return among is not None, by_lists, by_all


def test_what_is_found_among_the_names_of_the_lists_is_what_is_found_among_all(
    database: psycopg.Connection[Any],
) -> None:
    chance = random.Random(2)  # noqa: S311 - repeatable
    by_lists = []
    for limit in (1, 2, 5, 20, 50, 150, 900) * 3:
        begin = MANY + chance.random() * DAY
        end = begin + (0.3 + 2.5 * chance.random()) * DAY
        listed, found, expected = told(database, begin, end, limit)
        assert found == expected
        assert len(found) == limit or limit == 900
        by_lists.append(listed)
    assert by_lists.count(True) > 10
    assert not all(by_lists)


def test_what_no_list_can_tell_is_counted(database: psycopg.Connection[Any]) -> None:
    for begin, first in ((ALIKE, ("d0", 6)), (CHANGING, ("steady", 30))):
        listed, found, expected = told(database, begin, begin + 3 * DAY, 20)
        assert not listed
        assert found == expected
        assert found[0][:2] == first


def test_where_nothing_was_sent_nothing_leads(database: psycopg.Connection[Any]) -> None:
    assert told(database, MANY - 9 * DAY, MANY - DAY, 20) == (True, [], [])


async def answered(
    database: psycopg.Connection[Any], *filters: str, nodes: tuple[str, ...] | None = None
) -> list[tuple[str | None, int]]:
    """The five domains with most attempts, as the API tells them."""
    access = Access()
    async with create_pool(database.info.dsn, 1) as access.pool:
        asked = Asked("domain", parse(DECLARED.event_tables["delivery_events"], filters, None), *RANGE, 5, nodes)
        return [(count.name, count.events) for count in (await TallyReader(access).top(asked)).counts]


def counted(database: psycopg.Connection[Any], condition: str = "true") -> list[tuple[str | None, int]]:
    """The same, counted by the rows."""
    query = (
        "SELECT to_domain, count(*) FROM delivery_events WHERE time >= %s AND time < %s AND "
        f"{condition} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5"
    )
    return database.execute(query.encode(), RANGE).fetchall()


def hold(database: psycopg.Connection[Any], since: str, relations: str = "") -> None:
    """Say of rollups that are made of others that they are filled since a time."""
    query = "INSERT INTO retention (relation, keep, kept_since, pending) VALUES (%s, NULL, %s, false)"
    for rollup in filled_of("delivery_events"):
        if relations in rollup:
            database.execute("DELETE FROM retention WHERE relation = %s", (rollup,))
            database.execute(query.encode(), (rollup, since))


async def test_the_api_counts_exactly_whatever_is_filtered(database: psycopg.Connection[Any]) -> None:
    hold(database, "-infinity")
    assert await answered(database) == counted(database)
    assert await answered(database, "status=deferred") == counted(database, "status = 'deferred'")
    assert await answered(database, "to_domain=rare") == [("rare", 3)]
    assert await answered(database, nodes=("other",)) == [("rare", 3)]


async def test_the_api_reads_lists_that_are_held_for_the_whole_range(database: psycopg.Connection[Any]) -> None:
    """Told by lists that are wrong."""
    tables = database.execute(
        "SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)"
        " FROM timescaledb_information.continuous_aggregates WHERE view_name ~ 'leaders'"
        if database.execute("SELECT to_regproc('aggregates_of')").fetchone() != (None,)
        else "SELECT '' WHERE false"
    ).fetchall()
    whole = counted(database)
    for (table,) in tables:
        database.execute(f"CREATE TABLE {table}_right AS SELECT * FROM {table}".encode())
        database.execute(f"UPDATE {table} SET names = ARRAY['d1'], counts = ARRAY[1]".encode())
    try:
        hold(database, "-infinity")
        assert len(await answered(database)) == (1 if tables else 5)
        hold(database, str(RANGE[0] + DAY), "leaders")
        assert await answered(database) == whole
        hold(database, "-infinity")
        database.execute("UPDATE retention SET pending = true WHERE relation ~ 'leaders'")
        assert await answered(database) == whole
        database.execute("DELETE FROM retention")
        assert await answered(database) == whole
    finally:
        for (table,) in tables:
            database.execute(f"DELETE FROM {table}".encode())
            database.execute(f"INSERT INTO {table} SELECT * FROM {table}_right".encode())
            database.execute(f"DROP TABLE {table}_right".encode())
