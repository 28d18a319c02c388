"""Watches which sources come and go on this node, and says who the node is when the agent starts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import httpx
import structlog

from otel_receivers import exporter
from otel_receivers.discovery import Finding, Place, look, look_everywhere, places, source_and_which
from otel_receivers.http_page import client
from otel_receivers.node import Node
from otel_receivers.points import Recorder, Value
from otel_receivers.receiver import Batch, Target, Tick
from otel_receivers.spool import Spool
from postel.settings import Settings
from postel.signals import Declaration

BOOT_ID = "node/boot_id"
SOURCES = "node/sources"
ASKED = "node/asked"
LISTENED = "node/listened"
# A server that is slow once is not lost.
_MISSES = 2
_ROUND_SECONDS = 30.0
# Seconds for which a source where nobody listens any more is still scraped, over restarts of the agent too: that it is
# down is what its metrics then say. It is one that was removed after that.
_MISSED_FOR = 7 * 86_400.0
_STORED_EVERY = 3_600.0
_log = structlog.get_logger()


class SourceWatch:
    """Looks at every place again and again.

    Args:
        settings: where to look.
        declaration: of the agent's own signals.
        node: this node.
        state: of the spool: which sources were there when the agent last ran, when, and under which boot.
    """

    def __init__(self, settings: Settings, declaration: Declaration, node: Node, state: Mapping[str, str]) -> None:
        self._places = places(settings.discovery)
        self._limit = settings.otlp.request_bytes
        self._declaration = declaration
        self._node = node
        self._resource = node.resource(declaration.service)
        self._boot_before = state.get(BOOT_ID)
        self._known = _targets(state.get(SOURCES, "{}"))
        self._misses: dict[str, int] = {}
        self._looked: dict[str, float] = {}
        now = time.time()
        self._listened = {s: at for s, at in _times(state.get(LISTENED, "{}")).items() if now - at < _MISSED_FOR}
        # A source that was scraped before is scraped at once again, also while it is down.
        self._asked = {
            place.name: _own_target(place, _targets(state.get(ASKED, "{}")) | self._known)
            for place in self._places
            if place.name in {*self._known, *self._listened}
        }
        self._stored = float("-inf")

    def registered(self, findings: Sequence[Finding]) -> Batch:
        """The event of a start of the agent."""
        recorder = self._recorder()
        found = [finding.name for finding in findings if finding.found]
        recorder.event(
            "node_registered",
            f"The agent started on {self._node.host}; found here: {', '.join(found) or 'no mail server'}.",
            {
                # One that was there before and does not answer at once is not lost yet.
                "postel.node.sources": _watched({*self._known, *found}),
                "postel.node.id.origin": self._node.origin,
                "host.boot.id": self._node.boot_id,
            },
        )
        return recorder.batch()

    async def start(self, spool: Spool) -> None:
        """Look everywhere, say what is there, and store the events of a start."""
        findings = await look_everywhere(self._places)
        _log.info(f"looked for mail servers: {_summary(findings)}")
        batches = [self.registered(findings)]
        if self._boot_before not in (None, self._node.boot_id):
            recorder = self._recorder()
            recorder.event(
                "node_booted",
                f"{self._node.host} was started anew since the agent last ran here.",
                {"host.boot.id": self._node.boot_id},
                time_unix_nano=self._node.boot_time_unix_nano,
            )
            batches.append(recorder.batch())
        batches.append(self._compare(findings))
        await self._store(spool, batches, {BOOT_ID: self._node.boot_id})

    def where(self, source: str) -> Target | None:
        """Where a source is asked now; None for what is not there."""
        return self._asked.get(source)

    def all_of(self, source: str) -> list[Target]:
        """Where all of a source are asked now."""
        return [target for name, target in self._asked.items() if source_and_which(name)[0] == source]

    async def run(self, spool: Spool) -> AsyncIterator[Mapping[str, Target]]:
        """Yield, now and after each round, where to ask the sources that are there or were there before.

        By the names of their places (:func:`~otel_receivers.discovery.place_name`).
        """
        async with client() as http:
            while True:
                yield dict(self._asked)
                await asyncio.sleep(_ROUND_SECONDS)
                try:
                    await self._round(spool, http)
                except Exception:  # noqa: BLE001 - whatever a server says, the sources that run go on
                    _log.exception("looking for sources failed")

    async def _round(self, spool: Spool, http: httpx.AsyncClient) -> None:
        findings = [await look(place, http) for place in self._places if self._is_due(place)]
        batch = self._compare(findings)
        if batch.events or time.monotonic() - self._stored >= _STORED_EVERY:
            await self._store(spool, [batch], {})

    def _is_due(self, place: Place) -> bool:
        """What was not found is looked for in every round, what was found less often."""
        interval = place.interval if place.name in self._known else 0.0
        return time.monotonic() - self._looked.get(place.name, float("-inf")) >= interval

    def _compare(self, findings: Sequence[Finding]) -> Batch:
        appeared: list[Finding] = []
        lost: list[tuple[Finding, Target]] = []
        for finding in findings:
            name = finding.name
            self._looked[name] = time.monotonic()
            if finding.asked:
                self._asked[name] = finding.target
                self._listened[name] = time.time()
            if finding.found:
                self._misses.pop(name, None)
                if self._known.get(name) != finding.target:
                    self._known[name] = finding.target
                    appeared.append(finding)
            elif name in self._known:
                self._misses[name] = self._misses.get(name, 0) + 1
                if self._misses[name] >= _MISSES:
                    del self._misses[name]
                    lost.append((finding, self._known.pop(name)))
        # All changes are known first: each event of a round tells what is watched after all of them.
        recorder = self._recorder()
        for finding in appeared:
            self._appeared(finding, recorder)
        for finding, target in lost:
            self._lost(finding, target, recorder)
        return recorder.batch()

    def _appeared(self, finding: Finding, recorder: Recorder) -> None:
        attributes = self._place(finding.source, finding.target)
        if finding.version:
            attributes["service.version"] = finding.version
        body = f"{finding.source} answers at {finding.target}, recognised by {finding.how}."
        recorder.event("source_appeared", body, attributes)
        _log.info("a source appeared", source=finding.source, at=str(finding.target))

    def _lost(self, finding: Finding, target: Target, recorder: Recorder) -> None:
        attributes = {**self._place(finding.source, target), "error.type": finding.error_type}
        # One of several targets may have been its own, and another be the one that says more now.
        there = "" if finding.target == target else f"; at {finding.target}"
        body = f"{finding.source} no longer answers at {target}{there}: {finding.how}."
        recorder.event("source_lost", body, attributes)
        _log.error("a source is lost", source=finding.source, at=str(target), how=finding.how)

    def _place(self, source: str, target: Target) -> dict[str, Value]:
        return {
            "postel.source.name": source,
            "server.address": target.host,
            "server.port": target.port,
            "postel.node.sources": _watched(self._known),
        }

    async def _store(self, spool: Spool, batches: Sequence[Batch], state: Mapping[str, str]) -> None:
        requests = [request for batch in batches for request in exporter.requests(batch, self._limit)]
        known = {source: [target.host, target.port] for source, target in self._known.items()}
        asked = {source: [target.host, target.port] for source, target in self._asked.items()}
        now = {SOURCES: json.dumps(known), LISTENED: json.dumps(self._listened), ASKED: json.dumps(asked)}
        await spool.append(requests, {**state, **now})
        self._stored = time.monotonic()

    def _recorder(self) -> Recorder:
        # Events carry the time of what happened; the tick of this recorder stands on no point.
        return Recorder(self._declaration, self._resource, Tick(time.time_ns()))


def _watched(found: Iterable[str]) -> list[str]:
    """What is watched where these mail servers are: the host itself always is."""
    return ["system", *sorted({source_and_which(name)[0] for name in found})]


def _summary(findings: Sequence[Finding]) -> str:
    """What was found and what was not, in one line; `agent --once` tells each place and reason."""
    found = [f"{finding.source} at {finding.target}" for finding in findings if finding.found]
    # Where something else listens than was looked for, that is worth its words: a setting may be wrong.
    not_found = [
        f"{finding.source} at {finding.target} ({finding.how})" if finding.listening else finding.source
        for finding in findings
        if not finding.found
    ]
    return f"found: {', '.join(found) or 'none'}; not found: {', '.join(not_found) or 'none'}"


def _own_target(place: Place, targets: Mapping[str, Target]) -> Target:
    """Where a source was asked before, as far as the settings still name that; else the place's first."""
    before = targets.get(place.name)
    return before if before in place.targets else place.targets[0]


def _targets(text: str) -> dict[str, Target]:
    try:
        return {source: Target(str(host), int(port)) for source, (host, port) in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _times(text: str) -> dict[str, float]:
    try:
        return {str(source): float(at) for source, at in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
