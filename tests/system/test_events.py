from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_receivers.receiver import Batch, Tick
from otel_receivers.system.receiver import SystemReceiver
from otel_receivers.system.snapshot import CpuMeter, Host
from otel_receivers.system.watches import KernelLog, OomWatch
from support.hosts import Recorded, event_attributes, tick


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
def mounted(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "spool"
    point.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"may not mount here: {mount.stderr.decode().strip()}")
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_real_remount(mounted: Path, make_receiver: Callable[..., SystemReceiver]) -> None:
    receiver = make_receiver()
    assert not receiver.collect_now(tick(0)).events
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    events = event_attributes(receiver.collect_now(tick(1)))
    assert [
        name for name, attributes in events if attributes["system.filesystem.mountpoint"] == os.path.realpath(mounted)
    ] == ["system.filesystem.read_only"]


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
        pytest.skip(f"may not limit memory here: {error}")
    yield group
    group.rmdir()


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK), reason="the kernel's log may not be read here")
def test_a_real_kill(control_group: Path, make_receiver: Callable[..., SystemReceiver]) -> None:
    receiver = make_receiver(host=Host(cpu=CpuMeter()))
    receiver.collect_now(tick(0))
    before = time.time_ns()
    greedy = f"open({str(control_group / 'cgroup.procs')!r}, 'w').write('0'); b'x' * 300_000_000"
    victim = subprocess.Popen([sys.executable, "-c", greedy])
    assert victim.wait(60) == -9
    batch = receiver.collect_now(Tick(tick(1).time_unix_nano))
    (attributes,) = [a for name, a in event_attributes(batch) if a.get("process.pid") == victim.pid]
    assert attributes["process.executable.name"].startswith("python")
    assert attributes["process.linux.cgroup"].endswith(control_group.name)
    assert attributes["postel.oom_kill.constraint"] == "memcg"
    assert before - 10**9 <= record_time(batch) <= time.time_ns()
