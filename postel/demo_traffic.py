"""A mail platform that does not exist, for `postel demo`: what its servers and its host would say of themselves.

Pure and repeatable: a moment of a day always gives the same figures and events, so that a demo that is stopped and
started again continues its counters and sends nothing that contradicts what it sent before. The counters begin anew at
midnight UTC, as if the platform were restarted every night, with an empty queue.

The mail that goes out: a day with two humps of personal mail, two newsletters that the sender cannot send at once,
retries of what was deferred, and half an hour in which a large destination defers most of what it is offered. What
comes in is :mod:`postel.demo_inbound`.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Literal, NamedTuple

from postel.demo_inbound import Inbound, InboundMoment
from postel.demo_shapes import STEP_SECONDS, STEPS, hump, poisson

Outcome = Literal["delivered", "rejected", "deferred"]

# A deferred recipient is tried again after about this many steps (Zone-MTA's first retries are 5 to 20 minutes apart).
_RETRY_STEPS = (20, 80)
_ATTEMPTS_BEFORE_BOUNCE = 6
_MEAN_MESSAGE_BYTES = 38_000
# Where the mail goes, and how much of it; the first is the one that has its trouble.
LARGE = "bigmail.test"
_DESTINATIONS = {LARGE: 50, "mailbox.test": 22, "office.test": 14, "campus.test": 9, "shop.test": 5}
HERE = "demo.test"


class Recipient(NamedTuple):
    """A message on its way out, which has one recipient; ``step``: when it was taken into the queue."""

    number: int
    domain: str
    step: int


class Attempt(NamedTuple):
    """A delivery attempt that ended; ``duration`` in seconds."""

    zone: str
    recipient: Recipient
    number: int
    outcome: Outcome
    duration: float


@dataclass(slots=True)
class Durations:
    """A cumulative histogram, seconds."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    lowest: float = math.inf
    highest: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)

    def copy(self) -> Durations:
        """As it is now."""
        return Durations(self.bounds, [*self.counts], self.total, self.lowest, self.highest)


class Waiting(NamedTuple):
    """What waits in a zone, and since how many seconds the oldest does."""

    queued: int
    deferred: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Moment:
    """What a scrape at ``time`` would give, and what happened in the step before it; counters count since midnight UTC.

    Attributes:
        attempts: (zone, outcome) -> recipients, cumulative.
        waiting: zone -> what waits in it.
        in_queue: (zone, outcome) -> how long those were in the queue who were delivered or given up, cumulative.
        received: messages that arrived by SMTP, cumulative.
        bounces: bounce messages written, cumulative.
        cpu: percent busy.
        memory: bytes used.
        disk: bytes used of the fullest filesystem.
        network_in: bytes, cumulative.
        network_out: bytes, cumulative.
        inbound: what came in, and the mailboxes that it went to.
        taken: (zone, message) that was taken into the queue in this step.
        made: the attempts of this step.
        ended: what still waits at midnight, when the queue is emptied.
    """

    time: datetime
    attempts: Mapping[tuple[str, str], int]
    waiting: Mapping[str, Waiting]
    in_queue: Mapping[tuple[str, str], Durations]
    received: int
    bounces: int
    connections: int
    cpu: float
    load: float
    memory: int
    disk: int
    processes: int
    network_in: int
    network_out: int
    inbound: InboundMoment
    taken: Sequence[tuple[str, Recipient]]
    made: Sequence[Attempt]
    ended: Sequence[Recipient]

    @property
    def queued(self) -> int:
        """Recipients that wait for their first attempt."""
        return sum(zone.queued for zone in self.waiting.values())

    @property
    def deferred(self) -> int:
        """Recipients that wait for a further one."""
        return sum(zone.deferred for zone in self.waiting.values())


class _Retry(NamedTuple):
    """Recipients that are due together, and the attempts that were made to them."""

    due: int
    recipients: list[Recipient]
    tries: int


