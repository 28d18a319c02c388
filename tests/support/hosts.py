"""A host for the system receiver: this one, or a recorded /proc and /sys that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from opentelemetry.sdk.metrics.export import NumberDataPoint

import otel_receivers.system
from otel_receivers.epochs import Epochs
from otel_receivers.node import Node
from otel_receivers.receiver import Batch, Tick
from otel_receivers.system.filesystems import Prober, Space
from otel_receivers.system.receiver import SystemReceiver
from otel_receivers.system.snapshot import CpuMeter, Host
from otel_receivers.system.watches import KernelLog

INTERVAL = 15
NANOS = 10**9
FIRST = 1_800_000_000 // INTERVAL * INTERVAL
TESTDATA = Path(otel_receivers.system.__file__).parent / "testdata"

# (metric, attributes in the order of their names) -> point
Points = dict[tuple[str, tuple[tuple[str, Any], ...]], NumberDataPoint]


def tick(number: int = 0) -> Tick:
    return Tick((FIRST + number * INTERVAL) * NANOS)


def node(boot_id: str = "b007") -> Node:
    return Node("node-1", "setting", "mx1.example.com", boot_id, (FIRST - 100_000) * NANOS)


def points(batch: Batch) -> Points:
    found: Points = {}
    for resource_metrics in batch.metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                for point in metric.data.data_points:
                    assert isinstance(point, NumberDataPoint)
                    key = (metric.name, tuple(sorted((point.attributes or {}).items())))
                    assert key not in found, "a point is there twice"
                    found[key] = point
    return found


def value(found: Points, metric: str, **attributes: Any) -> float:
    """One point's value; attributes by their last word: ``direction="read"``."""
    hits = [
        point.value
        for (name, items), point in found.items()
        if name == metric and attributes.items() <= {key.rpartition(".")[2]: v for key, v in items}.items()
    ]
    assert len(hits) == 1, f"{metric} {attributes}: {len(hits)} points of {[k for k in found if k[0] == metric]}"
    return hits[0]


def event_attributes(batch: Batch) -> list[tuple[str, dict[str, Any]]]:
    """Name and attributes of every event."""
    return [
        (
            record.event_name,
            {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in record.attributes},
        )
        for resource_logs in batch.events
        for scope_logs in resource_logs.scope_logs
        for record in scope_logs.log_records
    ]


class Recorded:
    """A recorded host: its /proc and /sys can be changed between ticks, its filesystems answer from a table."""

    def __init__(self, root: Path, make: Callable[..., SystemReceiver], patch: pytest.MonkeyPatch) -> None:
        shutil.copytree(TESTDATA / "linux-6.1", root)
        self.root = root
        self.proc = root / "proc"
        self.spaces = {
            "/": Space(60_000, 30_000, 10_000),
            "/var/spool/zone mta": Space(90_000, 10_000, 0),
            "/boot": Space(100, 900, 0),
            "/home": Space(500, 500, 0),
            "/mnt/archive": Space(1_000, 9_000, 0),
            "/run": Space(99, 1, 0),
            "/opt/app": Space(1, 1, 0),
        }
        self._make = make
        self._patch = patch

    def receiver(self, epochs: Epochs | None = None, **kwargs: Any) -> SystemReceiver:
        self._patch.setattr(psutil, "PROCFS_PATH", str(self.proc))
        host = Host(proc=self.proc, sys=self.root / "sys", prober=Prober(self.spaces.get), cpu=CpuMeter())
        self._patch.undo()  # the agent's own process is no recording
        kwargs.setdefault("kernel_log", KernelLog(self.root / "no-kmsg"))
        return self._make(epochs, host=host, **kwargs)

    def collect(self, receiver: SystemReceiver, number: int = 0) -> Batch:
        self._patch.setattr(psutil, "PROCFS_PATH", str(self.proc))
        try:
            return receiver.collect_now(tick(number))
        finally:
            self._patch.undo()

    def change(self, path: str, before: str, after: str) -> None:
        text = (self.proc / path).read_text()
        assert before in text
        (self.proc / path).write_text(text.replace(before, after))
