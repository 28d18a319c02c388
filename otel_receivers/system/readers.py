"""The readers that the declaration names: each takes what a tick found and gives attributes and values of one metric.

A reader gives nothing where the system does not say.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import psutil
from opentelemetry.semconv._incubating.attributes import (
    cpu_attributes,
    disk_attributes,
    network_attributes,
    process_attributes,
    system_attributes,
)

from otel_receivers.system import census, parse
from otel_receivers.system.filesystems import Filesystem
from otel_receivers.system.snapshot import Snapshot
from postel.signals import Metric

Attributes = Mapping[str, str | int]
Value = tuple[Attributes, float]
Reader = Callable[[Snapshot, Metric], Iterator[Value]]

_NONE: Attributes = MappingProxyType({})
_PERCENT = 100


def host_cpu(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Percent busy."""
    if now.cpu_whole:
        yield _NONE, min(_PERCENT, _PERCENT * now.cpu_busy / now.cpu_whole)


def host_memory(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes not available."""
    yield _NONE, now.memory.total - now.memory.available


def host_memory_share(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Percent not available."""
    yield _NONE, _PERCENT * (now.memory.total - now.memory.available) / now.memory.total


def host_disk(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes used on the fullest filesystem."""
    if now.fullest is not None:
        yield _NONE, now.fullest.space.used


def host_disk_share(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Percent used on the fullest filesystem."""
    if now.fullest is not None:
        yield _NONE, _PERCENT * now.fullest.space.share_used


def host_network(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes by direction."""
    for way, value in now.network.items():
        yield {network_attributes.NETWORK_IO_DIRECTION: way}, value


def host_load(now: Snapshot, _: Metric) -> Iterator[Value]:
    """The average of one minute."""
    # Windows has no load; psutil's emulation of it would start a thread and give 0 for the first minutes.
    if hasattr(os, "getloadavg") and (text := now.read("loadavg")) is not None:
        yield _NONE, float(text.split()[0])
    elif hasattr(os, "getloadavg"):
        yield _NONE, os.getloadavg()[0]


def host_processes(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Processes."""
    pids = now.pids if now.pids is not None else now.ask("pids")
    if pids is not None:
        yield _NONE, len(pids)


def uptime(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Seconds."""
    if (text := now.read("uptime")) is not None:
        yield _NONE, float(text.split()[0])
    else:
        yield _NONE, max(0.0, time.time() - psutil.boot_time())


def cpu_utilization(now: Snapshot, metric: Metric) -> Iterator[Value]:
    """Shares by mode."""
    shares: Counter[str] = Counter()
    for theirs, mode in metric.source["values"]["state"].items():
        if now.cpu_whole and theirs in now.cpu:
            shares[mode] += now.cpu[theirs] / now.cpu_whole  # type: ignore[assignment] # Counter adds floats as well
    for mode, share in shares.items():
        yield {cpu_attributes.CPU_MODE: mode}, min(1.0, share)


def cpu_logical_count(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Cores."""
    yield from _known(now.ask("cpu_count", logical=True))


def cpu_physical_count(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Cores."""
    yield from _known(now.host.physical_cpus)


def cpu_frequency(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Hertz; psutil gives MHz, and 0 where it does not know."""
    found = now.host.spend("cpu_freq", lambda: now.ask("cpu_freq", percpu=True)) or []
    for number, frequency in enumerate(found):
        if frequency.current:
            # Where one figure stands for all CPUs it is that of none.
            attributes = (
                {cpu_attributes.CPU_LOGICAL_NUMBER: number} if len(found) > 1 or psutil.cpu_count() == 1 else _NONE
            )
            yield attributes, round(frequency.current * 1e6)


def memory_limit(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes."""
    yield _NONE, now.memory.total


def memory_linux_available(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes."""
    yield from _known(now.meminfo.get("MemAvailable"))


def memory_linux_shared(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes."""
    yield from _known(now.meminfo.get("Shmem"))


def memory_linux_slab(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes by state."""
    for state, name in (("reclaimable", "SReclaimable"), ("unreclaimable", "SUnreclaim")):
        for _attributes, value in _known(now.meminfo.get(name)):
            yield {system_attributes.SYSTEM_MEMORY_LINUX_SLAB_STATE: state}, value


def hugepages_limit(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Pages; nothing where there are none."""
    yield from _known(now.meminfo.get("HugePages_Total") or None)


def hugepages_usage(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Pages by state."""
    if total := now.meminfo.get("HugePages_Total"):
        free = now.meminfo.get("HugePages_Free", 0)
        yield {system_attributes.SYSTEM_MEMORY_LINUX_HUGEPAGES_STATE: "used"}, max(0, total - free)
        yield {system_attributes.SYSTEM_MEMORY_LINUX_HUGEPAGES_STATE: "free"}, free


def hugepages_size(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes."""
    if now.meminfo.get("HugePages_Total"):
        yield from _known(now.meminfo.get("Hugepagesize"))


def paging_faults(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Faults by type: the kernel counts all, and the major ones again."""
    if "pgfault" in now.vmstat and "pgmajfault" in now.vmstat:
        major = now.vmstat["pgmajfault"]
        yield {system_attributes.SYSTEM_PAGING_FAULT_TYPE: "major"}, major
        yield {system_attributes.SYSTEM_PAGING_FAULT_TYPE: "minor"}, max(0, now.vmstat["pgfault"] - major)


def paging_operations(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Pages by direction."""
    for direction, name in (("in", "pswpin"), ("out", "pswpout")):
        for _attributes, value in _known(now.vmstat.get(name)):
            yield {system_attributes.SYSTEM_PAGING_DIRECTION: direction}, value


def disk_io_time(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Seconds by disk; psutil gives milliseconds, on Linux and FreeBSD."""
    for name, counters in now.disks.items():
        if hasattr(counters, "busy_time"):
            yield {system_attributes.SYSTEM_DEVICE: name}, counters.busy_time / 1000


def disk_merged(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Operations by disk and direction, on Linux."""
    for name, counters in now.disks.items():
        for direction in ("read", "write"):
            if hasattr(counters, f"{direction}_merged_count"):
                attributes = {
                    system_attributes.SYSTEM_DEVICE: name,
                    disk_attributes.DISK_IO_DIRECTION: direction,
                }
                yield attributes, getattr(counters, f"{direction}_merged_count")


def disk_limit(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes by disk."""
    for name in now.disks:
        if (size := now.disk_limit(name)) is not None:
            yield {system_attributes.SYSTEM_DEVICE: name}, size


def filesystem_usage(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes by filesystem and state."""
    for found in now.filesystems:
        for state, value in _states(found):
            yield {**_filesystem(found), system_attributes.SYSTEM_FILESYSTEM_STATE: state}, value


def filesystem_utilization(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Shares by filesystem and state."""
    for found in now.filesystems:
        for state, value in _states(found):
            attributes = {**_filesystem(found), system_attributes.SYSTEM_FILESYSTEM_STATE: state}
            yield attributes, value / found.space.limit


def filesystem_limit(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Bytes by filesystem."""
    for found in now.filesystems:
        yield _filesystem(found), found.space.limit


def connections(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Connections by transport and state.

    Not psutil's where the kernel has tables: it looks through the open files of every process.
    """
    found: Mapping[tuple[str, str | None], int] | None = now.host.spend(
        "connections", lambda: census.sockets(now.read, now.ask)
    )
    for (transport, state), count in (found or {}).items():
        attributes = {network_attributes.NETWORK_TRANSPORT: transport}
        if state is not None:
            attributes[network_attributes.NETWORK_CONNECTION_STATE] = state
        yield attributes, count


def process_states(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Processes by state."""
    found: Mapping[str, int] | None = now.host.spend(
        "process_states", lambda: census.process_states(now.host.proc, now.pids)
    )
    for state, count in (found or {}).items():
        yield {process_attributes.PROCESS_STATE: state}, count


def process_created(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Processes since the boot."""
    yield from _known(parse.counters(now.read("stat") or b"", ["processes"]).get("processes"))


def process_limit(now: Snapshot, _: Metric) -> Iterator[Value]:
    """Threads: whichever limit of the kernel is met first."""
    texts = (now.read("sys/kernel/pid_max"), now.read("sys/kernel/threads-max"))
    limits = [int(text) for text in texts if text is not None]
    if limits:
        yield _NONE, min(limits)


def _known(value: float | None) -> Iterator[Value]:
    if value is not None:
        yield _NONE, value


def _filesystem(found: Filesystem) -> dict[str, str | int]:
    return {
        system_attributes.SYSTEM_DEVICE: found.mount.device,
        system_attributes.SYSTEM_FILESYSTEM_MOUNTPOINT: found.mount.mountpoint,
        system_attributes.SYSTEM_FILESYSTEM_TYPE: found.mount.type,
        system_attributes.SYSTEM_FILESYSTEM_MODE: "ro" if found.mount.read_only else "rw",
    }


def _states(found: Filesystem) -> tuple[tuple[str, int], ...]:
    space = found.space
    return (("used", space.used), ("free", space.free), ("reserved", space.reserved))


READERS: Mapping[str, Reader] = {
    reader.__name__: reader
    for reader in (
        host_cpu,
        host_memory,
        host_memory_share,
        host_disk,
        host_disk_share,
        host_network,
        host_load,
        host_processes,
        uptime,
        cpu_utilization,
        cpu_logical_count,
        cpu_physical_count,
        cpu_frequency,
        memory_limit,
        memory_linux_available,
        memory_linux_shared,
        memory_linux_slab,
        hugepages_limit,
        hugepages_usage,
        hugepages_size,
        paging_faults,
        paging_operations,
        disk_io_time,
        disk_merged,
        disk_limit,
        filesystem_usage,
        filesystem_utilization,
        filesystem_limit,
        connections,
        process_states,
        process_created,
        process_limit,
    )
}
