"""macOS, Windows and the BSDs are simulated by what they lack; README.md of the source says what degrades."""

from __future__ import annotations

import os
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from otel_receivers.system.filesystems import Prober, Space
from otel_receivers.system.receiver import SystemReceiver
from otel_receivers.system.snapshot import CpuMeter, Host
from otel_receivers.system.watches import KernelLog
from postel.signals import Declaration
from support.hosts import Points, Recorded, points, tick, value

Make = Callable[..., SystemReceiver]
Partition = namedtuple("Partition", "device mountpoint fstype opts")  # noqa: PYI024 - the shape of psutil's
MacTimes = namedtuple("MacTimes", "user nice system idle")  # noqa: PYI024
MacDisk = namedtuple("MacDisk", "read_count write_count read_bytes write_bytes read_time write_time")  # noqa: PYI024

# Linux alone has these.
LINUX_ONLY = {
    "system.memory.linux.available",
    "system.memory.linux.shared",
    "system.memory.linux.slab.usage",
    "system.memory.linux.hugepages.limit",
    "system.memory.linux.hugepages.usage",
    "system.memory.linux.hugepages.page_size",
    "system.paging.faults",
    "system.paging.operations",
    "system.disk.limit",
    "system.process.count",
    "system.process.created",
    "system.process.limit",
}


@pytest.fixture
def elsewhere(tmp_path: Path, make_receiver: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Points]:
    """A system without /proc and /sys, whose psutil has the fields of macOS."""
    host = Host(
        proc=tmp_path / "no-proc",
        sys=tmp_path / "no-sys",
        prober=Prober({"/": Space(60, 40, 0), "/Volumes/Data": Space(1, 9, 0)}.get),
    )
    receiver = make_receiver(host=host, kernel_log=KernelLog(tmp_path / "no-kmsg"))
    cpu = iter([MacTimes(10.0, 0.0, 5.0, 85.0), MacTimes(13.0, 0.0, 6.0, 91.0)])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu=False: [MacTimes(1, 0, 1, 1)] if percpu else next(cpu))
    host.cpu = CpuMeter()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(
        psutil,
        "disk_partitions",
        lambda **_: [
            Partition("/dev/disk3s1", "/", "apfs", "ro,local"),
            Partition("/dev/disk3s5", "/Volumes/Data", "apfs", "rw,local"),
            Partition("map auto_home", "/home", "autofs", "rw"),
        ],
    )
    monkeypatch.setattr(psutil, "disk_io_counters", lambda **_: {"disk0": MacDisk(1, 2, 3, 4, 5, 6)})

    def refuse(**_: Any) -> Any:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    monkeypatch.delattr(psutil, "cpu_freq", raising=False)

    def collect() -> Points:
        batch = receiver.collect_now(tick())
        assert not batch.problems, "what a system lacks is no problem of the tick"
        return points(batch)

    return collect


def test_the_typed_columns_are_all_there(elsewhere: Callable[[], Points], declaration: Declaration) -> None:
    found = elsewhere()
    typed = {name for name, metric in declaration.metrics.items() if metric.columns}
    assert typed <= {name for name, _ in found}
    assert value(found, "postel.host.cpu.utilization") == pytest.approx(40)
    assert value(found, "postel.host.disk.utilization") == pytest.approx(60)
    assert value(found, "system.filesystem.limit", mountpoint="/", mode="ro") == 100


def test_only_what_it_lacks_is_missing(elsewhere: Callable[[], Points], declaration: Declaration) -> None:
    lacking = {"system.cpu.frequency", "system.network.connection.count", "system.disk.io_time", "system.disk.merged"}
    assert set(declaration.metrics) - {name for name, _ in elsewhere()} == LINUX_ONLY | lacking


def test_without_a_load_average_and_with_windows_times(
    elsewhere: Callable[[], Points], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "getloadavg")
    found = elsewhere()
    assert ("postel.host.cpu.load_average", ()) not in found
    assert value(found, "postel.host.process.count") > 0


def test_one_reader_that_fails_costs_its_own_points_only(make_receiver: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> Any:
        raise RuntimeError("the device is gone")

    receiver = make_receiver()
    monkeypatch.setattr(psutil, "cpu_count", fail)
    batch = receiver.collect_now(tick())
    assert {(p.error_type, p.message) for p in batch.problems} == {
        ("RuntimeError", "cpu_logical_count: the device is gone"),
        ("RuntimeError", "cpu_physical_count: the device is gone"),
    }
    assert value(points(batch), "system.memory.limit") == psutil.virtual_memory().total


def test_a_filesystem_that_hangs_is_told_once(recorded: Recorded) -> None:
    # No other filesystem: one that is only slow, on a busy machine, would be told as well.
    mounts = recorded.proc / "self/mountinfo"
    mounts.write_text("".join(line for line in mounts.read_text().splitlines(keepends=True) if " / / " in line))
    let_go = threading.Event()

    def ask(_mountpoint: str) -> None:
        let_go.wait()

    receiver = recorded.receiver()
    receiver._host.prober = Prober(ask, patience=0.05)
    try:
        told = [recorded.collect(receiver, number).problems for number in range(3)]
    finally:
        let_go.set()
    assert [[p.error_type for p in problems] for problems in told] == [["timeout"], [], []]
