"""The host and the agent's own process, asked in a thread: instruments and readers in, declared points out.

Counters get their starts here: those of the host live as long as the boot, those of the agent as long as its process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
from opentelemetry.semconv._incubating.attributes import (
    network_attributes,
    process_attributes,
    system_attributes,
)

from otel_receivers.epochs import Epochs, Life
from otel_receivers.node import Node
from otel_receivers.points import Recorder, UndeclaredError, well_formed
from otel_receivers.receiver import Batch, Target, Tick
from otel_receivers.system.filesystems import PATIENCE_FOR_ALL, Prober
from otel_receivers.system.instruments import Instruments
from otel_receivers.system.readers import READERS
from otel_receivers.system.rename import Reading, config, rename
from otel_receivers.system.snapshot import Host, Snapshot
from otel_receivers.system.watches import KernelLog, OomWatch, ReadOnlyWatch, wall_clock
from postel.errors import DeclarationError
from postel.signals import Declaration

# What a counter belongs to, by the first word of its metric's name: counters of one group begin anew together, except
# those of devices, which come and go alone.
_GROUPS = {"system": "system", "postel": "system/columns", "process": "system/process"}
_DEVICES = frozenset({system_attributes.SYSTEM_DEVICE, network_attributes.NETWORK_INTERFACE_NAME})
# A counter that falls below this share of what it was counts from nothing again: in a container that was restarted
# (lxcfs), while the kernel's boot id stays.
_ANEW = 0.25
# Of the interval, how long filesystems that hang may take of a tick.
_PATIENCE_SHARE = 0.3


class SystemReceiver:
    """The host; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declaration: of ``system``.
        node: this node; its boot tells epochs apart.
        epochs: of the agent.
        interval: seconds.
        host: what is asked and remembered; None: this host.
        kernel_log: None: this host's.

    Raises:
        DeclarationError: the declaration names a reader that is not there.
    """

    def __init__(
        self,
        declaration: Declaration,
        node: Node,
        epochs: Epochs,
        *,
        interval: int,
        host: Host | None = None,
        kernel_log: KernelLog | None = None,
    ) -> None:
        self.name = declaration.type
        self.interval = interval
        self.target: Target | None = None
        self._declaration = declaration
        self._resource = node.resource(declaration.service)
        self._epochs = epochs
        process = psutil.Process()
        self._boot = Life(node.boot_time_unix_nano, node.boot_id)
        began = process.create_time()
        self._process = Life(int(began * 1e9), f"{node.boot_id}/{process.pid}/{began}")
        for metric in declaration.metrics.values():
            if "reader" in metric.source and metric.source["reader"] not in READERS:
                raise DeclarationError(f"{declaration.path}: metrics.{metric.name}.source: no such reader")
        self._host = host or Host(prober=Prober(patience_for_all=min(PATIENCE_FOR_ALL, interval * _PATIENCE_SHARE)))
        self._instruments = Instruments(config(declaration))
        self._log = kernel_log or KernelLog()
        self._kills = OomWatch(self._log)
        self._read_only = ReadOnlyWatch()
        self._hanging: set[str] = set()
        # One thread, so that ticks never overlap.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postel-system")

    async def collect(self, tick: Tick) -> Batch:
        """Ask the host once; see :class:`~otel_receivers.receiver.Receiver`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.collect_now, tick)

    async def close(self) -> None:
        """End the thread and close what is open."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._host.prober.close()
        self._instruments.close()
        self._log.close()

    def collect_now(self, tick: Tick) -> Batch:
        """As :meth:`collect`, in the calling thread."""
        recorder = Recorder(self._declaration, self._resource, tick)
        now = Snapshot(self._host, self._network_sent())
        readings = [*self._instrumented(now), *self._read(now, recorder)]
        self._record(readings, recorder, tick)
        self._record_events(now, recorder)
        return recorder.batch()

    def _network_sent(self) -> dict[str, float]:
        last = self._epochs.last(_GROUPS["postel"], self._boot)
        return {name.rpartition("|")[2]: value for name, value in last.items()}

    def _instrumented(self, now: Snapshot) -> Iterator[Reading]:
        for reading in rename(self._declaration, self._instruments.collect()):
            disk = reading.attributes.get(system_attributes.SYSTEM_DEVICE)
            if reading.metric.key.startswith("system_disk") and not now.is_disk(str(disk)):
                continue
            yield reading

    def _read(self, now: Snapshot, recorder: Recorder) -> Iterator[Reading]:
        for metric in self._declaration.metrics.values():
            if "reader" not in metric.source:
                continue
            try:
                # A list, so that a reader that fails half way gives nothing.
                values = list(READERS[metric.source["reader"]](now, metric))
            except Exception as error:  # noqa: BLE001 - one source of the system that fails costs its own points only
                recorder.problem(type(error).__name__, f"{metric.source['reader']}: {error}")
                continue
            for attributes, value in values:
                yield Reading(metric, attributes, value)

    def _record(self, readings: list[Reading], recorder: Recorder, tick: Tick) -> None:
        readings = list(self._steady(readings))
        starts = self._starts(readings, tick)
        for reading in readings:
            metric = reading.metric
            value = round(reading.value) if metric.value_type == "int" else reading.value
            try:
                recorder.number(metric.key, value, reading.attributes, start_unix_nano=starts.get(_series(reading)))
            except UndeclaredError as error:
                # The tests hold that there is none; on a host unlike theirs it costs this point and not the tick.
                recorder.problem("undeclared", str(error))

    def _steady(self, readings: list[Reading]) -> Iterator[Reading]:
        """Hold the counters of the host as a whole where they fall a little, which is no new beginning.

        The kernel's idle time does so now and then, the sum over CPUs when one is taken offline.
        """
        last = self._epochs.last(_GROUPS["system"], self._boot)
        for reading in readings:
            before = last.get(_series(reading))
            if reading.metric.monotonic and before is not None and not _of_device(reading):
                held = before * _ANEW <= reading.value < before
                yield replace(reading, value=before) if held else reading
            else:
                yield reading

    def _starts(self, readings: list[Reading], tick: Tick) -> dict[str, int]:
        """The start of every sum: of counters by their epochs, of others the begin of what they tell of."""
        groups: dict[str, dict[str, float]] = {}
        starts: dict[str, int] = {}
        for reading in readings:
            group = _group(reading)
            if reading.metric.monotonic:
                groups.setdefault(group, {})[_series(reading)] = reading.value
            elif reading.metric.kind.value == "sum":
                starts[_series(reading)] = min(self._life(group).began_unix_nano, tick.time_unix_nano)
        for group, values in groups.items():
            life = self._life(group)
            starts |= self._epochs.starts(group, tick, values, life=life, together=group != _GROUPS["system"])
        return starts

    def _life(self, group: str) -> Life:
        return self._process if group == _GROUPS["process"] else self._boot

    def _record_events(self, now: Snapshot, recorder: Recorder) -> None:
        kills, unnamed = self._kills.since_last(now.vmstat)
        for kill in kills:
            attributes: dict[str, str | int] = {
                process_attributes.PROCESS_PID: kill.pid,
                process_attributes.PROCESS_EXECUTABLE_NAME: kill.name,
                "postel.oom_kill.count": 1,
            }
            if kill.cgroup is not None:
                attributes[process_attributes.PROCESS_LINUX_CGROUP] = kill.cgroup
            if kill.constraint is not None:
                attributes["postel.oom_kill.constraint"] = kill.constraint
            body = f"The kernel killed {kill.name} (process {kill.pid}) because memory ran out."
            recorder.event("oom_kill", body, attributes, time_unix_nano=wall_clock(kill.since_boot))
        if unnamed:
            count = "a process" if unnamed == 1 else f"{unnamed} processes"
            recorder.event(
                "oom_kill", f"The kernel killed {count} because memory ran out.", {"postel.oom_kill.count": unnamed}
            )
        for mount in self._read_only.since_last(now.mounts):
            recorder.event(
                "read_only",
                f"The filesystem at {mount.mountpoint} ({mount.device}) became read-only.",
                {
                    system_attributes.SYSTEM_DEVICE: mount.device,
                    system_attributes.SYSTEM_FILESYSTEM_MOUNTPOINT: mount.mountpoint,
                    system_attributes.SYSTEM_FILESYSTEM_TYPE: mount.type,
                },
            )
        # Said once, and again when it comes back and hangs anew; its points are absent all the while.
        for mountpoint in set(now.hanging) - self._hanging:
            recorder.problem("timeout", f"the filesystem at {mountpoint} does not answer")
        self._hanging = set(now.hanging)


def _group(reading: Reading) -> str:
    return _GROUPS[reading.metric.name.partition(".")[0]]


def _of_device(reading: Reading) -> bool:
    return not _DEVICES.isdisjoint(reading.attributes)


def _series(reading: Reading) -> str:
    """Names a series in the epochs; the last attribute stands last."""
    return well_formed("|".join([reading.metric.key, *map(str, _sorted_values(reading.attributes))]))


def _sorted_values(attributes: Mapping[str, str | int]) -> list[str | int]:
    return [attributes[name] for name in sorted(attributes)]
