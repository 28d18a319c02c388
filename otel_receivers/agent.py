"""The agent: each source in a task of its own, what they give into the spool, the spool to the OTLP receiver.

A tick's points, its health and the epochs of its counters are stored in one transaction. A source that hangs, fails
or answers nonsense costs its own points only.
"""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog

from otel_receivers import derived_receiver, exporter, heartbeats, printing
from otel_receivers.building import Context, Door, not_now, nowhere
from otel_receivers.derived_receiver import DerivedReceiver
from otel_receivers.discovery import Finding, look_everywhere, source_and_which
from otel_receivers.epochs import Epochs
from otel_receivers.health import Asking, Health, SpoolReceiver
from otel_receivers.heartbeats import Heartbeats
from otel_receivers.intake import Intake, serving
from otel_receivers.memory import collector_paused
from otel_receivers.node import Node, identify
from otel_receivers.privacy import Privacy
from otel_receivers.receiver import Batch, Receiver, ScrapeError, Target, Tick
from otel_receivers.registry import DOORS, SOURCES, STANDING, places
from otel_receivers.schedule import ticks
from otel_receivers.sender import SpoolSender
from otel_receivers.sources import BOOT_ID, SourceWatch
from otel_receivers.spool import Spool
from otel_receivers.spool_requests import Request
from postel.otlp import json_mapping
from postel.otlp.answers import Ingest
from postel.otlp.client import sender_of
from postel.settings import Settings
from postel.signals import Declarations, load_all
from postel.streams import say

# Of the interval; the rest is for what is done with the answer.
_COLLECT_SHARE = 0.9
# How long a tick under way is waited for when the agent is stopped.
_LAST_TICK_SECONDS = 2.0
_PROBLEMS_SAID = 5
_log = structlog.get_logger()


@dataclass(frozen=True)
class _Collected:
    """What one tick of one source led to."""

    batches: tuple[Batch, ...]
    asking: Asking
    failure: str = ""


