from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_receivers.receiver import Batch
from otel_receivers.system.receiver import SystemReceiver
from otel_receivers.system.snapshot import CpuMeter, Host
from otel_receivers.system.watches import KernelLog, OomWatch
from support.hosts import Recorded, event_attributes, tick
from support.mounts import mounting


def record_time(batch: Batch) -> int:
    (record,) = batch.events[0].scope_logs[0].log_records
    return record.time_unix_nano


def test_no_event_at_the_first_tick_nor_without_a_change(recorded: Recorded) -> None:
    receiver = recorded.receiver()
    assert not recorded.collect(receiver, 0).events
    assert not recorded.collect(receiver, 1).events


def test_a_kill_that_the_log_does_not_name(recorded: Recorded) -> None:
    receiver = recorded.receiver()
    recorded.collect(receiver, 0)
    recorded.change("vmstat", "oom_kill 3", "oom_kill 5")
    batch = recorded.collect(receiver, 1)
    ((name, attributes),) = event_attributes(batch)
    assert name == "system.oom_kill"
    assert attributes["postel.oom_kill.count"] == 2
    assert batch.events[0].scope_logs[0].log_records[0].severity_text == "ERROR"
    assert not recorded.collect(receiver, 2).events


class ReplayedLog(KernelLog):
    """A device gives one record a read, a file does not; the device itself is in the test of a real kill."""

    def __init__(self, records: list[bytes]) -> None:
        super().__init__(Path("/nonexistent"))
        self._records = records

    def records(self) -> Iterator[bytes]:
        while self._records:
            yield self._records.pop(0)


def test_a_kill_that_the_log_names(recorded: Recorded) -> None:
    told = (recorded.root / "kmsg").read_bytes().splitlines(keepends=True)
    receiver = recorded.receiver(kernel_log=ReplayedLog(told))
    recorded.collect(receiver, 0)
    recorded.change("vmstat", "oom_kill 3", "oom_kill 5")
    (first, named), (second, unnamed) = event_attributes(recorded.collect(receiver, 1))
    assert first == second == "system.oom_kill"
    assert named["process.pid"] == 20146
    assert named["process.executable.name"] == "python3"
    assert named["process.linux.cgroup"] == "/mail.slice/zone-mta.service"
    assert named["postel.oom_kill.constraint"] == "memcg"
    assert unnamed["postel.oom_kill.count"] == 1


def test_a_count_that_falls_or_is_absent_is_no_kill(tmp_path: Path) -> None:
    watch = OomWatch(KernelLog(tmp_path / "none"))
    assert [watch.since_last(v) for v in ({"oom_kill": 5}, {}, {"oom_kill": 2}, {"oom_kill": 2})] == [([], 0)] * 4
    assert watch.since_last({"oom_kill": 3}) == ([], 1)


def test_a_filesystem_becomes_read_only(recorded: Recorded) -> None:
    receiver = recorded.receiver()
    recorded.collect(receiver, 0)
    # What errors=remount-ro does: the superblock's own options change, those of the mount stay.
    recorded.change("self/mountinfo", "vg-root rw,errors", "vg-root ro,errors")
    ((name, attributes),) = event_attributes(recorded.collect(receiver, 1))
    assert name == "system.filesystem.read_only"
    assert attributes["system.filesystem.mountpoint"] == "/"
    assert attributes["system.device"] == "/dev/mapper/vg-root"
    assert not recorded.collect(receiver, 2).events
    recorded.change("self/mountinfo", "vg-root ro,errors", "vg-root rw,errors")
    assert not recorded.collect(receiver, 3).events
    recorded.change("self/mountinfo", "vg-root rw,errors", "vg-root ro,errors")
    assert len(event_attributes(recorded.collect(receiver, 4))) == 1


@pytest.fixture
def namespace() -> list[str]:
    """The command that runs a program as root with mounts of its own, which end with it."""
    return mounting()


def test_a_real_remount(namespace: list[str], tmp_path: Path) -> None:
    script = Path(__file__).with_name("remounting.py")
    told = subprocess.run(
        [*namespace, sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(script.parents[1])},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    ).stdout
    before, after = json.loads(told)
    assert before == []
    assert [(name, attributes["system.filesystem.mountpoint"]) for name, attributes in after] == [
        ("system.filesystem.read_only", os.path.realpath(tmp_path))
    ]


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A memory control group of 30 MB, of either version."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()
    group = (root / "memory" if first else root) / f"postel-test-{uuid.uuid4().hex[:8]}"
    limit = group / ("memory.limit_in_bytes" if first else "memory.max")
    made = False
    try:
        group.mkdir()
        made = True
        limit.write_text("30000000")
        if not first:
            (group / "memory.swap.max").write_text("0")
    except OSError as error:
        if made:
            group.rmdir()
        # Most containers: their kernel is there, but not theirs to set limits.
        pytest.skip(f"the kernel of this container lets nobody limit memory: {error}")
    yield group
    group.rmdir()


def provoke_a_kill(control_group: Path) -> int:
    greedy = f"open({str(control_group / 'cgroup.procs')!r}, 'w').write('0'); b'x' * 300_000_000"
    victim = subprocess.Popen([sys.executable, "-c", greedy])
    assert victim.wait(60) == -9
    return victim.pid


def test_a_real_kill_is_counted_where_the_log_may_not_be_read(
    control_group: Path, tmp_path: Path, make_receiver: Callable[..., SystemReceiver]
) -> None:
    receiver = make_receiver(host=Host(cpu=CpuMeter()), kernel_log=KernelLog(tmp_path / "none"))
    receiver.collect_now(tick(0))
    provoke_a_kill(control_group)
    told = [a for name, a in event_attributes(receiver.collect_now(tick(1))) if name == "system.oom_kill"]
    assert [set(attributes) for attributes in told] == [{"postel.oom_kill.count", "log.record.uid"}]
    assert told[0]["postel.oom_kill.count"] >= 1


def test_a_real_kill_is_named(control_group: Path, make_receiver: Callable[..., SystemReceiver]) -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("the kernel shows its log to nobody in this container")
    receiver = make_receiver(host=Host(cpu=CpuMeter()))
    receiver.collect_now(tick(0))
    before = time.time_ns()
    pid = provoke_a_kill(control_group)
    batch = receiver.collect_now(tick(1))
    (attributes,) = [a for name, a in event_attributes(batch) if a.get("process.pid") == pid]
    assert attributes["process.executable.name"].startswith("python")
    assert attributes["process.linux.cgroup"].endswith(control_group.name)
    assert attributes["postel.oom_kill.constraint"] == "memcg"
    assert before - 10**9 <= record_time(batch) <= time.time_ns()