@dataclass
class _Zone:
    """One sending zone: what waits, and how its destinations answer."""

    name: str
    capacity: int
    queue: deque[Recipient] = field(default_factory=deque)
    retries: deque[_Retry] = field(default_factory=deque)

    def waiting(self, step: int) -> Waiting:
        since = [min(recipient.step for recipient in retry.recipients) for retry in self.retries]
        if self.queue:
            since.append(self.queue[0].step)
        oldest = (step - min(since)) * float(STEP_SECONDS) if since else 0.0
        return Waiting(len(self.queue), sum(len(retry.recipients) for retry in self.retries), oldest)

    @property
    def recipients(self) -> list[Recipient]:
        return [*self.queue, *(recipient for retry in self.retries for recipient in retry.recipients)]


class _Platform:
    def __init__(self, day: date, bounds: Sequence[float]) -> None:
        self._chance = random.Random(f"postel demo {day.isoformat()}")  # noqa: S311 - repeatable by design
        # Who it is that an outcome befalls; how many they are is drawn from the other.
        self._pick = random.Random(f"postel demo recipients {day.isoformat()}")  # noqa: S311 - as above
        self.zones = [_Zone("default", 60), _Zone("bulk", 150), _Zone("bounces", 20)]
        self._trouble = self._chance.randrange(STEPS * 9 // 24, STEPS * 18 // 24)
        self._bounds = bounds
        self._numbers = 0
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.in_queue: dict[tuple[str, str], Durations] = {}
        self.received = 0
        self.bounces = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.taken: list[tuple[str, Recipient]] = []
        self.made: list[Attempt] = []

    def step(self, step: int) -> None:
        """Advance by one step."""
        hour = step * STEP_SECONDS / 3600
        arrivals = {
            "default": 3 + 9 * hump(hour, 10, 2.5) + 7 * hump(hour, 15, 2.5),
            "bulk": 260 * _newsletter(hour, 9.0, 0.4) + 180 * _newsletter(hour, 14.5, 0.5),
        }
        self.taken, self.made = [], []
        bounces = 0
        for zone in self.zones:
            new = poisson(self._chance, arrivals.get(zone.name, 0.0))
            self.received += new
            self.received_bytes += new * _MEAN_MESSAGE_BYTES
            self._take(zone, step, self._pick.choices([*_DESTINATIONS], [*_DESTINATIONS.values()], k=new))
            rejected = self._deliver(zone, step)
            bounces += rejected if zone.name != "bounces" else 0
        self.bounces += bounces
        self._take(self.zones[-1], step, [HERE] * bounces)

    def _take(self, zone: _Zone, step: int, domains: Sequence[str]) -> None:
        for domain in domains:
            self._numbers += 1
            recipient = Recipient(self._numbers, domain, step)
            zone.queue.append(recipient)
            self.taken.append((zone.name, recipient))

    def _deliver(self, zone: _Zone, step: int) -> int:
        """Make the attempts that are due; how many recipients were given up."""
        first = [zone.queue.popleft() for _ in range(min(len(zone.queue), zone.capacity))]
        work = [_Retry(step, first, 0)]
        waiting: deque[_Retry] = deque()
        room = zone.capacity - len(first)
        for retry in zone.retries:
            if retry.due <= step and len(retry.recipients) <= room:
                work.append(retry)
                room -= len(retry.recipients)
            else:
                waiting.append(retry)
        zone.retries = waiting
        given_up = 0
        for _, recipients, tries in work:
            deferred = self._binomial(len(recipients), self._deferral(zone.name, step, tries))
            refused = self._binomial(len(recipients) - deferred, 0.015)
            if tries + 1 >= _ATTEMPTS_BEFORE_BOUNCE:
                refused, deferred = refused + deferred, 0
            order = self._pick.sample(recipients, len(recipients)) if deferred or refused else recipients
            if self._in_trouble(step):
                order = sorted(order, key=lambda recipient: recipient.domain != LARGE)
            self._end(zone.name, step, tries + 1, "deferred", order[:deferred])
            self._end(zone.name, step, tries + 1, "rejected", order[deferred : deferred + refused])
            delivered = order[deferred + refused :]
            self._end(zone.name, step, tries + 1, "delivered", delivered)
            if deferred:
                due = step + self._chance.randint(*_RETRY_STEPS)
                zone.retries.append(_Retry(due, order[:deferred], tries + 1))
            given_up += refused
            self.sent_bytes += len(delivered) * _MEAN_MESSAGE_BYTES
        return given_up

    def _end(self, zone: str, step: int, number: int, outcome: Outcome, recipients: Sequence[Recipient]) -> None:
        # Also 0: a counter of which nothing was counted yet is told.
        self.attempts[zone, outcome] += len(recipients)
        for recipient in recipients:
            duration = round(0.08 - 0.4 * math.log(1 - self._pick.random()), 3)
            self.made.append(Attempt(zone, recipient, number, outcome, duration))
            if outcome != "deferred":
                times = self.in_queue.setdefault((zone, outcome), Durations(self._bounds))
                times.add((step - recipient.step) * STEP_SECONDS + duration)

    def _in_trouble(self, step: int) -> bool:
        return self._trouble <= step < self._trouble + 1800 // STEP_SECONDS

    def _deferral(self, zone: str, step: int, tries: int) -> float:
        if zone == "bounces":
            return 0.02
        return 0.62 if self._in_trouble(step) else (0.04 if tries == 0 else 0.25)

    def _binomial(self, count: int, share: float) -> int:
        if count == 0:
            return 0
        mean = count * share
        return min(count, max(0, round(self._chance.gauss(mean, math.sqrt(mean * (1 - share))))))

    def jitter(self, spread: float) -> float:
        """A draw for what merely wobbles."""
        return self._chance.uniform(-spread, spread)


def moments(day: date, bounds: Sequence[float] = (1.0, 60.0, 3600.0)) -> Iterator[Moment]:
    """Every moment of a day (UTC), `STEP_SECONDS` apart, from midnight on.

    Args:
        day: which.
        bounds: of the histograms, seconds.
    """
    platform = _Platform(day, bounds)
    inbound = Inbound(day)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    load = 0.4
    for step in range(STEPS):
        platform.step(step)
        made = len(platform.made)
        waiting = {zone.name: zone.waiting(step) for zone in platform.zones}
        queued = sum(zone.queued for zone in waiting.values())
        deferred = sum(zone.deferred for zone in waiting.values())
        busy = min(97.0, 4 + made * 0.28 + platform.jitter(2))
        load += (busy / 100 * 4 - load) * STEP_SECONDS / 60
        yield Moment(
            time=datetime.fromtimestamp(midnight + step * STEP_SECONDS, UTC),
            attempts=dict(platform.attempts),
            waiting=waiting,
            in_queue={key: times.copy() for key, times in platform.in_queue.items()},
            received=platform.received,
            bounces=platform.bounces,
            connections=min(40, made // 4),
            cpu=round(busy, 2),
            load=round(load, 2),
            memory=int(3.1e9 + deferred * 2e5 + platform.jitter(2e7)),
            disk=int(41e9 + platform.received_bytes * 0.02 + (queued + deferred) * _MEAN_MESSAGE_BYTES),
            processes=164 + made // 40,
            network_in=platform.received_bytes * 12 // 10 + step * 9_000,
            network_out=platform.sent_bytes * 11 // 10 + step * 12_000,
            inbound=inbound.step(step),
            taken=platform.taken,
            made=platform.made,
            ended=[one for zone in platform.zones for one in zone.recipients] if step == STEPS - 1 else [],
        )


def _newsletter(hour: float, begin: float, length: float) -> float:
    return 1.0 if begin <= hour < begin + length else 0.0
