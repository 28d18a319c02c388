"""What a source's folder is given to build its receivers of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_receivers.discovery import Place
from otel_receivers.epochs import Epochs
from otel_receivers.node import Node
from otel_receivers.receiver import Receiver, Target
from postel.otlp.answers import Ingest, Outcome
from postel.otlp.errors import Retryable
from postel.otlp.signal import ExportRequest, Signal
from postel.settings import Discovery, Settings
from postel.signals import Declarations

if TYPE_CHECKING:
    from starlette.routing import Route


def nowhere(source: str) -> Target | None:
    """Tells of no source."""
    del source
    return None


def none_of(source: str) -> Sequence[Target]:
    """Tells of no source, as :func:`nowhere`."""
    del source
    return ()


async def not_now(signal: Signal, request: ExportRequest, encoded: bytes | None = None, /) -> Outcome:
    """Takes nothing."""
    del signal, request, encoded
    raise Retryable(reason="nothing is taken here")


@dataclass(frozen=True)
class Context:
    """The agent, as far as receivers are concerned.

    Attributes:
        settings: of the agent.
        declarations: of all sources.
        node: who asks.
        epochs: of all counters of the agent.
        state: what receivers stored (:attr:`~otel_receivers.receiver.Batch.state`) when the agent last ran.
        where: the target of another source, by its name, as it is known at the time of the call; None where it is not.
        all_of: all targets of a source, likewise.
        which: tells the one to build receivers for from others of its source; '' for the first.
        ingest: takes events as the intake takes those of plugins: safe once it returns.
    """

    settings: Settings
    declarations: Declarations
    node: Node
    epochs: Epochs
    state: Mapping[str, str] = field(default_factory=dict)
    where: Callable[[str], Target | None] = nowhere
    all_of: Callable[[str], Sequence[Target]] = none_of
    which: str = ""
    ingest: Ingest = not_now

    def name(self, name: str) -> str:
        """A receiver's name that no receiver of another one of its source has."""
        return f"{name}@{self.which}" if self.which else name


# Given where a source was found: the receivers that ask it. The agent closes them.
Build = Callable[[Context, Target], Sequence[Receiver]]

# The receivers that a source has wherever the agent runs.
BuildStanding = Callable[[Context], Sequence[Receiver]]


@dataclass(frozen=True)
class Entry:
    """Whom the intake lets in.

    Attributes:
        token: what a request must carry; None: nothing.
        loopback_only: whether it must be for a name of loopback, since nothing else keeps out what a page in a browser
            of this host sends: there is no token, and no TLS, which nobody has with a name that was made to point here.
    """

    token: str | None = None
    loopback_only: bool = True


# What is answered at the intake's address beside OTLP.
Door = Callable[[Entry], Sequence["Route"]]
BuildDoor = Callable[[Context], Door]


@dataclass(frozen=True)
class Source:
    """What a source's folder brings: ``SOURCE`` of its ``source.py``, which :mod:`otel_receivers.registry` finds.

    Attributes:
        places: where it is looked for.
        builds: the name of a place -> the receivers of what is found there.
        doors: what it answers at the intake's address.
        standing: the receivers that it has whatever is found.
    """

    places: Callable[[Discovery], Sequence[Place]]
    builds: Mapping[str, Build]
    doors: Sequence[BuildDoor] = ()
    standing: Sequence[BuildStanding] = ()
