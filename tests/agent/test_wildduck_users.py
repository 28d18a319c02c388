"""All users, asked of an API that behaves and of ones that do not: whole figures, or an error of its own kind."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_receivers.node import identify
from otel_receivers.receiver import Batch, ScrapeError, Target, Tick
from otel_receivers.wildduck import api as asking
from otel_receivers.wildduck import receiver as users
from otel_receivers.wildduck.api import Api, Pace
from otel_receivers.wildduck.receiver import WildDuckReceiver
from otel_receivers.wildduck.roster import Roster
from postel.signals import load_all
from support.ports import free_port
from support.raw_http_server import OK, Answer, server, sized
from support.stand_in import Request, standing_in
from support.wildduck_answers import (
    INVALID_TOKEN,
    METRICS,
    USERS,
    StandIn,
    user,
    user_id,
    users_page,
)

NOW = 1_795_600_000_000_000_000
INTERVAL = 300
GIB = 1 << 30
RIGHT, WRONG = "right-token", "wrong-token"
STORAGE = {
    "wildduck.storage.usage",
    "wildduck.storage.limit",
    "wildduck.storage.over_quota.count",
    "wildduck.storage.near_quota.count",
}


def tick(number: int = 0) -> Tick:
    return Tick(NOW + number * INTERVAL * 10**9)


@asynccontextmanager
async def receiver(
    port: int,
    tmp_path: Path,
    *,
    token: str | None = None,
    interval: int = INTERVAL,
    timeout: float = 5,  # noqa: ASYNC109 - of the receiver's own requests
    spacing: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> AsyncIterator[WildDuckReceiver]:
    target = Target("127.0.0.1", port)
    api = Api(target, token, Pace(spacing), interval=interval, timeout=timeout, clock=clock)
    made = WildDuckReceiver(
        load_all()["wildduck"],
        identify(tmp_path, setting="node-1"),
        interval=interval,
        target=target,
        api=api,
        roster=options.pop("roster", Roster()),
        **options,
    )
    try:
        yield made
    finally:
        await made.close()


def figures(batch: Batch) -> dict[str, Any]:
    found = {}
    for resource in batch.metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points: Any = metric.data.data_points
                for point in points:
                    assert not point.attributes, "who a user is stands in events alone"
                    found[metric.name] = point.value
    return found


def events(batch: Batch) -> list[dict[str, Any]]:
    return [
        {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in record.attributes}
        | {"body": record.body.string_value, "event": record.event_name}
        for logs in batch.events
        for scope in logs.scope_logs
        for record in scope.log_records
    ]


def population(count: int) -> list[dict[str, Any]]:
    return [user(number, number * 7 % 1200, 1000 if number % 5 else 0) for number in range(1, count + 1)]


async def test_the_figures_are_those_of_the_list(tmp_path: Path) -> None:
    stand_in = StandIn(population(1234))
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as wildduck:
        batch = await wildduck.collect(tick())
    quotas = [each["quota"] for each in stand_in.users]
    assert figures(batch) == {
        "wildduck.user.count": 1234,
        "wildduck.storage.usage": sum(quota["used"] for quota in quotas),
        "wildduck.storage.limit": sum(quota["allowed"] for quota in quotas),
        "wildduck.storage.over_quota.count": sum(q["used"] > q["allowed"] > 0 for q in quotas),
        "wildduck.storage.near_quota.count": sum(0.9 * q["allowed"] <= q["used"] <= q["allowed"] > 0 for q in quotas),
    }
    assert [request.query.get("next", "") for request in stand_in.requests] == [
        "",
        *(f"after-{user_id(number)}" for number in (250, 500, 750, 1000)),
    ]
    assert {request.query["limit"] for request in stand_in.requests} == {"250"}
    assert batch.metrics[0].resource.attributes["service.instance.id"] == f"node-1:{port}"
    assert len(events(batch)) == 1234


async def test_a_snapshot_tells_who_holds_how_much(tmp_path: Path) -> None:
    stand_in = StandIn([user(1, 950), user(2, 5, 0), user(3, 1000, 10 * GIB)])
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as wildduck:
        found = events(await wildduck.collect(tick()))
        assert all(event.pop("log.record.uid") for event in found)
        assert found == [
            {
                "event": "wildduck.quota.snapshot",
                "body": "user3 holds 1000 bytes of 10737418240 (0 %).",
                "user.id": user_id(3),
                "user.name": "user3",
                "wildduck.quota.used": 1000,
                "wildduck.quota.allowed": 10 * GIB,
                "wildduck.quota.reason": "daily",
            },
            {
                "event": "wildduck.quota.snapshot",
                "body": "user1 holds 950 bytes of 1000 (95 %).",
                "user.id": user_id(1),
                "user.name": "user1",
                "wildduck.quota.used": 950,
                "wildduck.quota.allowed": 1000,
                "wildduck.quota.reason": "daily",
            },
            {
                "event": "wildduck.quota.snapshot",
                "body": "user2 holds 5 bytes.",
                "user.id": user_id(2),
                "user.name": "user2",
                "wildduck.quota.used": 5,
                "wildduck.quota.reason": "daily",
            },
        ]
        stand_in.users[0] = user(1, 960)
        changed = events(await wildduck.collect(tick(1)))
    assert [(event["user.name"], event["wildduck.quota.reason"]) for event in changed] == [("user1", "change")]


async def test_without_names_an_event_holds_none(tmp_path: Path) -> None:
    async with standing_in(StandIn([user(1)])) as port, receiver(port, tmp_path, names=False) as wildduck:
        (event,) = events(await wildduck.collect(tick()))
    assert "user1" not in str(event)
    assert event["user.id"] == user_id(1)


async def test_what_was_told_is_remembered_over_a_restart(tmp_path: Path) -> None:
    stand_in = StandIn(population(200))
    async with standing_in(stand_in) as port:
        async with receiver(port, tmp_path) as wildduck:
            batch = await wildduck.collect(tick())
        assert set(batch.state) == {f"wildduck/127.0.0.1:{port}/told"}
        async with receiver(port, tmp_path, state={**batch.state, "other": "x"}) as wildduck:
            assert len(events(await wildduck.collect(tick(1)))) < 5
        for unreadable in ("", "x", "-5", "١٢", "9" * 40):
            state = dict.fromkeys(batch.state, unreadable)
            async with receiver(port, tmp_path, state=state) as wildduck:
                assert len(events(await wildduck.collect(tick(1)))) == 200


async def test_who_says_no_quota_leaves_the_sums_out_and_is_counted(tmp_path: Path) -> None:
    stand_in = StandIn([user(1, 5), {**user(2), "quota": {}}])
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as wildduck:
        batch = await wildduck.collect(tick())
    assert figures(batch) == {"wildduck.user.count": 2}
    assert [problem.error_type for problem in batch.problems] == ["missing_quota"]


async def test_a_reading_goes_on_at_the_next_tick_and_says_nothing_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "WORK_SHARE", 0.4)
    stand_in = StandIn(population(2000))
    async with standing_in(stand_in) as port, receiver(port, tmp_path, interval=1, spacing=0.1) as wildduck:
        batches = [await wildduck.collect(tick(number)) for number in range(3)]
    assert [figures(batch).get("wildduck.user.count") for batch in batches[:-1]] == [None] * 2 or len(batches) > 1
    counts = [figures(batch).get("wildduck.user.count") for batch in batches]
    assert counts.count(2000) == 1
    assert counts[0] is None
    assert not batches[0].events
    # Each page was asked for once.
    assert len({request.query.get("next") for request in stand_in.requests[:8]}) == 8
    whole = batches[counts.index(2000)]
    (point,) = whole.metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert point.time_unix_nano == tick(counts.index(2000)).time_unix_nano


async def test_a_reading_of_more_than_an_hour_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "WORK_SHARE", 0.0)
    async with standing_in(StandIn(population(600))) as port, receiver(port, tmp_path) as wildduck:
        assert figures(await wildduck.collect(tick())) == {}
        monkeypatch.setattr(users, "_READING_SECONDS", -1)
        with pytest.raises(ScrapeError) as caught:
            await wildduck.collect(tick(1))
        assert caught.value.error_type == "timeout"
        monkeypatch.undo()
        assert figures(await wildduck.collect(tick(2)))["wildduck.user.count"] == 600


async def test_a_page_that_fails_once_or_twice_is_asked_for_again(tmp_path: Path) -> None:
    failures = [500, 503, 200]

    def instead(request: Request) -> tuple[int, Any] | None:
        if "next" in request.query and failures and (status := failures.pop(0)) != 200:
            return status, {"error": "MongoDB Error", "code": "InternalDatabaseError"}
        return None

    stand_in = StandIn(population(600), instead=instead)
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as wildduck:
        assert figures(await wildduck.collect(tick()))["wildduck.user.count"] == 600
    assert len(stand_in.requests) == 5


@pytest.mark.parametrize(
    ("content", "status", "error_type"),
    [
        pytest.param({"error": "x", "code": "InternalDatabaseError"}, 500, "500", id="500"),
        pytest.param(users_page([user(251)], total=600), 200, "incomplete", id="the list ends early"),
        pytest.param(users_page([user(1)], total=600, cursor="after-1"), 200, "cursor_loop", id="back to the first"),
        pytest.param(users_page([], total=600, cursor="x"), 200, "cursor_loop", id="an empty page"),
        pytest.param({"success": False, "code": "X"}, 200, "unexpected_page", id="no success"),
        pytest.param(b'{"success": true, "total": 600, "nextC', 200, "malformed", id="cut JSON"),
    ],
)
async def test_a_list_by_half_never_reads_as_fewer_users(
    tmp_path: Path, content: Any, status: int, error_type: str
) -> None:
    """The second page is wrong: no figure, and the next reading that is whole is right again."""
    wrong = False
    stand_in = StandIn(population(600), instead=lambda r: (status, content) if wrong and "next" in r.query else None)
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as wildduck:
        assert figures(await wildduck.collect(tick()))["wildduck.user.count"] == 600
        wrong = True
        with pytest.raises(ScrapeError) as caught:
            await wildduck.collect(tick(1))
        assert caught.value.error_type == error_type
        assert f"http://127.0.0.1:{port}/users: " in str(caught.value)
        wrong = False
        assert figures(await wildduck.collect(tick(2)))["wildduck.user.count"] == 600


async def test_users_that_come_and_go_while_the_list_is_read_are_counted_once(tmp_path: Path) -> None:
    members = population(1000)

    def instead(request: Request) -> None:
        if "next" in request.query:
            # 20 of those read already and 20 of those to come are deleted, others are made.
            del members[10:30]
            del members[-20:]
            members.extend(user(10_000 + len(stand_in.requests) * 100 + number) for number in range(30))

    stand_in = StandIn(members, instead=instead)
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as wildduck:
        count = figures(await wildduck.collect(tick()))["wildduck.user.count"]
        # Those deleted behind the cursor were there when they were read.
        assert len(members) <= count <= len(members) + 20 * len(stand_in.requests)
        stand_in.instead = lambda _: None
        assert figures(await wildduck.collect(tick(1)))["wildduck.user.count"] == len(members)


async def test_a_wrong_token_is_said_with_its_setting_in_the_same_words_and_asked_with_ever_less(
    tmp_path: Path,
) -> None:
    now = 0.0
    stand_in = StandIn(population(5), token=RIGHT)
    asked, said = [], set()
    async with (
        standing_in(stand_in) as port,
        receiver(port, tmp_path, token=WRONG, clock=lambda: now) as wildduck,
    ):
        for number in range(15):
            now = number * INTERVAL + 0.5 * (number % 2)
            with pytest.raises(ScrapeError) as caught:
                await wildduck.collect(tick(number))
            assert caught.value.error_type == "403"
            said.add(str(caught.value))
            asked.append(len(stand_in.requests))
    assert asked == [1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]
    (message,) = said
    assert "HTTP 403 InvalidToken; set [discovery] wildduck_api_token to" in message
    assert WRONG not in message


async def test_the_right_token_goes_into_a_header(tmp_path: Path) -> None:
    stand_in = StandIn(population(300), token=RIGHT)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, token=RIGHT) as wildduck:
        assert figures(await wildduck.collect(tick()))["wildduck.user.count"] == 300
    assert {request.headers["x-access-token"] for request in stand_in.requests} == {RIGHT}
    assert {request.headers["accept"] for request in stand_in.requests} == {"application/json"}
    assert not any(RIGHT in str(request.query) for request in stand_in.requests)


async def test_a_token_that_becomes_right_is_taken_at_the_next_question(tmp_path: Path) -> None:
    now = 0.0
    stand_in = StandIn(population(5), token=WRONG)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, token=RIGHT, clock=lambda: now) as wildduck:
        with pytest.raises(ScrapeError):
            await wildduck.collect(tick())
        stand_in.token = RIGHT
        now = INTERVAL
        assert figures(await wildduck.collect(tick(1)))["wildduck.user.count"] == 5
        # And the next refusal is the first one again.
        stand_in.token = WRONG
        for number in (2, 3):
            now = number * INTERVAL
            with pytest.raises(ScrapeError):
                await wildduck.collect(tick(number))
    assert len(stand_in.requests) == 4


async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def hang_within(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(sized(USERS[:900], length=len(USERS)))
    await writer.drain()
    await asyncio.sleep(3600)


async def without_end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b'\r\n{"success": true, "results": [')
    while True:
        writer.write(b'{"id": "x"},' * 10_000)
        await writer.drain()


async def refusal_without_end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /users\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\n"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\n"


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        pytest.param(hang, "timeout", id="hang"),
        pytest.param(hang_within, "timeout", id="hang within the answer"),
        pytest.param(without_end, "too_large", id="without end"),
        pytest.param(refusal_without_end, "403", id="a refusal without end"),
        pytest.param(sized(INVALID_TOKEN, FORBIDDEN), "403", id="403"),
        pytest.param(sized(b"", FORBIDDEN), "403", id="403 without a word"),
        pytest.param(sized(b"no", b"HTTP/1.1 401 Unauthorized\r\n"), "401", id="401"),
        pytest.param(sized(b"", REDIRECT), "302", id="redirect"),
        pytest.param(sized(b"{}", NOT_FOUND), "404", id="another server: 404"),
        pytest.param(sized(b"<html></html>"), "html", id="another server: html"),
        pytest.param(sized(METRICS), "malformed", id="another server: metrics"),
        pytest.param(sized(b'{"status": "ok"}'), "unexpected_page", id="another server: JSON"),
        pytest.param(sized(b""), "empty", id="empty"),
        pytest.param(sized(USERS[:900]), "malformed", id="cut JSON"),
        pytest.param(sized(USERS[:900], length=len(USERS)), "incomplete", id="shorter than its length"),
        pytest.param(b"", "incomplete", id="hangs up at once"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x50", "incomplete", id="TLS"),
        pytest.param(sized(gzip.compress(USERS)[:-50], OK + b"Content-Encoding: gzip\r\n"), "malformed", id="cut gzip"),
        pytest.param(sized(b"plain", OK + b"Content-Encoding: gzip\r\n"), "encoding", id="no gzip after all"),
    ],
)
async def test_misbehaviour_is_an_error_of_its_kind(answer: bytes | Answer, error_type: str, tmp_path: Path) -> None:
    async with server(answer) as port, receiver(port, tmp_path, timeout=0.5) as wildduck:
        began = time.monotonic()
        with pytest.raises(ScrapeError) as caught:
            await wildduck.collect(tick())
        assert time.monotonic() - began < 4
    assert caught.value.error_type == error_type
    assert str(port) in str(caught.value)
    assert "next=" not in str(caught.value)
    if error_type in ("302", "404"):
        assert "see [discovery] wildduck_api_port" in str(caught.value)


async def test_nobody_listens(tmp_path: Path) -> None:
    async with receiver(free_port(), tmp_path) as wildduck:
        with pytest.raises(ScrapeError) as caught:
            await wildduck.collect(tick())
    assert caught.value.error_type == "connection"


async def test_the_pace_is_kept_by_all_who_share_it() -> None:
    pace = Pace(0.05)
    times: list[float] = []

    async def ask() -> None:
        for _ in range(6):
            await pace.turn()
            times.append(time.monotonic())

    await asyncio.gather(ask(), ask(), ask())
    assert len(times) == 18
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.049


async def test_ten_pages_come_at_four_a_second_at_most(tmp_path: Path) -> None:
    stand_in = StandIn(population(2500))
    async with standing_in(stand_in) as port, receiver(port, tmp_path, spacing=asking.SPACING) as wildduck:
        await wildduck.collect(tick())
    assert len(stand_in.requests) == 10
    assert stand_in.most_in_a_second() <= 5
    assert stand_in.requests[-1].at - stand_in.requests[0].at >= 9 * asking.SPACING - 0.05


async def test_the_roster_is_of_an_earlier_tick_and_says_when_it_is_being_read(tmp_path: Path) -> None:
    roster = Roster()
    seen: list[bool] = []

    def instead(_: Request) -> None:
        seen.append(roster.being_read)

    stand_in = StandIn(population(300), instead=instead)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster=roster) as wildduck:
        await wildduck.collect(tick())
    assert seen == [True, True]
    assert not roster.being_read
    assert roster.before(tick()) is None
    ids = roster.before(tick(1))
    assert ids is not None
    assert len(ids) == 300 * 12


def test_a_page_of_the_stand_in_has_the_form_of_a_recorded_one() -> None:
    recorded = json.loads(USERS)
    made = StandIn([user(1)])._list({"limit": "250"})
    assert made.keys() == recorded.keys()
    assert made["results"][0].keys() == recorded["results"][0].keys()
