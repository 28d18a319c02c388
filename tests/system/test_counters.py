from __future__ import annotations

from itertools import pairwise

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import NumberDataPoint

from otel_receivers.epochs import Epochs
from otel_receivers.system.snapshot import NetworkTotal, Snapshot
from support.hosts import Points, Recorded, points, tick

RECEIVED = ("postel.host.network.io", (("network.io.direction", "receive"),))
SENT = ("postel.host.network.io", (("network.io.direction", "transmit"),))
IDLE = ("system.cpu.time", (("cpu.mode", "idle"),))


def increase(series: list[NumberDataPoint]) -> float:
    """What readers make of a counter: DESIGN, "Rollups"."""
    first = series[0]
    total = 0.0 if first.time_unix_nano == first.start_time_unix_nano else first.value
    for before, after in pairwise(series):
        if after.start_time_unix_nano == before.start_time_unix_nano:
            total += after.value - before.value
        elif after.time_unix_nano != after.start_time_unix_nano:
            total += after.value
    return total


def test_an_interface_that_goes_takes_nothing_away(recorded: Recorded) -> None:
    receiver = recorded.receiver()
    first = points(recorded.collect(receiver, 0))
    lines = (recorded.proc / "net/dev").read_text().splitlines(keepends=True)
    (recorded.proc / "net/dev").write_text("".join(line for line in lines if "veth1a" not in line))
    recorded.change("net/dev", "eth0: 5000000", "eth0: 5001000")
    second = points(recorded.collect(receiver, 1))
    assert second[RECEIVED].value == first[RECEIVED].value + 1000
    assert second[RECEIVED].start_time_unix_nano == first[RECEIVED].start_time_unix_nano
    # The same name counts from the start again: a new container. All of it is new.
    (recorded.proc / "net/dev").write_text("".join(lines).replace("veth1a: 70000", "veth1a: 600"))
    recorded.change("net/dev", "eth0: 5000000", "eth0: 5001000")
    third = points(recorded.collect(receiver, 2))
    assert third[RECEIVED].value == second[RECEIVED].value + 600


def test_an_interface_that_went_while_the_agent_was_away_is_not_counted_again(recorded: Recorded) -> None:
    epochs = Epochs()
    seen = [points(recorded.collect(recorded.receiver(epochs), number)) for number in (0,)]
    lines = (recorded.proc / "net/dev").read_text().splitlines(keepends=True)
    (recorded.proc / "net/dev").write_text("".join(line for line in lines if "veth1a" not in line))
    again = recorded.receiver(Epochs(epochs.changes("system")))
    seen.append(points(recorded.collect(again, 5)))
    recorded.change("net/dev", "eth0: 5000000", "eth0: 5002000")
    seen.append(points(recorded.collect(again, 6)))
    assert increase([found[RECEIVED] for found in seen]) == 2000


def test_after_a_boot_everything_is_new(recorded: Recorded) -> None:
    epochs = Epochs()
    seen = [points(recorded.collect(recorded.receiver(epochs), 0))]
    recorded.change("net/dev", "eth0: 5000000", "eth0: 300")
    recorded.change("net/dev", "veth1a: 70000", "veth1a: 0")
    again = recorded.receiver(Epochs(epochs.changes("system")), boot_id="another")
    seen.append(points(recorded.collect(again, 1)))
    assert increase([found[RECEIVED] for found in seen]) == 300
    # One row holds both columns and has one start.
    assert seen[1][RECEIVED].start_time_unix_nano == seen[1][SENT].start_time_unix_nano
    assert seen[1][RECEIVED].start_time_unix_nano > tick(0).time_unix_nano


def test_idle_time_that_steps_back_is_held(recorded: Recorded) -> None:
    epochs = Epochs()
    receiver = recorded.receiver(epochs)
    seen = [points(recorded.collect(receiver, 0))]
    recorded.change("stat", "2010000", "2009990")
    seen.append(points(recorded.collect(receiver, 1)))
    recorded.change("stat", "2009990", "2009995")
    seen.append(points(recorded.collect(recorded.receiver(Epochs(epochs.changes("system"))), 2)))
    recorded.change("stat", "2009995", "2010500")
    seen.append(points(recorded.collect(receiver, 3)))
    assert [found[IDLE].value for found in seen] == [40000, 40000, 40000, 40005]
    assert len({found[IDLE].start_time_unix_nano for found in seen}) == 1


def test_a_container_that_was_restarted_counts_anew_within_the_boot(recorded: Recorded) -> None:
    """lxcfs counts from nothing then, under the kernel's boot id of before."""
    user = ("system.cpu.time", (("cpu.mode", "user"),))
    receiver = recorded.receiver()
    seen = [points(recorded.collect(receiver, 0))]
    (recorded.proc / "stat").write_text(
        "".join(
            f"{name} 1000 0 500 9000 0 0 0 0 0 0\n" if (name := line.split(" ")[0]).startswith("cpu") else line
            for line in (recorded.proc / "stat").read_text().splitlines(keepends=True)
        )
    )
    seen.append(points(recorded.collect(receiver, 1)))
    assert seen[1][user].value < seen[0][user].value / 4
    assert increase([found[user] for found in seen]) == seen[1][user].value


def test_a_disk_of_the_same_name_begins_anew_alone(recorded: Recorded) -> None:
    key = ("system.disk.limit", (("system.device", "sda"),))
    time = ("system.disk.io_time", (("system.device", "sda"),))
    other = ("system.disk.io_time", (("system.device", "nvme0n1"),))
    epochs = Epochs()
    first: Points = points(recorded.collect(recorded.receiver(epochs), 0))
    recorded.change("diskstats", "0 7000 14000", "0 30 40")
    psutil.disk_io_counters.cache_clear()  # type: ignore[attr-defined] # as in another process
    second = points(recorded.collect(recorded.receiver(Epochs(epochs.changes("system"))), 1))
    assert second[key].value == first[key].value
    assert second[time].value < first[time].value
    assert second[time].start_time_unix_nano > first[time].start_time_unix_nano
    assert second[other].start_time_unix_nano == first[other].start_time_unix_nano


def test_no_answer_is_not_the_end_of_every_interface(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = recorded.receiver()
    first = points(recorded.collect(receiver, 0))
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "net_io_counters", lambda **_: None)
        now = Snapshot(receiver._host)
        assert now.network == {}
    second = points(recorded.collect(receiver, 2))
    assert second[RECEIVED].value == first[RECEIVED].value


class Nic:
    def __init__(self, received: int) -> None:
        self.bytes_recv = self.bytes_sent = received


HISTORY = st.lists(st.dictionaries(st.sampled_from(["lo", "eth0", "veth1", "veth2"]), st.integers(0, 1000)), min_size=1)


@given(HISTORY)
def test_the_total_never_falls_and_starts_as_the_plain_sum(history: list[dict[str, int]]) -> None:
    total = NetworkTotal()
    seen = [total.add({n: Nic(v) for n, v in nics.items()}, {})["receive"] for nics in history]
    assert seen[0] == sum(v for n, v in history[0].items() if n != "lo")
    assert seen == sorted(seen)
