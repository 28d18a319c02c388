"""What a `postel up --demo` has in its database, by the demo's own generator and the sink's own writer."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice

from otel_receivers.exporter import messages
from otel_receivers.receiver import Batch
from postel.demo import past
from postel.demo_signals import Signals
from postel.otlp.signal import Signal
from postel.signals import load_all
from support.sink import ingesting
from timescale_sink.ingest.queue import IngestQueue
from timescale_sink.ingest.reporter import REPORT_SECONDS
from timescale_sink.ingest.telemetry import State, Telemetry, report

# Batches in one request.
_TOGETHER = 300
_SINK = "sink-of-the-demo"


async def fill(url: str, end: datetime) -> None:
    """Write the demo's day up to ``end``, and what the sink says of itself meanwhile, to a migrated database."""
    signals = Signals(load_all())
    telemetry = Telemetry(started=_nanoseconds(end - timedelta(hours=1)))
    async with ingesting(url, _SINK, telemetry=telemetry) as ingest:
        await _send(ingest, [signals.registration()])
        batches = past(signals, end)
        while together := list(islice(batches, _TOGETHER)):
            await _send(ingest, together)
        # Each says more than the one before, which was stored meanwhile.
        for reports in (2, 1, 0):
            at = _nanoseconds(end - reports * timedelta(seconds=REPORT_SECONDS))
            said = report(load_all()["sink"], telemetry, State(size=2048), {"service.instance.id": _SINK}, at)
            await ingest(Signal.METRICS, said)


async def _send(ingest: IngestQueue, batches: list[Batch]) -> None:
    whole = Batch(
        metrics=[metrics for batch in batches for metrics in batch.metrics],
        events=[events for batch in batches for events in batch.events],
    )
    for message in messages(whole):
        await ingest(Signal.LOGS if hasattr(message, "resource_logs") else Signal.METRICS, message)


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp()) * 10**9
