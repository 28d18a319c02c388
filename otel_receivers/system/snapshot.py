"""What the operating system says at one tick, each source asked at most once and only when a reader wants it.

A source that this system lacks, or does not let us read, is None (or empty): its readers then give no points.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from otel_receivers.system import parse
from otel_receivers.system.census import Budget
from otel_receivers.system.filesystems import Filesystem, Prober

# psutil's times that make up the whole; guest times are part of user and nice, Windows' interrupt and dpc of system.
_WHOLE = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_IDLE = ("idle", "iowait")
_DIRECTION_OF_BYTES = (("receive", "bytes_recv"), ("transmit", "bytes_sent"))
# Disks that are memory, images or empty drives.
_NO_DISKS = ("loop", "ram", "zram", "fd", "sr", "nbd")
_SECTOR = 512  # bytes, in /sys/block whatever the disk's own


class CpuMeter:
    """The CPU's time since the tick before, by psutil's names; the first tick measures since construction."""

    # The kernel counts in hundredths of a second: a shorter time says nothing.
    _SHORTEST = 0.2

    def __init__(self) -> None:
        self._times = psutil.cpu_times()
        self._at = time.monotonic()

    def since_last(self) -> dict[str, float]:
        """Seconds of all CPUs together per mode; waits where hardly any time has passed."""
        time.sleep(max(0.0, self._SHORTEST - (time.monotonic() - self._at)))
        before, self._times, self._at = self._times, psutil.cpu_times(), time.monotonic()
        # idle and iowait can step back a little on Linux (kernel/sched/cputime.c, "iowait is not reliable").
        return {name: max(0.0, getattr(self._times, name) - getattr(before, name, 0.0)) for name in self._times._fields}


class NetworkTotal:
    """Bytes over all interfaces but loopback that never fall while interfaces come and go.

    What an interface has counted stays counted when it goes or begins anew.
    """

    def __init__(self) -> None:
        self._gone = dict.fromkeys(("receive", "transmit"), 0)
        self._before: dict[str, dict[str, int]] | None = None

    def add(self, counters: Mapping[str, Any], sent: Mapping[str, float]) -> dict[str, int]:
        """The totals by direction.

        Args:
            counters: psutil's, by interface.
            sent: the totals that were last sent in this boot: after a restart of the agent, what went meanwhile is
                not known here, and a total below those would count twice what they counted.
        """
        now = {
            name: {way: int(getattr(found, theirs)) for way, theirs in _DIRECTION_OF_BYTES}
            for name, found in counters.items()
            if not _is_loopback(name)
        }
        for name, before in (self._before or {}).items():
            for way, value in before.items():
                if name not in now or now[name][way] < value:
                    self._gone[way] += value
        first, self._before = self._before is None, now
        plain = {way: sum(found[way] for found in now.values()) for way in self._gone}
        if first:
            self._gone = {way: max(0, int(sent.get(way, 0)) - value) for way, value in plain.items()}
        return {way: plain[way] + self._gone[way] for way in plain}


def _is_loopback(interface: str) -> bool:
    return interface == "lo" or interface.startswith(("lo0", "Loopback"))


@dataclass
class Host:
    """What is kept from tick to tick.

    Attributes:
        proc, sys: where the kernel shows itself; absent outside Linux.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    prober: Prober = field(default_factory=Prober)
    cpu: CpuMeter = field(default_factory=CpuMeter)
    network: NetworkTotal = field(default_factory=NetworkTotal)
    budgets: dict[str, Budget] = field(default_factory=dict)

    def spend(self, name: str, costly: Callable[[], Any]) -> Any:
        """Call a costly source within its budget."""
        return self.budgets.setdefault(name, Budget()).spend(costly)

    @cached_property
    def physical_cpus(self) -> int | None:
        """Cores of the hardware; asked once."""
        return psutil.cpu_count(logical=False)


