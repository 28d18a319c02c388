"""The starts of counters, against the rule by which readers sum them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_receivers.epochs import AbandonedTickError, Epochs, Life
from otel_receivers.receiver import Tick

SECOND = 1_000_000_000
INTERVAL = 30 * SECOND


@dataclass(frozen=True)
class Point:
    time: int
    start: int
    value: float


def increase(points: Iterable[Point]) -> float:
    """The design's rule ("Rollups"): value minus predecessor in its epoch; an epoch's first point counts 0 when its
    time is its start, else in full."""
    total = 0.0
    ordered = sorted(points, key=lambda point: point.time)
    for _, epoch in itertools.groupby(sorted(ordered, key=lambda p: (p.start, p.time)), key=lambda p: p.start):
        before: Point | None = None
        for point in epoch:
            if before is not None:
                assert point.value >= before.value, "a counter fell within its epoch"
                total += point.value - before.value
            elif point.time != point.start:
                total += point.value
            before = point
    return total


@dataclass
class Server:
    """A process that counts; what it counted before the agent first met it is not the agent's."""

    began: int
    value: int = 0
    done: int = 0
    met: bool = False

    def work(self, amount: int) -> None:
        self.value += amount
        self.done += amount if self.met else 0

    def restart(self, now: int) -> None:
        self.began, self.value = now, 0

    def life(self) -> Life:
        # As prom-client shows it: whole seconds.
        return Life(round(self.began / SECOND) * SECOND)