class Collecting:
    """Asks sources, and knows how they do.

    Args:
        settings: of the agent.
        node: this node.
        epochs: of its counters.
        state: what receivers stored when the agent last ran.
    """

    def __init__(
        self, settings: Settings, node: Node, epochs: Epochs, *, state: Mapping[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._declarations: Declarations = load_all()
        self._node = node
        self._epochs = epochs
        self._context = Context(settings, self._declarations, node, epochs, state or {})
        self._health = Health(self._declarations["agent"], node)

    def system(self) -> Receiver:
        """The receiver of this host."""
        # Its instruments cost more memory and time to import than all else here.
        from otel_receivers.system.receiver import SystemReceiver  # noqa: PLC0415

        return SystemReceiver(
            self._declarations["system"], self._node, self._epochs, interval=self._settings.intervals.system_metrics
        )

    def source(self, name: str, target: Target, where: Callable[[str], Target | None] = nowhere) -> Sequence[Receiver]:
        """The receivers of a source that was found; none for one that is only looked for.

        Args:
            name: of the place where it was found.
            target: where it is.
            where: tells the target of other sources.
        """
        source, which = source_and_which(name)
        build = SOURCES.get(source)
        return build(replace(self._context, where=where, which=which), target) if build else ()

    def standing(self) -> Sequence[Receiver]:
        """The receivers that there are whatever is found."""
        return [receiver for build in STANDING for receiver in build(self._context)]

    def doors(self, all_of: Callable[[str], Sequence[Target]], ingest: Ingest = not_now) -> Sequence[Door]:
        """What sources answer at the intake's address.

        Args:
            all_of: tells all targets of a source.
            ingest: takes the events that they are told.
        """
        context = replace(self._context, all_of=all_of, ingest=ingest)
        return [build(context) for build in DOORS]

    def spool(self, spool: Spool) -> Receiver:
        """The receiver of the agent's own spool."""
        interval = self._settings.intervals.system_metrics
        return SpoolReceiver(self._declarations["agent"], self._node, spool, interval=interval)

    def derived(self, spool: Spool) -> Receiver:
        """The receiver of what the spool counts of events."""
        interval = max(1, math.ceil(self._settings.intervals.send_metrics))
        return DerivedReceiver(
            self._declarations, spool, self._context.node, interval=interval, state=self._context.state
        )

    def begin(self, receiver: Receiver, tick: Tick) -> Sequence[Batch]:
        """What is told of a source before it is asked the first time."""
        return [self._health.begin(receiver, tick)] if self._has_health(receiver) else ()

    async def ask(self, receiver: Receiver, tick: Tick) -> _Collected:
        """Ask one source once; never raises for what a source or a receiver does."""
        started = time.monotonic()
        batch = Batch()
        failure = ""
        errors: tuple[str, ...] = ()
        # A thread of a tick before may still come back: what it then says of counters is refused.
        self._epochs.begin(receiver.name, tick)
        try:
            async with asyncio.timeout(receiver.interval * _COLLECT_SHARE):
                batch = await receiver.collect(tick)
        except ScrapeError as error:
            errors, failure = (error.error_type,), str(error)
        except TimeoutError:
            errors, failure = ("timeout",), f"{receiver.name}: no answer within the interval"
        except Exception as error:  # noqa: BLE001 - whatever a receiver does wrong, the others go on
            errors, failure = (type(error).__name__,), f"{receiver.name}: {error}"
            _log.exception("a receiver failed", receiver=receiver.name)
        if failure:
            self._epochs.undo(receiver.name)
        asking = Asking(
            duration=time.monotonic() - started,
            up=not failure,
            errors=errors or tuple(sorted({problem.error_type for problem in batch.problems})),
        )
        if not self._has_health(receiver):
            return _Collected((batch,), asking, failure)
        return _Collected((batch, self._health.record(receiver, tick, asking)), asking, failure)

    def _has_health(self, receiver: Receiver) -> bool:
        """Whether it asks a source; the agent itself is none."""
        return receiver.name not in (self._declarations["agent"].type, derived_receiver.NAME)


class Agent:
    """The running agent; :func:`run` builds it."""

    def __init__(self, settings: Settings, spool: Spool, collecting: Collecting, epochs: Epochs) -> None:
        self._settings = settings
        self._spool = spool
        self._collecting = collecting
        self._epochs = epochs
        self._complaints: dict[str, str] = {}

    async def follow(self, receiver: Receiver) -> None:
        """Ask one source at its ticks until cancelled."""
        try:
            if batches := self._collecting.begin(receiver, Tick(time.time_ns())):
                await self._spool.append(await asyncio.to_thread(self._requests, batches), {})
            async for tick in ticks(receiver.interval):
                work = asyncio.ensure_future(self._tick(receiver, tick))
                try:
                    await asyncio.shield(work)
                except asyncio.CancelledError:
                    # The tick came while the agent ran: what is under way still goes into the spool.
                    await asyncio.wait({work}, timeout=_LAST_TICK_SECONDS)
                    work.cancel()
                    raise
        finally:
            await receiver.close()

    async def _tick(self, receiver: Receiver, tick: Tick) -> None:
        collected = await self._collecting.ask(receiver, tick)
        self._say(receiver, collected)
        try:
            requests, state = await asyncio.to_thread(self._encode, receiver, collected.batches)
        except Exception:  # noqa: BLE001 - whatever a receiver made, the others go on
            self._epochs.undo(receiver.name)
            _log.exception("points could not be encoded", receiver=receiver.name)
            return
        await self._spool.append(requests, state)

    def _encode(self, receiver: Receiver, batches: Sequence[Batch]) -> tuple[list[Request], dict[str, str]]:
        state = {key: text for batch in batches for key, text in batch.state.items()}
        return self._requests(batches), state | self._epochs.changes(receiver.name)

    def _requests(self, batches: Sequence[Batch]) -> list[Request]:
        with collector_paused():
            return exporter.requests(merged(batches), self._settings.otlp.request_bytes)

    def _say(self, receiver: Receiver, collected: _Collected) -> None:
        """One line when a source's trouble begins, changes or ends; not one a tick."""
        messages = sorted({p.message for batch in collected.batches for p in batch.problems})
        problems = "; ".join(messages[:_PROBLEMS_SAID])
        if len(messages) > _PROBLEMS_SAID:
            problems += f"; and {len(messages) - _PROBLEMS_SAID} more"
        complaint = collected.failure or problems
        if complaint == self._complaints.get(receiver.name, ""):
            return
        self._complaints[receiver.name] = complaint
        if collected.failure:
            _log.warning("a source gave no whole answer", receiver=receiver.name, reason=collected.failure)
        elif problems:
            _log.warning("a part of an answer was left out", receiver=receiver.name, reason=problems)
        else:
            _log.info("a source answers as it should", receiver=receiver.name)


async def run(settings: Settings) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        PostelError: another agent runs on the data folder, it cannot be written, the endpoint cannot be used, or the
            intake's address cannot be listened on.
    """
    otlp = settings.otlp
    spool = await Spool.open(settings.data_dir, max_bytes=otlp.spool_bytes, max_age=otlp.spool_age)
    try:
        sender = sender_of(otlp)
        try:
            state = await spool.state()
            epochs = Epochs(state)
            node = await asyncio.to_thread(
                partial(identify, settings.data_dir, setting=settings.node.id, boot_id_before=state.get(BOOT_ID))
            )
            _log.info("the agent runs", node=node.id, id_from=node.origin, endpoint=otlp.endpoint)
            sending = SpoolSender(
                spool,
                sender,
                block_bytes=otlp.request_bytes,
                metrics_interval=settings.intervals.send_metrics,
                events_interval=_events_interval(settings),
            )
            collecting = Collecting(settings, node, epochs, state=state)
            agent = Agent(settings, spool, collecting, epochs)
            watch = SourceWatch(settings, load_all()["agent"], node, state)
            privacy = Privacy(settings.privacy.addresses)
            beats = Heartbeats(load_all()["agent"].event("plugin_heartbeat").name, state.get(heartbeats.KEY, ""))
            intake = Intake(node, spool, privacy, request_bytes=otlp.request_bytes, heartbeats=beats)
            doors = collecting.doors(watch.all_of, intake)
            async with _until_stopped(), serving(settings, intake, doors):
                await _run(agent, collecting, spool, sending, watch)
        finally:
            await sender.close()
    finally:
        await spool.close()
        _log.info("the agent stopped; what was not sent waits in the spool")


async def _run(agent: Agent, collecting: Collecting, spool: Spool, sending: SpoolSender, watch: SourceWatch) -> None:
    system = await asyncio.to_thread(collecting.system)
    # What was imported and built so far stays for good; the collector need not walk it again and again.
    gc.freeze()
    async with asyncio.TaskGroup() as group:
        group.create_task(sending.run())
        group.create_task(agent.follow(collecting.spool(spool)))
        group.create_task(agent.follow(collecting.derived(spool)))
        group.create_task(agent.follow(system))
        for receiver in collecting.standing():
            group.create_task(agent.follow(receiver))
        await watch.start(spool)
        followed: dict[str, tuple[Target, list[asyncio.Task[None]]]] = {}
        async for asked in watch.run(spool):
            for name, target in asked.items():
                before, tasks = followed.get(name, (None, []))
                if before == target:
                    continue
                for task in tasks:
                    task.cancel()
                receivers = collecting.source(name, target, watch.where)
                followed[name] = target, [group.create_task(agent.follow(receiver)) for receiver in receivers]


async def run_once(settings: Settings) -> None:
    """Ask every source once and print what it gave; nothing is stored or sent.

    stdout has OTLP JSON only, an export request a line; stderr what was looked for and found, a sentence a line.

    Raises:
        PostelError: stdout is closed or cannot be written, or the node's kept id cannot be read.
    """
    printing.require_stdout()
    node = await asyncio.to_thread(partial(identify, settings.data_dir, setting=settings.node.id, keep=False))
    collecting = Collecting(settings, node, Epochs())
    findings = await look_everywhere(places(settings.discovery))
    for finding in findings:
        say(sentence(finding))
    asked = {finding.name: finding.target for finding in findings if finding.asked}
    receivers = [await asyncio.to_thread(collecting.system), *collecting.standing()]
    for name, target in asked.items():
        receivers += collecting.source(name, target, asked.get)
    watch = SourceWatch(settings, load_all()["agent"], node, {})
    batches = [watch.registered(findings)]
    try:
        for receiver in receivers:
            nanos = receiver.interval * 1_000_000_000
            collected = await collecting.ask(receiver, Tick(time.time_ns() // nanos * nanos))
            batches += collected.batches
            for complaint in filter(
                None, (collected.failure, *(p.message for b in collected.batches for p in b.problems))
            ):
                say(f"{receiver.name}: {complaint}")
    finally:
        for receiver in receivers:
            await receiver.close()
    printing.put(json_mapping.encode(message).decode() for batch in batches for message in exporter.messages(batch))


def sentence(finding: Finding) -> str:
    """What was looked for and what is there, for a human."""
    found = "found" if finding.found else "not found"
    version = f", version {finding.version}" if finding.version else ""
    return f"looked for {finding.source} at {finding.target}: {found} ({finding.how}{version})"


def merged(batches: Sequence[Batch]) -> Batch:
    """All batches as one."""
    return Batch(
        metrics=[metrics for batch in batches for metrics in batch.metrics],
        events=[events for batch in batches for events in batch.events],
    )


def _events_interval(settings: Settings) -> float:
    interval = settings.intervals.email_events
    return 0.0 if isinstance(interval, str) else interval


@asynccontextmanager
async def _until_stopped() -> AsyncIterator[None]:
    """Cancel the body at SIGTERM or SIGINT, and swallow that."""
    task = asyncio.current_task()
    assert task is not None, "runs in a task"  # noqa: S101 - asyncio.run makes one
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows: Ctrl-C cancels the task by itself
            loop.add_signal_handler(number, stop)
    try:
        yield
    except asyncio.CancelledError:
        if not stopped:
            raise
        task.uncancel()
