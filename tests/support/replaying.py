"""Lets recordings go through the agent's own code: answers through a source's receivers, events through the intake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_receivers import exporter
from otel_receivers.agent import Collecting
from otel_receivers.derived import Derivation
from otel_receivers.derived_receiver import DerivedReceiver
from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Batch, Target, Tick
from otel_receivers.spool import Spool
from postel.otlp import json_mapping
from postel.settings import Settings
from postel.signals import load_all

_NANOS = 1_000_000_000
_FIRST = 1_795_600_000 * _NANOS


def seen(batches: Iterable[Batch]) -> dict[str, set[str]]:
    """Each metric that is there, with the names of its points' attributes."""
    found: dict[str, set[str]] = {}
    for batch in batches:
        for resource in batch.metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    names = found.setdefault(metric.name, set())
                    for point in metric.data.data_points:
                        names.update(point.attributes or {})
    return found


async def answered(name: str, port: int, folder: Path, ticks: int = 1) -> list[Batch]:
    """What a source's receivers give at these ticks, asked on a port of loopback.

    Args:
        name: of the source's place.
        port: where the recordings are answered.
        folder: for the node's identity.
        ticks: how often they are asked.
    """
    settings = Settings(data_dir=folder)
    collecting = Collecting(settings, identify(folder, setting="node-1"), Epochs())
    receivers = collecting.source(name, Target("127.0.0.1", port))
    try:
        found: list[Batch] = []
        for number in range(ticks):
            # At the same time, as the agent does.
            tick = [Tick(_FIRST + number * receiver.interval * _NANOS) for receiver in receivers]
            found += await asyncio.gather(*(r.collect(t) for r, t in zip(receivers, tick, strict=True)))
        return found
    finally:
        for receiver in receivers:
            await receiver.close()


async def derived(recording: Path, folder: Path) -> list[Batch]:
    """What the agent derives of recorded events, a request of a plugin's a line."""
    spool = await Spool.open(folder, max_bytes=64 << 20, max_age=3600)
    try:
        derivation = Derivation(load_all())
        for request in recorded_requests(recording):
            await spool.take(exporter.log_requests(request, 1 << 20), derivation.occurrences(request))
        receiver = DerivedReceiver(
            load_all(), spool, identify(folder, setting="node-1"), interval=1, state=await spool.state()
        )
        return [await receiver.collect(Tick(time.time_ns() + _NANOS))]
    finally:
        await spool.close()


def recorded_requests(recording: Path) -> Iterator[ExportLogsServiceRequest]:
    """The requests of a recording."""
    for line in recording.read_bytes().splitlines():
        request = ExportLogsServiceRequest()
        json_mapping.decode(line, request)
        assert isinstance(request, Message)
        yield request
