"""Sends the sink's own report, the way that the agent's data goes: to ``[otlp] endpoint``, and so to any backend.

Nobody has to listen there: a report that is not taken is forgotten, since the next one says all that it said.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

from postel.errors import SettingsError
from postel.otlp.errors import OtlpError
from postel.otlp.signal import Signal
from postel.settings import Settings
from postel.signals import load_all
from timescale_sink.ingest.telemetry import State, Telemetry, report

# Seconds from one report to the next; their times are multiples of it.
REPORT_SECONDS = 60.0


async def run(settings: Settings, telemetry: Telemetry, state: Callable[[], State], name: str) -> None:
    """Report until cancelled, the first time after a whole interval; nothing where ``OTEL_SDK_DISABLED`` is true.

    Args:
        settings: where reports go.
        telemetry: what is reported.
        state: asked at each report.
        name: ``service.instance.id``, the sink's name in the ledger.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    # Without [node] id the sink does not know which node the agent beside it is, and another one must not appear.
    resource = {"service.instance.id": name, **({"host.id": settings.node.id} if settings.node.id else {})}
    await asyncio.sleep(REPORT_SECONDS)
    # httpx costs 10 MiB and a tenth of a second; the sink is at work by now.
    from postel.otlp.client import sender_of  # noqa: PLC0415

    with contextlib.suppress(SettingsError):
        # The agent, whose setting it is, says what is wrong with it.
        sender = sender_of(settings.otlp)
        try:
            while True:
                interval = round(REPORT_SECONDS * 1e9)
                at = (time.time_ns() // interval + 1) * interval
                await asyncio.sleep((at - time.time_ns()) / 1e9)
                body = report(load_all()["sink"], telemetry, state(), resource, at).SerializeToString()
                with contextlib.suppress(OtlpError):
                    await sender.send(Signal.METRICS, body)
        finally:
            await sender.close()
