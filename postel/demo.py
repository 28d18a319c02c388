"""``postel demo``: sends the mail platform of :mod:`postel.demo_traffic` through the same OTLP door as an agent.

All of it carries the resource attribute ``postel.demo`` = true. The day so far is sent first, so that the page
has something to show; `remove` deletes what was stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import click
import structlog
from opentelemetry.sdk.resources import Resource

from otel_receivers.exporter import requests
from otel_receivers.node import Node
from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, Target, Tick
from otel_receivers.spool_requests import Request
from postel.demo_traffic import STEP_SECONDS, Moment, moments
from postel.otlp.client import sender_of
from postel.otlp.errors import Refused, Retryable
from postel.settings import DEMO_NODE, Otlp, Settings
from postel.signals import Column, Declarations, load_all

MARK = {"postel.demo": True}
# What is sent of the day so far: the last hour in full, what was before at these steps.
DETAIL = timedelta(hours=1)
COARSE = timedelta(minutes=5)
_NODE = Node(id=DEMO_NODE, origin="setting", host="mail.demo.test", boot_id="demo", boot_time_unix_nano=0)
_TARGET = Target("127.0.0.1", 12080)
_MEMORY_BYTES = 8e9
_DISK_BYTES = 120e9
# Moments in one request while the past is sent.
_TOGETHER = 40
_RETRY_SECONDS = 1.0
# Data that is newer comes from a demo that runs, or has run a moment ago.
_LIVE_SECONDS = 60.0

_log = structlog.get_logger()


async def run(settings: Settings) -> None:
    """Send the day so far, then every moment as it comes, until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    door = _Door(settings.otlp)
    work = asyncio.create_task(_send_all(door))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for task in (work, stopped):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await door.close()


async def remove(settings: Settings) -> None:
    """Delete everything that carries the mark, and say how much that was."""
    from timescale_sink.store import commands  # noqa: PLC0415 - sending needs no database driver

    removed = await commands.remove_demo(settings)
    for table, rows in removed.rows.items():
        click.echo(f"{table}: {rows} rows deleted")
    if removed.age is not None and removed.age < _LIVE_SECONDS:
        click.echo(f"the newest is {max(removed.age, 0):.0f} s old: if a demo still runs, stop it and remove again")


class _Door:
    """Where the demo is sent to, over and over until it is taken; whether it is, is said when it changes."""

    def __init__(self, otlp: Otlp) -> None:
        self.endpoint = otlp.endpoint
        self._sender = sender_of(otlp)
        self._limit = otlp.request_bytes
        self._failures = 0

    async def close(self) -> None:
        await self._sender.close()

    async def send(self, *batches: Batch) -> None:
        """Return once all of it was taken.

        Raises:
            Refused: it never will be.
        """
        together = Batch(
            metrics=[metrics for batch in batches for metrics in batch.metrics],
            events=[events for batch in batches for events in batch.events],
        )
        for request in requests(together, self._limit):
            while not await self._take(request):
                pass

    async def _take(self, request: Request) -> bool:
        try:
            sent = await self._sender.send(request.signal, request.body)
        except Retryable as error:
            if not self._failures:
                _log.warning(
                    "the OTLP receiver takes nothing now; the demo waits for it",
                    endpoint=self.endpoint,
                    reason=error.reason,
                )
            self._failures += 1
            await asyncio.sleep(error.delay or _RETRY_SECONDS)
            return False
        except Refused as error:
            raise Refused(f"{self.endpoint} refuses the demo: {error}; see [otlp] endpoint and headers") from None
        if self._failures:
            _log.info("the OTLP receiver takes data again", tries=self._failures)
            self._failures = 0
        if sent.rejected:
            _log.warning("the receiver did not take all of the demo", rejected=sent.rejected, reason=sent.reason)
        return True


