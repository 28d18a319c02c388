"""How an alert goes from state to state. Pure.

::

    nothing --wrong--> pending --wrong for `for`--> firing --fine for `keep`--> resolved --wrong--> pending
                       pending --fine--> nothing, or resolved where people still hold it for firing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from timescale_sink.alerts.rules import Rule

Labels = tuple[tuple[str, str], ...]
# A subject that is not heard of for so long is gone.
MISSING_FOR = timedelta(days=1)
# Some figures come every quarter of an hour only, where a queue is long.
PENDING_FOR = timedelta(minutes=30)


class State(StrEnum):
    """Of an alert; one that is nothing is not there."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule's query says of one subject."""

    labels: Labels
    value: float
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert of a rule.

    Attributes:
        labels: which subject, sorted by their names.
        since: since when it is in this state.
        seen: when the condition was last met.
        value, details: of then.
        told: the state that people were told last; None: none.
    """

    rule: str
    labels: Labels
    state: State
    since: datetime
    seen: datetime
    value: float
    details: Mapping[str, Any]
    told: State | None = None


def step(rule: Rule, alerts: Iterable[Alert], findings: Iterable[Finding], now: datetime) -> dict[Labels, Alert | None]:
    """What has to be written after an evaluation.

    Args:
        rule: which.
        alerts: all of the rule that there are.
        findings: what its query gave.
        now: the moment it was asked for.

    Returns:
        The alerts that are new or another now; None for those that are not there any more.
    """
    known = {alert.labels: alert for alert in alerts}
    found = {finding.labels: finding for finding in findings}
    changed: dict[Labels, Alert | None] = {}
    for labels in known.keys() | found.keys():
        before = known.get(labels)
        after = _step(rule, before, found.get(labels), now)
        if after != before:
            changed[labels] = after
    return changed


def _step(rule: Rule, alert: Alert | None, finding: Finding | None, now: datetime) -> Alert | None:
    if finding is not None and rule.is_wrong(finding.value):
        return _wrong(rule, alert, finding, now)
    if alert is None or alert.state is State.RESOLVED:
        return alert
    if alert.state is State.PENDING:
        if finding is None and rule.missing == "keep" and now - alert.seen < PENDING_FOR:
            return alert
        # It fired before, and that it was over could not be told: it was silenced, or became wrong again at once.
        return replace(alert, state=State.RESOLVED, since=now) if alert.told is State.FIRING else None
    if finding is None and rule.missing == "forget":
        return None
    patience = MISSING_FOR if finding is None and rule.missing == "keep" else rule.keep
    return replace(alert, state=State.RESOLVED, since=now) if now - alert.seen >= patience else alert


def _wrong(rule: Rule, alert: Alert | None, finding: Finding, now: datetime) -> Alert:
    state, since = (
        (State.PENDING, now) if alert is None or alert.state is State.RESOLVED else (alert.state, alert.since)
    )
    if state is State.PENDING and now - since >= rule.for_:
        state, since = State.FIRING, now
    told = None if alert is None else alert.told
    return Alert(rule.name, finding.labels, state, since, now, finding.value, finding.details, told)


def title_of(rule: Rule, alert: Alert) -> str:
    """A rule's title about an alert's subject, and what is told also."""
    values = _Named({**alert.details, **dict(alert.labels), "value": f"{alert.value:,.6g}"})
    return ", ".join(text.format_map(values) for text in (rule.title, rule.also) if text)


class _Named(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"
