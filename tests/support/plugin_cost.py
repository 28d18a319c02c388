"""Compares a server with a plugin to the same without: turns by pairs, and what of a difference is sure.

Two servers run side by side and carry mail by turns, never at once, the first of a pair changing: what else the machine
does falls on both. A pair gives one difference; Student's t over the pairs gives the bound that the true one is below
with 95 %.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from testbed.program import Program

from support.node_observer import NodeObserver, cpu_seconds

PAIRS = 20
T_95 = 1.729
"""Student's t for 19 degrees of freedom, one-sided 95 %."""
TAIL_S = 1.3
"""What a plugin sends and saves of a turn's last message comes within a second."""


class Server(Protocol):
    """What the testbed starts."""

    program: Program


@dataclass(frozen=True)
class Subject:
    """A server, and what makes it carry so many messages and returns when all are through."""

    server: Server
    carry: Callable[[int], None]


@dataclass(frozen=True)
class Turn:
    """One turn of one server.

    Args:
        cpu: seconds of CPU of all its processes, for one message.
        delay_p99: of the process whose event loop was the latest, in ms.
        held: bytes of memory that each process holds after it, in the order of their ids.
        rate: messages a second.
    """

    cpu: float
    delay_p99: float
    held: tuple[int, ...]
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
        plain, watched: the turns without and with it, pair by pair.
    """

    plain: Sequence[Turn]
    watched: Sequence[Turn]

    @property
    def cpu(self) -> Bound:
        """Of CPU for a message, as a part of what it takes without."""
        return _bound([with_it.cpu / without.cpu - 1 for without, with_it in self._pairs()])

    @property
    def delay(self) -> Bound:
        """Of the 99th percentile of the event loop's delay, in ms."""
        return _bound([with_it.delay_p99 - without.delay_p99 for without, with_it in self._pairs()])

    @property
    def growth(self) -> float:
        """Bytes by which a process grew more with it than the same without, from the first third to the last."""
        return max(
            with_it - without for without, with_it in zip(_growth(self.plain), _growth(self.watched), strict=True)
        )

    def row(self, what: str) -> str:
        """A line of the table under `HEADER`."""
        base = statistics.mean(turn.cpu for turn in self.plain)
        late = statistics.mean(turn.delay_p99 for turn in self.plain)
        rate = statistics.mean(turn.rate for turn in (*self.plain, *self.watched))
        return (
            f"{what:24} {rate:8.1f} {1000 * base:10.2f} {self.cpu.mean:+8.2%} {self.cpu.upper:+8.2%}"
            f" {late:9.2f} {self.delay.mean:+8.2f} {self.delay.upper:+8.2f} {self.growth / 2**20:+8.2f}"
        )

    def _pairs(self) -> list[tuple[Turn, Turn]]:
        return list(zip(self.plain, self.watched, strict=True))


HEADER = (
    f"{'':24} {'':8} {'CPU':>10} {'extra':>8} {'bound':>8} {'loop p99':>9} {'extra':>8} {'bound':>8} {'growth':>8}\n"
    f"{'server, receiver':24} {'msg/s':>8} {'ms/msg':>10} {'':8} {'':8} {'ms':>9} {'ms':>8} {'ms':>8} {'MiB':>8}"
)


def compare(plain: Subject, watched: Subject, observer: NodeObserver, *, messages: int, pairs: int = PAIRS) -> Cost:
    """Let both carry so many messages in each of so many pairs of turns, after one turn each that does not count."""
    for subject in (plain, watched):
        _turn(subject, observer, messages)
    without, with_it = [], []
    for number in range(pairs):
        # By turns, who is second finds the machine as the other one left it.
        if number % 2:
            without.append(_turn(plain, observer, messages))
            with_it.append(_turn(watched, observer, messages))
        else:
            with_it.append(_turn(watched, observer, messages))
            without.append(_turn(plain, observer, messages))
    return Cost(without, with_it)


def _turn(subject: Subject, observer: NodeObserver, messages: int) -> Turn:
    pids = sorted(subject.server.program.pids())
    observer.observe(pids)
    used, begun = cpu_seconds(pids), time.monotonic()
    subject.carry(messages)
    taken = time.monotonic() - begun
    time.sleep(TAIL_S)
    used = cpu_seconds(pids) - used
    seen = observer.observe(pids)
    return Turn(
        cpu=used / messages,
        delay_p99=max(each.delay_p99 for each in seen.values()),
        held=tuple(seen[pid].held for pid in pids),
        rate=messages / taken,
    )


def _bound(differences: Sequence[float]) -> Bound:
    mean = statistics.mean(differences)
    return Bound(mean, mean + T_95 * statistics.stdev(differences) / math.sqrt(len(differences)))


def _growth(turns: Sequence[Turn]) -> list[float]:
    """Bytes that each process held more in the last third of the turns than in the first, on the average."""
    third = max(len(turns) // 3, 1)
    return [
        statistics.mean(held[-third:]) - statistics.mean(held[:third])
        for held in zip(*(turn.held for turn in turns), strict=True)
    ]
