"""Going round the users' mailboxes: gently, exact once all were asked, and nothing said that was not read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_receivers.node import identify
from otel_receivers.receiver import Batch, ScrapeError, Target, Tick
from otel_receivers.wildduck import mailboxes as asking
from otel_receivers.wildduck.api import Api, Pace
from otel_receivers.wildduck.mailboxes import MailboxesReceiver
from otel_receivers.wildduck.roster import Roster
from postel.signals import load_all
from support.stand_in import Request, standing_in
from support.wildduck_answers import StandIn, mailboxes, user, user_id

NOW = 1_795_600_000_000_000_000
INTERVAL = 300
HOUR = 3600 // INTERVAL


def tick(number: int) -> Tick:
    return Tick(NOW + number * INTERVAL * 10**9)


def roster_of(numbers: range) -> Roster:
    roster = Roster()
    roster.fill(b"".join(bytes.fromhex(user_id(number)) for number in numbers), tick(0))
    return roster


def platform(count: int) -> StandIn:
    users = [user(number) for number in range(1, count + 1)]
    return StandIn(
        users, {user_id(n): mailboxes(n % 9, min(n % 9, n % 4), n * 10 if n % 9 else 0) for n in range(1, count + 1)}
    )


def expected(stand_in: StandIn) -> dict[str, int]:
    held = [stand_in.mailboxes[each["id"]]["results"] for each in stand_in.users]
    return {
        "wildduck.mailbox.count": sum(len(found) for found in held),
        "wildduck.mailbox.message.count": sum(box["total"] for found in held for box in found),
        "wildduck.mailbox.unseen.count": sum(box["unseen"] for found in held for box in found),
        "wildduck.mailbox.size": sum(box.get("size", 0) for found in held for box in found),
    }


@asynccontextmanager
async def receiver(
    port: int, tmp_path: Path, roster: Roster, *, interval: int = INTERVAL, spacing: float = 0.0, **options: Any
) -> AsyncIterator[MailboxesReceiver]:
    target = Target("127.0.0.1", port)
    made = MailboxesReceiver(
        load_all()["wildduck"],
        identify(tmp_path, setting="node-1"),
        interval=interval,
        target=target,
        api=Api(target, None, Pace(spacing), interval=interval, timeout=1),
        roster=roster,
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
                    assert not point.attributes
                    found[metric.name] = point.value
    return found


async def test_without_a_list_of_users_nobody_is_asked(tmp_path: Path) -> None:
    stand_in = platform(3)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, Roster()) as wildduck:
        assert await wildduck.collect(tick(1)) == Batch()
    # Nor at the tick at which the list was read, so that `agent --once` does not go round for minutes.
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 4))) as wildduck:
        assert await wildduck.collect(tick(0)) == Batch()
    assert stand_in.requests == []


async def test_the_first_turn_is_made_at_once_and_is_exact(tmp_path: Path) -> None:
    stand_in = platform(300)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 301))) as wildduck:
        batch = await wildduck.collect(tick(1))
        assert figures(batch) == expected(stand_in)
        assert batch.problems == ()
        assert Counter(request.path for request in stand_in.requests) == Counter(
            f"/users/{user_id(number)}/mailboxes" for number in range(1, 301)
        )
        assert stand_in.requests[0].query == {"counters": "true", "sizes": "true", "showHidden": "true"}


async def test_a_later_turn_is_spread_over_an_hour(tmp_path: Path) -> None:
    stand_in = platform(300)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 301))) as wildduck:
        await wildduck.collect(tick(1))
        for each in stand_in.users:
            stand_in.mailboxes[each["id"]] = mailboxes(2, 1, 50)
        seen = []
        for number in range(2, 2 + HOUR):
            stand_in.requests.clear()
            seen.append(figures(await wildduck.collect(tick(number))))
            assert len(stand_in.requests) == 300 // HOUR
    assert seen[-1] == expected(stand_in)
    assert len({found["wildduck.mailbox.message.count"] for found in seen}) > 6, "it moves with what was read"


async def test_a_first_turn_that_a_tick_has_no_time_for_says_nothing_until_it_is_whole(tmp_path: Path) -> None:
    stand_in = platform(60)
    batches: list[Batch] = []
    async with (
        standing_in(stand_in) as port,
        receiver(port, tmp_path, roster_of(range(1, 61)), interval=1, spacing=0.025) as wildduck,
    ):
        while not batches or not figures(batches[-1]):
            batches.append(await wildduck.collect(tick(len(batches) + 1)))
    assert len(batches) > 1
    assert figures(batches[-1]) == expected(stand_in)
    assert {request.path for request in stand_in.requests[:60]} == {
        f"/users/{user_id(n)}/mailboxes" for n in range(1, 61)
    }


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    stand_in = platform(60)
    async with standing_in(stand_in) as port:
        async with receiver(port, tmp_path, roster_of(range(1, 61)), interval=1, spacing=0.03) as wildduck:
            first = await wildduck.collect(tick(1))
        assert figures(first) == {}
        assert set(first.state) == {f"wildduck_mailboxes/127.0.0.1:{port}/turn"}
        asked = len(stand_in.requests)
        assert 5 < asked < 40
        async with receiver(port, tmp_path, roster_of(range(1, 61)), state=first.state) as wildduck:
            second = await wildduck.collect(tick(2))
    assert figures(second) == expected(stand_in)
    assert len(stand_in.requests) <= 60 + 2


async def test_who_is_gone_is_counted_no_more(tmp_path: Path) -> None:
    stand_in = platform(5)
    del stand_in.users[2]
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 6))) as wildduck:
        batch = await wildduck.collect(tick(1))
    assert figures(batch) == expected(stand_in)
    assert batch.problems == ()


async def test_a_server_that_knows_nobody_is_not_a_fall(tmp_path: Path) -> None:
    """Another server on the port answers 404 too, but in other words."""
    stand_in = platform(5)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 6))) as wildduck:
        before = figures(await wildduck.collect(tick(1)))
        stand_in.instead = lambda _: (404, {"code": "ResourceNotFound"})
        # Four are left out one by one, with the fifth it is hardly the users.
        for number in range(2, 6):
            batch = await wildduck.collect(tick(number))
            assert [problem.error_type for problem in batch.problems] == ["404"]
            assert figures(batch) == before
        with pytest.raises(ScrapeError, match=r"HTTP 404 ResourceNotFound; .*see \[discovery\] wildduck_api_port"):
            await wildduck.collect(tick(6))
        stand_in.instead = lambda _: None
        assert figures(await wildduck.collect(tick(7))) == before


async def test_one_user_that_cannot_be_read_is_left_out_and_said_until_it_can(tmp_path: Path) -> None:
    stand_in = platform(20)

    def instead(request: Request) -> tuple[int, Any] | None:
        return (500, {"code": "InternalDatabaseError"}) if user_id(7) in request.path else None

    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 21)), interval=1) as wildduck:
        stand_in.instead = instead
        batch = await wildduck.collect(tick(1))
        assert figures(batch) == {}
        assert {problem.error_type for problem in batch.problems} == {"500"}
        assert all(user_id(7) not in problem.message for problem in batch.problems)
        assert "/users/:user/mailboxes: HTTP 500 InternalDatabaseError" in batch.problems[0].message
        stand_in.instead = lambda _: None
        assert figures(await wildduck.collect(tick(2))) == expected(stand_in)
        stand_in.instead = instead
        stand_in.mailboxes[user_id(7)] = mailboxes(1000, 0, 5)
        for number in range(3, 30):
            found = figures(await wildduck.collect(tick(number)))
            assert found["wildduck.mailbox.message.count"] < 1000


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        ((200, b"{"), "malformed"),
        ((200, {"success": True, "results": [{"total": 1, "unseen": 1}]}), "malformed"),
        ((200, b"<html>"), "html"),
        ((500, {}), "500"),
        ((403, {"code": "InvalidToken"}), "403"),
        ((302, {}), "302"),
    ],
)
async def test_where_everybody_fails_it_is_not_the_users(
    tmp_path: Path, answer: tuple[int, Any], error_type: str
) -> None:
    stand_in = platform(50)
    stand_in.instead = lambda _: answer
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 51))) as wildduck:
        with pytest.raises(ScrapeError) as caught:
            await wildduck.collect(tick(1))
        assert caught.value.error_type == error_type
        assert f"http://127.0.0.1:{port}/users/:user/mailboxes: " in str(caught.value)
        assert len({request.path for request in stand_in.requests}) <= 5


async def test_a_server_that_is_away_is_asked_for_the_same_user_again(tmp_path: Path) -> None:
    stand_in = platform(5)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 6))) as wildduck:
        pass
    async with receiver(port, tmp_path, roster_of(range(1, 6))) as wildduck:
        for number in (1, 2):
            with pytest.raises(ScrapeError) as caught:
                await wildduck.collect(tick(number))
            assert caught.value.error_type == "connection"
        assert wildduck._turn.next(b"", 0) == user_id(1)


async def test_while_the_list_is_read_wildduck_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_BEING_READ_SECONDS", 0.01)
    stand_in = platform(5)
    roster = roster_of(range(1, 6))
    roster.being_read = True
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster, interval=1) as wildduck:
        assert figures(await wildduck.collect(tick(1))) == {}
        assert stand_in.requests == []
        roster.being_read = False
        assert figures(await wildduck.collect(tick(2))) == expected(stand_in)


async def test_it_waits_for_as_long_as_each_answer_took(tmp_path: Path) -> None:
    stand_in = platform(4)
    stand_in.instead = lambda _: time.sleep(0.1)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, roster_of(range(1, 5))) as wildduck:
        await wildduck.collect(tick(1))
    times = [request.at for request in stand_in.requests]
    assert times[-1] - times[0] > 3 * 0.19
