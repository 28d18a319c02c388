"""The doctor's check of the mail servers' plugins: by the heartbeats that the agent took, and the servers found."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from otel_receivers import heartbeats
from otel_receivers.discovery import Finding
from otel_receivers.heartbeats import Heartbeat
from postel.doctor.result import Result, Verdict
from postel.settings import Settings

# Source of discovery -> service of its plugin's events.
_SERVICES = {"zone_mta": "zone-mta", "haraka": "haraka"}
# The kinds of processes that must have it: one of these sets.
_KINDS: dict[str, Sequence[frozenset[str]]] = {
    "zone-mta": [frozenset({"main", "receiver", "sender"})],
    "haraka": [frozenset({"master", "worker"}), frozenset({"single"})],
}
_LOST = {
    "dropped": "its memory and its files were full",
    "refused": "the agent refused them",
    "damaged": "its files could not be read",
    "failed": "it could not make them",
}
# Heartbeats that may be missed, and what a busy machine takes on top.
_MISSED = 3
_LATE_SECONDS = 10.0


def check(settings: Settings, findings: Iterable[Finding]) -> Iterator[Result]:
    """In which processes of which server a plugin is loaded, and what becomes of its events.

    Args:
        settings: of the agent.
        findings: the servers that were looked for.
    """
    found = {(_SERVICES[each.source], each.target.port): each for each in findings if _has_plugin(each)}
    heard = read(settings.data_dir)
    now = time.time()
    for (service, instance), group in groupby(
        sorted(heard, key=lambda each: (each.service, each.instance)), key=lambda each: (each.service, each.instance)
    ):
        processes = list(group)
        runs = any((each.service, each.port) in found for each in processes)
        yield from _instance(f"plugin of {service} at {instance}", processes, now, runs=runs)
    for server in found.keys() - {(each.service, each.port) for each in heard}:
        yield Result(
            Verdict.NOTE,
            f"plugin of {server[0]}",
            f"none was heard of at {found[server].target}: what becomes of single messages is not told",
            "install it: mail_plugins/README.md",
        )


def _has_plugin(finding: Finding) -> bool:
    return finding.found and finding.source in _SERVICES


def read(data_dir: Path) -> list[Heartbeat]:
    """What the agent keeps of heartbeats; nothing where there is no spool, or it cannot be read."""
    spool = data_dir / "spool.db"
    if not spool.exists():
        return []
    with contextlib.suppress(sqlite3.Error):  # the spool's own check says it
        with contextlib.closing(sqlite3.connect(f"{spool.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as db:
            row = db.execute("SELECT value FROM state WHERE key = ?", (heartbeats.KEY,)).fetchone()
        return heartbeats.read(row[0]) if row else []
    return []


def _instance(subject: str, heard: Sequence[Heartbeat], now: float, *, runs: bool) -> Iterator[Result]:
    living = [each for each in heard if now - each.last <= each.interval * _MISSED + _LATE_SECONDS]
    newest = max(heard, key=lambda each: each.last)
    if not living:
        yield Result(
            Verdict.FAIL if runs else Verdict.NOTE,
            subject,
            f"{newest.plugin} {newest.version} was heard {now - newest.last:.0f} s ago for the last time",
            "its server's log says what keeps it from the agent, unless it was removed" if runs else "",
        )
        return
    yield _loaded(subject, newest.service, living)
    yield from _losses(subject, living, Verdict.FAIL, "")
    # Nobody can mend what a process lost that has ended; it is told as long as it is remembered.
    yield from _losses(
        subject, [each for each in heard if each not in living], Verdict.NOTE, "in processes that ended, "
    )


def _loaded(subject: str, service: str, living: Sequence[Heartbeat]) -> Result:
    kinds = Counter(each.kind for each in living)
    programs = sorted({f"{each.plugin} {each.version}" for each in living})
    since = datetime.fromtimestamp(min(each.first for each in living), UTC)
    totals: Counter[str] = Counter()
    for each in living:
        totals.update(each.counts)
    text = (
        f"{' and '.join(programs)} in {', '.join(f'{kind} ({count})' for kind, count in sorted(kinds.items()))}"
        f" since {since:%Y-%m-%dT%H:%M:%SZ}; events: {totals['emitted']} emitted, {totals['delivered']} delivered,"
        f" {totals['waiting']} waiting, {totals['dropped']} dropped"
    )
    missing = min((expected - kinds.keys() for expected in _KINDS.get(service, ())), key=len, default=frozenset())
    if not missing:
        return Result(Verdict.OK, subject, text)
    return Result(
        Verdict.FAIL,
        subject,
        f"{text}; not in: {', '.join(sorted(missing))}",
        "load it in all processes (in Zone-MTA `enabled = true`), or see that server's log; one that was just started"
        " needs a moment",
    )


def _losses(subject: str, heard: Sequence[Heartbeat], verdict: Verdict, where: str) -> Iterator[Result]:
    for name, reason in _LOST.items():
        lost = sum(each.counts.get(name, 0) for each in heard)
        if lost:
            yield Result(
                verdict,
                subject,
                f"{where}{lost} events were lost: {reason}",
                "that server's log says why; events come again only where the plugin still has them",
            )
