"""Compares a server with a plugin to the same without: by pairs, and what of a difference is sure.

A pair is two servers, begun anew, that carry mail by turns of less than a second, never at once: what else the machine
does falls on both. The servers are new because two processes of the same server differ, for as long as they run, by
some percent of CPU a message. A pair gives one difference; Student's t over the pairs gives the bound that the true one
is below with 95 %.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from testbed.program import Program

from support.node_observer import NodeObserver, cpu_seconds

T_95 = {20: 1.729, 40: 1.685, 80: 1.664}
"""Pairs -> Student's t, one-sided 95 %, for one degree of freedom less."""
WARMING_TURNS = 12
"""Which do not count: until then Node compiles."""
TURNS = 10
TAIL_S = 1.3
"""What a plugin sends and saves of a pair's last message comes within a second."""


class Server(Protocol):
    """What the testbed starts."""

    program: Program

    def stop(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Subject:
    """A server, and what makes it carry so many messages and returns when all are through."""

    server: Server
    carry: Callable[[int], None]


Pair = tuple[Subject, Subject]
"""Without and with the plugin."""


@dataclass(frozen=True)
class Half:
    """What one server of a pair took.

    Args:
        cpu: seconds of CPU of all its processes, for one message.
        delay_p99: of the process whose event loop was the latest, in ms.
        grown: bytes that each process holds more at the end, in the order of their ids.
        rate: messages a second.
    """

    cpu: float
    delay_p99: float
    grown: tuple[int, ...]
    rate: float


@dataclass(frozen=True)
class Bound:
    """A mean over the pairs, and what the true one is below with 95 %."""

    mean: float
    upper: float


@dataclass(frozen=True)
class Cost:
    """What the plugin adds.

    Args:
        plain, watched: without and with it, pair by pair.
    """

    plain: Sequence[Half]
    watched: Sequence[Half]

    @property
    def cpu(self) -> Bound:
        """Of CPU for a message, as a part of what it takes without."""
        base = statistics.mean(half.cpu for half in self.plain)
        return _bound([(with_it.cpu - without.cpu) / base for without, with_it in self._pairs()])

    @property
    def delay(self) -> Bound:
        """Of the 99th percentile of the event loop's delay, in ms."""
        return _bound([with_it.delay_p99 - without.delay_p99 for without, with_it in self._pairs()])

    @property
    def growth(self) -> float:
        """Bytes by which a process grows more with it than the same without, on the average of the pairs."""
        grown = [
            [more - less for less, more in zip(without.grown, with_it.grown, strict=True)]
            for without, with_it in self._pairs()
        ]
        return max(statistics.fmean(of_process) for of_process in zip(*grown, strict=True))

    def row(self, what: str) -> str:
        """A line of the table under `HEADER`."""
        base = statistics.mean(half.cpu for half in self.plain)
        late = statistics.mean(half.delay_p99 for half in self.plain)
        rate = statistics.mean(half.rate for half in (*self.plain, *self.watched))
        return (
            f"{what:24} {rate:8.1f} {1000 * base:10.2f} {self.cpu.mean:+8.2%} {self.cpu.upper:+8.2%}"
            f" {late:9.2f} {self.delay.mean:+8.2f} {self.delay.upper:+8.2f} {self.growth / 2**20:+8.2f}"
        )

    def _pairs(self) -> list[tuple[Half, Half]]:
        return list(zip(self.plain, self.watched, strict=True))


HEADER = (
    f"{'':24} {'':8} {'CPU':>10} {'extra':>8} {'bound':>8} {'loop p99':>9} {'extra':>8} {'bound':>8} {'growth':>8}\n"
    f"{'server, receiver':24} {'msg/s':>8} {'ms/msg':>10} {'':8} {'':8} {'ms':>9} {'ms':>8} {'ms':>8} {'MiB':>8}"
)


def compare(start: Callable[[], Pair], observer: NodeObserver, *, pairs: int, messages: int, abreast: int) -> Cost:
    """Measure so many pairs.

    Args:
        start: a pair.
        observer: in whose environment they start.
        pairs: a key of `T_95`.
        messages: in a turn.
        abreast: so many pairs are there at a time; of all their servers one carries mail.
    """
    halves: list[tuple[Half, Half]] = []
    while len(halves) < pairs:
        under_way = [start() for _ in range(min(abreast, pairs - len(halves)))]
        halves += _measure(under_way, observer, messages)
        for subject in chain.from_iterable(under_way):
            subject.server.stop()
    return Cost([without for without, _ in halves], [with_it for _, with_it in halves])


def _measure(pairs: Sequence[Pair], observer: NodeObserver, messages: int) -> list[tuple[Half, Half]]:
    subjects = list(chain.from_iterable(pairs))
    for _ in range(WARMING_TURNS):
        for subject in subjects:
            subject.carry(messages)
    time.sleep(TAIL_S)
    pids = [sorted(subject.server.program.pids()) for subject in subjects]
    before = observer.observe(chain.from_iterable(pids))
    used = [cpu_seconds(each) for each in pids]
    taken = [0.0] * len(subjects)
    for turn in range(TURNS):
        # The first one of a turn and the order change.
        order = range(len(subjects)) if turn % 2 else range(len(subjects) - 1, -1, -1)
        for which in order:
            with observer.looking(pids[which]):
                begun = time.monotonic()
                subjects[which].carry(messages)
                taken[which] += time.monotonic() - begun
    time.sleep(TAIL_S)
    used = [cpu_seconds(each) - earlier for each, earlier in zip(pids, used, strict=True)]
    after = observer.observe(chain.from_iterable(pids))
    halves = [
        Half(
            cpu=cpu / (TURNS * messages),
            delay_p99=max(after[pid].delay_p99 for pid in each),
            grown=tuple(after[pid].held - before[pid].held for pid in each),
            rate=TURNS * messages / seconds,
        )
        for each, cpu, seconds in zip(pids, used, taken, strict=True)
    ]
    return list(zip(halves[::2], halves[1::2], strict=True))


def _bound(differences: Sequence[float]) -> Bound:
    mean = statistics.mean(differences)
    return Bound(mean, mean + T_95[len(differences)] * statistics.stdev(differences) / math.sqrt(len(differences)))
