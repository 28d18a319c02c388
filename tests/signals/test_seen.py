"""Every declared metric was seen: recordings of the real servers yield it, with each of its attributes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from recordings import haraka, zone_mta

from postel.signals import load_all
from support.replaying import recorded_requests, seen

# What the sink says of itself no recording has: tests/sink/test_telemetry.py sees it.
SOURCES = sorted({declaration.type for declaration in load_all() if declaration.metrics} - {"sink"})


@pytest.mark.parametrize("source", SOURCES)
async def test_every_declared_metric_is_in_a_recording(source: str, tmp_path: Path) -> None:
    recordings = importlib.import_module(f"recordings.{source}")
    found = seen(await recordings.batches(tmp_path))
    declaration = load_all()[source]
    assert found.keys() - declaration.metrics.keys() == set(), "what is not declared"
    declared = {name: set(metric.attributes) for name, metric in declaration.metrics.items()}
    assert {name: found.get(name) for name in declared} == declared


@pytest.mark.parametrize(("source", "recording"), [("haraka", haraka.EVENTS), ("zone_mta", zone_mta.EVENTS)])
def test_every_declared_event_of_a_plugin_is_in_a_recording(source: str, recording: Path) -> None:
    records = [
        record
        for request in recorded_requests(recording)
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    events = load_all()[source].events
    told = {record.event_name for record in records} - {"postel.plugin.heartbeat"}
    assert told == {event.name for event in events.values() if "hook" in event.source}
    for record in records:
        if record.event_name in events:
            undeclared = {a.key for a in record.attributes} - set(events[record.event_name].attributes)
            assert undeclared == {"log.record.uid"}
