"""Top lists and deliverability: what is counted, by rows and by rollups, on plain PostgreSQL and on TimescaleDB."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from psycopg.types.json import Jsonb

from postel.errors import PostelError
from postel.signals import load_all
from support.page import Rows, serving
from support.postgres import fresh_database
from timescale_sink.api.access import Access, BadQueryError
from timescale_sink.api.events import EventReader, Search
from timescale_sink.api.sources import parts
from timescale_sink.api.tallies import Asked, Delivered, Grouping, Refusal, Subject, TallyReader, table_of
from timescale_sink.store.database import create_pool
from timescale_sink.store.rollup_views import filled_of

END = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# Domain, MX, status, category, reply code, enhanced code, seconds of the attempt, seconds in the queue.
ATTEMPTS: list[tuple[Any, ...]] = [
    ("a.test", "MX1.mail.example.co.uk", "delivered", None, 250, "2.0.0", 1.0, 2.0),
    ("a.test", "mx1.mail.example.co.uk", "delivered", None, 250, "2.0.0", 3.0, 4.0),
    ("a.test", "mx2.mail.example.co.uk", "deferred", "greylist", 451, "4.7.1", 2.0, None),
    ("b.test", "mx1.mail.example.co.uk", "rejected", "recipient", 550, "5.1.1", 0.5, 9.0),
    ("b.test", "mx.other.example", "deferred", "greylist", 421, None, None, None),
    ("c.test", None, "deferred", "network", None, None, 30.0, None),
]
SYMBOLS: Mapping[str, Any] = {"BAYES_SPAM": 4.0, "R_BAD": 1}


def put(connection: psycopg.Connection[Any]) -> None:
    """The attempts each hour of three days up to `END`; messages in its last hour."""
    rows = Rows(connection)
    number = 0
    rows.node("out1", "out1.example.org", seen=END.timestamp())
    for hour in range(72):
        at = (END - HOUR * hour).timestamp() - 60
        for domain, mx, status, category, code, enhanced, duration, waited in ATTEMPTS:
            number += 1
            rows.event(
                "delivery_events", at, number, f"zonemta.delivery.{status}", node="out1" if hour else "out2",
                status=status, to_domain=domain, mx=mx, category=category, smtp_code=code, enhanced_code=enhanced,
                duration=duration, zone="bulk", attributes={"zonemta.queue.duration": waited} if waited else {},
            )  # fmt: skip
    messages: list[tuple[str, tuple[str | None, str | None], Any, dict[str, str]]] = [
        ("accepted", ("ann", "x.test"), {**SYMBOLS, "BAYES_SPAM": 2.0}, {}),
        ("rejected", ("ann", "x.test"), SYMBOLS, {}),
        ("rejected", (None, "y.test"), {"R_BAD": 1}, {}),
        ("accepted", (None, None), None, {"email.from.address": ""}),
        ("deleted", (None, None), None, {}),
    ]
    for outcome, sender, symbols, attributes in messages:
        number += 1
        user, domain = sender
        rows.event(
            "email_events", END.timestamp() - 60, number, "haraka.message.accepted", outcome=outcome, from_user=user,
            from_domain=domain, direction="inbound", symbols=None if symbols is None else Jsonb(symbols),
            attributes=attributes,
        )  # fmt: skip


@pytest.fixture(
    scope="module", params=[("postgres", "migrated_template"), ("timescale", "migrated_timescale_template")]
)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """For tests that only read."""
    server, template = (request.getfixturevalue(name) for name in request.param)
    with fresh_database(server, template) as url:
        with psycopg.connect(url) as connection:
            put(connection)
            connection.execute(
                "INSERT INTO retention (relation, keep, kept_since, pending)"
                " SELECT rollup, NULL, '-infinity', false FROM unnest(%s::text[]) AS rollup",
                ([*filled_of("delivery_events")],),
            )
        yield url


class Asking:
    """Asks one database."""

    def __init__(self, access: Access) -> None:
        self.tallies = TallyReader(access)
        self.events = EventReader(access, load_all())

    def asked(
        self, by: Subject | Grouping, table: str, since: timedelta, *filters: str, nodes: tuple[str, ...] | None = None
    ) -> Asked:
        return Asked(by, self.events.filter(table, filters), END - since, END, 50, nodes)

    async def top(self, by: Subject, since: timedelta, *filters: str) -> dict[str | None, tuple[int, dict[str, int]]]:
        found = await self.tallies.top(self.asked(by, table_of(by), since, *filters))
        return {count.name: (count.events, dict(count.outcomes)) for count in found.counts}

    async def delivered(
        self, by: Grouping, since: timedelta, *filters: str, nodes: tuple[str, ...] | None = None
    ) -> tuple[str, dict[str | None, Delivered]]:
        found = await self.tallies.deliverability(self.asked(by, "delivery_events", since, *filters, nodes=nodes))
        return found.source.name, {group.name: group for group in found.groups}


@pytest.fixture
async def asking(database: str) -> AsyncIterator[Asking]:
    access = Access()
    access.pool = create_pool(database, 1)
    await access.pool.open()
    asking = Asking(access)
    yield asking
    await asking.tallies.close()
    await access.close()


async def test_the_names_that_came_most_are_told_with_what_became_of_them(asking: Asking) -> None:
    assert await asking.top("domain", HOUR) == {
        "a.test": (3, {"delivered": 2, "deferred": 1}),
        "b.test": (2, {"deferred": 1, "rejected": 1}),
        "c.test": (1, {"deferred": 1}),
    }
    assert await asking.top("destination", HOUR) == {
        "mx1.mail.example.co.uk": (3, {"delivered": 2, "rejected": 1}),
        "mx2.mail.example.co.uk": (1, {"deferred": 1}),
        "mx.other.example": (1, {"deferred": 1}),
        None: (1, {"deferred": 1}),
    }
    assert await asking.top("symbol", HOUR) == {
        "R_BAD": (3, {"accepted": 1, "rejected": 2}),
        "BAYES_SPAM": (2, {"accepted": 1, "rejected": 1}),
    }
    assert await asking.top("sender", HOUR) == {
        "ann@x.test": (2, {"accepted": 1, "rejected": 1}),
        "y.test": (1, {"rejected": 1}),
        "<>": (1, {"accepted": 1}),
    }
    assert await asking.top("sender", HOUR, "outcome=rejected", "from_domain=x.test") == {
        "ann@x.test": (1, {"rejected": 1})
    }
    scores = await asking.tallies.top(asking.asked("symbol", "email_events", HOUR))
    assert {count.name: count.score for count in scores.counts} == {"R_BAD": 1, "BAYES_SPAM": 3}


async def test_of_a_destination_all_that_became_of_attempts_is_told(asking: Asking) -> None:
    source, domains = await asking.delivered("domain", HOUR)
    assert source == "rows"
    assert domains["a.test"] == Delivered(
        "a.test", 3, 2, 1, 0, 2.0, 3.0, 3.9, [Refusal("greylist", 1, 0)], [Refusal("4.7.1", 1, 0)]
    )
    assert domains["b.test"].categories == [Refusal("greylist", 1, 0), Refusal("recipient", 0, 1)]
    assert domains["b.test"].codes == [Refusal("421", 1, 0), Refusal("5.1.1", 0, 1)]
    assert (domains["b.test"].bounce_rate, domains["b.test"].deferral_rate, domains["b.test"].wait_median) == (
        1, 0.5, None,
    )  # fmt: skip
    assert (domains["c.test"].bounce_rate, domains["c.test"].codes) == (None, ())


async def test_exchangers_are_grouped_to_who_runs_them(asking: Asking) -> None:
    _, providers = await asking.delivered("provider", HOUR)
    assert {name: (one.attempts, one.delivered, one.deferred, one.rejected) for name, one in providers.items()} == {
        "example.co.uk": (4, 2, 1, 1), "other.example": (1, 0, 1, 0), None: (1, 0, 1, 0),
    }  # fmt: skip
    # Of both hosts together, not the mean of two medians.
    assert providers["example.co.uk"].wait_median == 3
    assert providers["example.co.uk"].categories == [Refusal("greylist", 1, 0), Refusal("recipient", 0, 1)]
    assert providers[None].categories == [Refusal("network", 1, 0)]


async def test_answers_are_groups_of_their_own(asking: Asking) -> None:
    _, categories = await asking.delivered("category", HOUR, "status!=delivered")
    assert {name: one.attempts for name, one in categories.items()} == {"greylist": 2, "network": 1, "recipient": 1}
    _, codes = await asking.delivered("code", HOUR)
    assert {name: one.attempts for name, one in codes.items()} == {
        "2.0.0": 2, "4.7.1": 1, "421": 1, "5.1.1": 1, None: 1,
    }  # fmt: skip


async def test_a_long_range_is_told_alike_by_rollups_where_they_are_stored(asking: Asking, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        community = connection.execute("SELECT to_regclass('delivery_events_5m_1') IS NOT NULL").fetchone() == (True,)
        if community:
            for size in ("5m", "1h", "daily"):
                connection.execute(
                    "CALL refresh_continuous_aggregate(%s, NULL, %s)", (f"delivery_events_{size}_1", END - DAY)
                )
    for since, size in ((timedelta(hours=12), "5m"), (DAY, "5m"), (3 * DAY, "5m")):
        hours = since // HOUR
        source, domains = await asking.delivered("domain", since)
        assert source == (size if community else "rows")
        assert {name: one.attempts for name, one in domains.items()} == {
            "a.test": 3 * hours, "b.test": 2 * hours, "c.test": hours,
        }  # fmt: skip
        assert domains["b.test"].categories == [Refusal("greylist", hours, 0), Refusal("recipient", 0, hours)]
        assert domains["a.test"].attempt_duration == 2
        assert (domains["a.test"].codes == ()) is community
        assert (await asking.top("domain", since))["a.test"] == (3 * hours, {"delivered": 2 * hours, "deferred": hours})
        # What no rollup has is told by the rows, of the same range.
        source, providers = await asking.delivered("provider", since)
        assert source == "rows"
        assert providers["example.co.uk"].attempts == 4 * hours
        source, narrowed = await asking.delivered("domain", since, "smtp_code=550")
        assert source == "rows"
        assert {name: one.attempts for name, one in narrowed.items()} == {"b.test": hours}
    source, narrowed = await asking.delivered("domain", 3 * DAY, "to_domain=b.test", "zone=bulk", nodes=("out2",))
    assert {name: one.attempts for name, one in narrowed.items()} == {"b.test": 2}


async def test_the_smallest_rollup_that_has_what_is_asked_is_read(asking: Asking, database: str) -> None:
    async def _read(by: Grouping, *filters: str, nodes: tuple[str, ...] | None = None) -> set[str]:
        found = await asking.tallies.deliverability(asking.asked(by, "delivery_events", DAY, *filters, nodes=nodes))
        return {*found.source.rollups}

    with psycopg.connect(database, autocommit=True) as connection:
        community = connection.execute("SELECT to_regclass('delivery_events_5m_1') IS NOT NULL").fetchone() == (True,)
        for asked, rollup in (
            (_read("domain", "zone=bulk"), "delivery_events_domains"),
            (_read("category", "node_id=out1"), "delivery_events_nodes"),
            (_read("domain", nodes=("out1",)), "delivery_events"),
            (_read("domain", "node_id=out1"), "delivery_events"),
            (_read("category", "to_domain=a.test"), "delivery_events_domains"),
            (_read("code"), None),
        ):
            # From noon to noon: hours alone.
            assert await asked == ({f"{rollup}_1h"} if community and rollup else set())
        if not community:
            return
        # One that is still being made would be made of all that is there each time that it is read.
        pending = "UPDATE retention SET pending = {} WHERE relation = 'delivery_events_domains_1h'"
        connection.execute(pending.format("true").encode())
        try:
            found = await asking.tallies.top(asking.asked("domain", "delivery_events", DAY))
            assert found.source.rollups == ["delivery_events_1h"]
        finally:
            connection.execute(pending.format("false").encode())


@pytest.mark.parametrize(
    ("begin", "end", "now", "expected"),
    [
        # A year's days.
        ("01-01 00:00", "12-31 00:00", "2027-01-05 00:00", [("daily", "01-01 00:00", "12-31 00:00")]),
        (
            "03-01 22:55", "03-04 01:10", "2026-04-01 00:00",
            [
                ("5m", "03-01 22:55", "03-01 23:00"), ("1h", "03-01 23:00", "03-02 00:00"),
                ("daily", "03-02 00:00", "03-04 00:00"), ("1h", "03-04 00:00", "03-04 01:00"),
                ("5m", "03-04 01:00", "03-04 01:10"),
            ],
        ),
        ("03-01 10:05", "03-01 10:50", "2026-04-01 00:00", [("5m", "03-01 10:05", "03-01 10:50")]),
        # What has just ended is not made yet.
        (
            "03-01 00:00", "03-04 09:00", "2026-03-04 08:30",
            [
                ("daily", "03-01 00:00", "03-03 00:00"), ("1h", "03-03 00:00", "03-04 07:00"),
                ("5m", "03-04 07:00", "03-04 09:00"),
            ],
        ),
        ("03-04 00:00", "03-05 00:00", "2026-03-04 00:30", [("5m", "03-04 00:00", "03-05 00:00")]),
    ],
)  # fmt: skip
def test_a_range_is_made_up_of_the_largest_buckets(
    begin: str, end: str, now: str, expected: list[tuple[str, str, str]]
) -> None:
    assert parts(_at(f"2026-{begin}"), _at(f"2026-{end}"), _at(now)) == [
        (size, *(_at(f"2026-{text}") for text in bounds)) for size, *bounds in expected
    ]


def _at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}Z")


@pytest.mark.parametrize("address", ["<>", ""])
async def test_the_null_sender_is_found_by_its_address(asking: Asking, address: str) -> None:
    filter_ = asking.events.filter("email_events", (), address)
    found = await asking.events.page(Search(filter_, END - DAY, END), 10)
    assert [(event.values["outcome"], event.attributes) for event in found] == [
        ("accepted", {"email.from.address": ""})
    ]
    assert filter_.meets(found[0])
    others = await asking.events.page(Search(asking.events.filter("email_events"), END - DAY, END), 10)
    assert [filter_.meets(event) for event in others].count(True) == 1


async def test_a_range_that_is_none_is_refused(asking: Asking) -> None:
    with pytest.raises(BadQueryError, match="from: must be before"):
        await asking.top("domain", timedelta(0))


async def test_a_database_that_takes_too_long_is_left_alone(asking: Asking, database: str) -> None:
    with psycopg.connect(database) as holding:
        holding.execute("LOCK TABLE delivery_events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(PostelError, match="more than 5 s"):
            await asyncio.wait_for(asking.top("domain", HOUR), 15)


@pytest.fixture
def api(database: str, tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        serving(tmp_path, database) as address,
        httpx.Client(base_url=f"{address}/api/v1", timeout=20, trust_env=False) as client,
    ):
        yield client


@pytest.mark.slow
def test_the_api_tells_them_and_gives_them_as_files(api: httpx.Client) -> None:
    asked: dict[str, Any] = {"from": (END - HOUR).isoformat(), "to": END.isoformat()}
    top = api.get("/top", params={**asked, "by": "symbol", "limit": 1}).json()
    assert top == {
        "by": "symbol", "table": "email_events", "source": "rows", "from": "2026-03-10T11:00:00Z",
        "to": "2026-03-10T12:00:00Z",
        "top": [{"name": "R_BAD", "events": 3, "outcomes": {"accepted": 1, "rejected": 2}, "score": 1.0}],
    }  # fmt: skip
    (group,) = api.get("/deliverability", params={**asked, "filter": "to_domain=a.test"}).json()["groups"]
    assert (group["name"], group["delivery_rate"], group["bounce_rate"]) == ("a.test", pytest.approx(2 / 3), 0)
    exported = api.get("/deliverability/export", params={**asked, "by": "provider"})
    assert [orjson.loads(line)["name"] for line in exported.content.splitlines()] == [
        "example.co.uk", "other.example", None,
    ]  # fmt: skip
    lines = list(
        csv.DictReader(io.StringIO(api.get("/top/export", params={**asked, "by": "domain", "format": "csv"}).text))
    )
    assert (lines[0]["name"], lines[0]["events"]) == ("a.test", "3")
    assert orjson.loads(lines[0]["outcomes"]) == {"deferred": 1, "delivered": 2}
    assert api.get("/top", params={"by": "domain", "filter": "nothing=1"}).status_code == 400
    assert (
        api.get(
            "/top", params={"by": "domain", "from": "2026-03-10T12:00:00Z", "to": "2026-03-10T12:00:00Z"}
        ).status_code
        == 400
    )
    # No filter: the last day, in which there is nothing.
    assert api.get("/deliverability").json()["groups"] == []
