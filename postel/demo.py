"""``postel demo``: sends the mail platform of :mod:`postel.demo_traffic` through the same OTLP door as an agent.

The day so far is sent first, so that pages and dashboards have something to show; `remove` deletes what was stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import click
import structlog

from otel_receivers.exporter import requests
from otel_receivers.receiver import Batch
from otel_receivers.spool_requests import Request
from postel.demo_shapes import STEP_SECONDS
from postel.demo_signals import NODE, Signals
from postel.demo_traffic import Moment, moments
from postel.otlp.client import sender_of
from postel.otlp.errors import Refused, Retryable
from postel.settings import Otlp, Settings
from postel.signals import load_all

# What is sent of the day so far: this much in full and with its events, what was before at these steps and without. An
# hour is what pages begin with, and the alert rule that compares counters with events looks back for 70 minutes.
DETAIL = timedelta(minutes=80)
COARSE = timedelta(minutes=5)
# Moments in one request while the past is sent; most of them are left out.
_TOGETHER = 80
_STEP = timedelta(seconds=STEP_SECONDS)
_RETRY_SECONDS = 1.0
# Longer than a step, so that a demo that still runs is found.
_QUIET_SECONDS = STEP_SECONDS + 5

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


async def remove(settings: Settings) -> int:
    """Delete everything that carries the mark, also what comes while it is deleted, and say how much that was.

    Returns:
        The exit code: 1 where data of a demo still comes.
    """
    from timescale_sink.store import commands  # noqa: PLC0415 - sending needs no database driver

    removed = await commands.remove_demo(
        settings,
        quiet_seconds=_QUIET_SECONDS,
        under_way=lambda: click.echo(f"waiting {_QUIET_SECONDS} s for what is still under way"),
    )
    for table, rows in removed.rows.items():
        click.echo(f"{table}: {rows} rows deleted")
    if removed.goes_on:
        click.echo("data of a demo still comes: stop it, and remove again")
    return int(removed.goes_on)


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
    signals = Signals(load_all())
    now = datetime.now(UTC)
    _log.info("sending the demo platform's day so far", node=NODE.id, endpoint=door.endpoint)
    await door.send(signals.registration())
    coming = _since(signals, _begin(now))
    together: list[Batch] = []
    for number, moment in enumerate(coming):
        together += _of_the_past(signals, moment, now)
        if moment.time + _STEP > now:
            break
        if not number % _TOGETHER:
            await door.send(*together)
            together = []
            # Where there was nothing to send a signal has its turn all the same.
            await asyncio.sleep(0)
    await door.send(*together)
    _log.info("the demo platform's day so far is sent; it goes on live", every_seconds=STEP_SECONDS)
    for moment in coming:
        await asyncio.sleep(max(0.0, moment.time.timestamp() - time.time()))
        await door.send(*signals.batches(moment))


def past(signals: Signals, now: datetime) -> Iterator[Batch]:
    """What is sent of the day so far, in order."""
    for moment in takewhile(lambda moment: moment.time <= now, _since(signals, _begin(now))):
        yield from _of_the_past(signals, moment, now)


def _begin(now: datetime) -> datetime:
    # A midnight, where the counters start: a first point later in the day would count all that went before it.
    return (now - DETAIL).replace(hour=0, minute=0, second=0, microsecond=0)


def _of_the_past(signals: Signals, moment: Moment, now: datetime) -> Iterator[Batch]:
    if moment.time >= now - DETAIL:
        yield from signals.batches(moment)
    elif not (moment.time - _begin(now)) % COARSE:
        yield from signals.batches(moment, events=False)


def _since(signals: Signals, begin: datetime) -> Iterator[Moment]:
    """Moments from `begin` on, over midnights without end."""
    day = begin.date()
    while True:
        yield from (moment for moment in moments(day, signals.bounds) if moment.time >= begin)
        day += timedelta(days=1)
