"""A whole list of users becomes exact sums, a list by half none; a user's snapshot comes daily and with a change."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers.answers import AnswerError
from otel_receivers.wildduck import passes
from otel_receivers.wildduck.parse import User, UsersPage
from otel_receivers.wildduck.passes import Memory, Reading, Snapshot, Totals
from support.wildduck_answers import user_id

DAY = 86_400
NOW = 1_795_600_000
GIB = 1 << 30


def user(number: int, used: int | None = 0, allowed: int | None = 1000) -> User:
    return User(user_id(number), f"user{number}", allowed, used)


def pages(users: Sequence[User], size: int = 3, total: int | None = None) -> list[UsersPage]:
    parts = [users[start : start + size] for start in range(0, len(users), size)] or [()]
    total = len(users) if total is None else total
    return [UsersPage(total, "" if part is parts[-1] else "next", tuple(part)) for part in parts]


def read(memory: Memory, users: Sequence[User], now: int = NOW, size: int = 3) -> tuple[Totals, Sequence[Snapshot]]:
    reading = memory.reading(now)
    for page in pages(users, size):
        assert not reading.whole
        reading.add(page, now * 10**9)
    assert reading.whole
    return reading.totals(), reading.finish()


def told(snapshots: Iterable[Snapshot]) -> dict[str, str]:
    return {snapshot.user.name: snapshot.reason for snapshot in snapshots}


def test_sums() -> None:
    users = [user(1, 500), user(2, 899), user(3, 900), user(4, 1000), user(5, 1001), user(6, 5000, 0), user(7, 0)]
    totals, _ = read(Memory(), users)
    assert totals == Totals(7, 500 + 899 + 900 + 1000 + 1001 + 5000, 6000, over_quota=1, near_quota=2, without_quota=0)


def test_no_users_are_none() -> None:
    assert read(Memory(), []) == (Totals(0, 0, 0, 0, 0, 0), [])


def test_who_says_no_quota_is_counted_and_told_of_as_such() -> None:
    totals, snapshots = read(Memory(), [user(1, 10), user(2, None, None)])
    assert (totals.users, totals.usage, totals.without_quota) == (2, 10, 1)
    assert told(snapshots) == {"user1": "daily"}


def test_sums_beyond_64_bits_are_refused() -> None:
    reading = Memory().reading(NOW)
    reading.add(pages([user(1, 2**63 - 1, 1), user(2, 1, 1)])[0], 0)
    with pytest.raises(AnswerError) as caught:
        reading.totals()
    assert caught.value.error_type == "invalid_value"


def endless(reading: Reading, page: UsersPage) -> None:
    for _ in range(50):
        reading.add(page, 0)


def ever_new(reading: Reading) -> None:
    for number in range(1, 10_000):
        reading.add(UsersPage(5, "on", tuple(user(number * 250 + place) for place in range(250))), 0)


@pytest.mark.parametrize(
    ("go_on", "error_type"),
    [
        pytest.param(lambda r: endless(r, UsersPage(9, "a", (user(1), user(2)))), "cursor_loop", id="the same page"),
        pytest.param(lambda r: endless(r, UsersPage(9, "a", ())), "cursor_loop", id="empty pages"),
        pytest.param(lambda r: r.add(UsersPage(9, "a", (user(2), user(2))), 0), "cursor_loop", id="twice in a page"),
        pytest.param(lambda r: r.add(UsersPage(9, "a", (user(2), user(1))), 0), "cursor_loop", id="out of order"),
        pytest.param(ever_new, "cursor_loop", id="ever new users"),
        pytest.param(lambda r: r.add(UsersPage(12, "", (user(1),)), 0), "incomplete", id="ends early"),
        pytest.param(lambda r: r.add(UsersPage(500, "", ()), 0), "incomplete", id="ends with nobody"),
    ],
)
def test_a_list_that_leads_nowhere_is_no_list(go_on: object, error_type: str) -> None:
    with pytest.raises(AnswerError) as caught:
        go_on(Memory().reading(NOW))  # type: ignore[operator]
    assert caught.value.error_type == error_type


def test_users_that_come_and_go_meanwhile_are_counted_once_at_most() -> None:
    reading = Memory().reading(NOW)
    reading.add(UsersPage(6, "a", (user(1, 1), user(3, 1))), 0)
    # 1 is deleted, 2 and 8 are new: 2 lies behind already, 8 is still to come.
    reading.add(UsersPage(7, "b", (user(4, 1), user(5, 1))), 0)
    reading.add(UsersPage(7, "", (user(6, 1), user(7, 1), user(8, 1))), 0)
    assert (reading.totals().users, reading.totals().usage) == (7, 7)


@pytest.mark.parametrize(("total", "short"), [(1000, 10), (10, 2)])
def test_a_few_that_went_meanwhile_do_not_make_a_list_incomplete(total: int, short: int) -> None:
    users = [user(number) for number in range(1, total - short + 1)]
    reading = Memory().reading(NOW)
    for page in pages(users, 250, total):
        reading.add(page, 0)
    assert reading.whole
    reading = Memory().reading(NOW)
    *others, last = pages(users[:-1], 250, total)
    for page in others:
        reading.add(page, 0)
    with pytest.raises(AnswerError):
        reading.add(last, 0)


def test_the_first_reading_tells_of_everybody_and_the_next_of_nobody() -> None:
    memory = Memory()
    users = [user(number, number) for number in range(1, 8)]
    _, snapshots = read(memory, users)
    assert told(snapshots) == {f"user{number}": "daily" for number in range(1, 8)}
    assert [snapshot.user.used for snapshot in snapshots] == [7, 6, 5, 4, 3, 2, 1]
    _, snapshots = read(memory, users, NOW + 1)
    assert snapshots == []


def test_a_day_tells_of_each_user_once_at_times_that_are_spread() -> None:
    memory = Memory()
    users = [user(number) for number in range(1, 1001)]
    read(memory, users, size=250)
    counts = []
    seen: list[str] = []
    for tick in range(1, 288 + 1):
        _, snapshots = read(memory, users, NOW + tick * 300, 250)
        counts.append(len(snapshots))
        seen += [snapshot.user.name for snapshot in snapshots]
    assert sorted(seen) == sorted(each.name for each in users)
    assert max(counts) < 15


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0, 1000), (9, 1000), None),
        ((0, 1000), (10, 1000), "change"),
        ((500, 1000), (490, 1000), "change"),
        ((500, 1000), (500, 1009), None),
        ((500, 1000), (500, 1011), "change"),
        ((500, 1000), (500, 500), "change"),
        ((500, 0), (10**12, 0), None),
        ((500, 1000), (500, 0), "change"),
        ((500, 0), (500, 1000), "change"),
        ((0, 10 * GIB), (GIB // 10 - 1, 10 * GIB), None),
        ((0, 10 * GIB), (GIB // 10 + 1, 10 * GIB), "change"),
    ],
)
def test_a_change_of_a_hundredth_of_the_limit_is_told(
    before: tuple[int, int], after: tuple[int, int], expected: str | None
) -> None:
    memory = Memory()
    read(memory, [user(1, *before)])
    _, snapshots = read(memory, [user(1, *after)], NOW + 1)
    assert told(snapshots).get("user1") == expected


def test_small_steps_add_up_to_a_change() -> None:
    memory = Memory()
    reasons = []
    for step in range(21):
        _, snapshots = read(memory, [user(1, step * 3)], NOW + step)
        reasons += [(step, snapshot.reason) for snapshot in snapshots]
    assert reasons == [(0, "daily"), (4, "change"), (8, "change"), (12, "change"), (16, "change"), (20, "change")]


def test_after_a_restart_only_what_was_not_told_is_due() -> None:
    memory = Memory()
    users = [user(number) for number in range(1, 501)]
    read(memory, users, size=250)
    due = {name for at in range(300, 3600, 300) for name in told(read(memory, users, NOW + at, 250)[1])}
    kept = memory.since
    # Down for an hour: what fell due meanwhile is told at once, and nothing else.
    back = Memory(kept)
    _, snapshots = read(back, users, kept + 3600, 250)
    late = set(told(snapshots))
    assert 5 < len(late) < 60
    assert not late & due
    reference = {name for at in range(300, 3601, 300) for name in told(read(memory, users, kept + at, 250)[1])}
    assert late == reference


def test_more_than_one_reading_tells_is_told_by_the_next_the_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "SNAPSHOTS", 4)
    memory = Memory()
    users = [user(number, (number * 7) % 10 * 10, 10**6) for number in range(10)]
    used = []
    for turn in range(4):
        _, snapshots = read(memory, users, NOW + turn)
        used.append([snapshot.user.used for snapshot in snapshots])
        assert memory.since == (0 if turn < 2 else NOW + turn)
    assert used == [[90, 80, 70, 60], [50, 40, 30, 20], [10, 0], []]


@pytest.mark.parametrize("ahead", [3600, 40 * DAY])
def test_a_clock_that_was_ahead_holds_up_no_snapshot_for_more_than_a_day(ahead: int) -> None:
    memory = Memory()
    read(memory, [user(1)], NOW + ahead)
    back = Memory(memory.since)
    for remembering in (memory, back):
        assert any(told(read(remembering, [user(1)], NOW + at)[1]) for at in range(0, 2 * DAY, 3600))


def test_a_reading_that_was_given_up_changes_nothing() -> None:
    memory = Memory()
    read(memory, [user(1), user(2)])
    reading = memory.reading(NOW + 10)
    reading.add(UsersPage(9, "next", (user(1, 900),)), 0)
    assert memory.ids == bytes.fromhex(user_id(1) + user_id(2))
    _, snapshots = read(memory, [user(1, 900), user(2)], NOW + 20)
    assert told(snapshots) == {"user1": "change"}


def test_the_ids_are_those_of_the_last_reading() -> None:
    memory = Memory()
    read(memory, [user(1), user(2, None, None), user(300)])
    assert memory.ids == bytes.fromhex(user_id(1) + user_id(2) + user_id(300))
    read(memory, [user(2)], NOW + 1)
    assert memory.ids == bytes.fromhex(user_id(2))


quotas = st.one_of(st.none(), st.tuples(st.integers(0, 3000), st.sampled_from([0, 100, 1000])))


@given(st.lists(st.dictionaries(st.integers(1, 12), quotas, max_size=12), max_size=8), st.integers(0, 2**32))
def test_whoever_comes_and_goes_it_is_as_a_dictionary_would_have_it(
    rounds: list[dict[int, tuple[int, int] | None]], seed: int
) -> None:
    """Against the plain way: a dictionary of all users, all of its sums made anew."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    memory = Memory()
    reference: dict[int, tuple[int, int, int]] = {}
    since, now = 0, NOW
    for members in rounds:
        now += chance.choice([1, 300, DAY // 3, 2 * DAY])
        users = [user(n, *(quota or (None, None))) for n, quota in sorted(members.items())]
        totals, snapshots = read(memory, users, now)
        known = {n: quota for n, quota in members.items() if quota is not None}
        assert totals == Totals(
            len(members),
            sum(used for used, _ in known.values()),
            sum(allowed for _, allowed in known.values()),
            sum(used > allowed > 0 for used, allowed in known.values()),
            sum(allowed * 0.9 <= used <= allowed and allowed > 0 for used, allowed in known.values()),
            len(members) - len(known),
        )
        expected = {}
        after: dict[int, tuple[int, int, int]] = {}
        for n, quota in members.items():
            used, allowed, at = reference.get(n, (-1, -1, since))
            if quota is None:
                after[n] = (used, allowed, at)
                continue
            if used < 0:
                used, allowed = quota
            due = passes._last_due(bytes.fromhex(user_id(n)), now) > at
            moved = quota[1] > 0 and quota[0] != used and abs(quota[0] - used) * 100 >= quota[1]
            limit = quota[1] != allowed and abs(quota[1] - allowed) * 100 >= max(quota[1], allowed)
            if due or moved or limit:
                expected[f"user{n}"] = "daily" if due else "change"
                after[n] = (*quota, now)
            else:
                after[n] = (used, allowed, at)
        assert told(snapshots) == expected
        reference, since = after, now


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_many_users_cost_little_memory(count: int) -> None:
    memory = Memory(NOW - 100)
    tracemalloc.start()
    try:
        for turn in range(3):
            reading = memory.reading(NOW + turn * 300)
            for start in range(0, count, 250):
                users = tuple(user(number, number, GIB) for number in range(start, start + 250))
                reading.add(UsersPage(count, "next" if start + 250 < count else "", users), 0)
            assert reading.totals().users == count
            assert len(reading.finish()) < 1000
            del reading
        used, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What is remembered, and the same once more while it is read anew.
    assert used < 60 * count + (256 << 10), used
    assert peak < 140 * count + (512 << 10), peak
    assert sys.getsizeof(memory.ids) < 21 * count