HAPPENINGS = ["work", "scrape", "restart", "restart after a scrape", "agent restarts"]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What happens between two scrapes, up to some restarts of server and agent, at any moments of the interval."""
    return draw(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 50)), max_size=40))


def run(history: list[tuple[str, int]], offset: int, *, careful: bool) -> tuple[float, int]:
    """Play a history; returns the increase by the rule and the true one. ``careful``: a scrape before each restart."""
    now = 1_700_000_000 * SECOND + offset
    server = Server(began=now - 12345 * SECOND, value=77)
    epochs, stored = Epochs(), dict[str, str]()
    points: list[Point] = []
    last_tick = 0

    def scrape() -> None:
        nonlocal now, last_tick
        # The scrape comes some milliseconds after the tick whose time it carries.
        tick = now // INTERVAL * INTERVAL
        if tick <= last_tick:
            tick = last_tick + INTERVAL
            now = tick + 20_000_000
        last_tick = tick
        start = epochs.starts("zone_mta/a", Tick(tick), {"x": server.value}, life=server.life(), together=True)["x"]
        assert start <= tick
        points.append(Point(tick, start, server.value))
        stored.update(epochs.changes("zone_mta"))
        server.met = True

    for what, amount in history:
        now += amount * 97_000_000
        if what == "work":
            server.work(amount)
        elif what == "scrape":
            scrape()
        elif what == "agent restarts":
            epochs = Epochs(stored)
        else:
            if careful or what == "restart after a scrape":
                scrape()
            now += 3 * SECOND
            server.restart(now)
            now += amount * SECOND
    scrape()
    return increase(points), server.done


@given(histories(), st.integers(0, INTERVAL))
def test_never_more_than_happened(history: list[tuple[str, int]], offset: int) -> None:
    counted, happened = run(history, offset, careful=False)
    assert 0 <= counted <= happened


@given(histories(), st.integers(0, INTERVAL))
def test_all_that_happened_when_each_restart_follows_a_scrape(history: list[tuple[str, int]], offset: int) -> None:
    counted, happened = run(history, offset, careful=True)
    assert counted == happened


def starts(epochs: Epochs, seconds: int, life: Life | None = None, *, together: bool = True, **values: float) -> dict:  # type: ignore[type-arg]
    return epochs.starts("s", Tick(seconds * SECOND), values, life=life, together=together)


def test_a_source_met_for_the_first_time_counts_nothing() -> None:
    assert starts(Epochs(), 100, Life(50 * SECOND), a=7) == {"a": 100 * SECOND}


def test_a_counter_that_appears_in_a_process_counted_from_nothing() -> None:
    epochs = Epochs()
    starts(epochs, 100, Life(50 * SECOND), a=7)
    assert starts(epochs, 130, Life(50 * SECOND), a=7, b=3) == {"a": 100 * SECOND, "b": 100 * SECOND}


def test_a_restart_starts_with_the_process() -> None:
    epochs = Epochs()
    starts(epochs, 100, Life(50 * SECOND), a=7)
    assert starts(epochs, 130, Life(110 * SECOND), a=9) == {"a": 110 * SECOND}


@pytest.mark.parametrize("moved", [-2, -1, 1, 2])
def test_a_process_start_that_is_rounded_otherwise_is_the_same_process(moved: int) -> None:
    epochs = Epochs()
    starts(epochs, 100, Life(50 * SECOND), a=7)
    assert starts(epochs, 130, Life((50 + moved) * SECOND), a=9) == {"a": 100 * SECOND}


def test_a_process_start_in_the_future_still_counts_in_full() -> None:
    epochs = Epochs()
    starts(epochs, 100, Life(50 * SECOND), a=7)
    assert starts(epochs, 130, Life(140 * SECOND), a=2) == {"a": 130 * SECOND - 1_000_000}


def test_two_epochs_never_share_a_start() -> None:
    epochs = Epochs()
    first = starts(epochs, 100, Life(50 * SECOND), a=7)
    # Restarted within the second of the tick: prom-client shows the tick's own second.
    assert starts(epochs, 130, Life(100 * SECOND), a=2) != first


def test_a_fall_begins_an_epoch_just_after_the_point_before() -> None:
    epochs = Epochs()
    starts(epochs, 100, Life(50 * SECOND), a=7, b=1)
    start = 100 * SECOND + 1_000_000
    assert starts(epochs, 130, Life(51 * SECOND), a=2, b=5) == {"a": start, "b": start}


def test_of_devices_only_the_one_that_fell_begins_anew() -> None:
    epochs = Epochs()
    boot = Life(50 * SECOND, "boot-1")
    starts(epochs, 100, boot, together=False, eth0=7, eth1=7)
    assert starts(epochs, 130, boot, together=False, eth0=2, eth1=8) == {
        "eth0": 100 * SECOND + 1_000_000,
        "eth1": 100 * SECOND,
    }


def test_a_device_that_was_not_there_counts_from_now_unless_the_whole_boot_was_watched() -> None:
    epochs = Epochs()
    starts(epochs, 100, Life(50 * SECOND, "boot-1"), together=False, eth0=7)
    assert starts(epochs, 115, Life(50 * SECOND, "boot-1"), together=False, eth0=7, eth1=9)["eth1"] == 115 * SECOND
    starts(epochs, 130, Life(120 * SECOND, "boot-2"), together=False, eth0=1)
    assert starts(epochs, 145, Life(120 * SECOND, "boot-2"), together=False, eth0=1, eth1=9)["eth1"] == 120 * SECOND


def test_a_boot_time_that_the_clock_moved_is_the_same_boot() -> None:
    epochs = Epochs()
    starts(epochs, 100, Life(50 * SECOND, "boot-1"), together=False, eth0=7)
    moved = Life(90 * SECOND, "boot-1")
    assert starts(epochs, 115, moved, together=False, eth0=8) == {"eth0": 100 * SECOND}


def test_a_clock_that_was_set_back_counts_nothing_until_it_passes_where_it_was() -> None:
    epochs = Epochs()
    first = starts(epochs, 1000, Life(50 * SECOND), a=7)
    assert starts(epochs, 130, Life(50 * SECOND), a=9) == {"a": 130 * SECOND}
    assert starts(epochs, 160, Life(50 * SECOND), a=10) == {"a": 160 * SECOND}
    assert starts(epochs, 1000, Life(50 * SECOND), a=11) == {"a": 1000 * SECOND}
    # The rows from 130 to 1000 may be those of before; this one rises from the latest of them, which is of this epoch.
    assert starts(epochs, 1030, Life(50 * SECOND), a=12) == first


def test_a_clock_that_was_days_ahead_is_believed_when_it_is_right() -> None:
    epochs = Epochs()
    starts(epochs, 10 * 86_400, Life(50 * SECOND), a=7)
    assert starts(epochs, 130, Life(50 * SECOND), a=9) == {"a": 130 * SECOND}
    assert starts(epochs, 160, Life(50 * SECOND), a=10) == {"a": 130 * SECOND}


# The points of the times that come again are not stored; the one behind them must not count the whole life.
@example([("scrape", 0), ("scrape", 30), ("the clock is set back", 1), ("scrape", 0), ("scrape", 50), ("scrape", 30)])
@given(st.lists(st.tuples(st.sampled_from([*HAPPENINGS, "the clock is set back"]), st.integers(0, 50)), max_size=40))
def test_never_more_than_happened_with_any_clock_where_the_first_row_of_a_time_stays(
    history: list[tuple[str, int]],
) -> None:
    now = 1_700_000_000 * SECOND
    server = Server(began=now - 12345 * SECOND, value=77)
    epochs, stored = Epochs(), dict[str, str]()
    rows: dict[int, Point] = {}
    for what, amount in [*history, ("scrape", 0)]:
        now += amount * 1_000_000_000
        if what == "work":
            server.work(amount)
        elif what == "agent restarts":
            epochs = Epochs(stored)
        elif what == "the clock is set back":
            now -= amount * INTERVAL
        elif what == "restart":
            server.restart(now)
        if "scrape" in what:
            tick = now // INTERVAL * INTERVAL
            start = epochs.starts("zone_mta/a", Tick(tick), {"x": server.value}, life=server.life(), together=True)["x"]
            rows.setdefault(tick, Point(tick, start, server.value))
            stored.update(epochs.changes("zone_mta"))
            server.met = True
    assert 0 <= increase(rows.values()) <= server.done


def test_a_tick_that_was_given_up_says_no_more_of_counters() -> None:
    epochs = Epochs()
    epochs.begin("s", Tick(100 * SECOND))
    starts(epochs, 100, Life(50 * SECOND), a=7)
    epochs.undo("s")
    with pytest.raises(AbandonedTickError):
        starts(epochs, 100, Life(50 * SECOND), a=7)
    epochs.begin("s", Tick(130 * SECOND))
    with pytest.raises(AbandonedTickError):
        starts(epochs, 100, Life(50 * SECOND), a=7)
    assert starts(epochs, 130, Life(50 * SECOND), a=9) == {"a": 130 * SECOND}


def test_what_was_not_stored_is_undone() -> None:
    epochs = Epochs()
    starts(epochs, 100, Life(50 * SECOND), a=7)
    epochs.undo("s")
    assert starts(epochs, 130, Life(50 * SECOND), a=9) == {"a": 130 * SECOND}
    epochs.changes("s")
    starts(epochs, 160, Life(150 * SECOND), a=1)
    epochs.undo("s")
    assert starts(epochs, 190, Life(150 * SECOND), a=2) == {"a": 150 * SECOND}


def test_changes_are_of_one_receiver_only() -> None:
    epochs = Epochs()
    epochs.starts("zone_mta/a", Tick(SECOND), {"x": 1}, together=True)
    epochs.starts("system", Tick(SECOND), {"x": 1}, together=True)
    assert list(epochs.changes("zone_mta")) == ["epochs/zone_mta/a"]
    assert list(epochs.changes("system")) == ["epochs/system"]
    assert epochs.changes("system") == {}


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"life": 3}', "\x00"])
def test_an_unreadable_state_is_as_if_never_met(text: str) -> None:
    assert starts(Epochs({"epochs/s": text, "node/boot_id": "x"}), 100, Life(50 * SECOND), a=7) == {"a": 100 * SECOND}


def test_devices_that_come_and_go_do_not_pile_up() -> None:
    epochs = Epochs()
    for second in range(1, 13):
        names = {f"veth{second}-{number}": 1.0 for number in range(1000)}
        epochs.starts("s", Tick(second * SECOND), names, life=Life(1, "b"), together=False)
    assert len(epochs.changes("s")["epochs/s"]) < 600_000
    assert len(epochs.last("s", Life(1, "b"))) == 5000


def test_a_sum_that_fell_is_met_anew_with_all_that_is_beside_it() -> None:
    epochs = Epochs()
    starts = [
        epochs.starts("a", Tick(number * INTERVAL), values, together=True, sums=True)
        for number, values in enumerate(
            [{"x": 10, "y": 5}, {"x": 12, "y": 5}, {"x": 3, "y": 5}, {"x": 4, "y": 6, "z": 1}]
        )
    ]
    assert starts == [
        {"x": 0, "y": 0},
        {"x": 0, "y": 0},
        {"x": 2 * INTERVAL, "y": 2 * INTERVAL},
        {"x": 2 * INTERVAL, "y": 2 * INTERVAL, "z": 2 * INTERVAL},
    ]


@given(
    st.lists(st.tuples(st.sampled_from(["work", "scrape", "end"]), st.integers(0, 2), st.integers(1, 9)), max_size=60)
)
def test_of_a_sum_over_workers_that_end_nothing_is_counted_twice(history: list[tuple[str, int, int]]) -> None:
    workers = [100, 50, 0]
    epochs = Epochs()
    points: list[Point] = []
    now, done, known, ended = 1_700_000_000 * SECOND, 0, 0, False
    for what, which, amount in [("scrape", 0, 1), *history, ("scrape", 0, 1)]:
        if what == "work":
            workers[which] += amount
            done += amount if points else 0
        elif what == "end":
            workers[which] = 0
            ended = True
        else:
            now += INTERVAL
            starts = epochs.starts("a", Tick(now), {"x": sum(workers)}, together=True, sums=True)
            points.append(Point(now, starts["x"], sum(workers)))
            known = done
    assert increase(points) <= done
    if not ended:
        assert increase(points) == known
