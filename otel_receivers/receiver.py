"""What the agent and its sources agree on: a receiver is asked once a tick and answers with one batch.

A receiver never schedules, sends or stores; the agent does. Each source's folder builds its own from a
:class:`~otel_receivers.building.Context` (:mod:`otel_receivers.registry` knows which there are); the agent closes them
at the end. The starts of their counters come from the context's :class:`~otel_receivers.epochs.Epochs`, which the agent
stores together with the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.sdk.metrics.export import ResourceMetrics

from postel.errors import PostelError


@dataclass(frozen=True, slots=True)
class Tick:
    """One scheduled asking; ``time_unix_nano`` is a multiple of the interval and the time of every point of it."""

    time_unix_nano: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where a source listens: a host name or address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def target_of(address: str) -> Target:
    """The target of a setting's ``host:port``, ``[address]:port`` for IPv6."""
    host, _, port = address.rpartition(":")
    return Target(host.removeprefix("[").removesuffix("]"), int(port))


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of an answer that was left out: ``error_type`` for the counter, ``message`` for the log."""

    error_type: str
    message: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one tick of one source gave.

    Attributes:
        metrics: SDK data, encoded by the exporter end; equal resources may repeat.
        events: OTLP log records, grouped.
        problems: parts that could not be understood and were left out; the rest stands.
        state: what the receiver wants to find again after a restart, under keys that begin with its name; stored in
            the transaction that stores the rest.
    """

    metrics: Sequence[ResourceMetrics] = ()
    events: Sequence[ResourceLogs] = ()
    problems: Sequence[Problem] = ()
    state: Mapping[str, str] = field(default_factory=dict)


class ScrapeError(PostelError):
    """A source gave no whole answer; nothing of this tick is used.

    Args:
        error_type: a word of few values for the attribute ``error.type``: ``timeout``, ``500``, ``incomplete``.
        message: one line for the log.
    """

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class Receiver(Protocol):
    """One source. The agent runs each in a task of its own."""

    @property
    def name(self) -> str:
        """The declaration's ``type``, or that and what it asks for: ``system``, ``zone_mta``, ``wildduck_metrics``.

        No two receivers of an agent have the same: where it asks several of one source, ``@`` and which follow.
        """

    @property
    def interval(self) -> int:
        """Seconds from one tick to the next."""

    @property
    def target(self) -> Target | None:
        """Who is asked; None for the host itself."""

    async def collect(self, tick: Tick) -> Batch:
        """Ask the source once. Must not hold up the event loop; the agent ends it after its timeout.

        Raises:
            ScrapeError: no whole answer. Any other exception is counted under its class name.
        """

    async def close(self) -> None:
        """Let go of connections and files; called once, also after a failed collect."""