class Snapshot:
    """One tick.

    Args:
        host: what is kept from tick to tick.
        network_sent: see :meth:`NetworkTotal.add`.
    """

    def __init__(self, host: Host, network_sent: Mapping[str, float] | None = None) -> None:
        self.host = host
        self._network_sent = network_sent or {}

    def read(self, path: str) -> bytes | None:
        """A file below proc; None where there is none or it may not be read."""
        try:
            return (self.host.proc / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A function of psutil; None where this system lacks it or does not allow it."""
        function = getattr(psutil, name, None)
        if function is None:
            return None
        try:
            return function(*args, **kwargs)
        except (psutil.AccessDenied, PermissionError, FileNotFoundError, NotImplementedError):
            return None

    @cached_property
    def cpu(self) -> dict[str, float]:
        """Seconds per mode since the tick before."""
        return self.host.cpu.since_last()

    @property
    def cpu_whole(self) -> float:
        """Seconds of all modes since the tick before."""
        return sum(self.cpu.get(name, 0.0) for name in _WHOLE)

    @property
    def cpu_busy(self) -> float:
        """Seconds since the tick before that were neither idle nor waiting for disks."""
        return self.cpu_whole - sum(self.cpu.get(name, 0.0) for name in _IDLE)

    @cached_property
    def vmstat(self) -> dict[str, int]:
        """/proc/vmstat, what of it is used."""
        names = ("pgfault", "pgmajfault", "pswpin", "pswpout", "oom_kill")
        return parse.counters(self.read("vmstat") or b"", names)

    @cached_property
    def meminfo(self) -> dict[str, int]:
        """/proc/meminfo, in bytes and pages."""
        return parse.counters(self.read("meminfo") or b"")

    @cached_property
    def memory(self) -> Any:
        """The virtual memory, psutil's tuple."""
        return psutil.virtual_memory()

    @cached_property
    def disks(self) -> dict[str, Any]:
        """Counters by disk, psutil's tuples: no partitions, no disks that are memory or images."""
        found: dict[str, Any] = self.ask("disk_io_counters", perdisk=True) or {}
        return {name: counters for name, counters in found.items() if self.is_disk(name)}

    @cached_property
    def _blocks(self) -> frozenset[str] | None:
        try:
            return frozenset(name.replace("!", "/") for name in os.listdir(self.host.sys / "block"))  # noqa: PTH208
        except OSError:
            return None

    def is_disk(self, name: str) -> bool:
        """Whether it is a whole disk; always true where the system lists disks only."""
        if self._blocks is None:
            return True
        return name in self._blocks and not name.rstrip("0123456789").startswith(_NO_DISKS)

    def disk_limit(self, name: str) -> int | None:
        """The capacity of a disk in bytes."""
        try:
            return int((self.host.sys / "block" / name.replace("/", "!") / "size").read_bytes()) * _SECTOR
        except (OSError, ValueError):
            return None

    @cached_property
    def network(self) -> dict[str, int]:
        """Bytes by direction over all interfaces but loopback."""
        # nowrap is psutil's memory of falls by process; the total has its own, which outlives a restart of the agent.
        counters = self.ask("net_io_counters", pernic=True, nowrap=False)
        # No answer is not the answer that every interface went.
        return {} if counters is None else self.host.network.add(counters, self._network_sent)

    @cached_property
    def mounts(self) -> list[list[parse.Mount]]:
        """The real filesystems, see :func:`otel_receivers.system.parse.real`."""
        if (text := self.read("self/mountinfo")) is not None:
            return parse.real(_with_root(parse.mounts(text)))
        partitions = self.ask("disk_partitions", all=False) or []
        return parse.real(
            parse.Mount(p.device, p.device, p.mountpoint, p.fstype, read_only="ro" in p.opts.split(","))
            for p in partitions
        )

    @cached_property
    def _probed(self) -> tuple[list[Filesystem], list[str]]:
        return self.host.prober.probe(self.mounts)

    @property
    def filesystems(self) -> list[Filesystem]:
        """The real filesystems that answered."""
        return self._probed[0]

    @property
    def hanging(self) -> list[str]:
        """The mount points whose filesystems do not answer."""
        return self._probed[1]

    @cached_property
    def fullest(self) -> Filesystem | None:
        """The filesystem on a disk with the largest share used; of equals the larger."""
        on_disk = [found for found in self.filesystems if found.mount.on_disk]
        return max(on_disk, key=lambda found: (found.space.share_used, found.space.limit), default=None)

    @cached_property
    def pids(self) -> list[str] | None:
        """The process ids, as the kernel lists them; None where it does not."""
        if not sys.platform.startswith("linux"):
            return None
        return [name for name in os.listdir(self.host.proc) if name.isdecimal()]  # noqa: PTH208 - half the time


def _with_root(mounts: list[parse.Mount]) -> list[parse.Mount]:
    """The mounts, with the filesystem of ``/`` where none lies there: in a chroot whose root is a plain folder."""
    if any(mount.mountpoint == "/" for mount in mounts):
        return mounts
    device = os.stat("/").st_dev  # noqa: PTH116 - a Path adds nothing here
    identity = f"{os.major(device)}:{os.minor(device)}"
    # What the kernel called the root before anything was mounted; who mounted this one is not to be seen from inside.
    root = parse.Mount(
        identity, "rootfs", "/", "rootfs", read_only=bool(os.statvfs("/").f_flag & os.ST_RDONLY), whole=False
    )
    return [root, *mounts]
