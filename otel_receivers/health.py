"""What the agent says of itself: whether each source answered, how long that took, and what waits in the spool."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from otel_receivers.node import Node
from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, Receiver, Target, Tick
from otel_receivers.spool import Spool
from postel.signals import Declaration

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asking:
    """How one asking of a source went.

    Attributes:
        duration: seconds.
        up: the answer was whole.
        errors: the ``error.type`` of the failure, or of each kind of problem in the answer.
    """

    duration: float
    up: bool
    errors: tuple[str, ...]


class Health:
    """Counts how the receivers do, since this agent started."""

    def __init__(self, declaration: Declaration, node: Node) -> None:
        self._declaration = declaration
        self._resource = node.resource(declaration.service)
        self._started = time.time_ns()
        self._errors: Counter[tuple[str, Target | None, str]] = Counter()

    def begin(self, receiver: Receiver, tick: Tick) -> Batch:
        """How often a source will be asked: the points of the moment at which the agent begins to.

        Its first asking may be as far off as that, and until then nothing else is told of it.
        """
        recorder = Recorder(self._declaration, self._resource, tick)
        recorder.number("postel_receiver_interval", receiver.interval, _attributes(receiver))
        return recorder.batch()

    def record(self, receiver: Receiver, tick: Tick, asking: Asking) -> Batch:
        """The points of one asking."""
        recorder = Recorder(self._declaration, self._resource, tick)
        attributes = _attributes(receiver)
        recorder.number("postel_receiver_up", int(asking.up), attributes)
        recorder.number("postel_receiver_interval", receiver.interval, attributes)
        recorder.number("postel_scrape_duration", asking.duration, attributes)
        for error in asking.errors:
            self._errors[receiver.name, receiver.target, error] += 1
        for (name, target, error), count in self._errors.items():
            if (name, target) == (receiver.name, receiver.target):
                recorder.number(
                    "postel_scrape_errors",
                    count,
                    {**attributes, "error.type": error},
                    # Counted from nothing by this process; a tick at or before its start would count nothing.
                    start_unix_nano=min(self._started, tick.time_unix_nano - 1_000_000),
                )
        return recorder.batch()


class SpoolReceiver:
    """The spool as a source; a :class:`~otel_receivers.receiver.Receiver`."""

    def __init__(self, declaration: Declaration, node: Node, spool: Spool, *, interval: int) -> None:
        self.name = declaration.type
        self.interval = interval
        self.target: Target | None = None
        self._declaration = declaration
        self._resource = node.resource(declaration.service)
        self._spool = spool
        self._dropped = dict(spool.dropped)
        self._losing: set[str] = set()

    async def collect(self, tick: Tick) -> Batch:
        """Size and losses of the spool."""
        recorder = Recorder(self._declaration, self._resource, tick)
        recorder.number("postel_spool_size", self._spool.size)
        reasons = self._declaration.attributes["postel.spool.drop.reason"].enum
        dropped = self._spool.dropped
        self._say(dropped)
        for reason in reasons:
            recorder.number(
                "postel_spool_dropped_requests",
                dropped.get(reason, 0),
                {"postel.spool.drop.reason": reason},
                start_unix_nano=min(self._spool.created, tick.time_unix_nano - 1_000_000),
            )
        return recorder.batch()

    async def close(self) -> None:
        """Nothing to let go of."""

    def _say(self, dropped: Mapping[str, int]) -> None:
        """One line when data begins to be lost, not one a tick."""
        lost = {reason: number - self._dropped.get(reason, 0) for reason, number in dropped.items()}
        losing = {reason for reason, number in lost.items() if number > 0}
        for reason in losing - self._losing:
            _log.error("data left the spool unsent", reason=reason, requests=lost[reason])
        self._dropped, self._losing = dict(dropped), losing


def _attributes(receiver: Receiver) -> dict[str, str | int]:
    # Which of several it is, its address says.
    attributes: dict[str, str | int] = {"postel.receiver.name": receiver.name.partition("@")[0]}
    if receiver.target is not None:
        attributes |= {"server.address": receiver.target.host, "server.port": receiver.target.port}
    return attributes
