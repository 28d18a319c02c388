"""Asks a Zone-MTA how deep each zone's queue is, and how old its oldest; HTTP is in ``rest``, meaning in ``answers``.

A receiver of its own: where the queue is so long that counting it takes its time, the scrape of the page goes on.
Two kinds of questions, each kept to a share of the time (:class:`~otel_receivers.zone_mta.rest.Share`):

* the counts of all zones, one answer, recorded at the tick that asked for it;
* the oldest message of each zone and state that was counted above 0, one answer each. They are recorded at the tick at
  which all of them are there, so that a long row of zones, or slow answers, go over several ticks and half a reading is
  never told. No list is paged through: each answer is one recipient.

A recipient that is put off between the questions after the two states of its zone is seen in neither, for this once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from opentelemetry.sdk.resources import Resource

from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, ScrapeError, Target, Tick
from otel_receivers.zone_mta import answers
from otel_receivers.zone_mta.answers import Depths
from otel_receivers.zone_mta.rest import Rest, Share, can_be_asked_for
from postel.signals import Declaration

# Of the interval: how long the counts are waited for; within what part of it other questions begin, and how long each
# of those is waited for. A tick takes less than what the agent gives it.
_COUNTS_SHARE = 0.8
_WORK_SHARE = 0.35
_ANSWER_SHARE = 0.5
# Ages that took longer to find out, seconds, are not of one time.
_READING_SECONDS = 900.0
_ONE_OLDEST = {"pageSize": "1", "sort": "created", "order": "asc"}


class ZoneMtaQueueReceiver:
    """The zones of one Zone-MTA's queue; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declaration: of ``zone_mta``.
        resource: who it is.
        interval: seconds.
        target: where its API listens.
        name: of the receiver; None: the source's and what it asks for.
        counting: the share of the time that counting may take.
        looking: the share that looking for the oldest may take.
        now: seconds since 1970.
    """

    def __init__(
        self,
        declaration: Declaration,
        resource: Resource,
        *,
        interval: int,
        target: Target,
        name: str | None = None,
        counting: Share | None = None,
        looking: Share | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name or f"{declaration.type}_queue"
        self.interval = interval
        self.target: Target | None = target
        self._declaration = declaration
        self._resource = resource
        self._rest = Rest(target)
        self._counting = counting or Share()
        self._looking = looking or Share()
        self._now = now
        self._failure: ScrapeError | None = None
        self._reading: _Reading | None = None

    async def collect(self, tick: Tick) -> Batch:
        """Ask for what is due; see :class:`~otel_receivers.receiver.Receiver`."""
        deadline = time.monotonic() + self.interval * _WORK_SHARE
        recorder = Recorder(self._declaration, self._resource, tick)
        if (depths := await self._count()) is not None:
            _record_depths(depths, recorder)
            self._reading = self._reading or _Reading(depths)
        if self._reading is not None:
            try:
                await self._read_on(self._reading, deadline)
            except ScrapeError as error:
                # The counts stand by themselves; the next tick begins to look anew.
                self._reading = None
                recorder.problem(error.error_type, str(error))
            else:
                self._record_ages(self._reading, recorder)
        return recorder.batch()

    async def close(self) -> None:
        """Close the connection."""
        await self._rest.close()

    async def _count(self) -> Depths | None:
        """None where it is too early for the next answer.

        Raises:
            ScrapeError: no whole answer, now or when it was asked for last.
        """
        if self._counting.wait() > 0:
            if self._failure is not None:
                # Anew each time: an exception that is raised again and again holds on to more frames with each.
                raise ScrapeError(self._failure.error_type, str(self._failure))
            return None
        self._failure = None
        began = time.monotonic()
        try:
            return await self._rest.ask(answers.depths, "counter", "zone", "", timeout=self.interval * _COUNTS_SHARE)
        except ScrapeError as error:
            self._failure, self._reading = error, None
            raise
        finally:
            self._counting.spend(time.monotonic() - began)

    async def _read_on(self, reading: _Reading, deadline: float) -> None:
        if time.monotonic() - reading.began > _READING_SECONDS:
            place = f"http://{self.target}/queued"
            raise ScrapeError("timeout", f"{place}: the oldest messages were not found within {_READING_SECONDS:g} s")
        while reading.left and time.monotonic() + self._looking.wait() < deadline:
            await asyncio.sleep(self._looking.wait())
            zone, state = reading.left[0]
            began = time.monotonic()
            try:
                created = await self._rest.ask(
                    partial(answers.oldest, zone=zone, state=state),
                    *("queued", state, zone),
                    query=_ONE_OLDEST,
                    timeout=self.interval * _ANSWER_SHARE,
                )
            finally:
                self._looking.spend(time.monotonic() - began)
            reading.left.popleft()
            if created is not None:
                reading.oldest[zone] = min(created, reading.oldest.get(zone, created))

    def _record_ages(self, reading: _Reading, recorder: Recorder) -> None:
        if reading.left:
            return
        self._reading = None
        now = self._now()
        ages = {zone: max(0.0, now - reading.oldest[zone]) if zone in reading.oldest else 0.0 for zone in reading.zones}
        for zone, age in ages.items():
            recorder.number("zonemta_queue_oldest_message_age", age, {"zonemta.zone": zone})
        if reading.complete:
            recorder.number("zonemta_queue_oldest_message_age", max(ages.values(), default=0.0))


class _Reading:
    """Looking for the oldest message of each zone: which questions are left, and what was found."""

    def __init__(self, depths: Depths) -> None:
        self.began = time.monotonic()
        asked = [depth for depth in depths.zones if can_be_asked_for(depth.zone)]
        self.zones = tuple(depth.zone for depth in asked)
        self.complete = not depths.nameless and len(asked) == len(depths.zones)
        self.left = deque((depth.zone, state) for depth in asked for state in depth.states())
        self.oldest: dict[str, float] = {}


def _record_depths(depths: Depths, recorder: Recorder) -> None:
    for depth in depths.zones:
        for state, count in ((answers.QUEUED, depth.queued), (answers.DEFERRED, depth.deferred)):
            recorder.number(
                "zonemta_queue_message_count", count, {"zonemta.queue.state": state, "zonemta.zone": depth.zone}
            )
    if depths.nameless:
        recorder.problem("undeclared_value", f"{depths.nameless} recipients wait in a zone that has no name")
