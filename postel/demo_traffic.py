"""A mail platform that does not exist, for `postel demo`: what its Zone-MTA and its host would say of themselves.

Pure and repeatable: a moment of a day always gives the same figures, so that a demo that is stopped and started
again continues its counters and sends nothing that contradicts what it sent before. The counters begin anew at
midnight UTC, as if the platform were restarted every night.

The mail: a day with two humps of personal mail, two newsletters that the sender cannot send at once, retries of what
was deferred, and half an hour in which a large destination defers most of what it is offered.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

STEP_SECONDS = 15
_DAY_SECONDS = 86_400
_STEPS = _DAY_SECONDS // STEP_SECONDS
# A deferred recipient is tried again after about this many steps (Zone-MTA's first retries are 5 to 20 minutes apart).
_RETRY_STEPS = (20, 80)
_ATTEMPTS_BEFORE_BOUNCE = 6
_MEAN_MESSAGE_BYTES = 38_000


@dataclass(frozen=True, slots=True)
class Moment:
    """What a scrape at ``time`` would give; counters count since midnight UTC.

    Attributes:
        attempts: (zone, outcome) -> recipients, cumulative.
        received: messages that arrived by SMTP, cumulative.
        bounces: bounce messages written, cumulative.
        cpu: percent busy.
        memory: bytes used.
        disk: bytes used of the fullest filesystem.
        network_in: bytes, cumulative.
        network_out: bytes, cumulative.
    """

    time: datetime
    queued: int
    deferred: int
    attempts: Mapping[tuple[str, str], int]
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


@dataclass
class _Zone:
    """One sending zone: what waits, and how its destinations answer."""

    name: str
    capacity: int
    queued: int = 0
    retries: deque[tuple[int, int, int]] = field(default_factory=deque)  # (due step, recipients, attempts so far)

    @property
    def deferred(self) -> int:
        return sum(recipients for _, recipients, _ in self.retries)


class _Platform:
    def __init__(self, day: date) -> None:
        self._chance = random.Random(f"postel demo {day.isoformat()}")  # noqa: S311 - repeatable by design
        self._zones = [_Zone("default", 60), _Zone("bulk", 150), _Zone("bounces", 20)]
        self._trouble = self._chance.randrange(_STEPS * 9 // 24, _STEPS * 18 // 24)
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.received = 0
        self.bounces = 0
        self.sent_bytes = 0
        self.received_bytes = 0

    @property
    def queued(self) -> int:
        return sum(zone.queued for zone in self._zones)

    @property
    def deferred(self) -> int:
        return sum(zone.deferred for zone in self._zones)

    def step(self, step: int) -> int:
        """Advance by one step; returns the attempts made in it."""
        hour = step * STEP_SECONDS / 3600
        arrivals = {
            "default": 3 + 9 * _hump(hour, 10, 2.5) + 7 * _hump(hour, 15, 2.5),
            "bulk": 260 * _newsletter(hour, 9.0, 0.4) + 180 * _newsletter(hour, 14.5, 0.5),
        }
        made = 0
        bounces = 0
        for zone in self._zones:
            new = self._poisson(arrivals.get(zone.name, 0.0))
            self.received += new
            self.received_bytes += new * _MEAN_MESSAGE_BYTES
            zone.queued += new
            attempted, rejected = self._deliver(zone, step)
            made += attempted
            bounces += rejected if zone.name != "bounces" else 0
        self.bounces += bounces
        self._zones[-1].queued += bounces
        return made

    def _deliver(self, zone: _Zone, step: int) -> tuple[int, int]:
        first = min(zone.queued, zone.capacity)
        zone.queued -= first
        work = [(first, 0)]
        waiting: deque[tuple[int, int, int]] = deque()
        room = zone.capacity - first
        for due, recipients, tries in zone.retries:
            if due <= step and recipients <= room:
                work.append((recipients, tries))
                room -= recipients
            else:
                waiting.append((due, recipients, tries))
        zone.retries = waiting
        attempted = rejected = 0
        for recipients, tries in work:
            deferred = self._binomial(recipients, self._deferral(zone.name, step, tries))
            refused = self._binomial(recipients - deferred, 0.015)
            if tries + 1 >= _ATTEMPTS_BEFORE_BOUNCE:
                refused, deferred = refused + deferred, 0
            delivered = recipients - deferred - refused
            for outcome, count in (("delivered", delivered), ("rejected", refused), ("deferred", deferred)):
                self.attempts[zone.name, outcome] += count
            if deferred:
                zone.retries.append((step + self._chance.randint(*_RETRY_STEPS), deferred, tries + 1))
            attempted += recipients
            rejected += refused
            self.sent_bytes += delivered * _MEAN_MESSAGE_BYTES
        return attempted, rejected

    def _deferral(self, zone: str, step: int, tries: int) -> float:
        if zone == "bounces":
            return 0.02
        trouble = self._trouble <= step < self._trouble + 1800 // STEP_SECONDS
        return 0.62 if trouble else (0.04 if tries == 0 else 0.25)

    def _poisson(self, mean: float) -> int:
        # The normal approximation is near enough for a demo and takes one draw.
        return max(0, round(self._chance.gauss(mean, math.sqrt(mean)))) if mean > 0 else 0

    def _binomial(self, count: int, share: float) -> int:
        if count == 0:
            return 0
        mean = count * share
        return min(count, max(0, round(self._chance.gauss(mean, math.sqrt(mean * (1 - share))))))

    def jitter(self, spread: float) -> float:
        """A draw for what merely wobbles."""
        return self._chance.uniform(-spread, spread)


def moments(day: date) -> Iterator[Moment]:
    """Every moment of a day (UTC), `STEP_SECONDS` apart, from midnight on."""
    platform = _Platform(day)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    load = 0.4
    for step in range(_STEPS):
        made = platform.step(step)
        busy = min(97.0, 4 + made * 0.28 + platform.jitter(2))
        load += (busy / 100 * 4 - load) * STEP_SECONDS / 60
        yield Moment(
            time=datetime.fromtimestamp(midnight + step * STEP_SECONDS, UTC),
            queued=platform.queued,
            deferred=platform.deferred,
            attempts=dict(platform.attempts),
            received=platform.received,
            bounces=platform.bounces,
            connections=min(40, made // 4),
            cpu=round(busy, 2),
            load=round(load, 2),
            memory=int(3.1e9 + platform.deferred * 2e5 + platform.jitter(2e7)),
            disk=int(
                41e9 + platform.received_bytes * 0.02 + (platform.queued + platform.deferred) * _MEAN_MESSAGE_BYTES
            ),
            processes=164 + made // 40,
            network_in=platform.received_bytes * 12 // 10 + step * 9_000,
            network_out=platform.sent_bytes * 11 // 10 + step * 12_000,
        )


def _hump(hour: float, middle: float, width: float) -> float:
    return math.exp(-(((hour - middle) / width) ** 2))


def _newsletter(hour: float, begin: float, length: float) -> float:
    return 1.0 if begin <= hour < begin + length else 0.0
