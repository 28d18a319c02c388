"""The domains with most attempts, by the lists of each day and hour: the same as when all are counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from support.postgres import fresh_database
from timescale_sink.api import sources
from timescale_sink.api.filters import Filter
from timescale_sink.api.leaders import depths, leaders_query, names_of
from timescale_sink.api.tallies import Asked, top_query
from timescale_sink.store.event_rollups import LED
from timescale_sink.store.rollup_views import filled_of

DAY = timedelta(days=1)
# Few domains have most, few days a list that is whole; then days of which no list can tell.
MANY, ALIKE, CHANGING = (datetime(2026, month, 10, tzinfo=UTC) for month in (3, 4, 5))
_ATTEMPTS = """
INSERT INTO delivery_events (time, event_id, node_id, instance, event_name, status, to_domain, zone, attributes)
SELECT {time}, gen_random_uuid(), 'n', '', 'zonemta.delivery.' || status, status, {domain}, 'bulk', '{{}}'
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
            connection.execute(_ATTEMPTS.format(time=time, domain=domain, count=count).encode())
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
    queries = [leaders_query(source, limit, depth, ()) for depth in (min(LED, 2 * limit), *depths(limit))]
    told = [names_of(database.execute(*query).fetchall()) for query in queries if query]
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


def test_lists_that_are_still_being_made_are_not_read() -> None:
    source = sources.rollup("delivery_events", MANY, MANY + 9 * DAY, ("to_domain", "status"))
    assert source
    assert leaders_query(source, 20, LED, ())
    assert leaders_query(source, 20, LED, ("delivery_events_leaders_daily",)) is None