async def _send_all(door: _Door) -> None:
    declarations = load_all()
    now = datetime.now(UTC)
    # From a midnight on, where the counters start: a first point later in the day would count all that went before it.
    begin = (now - DETAIL).replace(hour=0, minute=0, second=0, microsecond=0)
    past = [
        moment
        for moment in takewhile(lambda moment: moment.time <= now, _since(begin))
        if moment.time >= now - DETAIL or not (moment.time - begin) % COARSE
    ]
    _log.info("sending the demo platform's day so far", node=_NODE.id, endpoint=door.endpoint)
    await door.send(_registration(declarations))
    for first in range(0, len(past), _TOGETHER):
        together = past[first : first + _TOGETHER]
        await door.send(*(batch for moment in together for batch in _batches(declarations, moment)))
    _log.info("the demo platform's day so far is sent; it goes on live", every_seconds=STEP_SECONDS)
    for moment in _since(past[-1].time + timedelta(seconds=STEP_SECONDS)):
        await asyncio.sleep(max(0.0, moment.time.timestamp() - time.time()))
        await door.send(*_batches(declarations, moment))


def _since(begin: datetime) -> Iterator[Moment]:
    """Moments from `begin` on, over midnights without end."""
    day = begin.date()
    while True:
        yield from (moment for moment in moments(day) if moment.time >= begin)
        day += timedelta(days=1)


def _registration(declarations: Declarations) -> Batch:
    recorder = Recorder(declarations["agent"], _resource(declarations, "agent"), Tick(time.time_ns()))
    recorder.event(
        "node_registered",
        f"The demo platform {_NODE.host} is a computation; nothing of it exists.",
        {"postel.node.sources": ["system", "zone_mta"], "postel.node.id.origin": "setting"},
    )
    return recorder.batch()


def _resource(declarations: Declarations, source: str) -> Resource:
    target = _TARGET if source == "zone_mta" else None
    queue = {"zonemta.queue.id": _NODE.instance(target)} if target else {}
    return _NODE.resource(declarations[source].service, target=target, extra={**MARK, **queue})


def _batches(declarations: Declarations, moment: Moment) -> Sequence[Batch]:
    tick = Tick(round(moment.time.timestamp()) * 10**9)
    midnight = moment.time.replace(hour=0, minute=0, second=0, microsecond=0)
    start = round(midnight.timestamp()) * 10**9
    columns = {(c.table, c.name): c for metric in declarations.metrics.values() for c in metric.columns}

    host = Recorder(declarations["system"], _resource(declarations, "system"), tick)
    for name, value in _host(moment).items():
        _record(host, declarations, columns["metrics_system", name], value, start=start)
    if round(moment.time.timestamp()) % declarations.tables["metrics_zonemta"].interval:
        return [host.batch()]

    mail = Recorder(declarations["zone_mta"], _resource(declarations, "zone_mta"), tick)
    for name, value in (("queue_size", moment.queued), ("deferred_size", moment.deferred)):
        _record(mail, declarations, columns["metrics_zonemta", name], value, start=start)
    for (zone, outcome), value in moment.attempts.items():
        column = columns["metrics_zonemta", f"{outcome}_total"]
        _record(mail, declarations, column, value, start=start, zone={"zonemta.zone": zone})
    mail.number(
        "zonemta_received_messages", moment.received, {"zonemta.received.result": "success"}, start_unix_nano=start
    )
    mail.number("zonemta_generated_bounces", moment.bounces, start_unix_nano=start)
    mail.number("zonemta_connection_pool_count", moment.connections)
    return [host.batch(), mail.batch()]


def _host(moment: Moment) -> dict[str, float]:
    """Column of metrics_system -> value."""
    return {
        "cpu_load": moment.cpu,
        "memory_percent": round(moment.memory / _MEMORY_BYTES * 100, 2),
        "memory_used": moment.memory,
        "disk_used": moment.disk,
        "disk_percent": round(moment.disk / _DISK_BYTES * 100, 2),
        "network_in": moment.network_in,
        "network_out": moment.network_out,
        "load_1m": moment.load,
        "process_count": moment.processes,
    }


def _record(
    recorder: Recorder,
    declarations: Declarations,
    column: Column,
    value: float,
    *,
    start: int,
    zone: dict[str, str] | None = None,
) -> None:
    """Record the point that feeds a typed column."""
    metric = declarations.metrics[column.metric]
    recorder.number(
        metric.key, value, {**column.when, **(zone or {})}, start_unix_nano=start if metric.monotonic else None
    )
