"""Going round the users: each is asked once a turn, the sums are exact, a turn by half changes only what it read."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers.wildduck.parse import Mailboxes
from otel_receivers.wildduck.turns import BUCKETS, KEPT_SECONDS, Turn

NOW = 1_795_600_000
ONE = Mailboxes(5, 10, 3, 1000)


def ids(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(12, "big") for number in sorted(numbers))


def number(user: str) -> int:
    return int(user, 16)


def go_round(turn: Turn, members: bytes, held: dict[int, Mailboxes], now: int = NOW) -> list[int]:
    """Ask until each was asked once."""
    asked: list[int] = []
    for _ in range(len(members) // 12):
        user = turn.next(members, now)
        assert user is not None
        asked.append(number(user))
        turn.add(held[asked[-1]], now)
    turn.next(members, now)
    return asked


def test_without_users_there_is_nobody_to_ask_and_nothing_is_held() -> None:
    turn = Turn()
    assert turn.figures(NOW) is None
    assert turn.next(b"", NOW) is None
    assert turn.figures(NOW) == Mailboxes(0, 0, 0, 0)


def test_a_first_turn_by_half_says_nothing() -> None:
    turn = Turn()
    members = ids(1, 2, 300)
    for _ in range(2):
        assert turn.next(members, NOW) is not None
        turn.add(ONE, NOW)
        assert turn.figures(NOW) is None
    turn.next(members, NOW)
    turn.add(ONE, NOW)
    turn.next(members, NOW)
    assert turn.figures(NOW) == Mailboxes(15, 30, 9, 3000)


def test_the_same_user_is_named_until_something_came_of_it() -> None:
    turn = Turn()
    members = ids(1, 2)
    assert [turn.next(members, NOW) for _ in range(3)] == [ids(1).hex()] * 3


def test_a_later_turn_replaces_bucket_by_bucket() -> None:
    turn = Turn()
    members = ids(1, 2, 3)
    go_round(turn, members, dict.fromkeys((1, 2, 3), ONE))
    figures = []
    for _ in range(3):
        turn.next(members, NOW)
        turn.add(Mailboxes(5, 20, 3, 1000), NOW)
        found = turn.figures(NOW)
        assert found
        figures.append(found.messages)
    assert figures == [40, 50, 60]


def test_a_bucket_read_by_half_stays_as_it_was() -> None:
    turn = Turn()
    members = ids(5, 5 + 256, 5 + 512)
    go_round(turn, members, dict.fromkeys((5, 261, 517), ONE))
    for _ in range(2):
        turn.next(members, NOW)
        turn.add(Mailboxes(0, 0, 0, 0), NOW)
    assert turn.figures(NOW) == Mailboxes(15, 30, 9, 3000)


def test_who_is_gone_leaves_with_the_reading_of_the_bucket() -> None:
    turn = Turn()
    go_round(turn, ids(1, 2), dict.fromkeys((1, 2), ONE))
    turn.next(ids(1, 2), NOW)
    turn.gone(NOW)
    assert turn.figures(NOW) == ONE
    # Who is no longer in the list is not asked for.
    go_round(turn, ids(7), {7: ONE})
    go_round(turn, ids(7), {7: ONE})
    assert turn.figures(NOW) == ONE


def test_a_user_that_cannot_be_known_keeps_its_bucket_as_it_was() -> None:
    turn = Turn()
    members = ids(1, 2)
    turn.next(members, NOW)
    turn.leave_out(NOW)
    turn.next(members, NOW)
    turn.add(ONE, NOW)
    turn.next(members, NOW)
    assert turn.figures(NOW) is None, "it was never known"
    turn.add(ONE, NOW)
    assert turn.figures(NOW) == Mailboxes(10, 20, 6, 2000)
    turn.next(members, NOW)
    turn.leave_out(NOW)
    assert turn.figures(NOW) == Mailboxes(10, 20, 6, 2000)


def test_after_a_restart_it_goes_on_where_it_was() -> None:
    turn = Turn()
    members = ids(*range(1, 601))
    for _ in range(250):
        assert turn.next(members, NOW)
        turn.add(ONE, NOW)
    done = {int(bucket) for bucket in turn._sums}
    back = Turn(turn.stored())
    assert back.figures(NOW) is None
    left = [n for n in range(1, 601) if n % 256 not in done]
    asked = []
    while not back.whole:
        user = back.next(members, NOW)
        assert user
        asked.append(number(user))
        back.add(ONE, NOW)
    assert sorted(asked) == left
    assert back.figures(NOW) == Mailboxes(3000, 6000, 1800, 600_000)
    assert Turn(back.stored()).figures(NOW + 60) == back.figures(NOW)
    assert len(back.stored()) < 16_000


def test_what_is_too_old_is_no_figure_of_today() -> None:
    turn = Turn()
    go_round(turn, ids(1), {1: ONE})
    assert turn.figures(NOW + KEPT_SECONDS) == ONE
    assert turn.figures(NOW + KEPT_SECONDS + 1) is None


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", "null", '{"1": 5}', '{"1": [1, 2]}', '{"a": [1,2,3,4,5]}', '{"1": [1,2,3,4,"x"]}', "7"],
)
def test_what_cannot_be_read_is_as_if_nobody_was_asked(text: str) -> None:
    assert Turn(text).figures(NOW) is None
    assert Turn(text).next(ids(1), NOW) == ids(1).hex()
    assert Turn('{"999": [1,2,3,4,5]}')._sums == {}


@given(st.sets(st.integers(1, 2000), max_size=60), st.integers(0, 2**32))
def test_each_is_asked_once_a_turn_and_the_sums_are_theirs(members: set[int], seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable
    turn = Turn()
    for _ in range(3):
        held = {n: Mailboxes(*(chance.randrange(50) for _ in range(4))) for n in members}
        asked = go_round(turn, ids(*members), held)
        assert Counter(asked) == Counter(members)
        found = turn.figures(NOW)
        assert found is not None
        for figure in ("mailboxes", "messages", "unseen", "size"):
            assert getattr(found, figure) == sum(getattr(each, figure) for each in held.values())


def test_a_hundred_thousand_users_lie_in_buckets_of_a_few_hundred() -> None:
    turn = Turn()
    members = ids(*range(100_000))
    turn.next(members, NOW)
    assert len(turn._waiting) in (100_000 // BUCKETS, 100_000 // BUCKETS + 1)
