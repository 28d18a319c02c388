"""An alert's way from state to state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from timescale_sink.alerts.rules import Rule
from timescale_sink.alerts.state import MISSING_FOR, Alert, Finding, State, step, title_of

T0 = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = (("queue", "q"),)


def rule(**other: Any) -> Rule:
    values: Mapping[str, Any] = {
        "name": "depth",
        "title": "{value} wait in {queue}, {what}",
        "severity": "warning",
        "sql": "SELECT 1",
        "labels": ["queue"],
        "above": 10,
        "for": "10m",
        "keep": "5m",
    }
    return Rule.model_validate({**values, **other})


def after(rule: Rule, values: list[float | None]) -> list[str]:
    """The alert's state after each minute's value; '' where there is none, None: nothing is known of it."""
    alert: Alert | None = None
    states = []
    for minute, value in enumerate(values):
        findings = [] if value is None else [Finding(LABELS, value, {})]
        changed = step(rule, [alert] if alert else [], findings, T0 + minute * timedelta(minutes=1))
        alert = changed.get(LABELS, alert)
        states.append(alert.state.value if alert else "")
    return states


def test_it_is_pending_until_it_was_wrong_for_long_enough() -> None:
    assert after(rule(), [10, *[11] * 12]) == ["", *["pending"] * 10, "firing", "firing"]


def test_what_was_fine_in_between_begins_anew() -> None:
    assert after(rule(), [*[11] * 9, 1, *[11] * 11])[-12:] == ["", *["pending"] * 10, "firing"]


def test_one_that_flaps_fires_once() -> None:
    states = after(rule(**{"for": 0}), [11, 1, 1, 11, 1, 1, 1, 1, 1, 1])
    assert states == [*["firing"] * 8, "resolved", "resolved"]


def test_of_which_nothing_is_known_it_stays_as_long_as_the_rule_says() -> None:
    day = int(MISSING_FOR / timedelta(minutes=1))
    kept = after(rule(**{"for": 0, "missing": "keep"}), [11, *[None] * (day + 1)])
    assert kept[-3:] == ["firing", "resolved", "resolved"]
    assert after(rule(**{"for": 0}), [11, *[None] * 6]) == [*["firing"] * 5, "resolved", "resolved"]


def test_below_is_the_other_way_and_no_number_is_wrong() -> None:
    assert after(rule(**{"for": 0, "above": None, "below": 1}), [float("nan"), 1, 0]) == ["", "", "firing"]
    assert after(rule(**{"for": 0}), [float("nan")]) == [""]


def test_subjects_are_apart() -> None:
    findings = [Finding((("queue", name),), value, {}) for name, value in (("a", 11.0), ("b", 1.0))]
    changed = step(rule(**{"for": 0}), [], findings, T0)
    assert [*changed] == [(("queue", "a"),)]


def test_the_title_names_what_the_query_gave() -> None:
    alert = Alert("depth", LABELS, State.FIRING, T0, T0, 12345.5, {"what": "100% {value}"})
    assert title_of(rule(), alert) == "12,345.5 wait in q, 100% {value}"
    assert title_of(rule(title="{missing}"), alert) == "?"


@given(st.lists(st.sampled_from([None, 1.0, 11.0]), max_size=60), st.sampled_from(["keep", "resolve"]))
def test_it_fires_only_after_its_time_and_resolves_only_after_its_patience(
    values: list[float | None], missing: str
) -> None:
    states = after(rule(missing=missing), values)
    for now, state in enumerate(states):
        before = states[now - 1] if now else ""
        if state == "firing" and before != "firing":
            # All of ten minutes, nothing else was known.
            assert {*values[now - 10 : now + 1]} <= ({11.0} if missing == "resolve" else {11.0, None})
        if state == "resolved" and before == "firing":
            assert not {11.0}.intersection(values[now - 4 : now + 1])
        if state == "pending":
            assert values[now] == 11.0 or (values[now] is None and missing == "keep")


@pytest.mark.parametrize(
    "other",
    [{"above": None}, {"below": 1}, {"for": "soon"}, {"for": "-5m"}, {"for": 5}, {"name": "A b"}, {"colour": "red"}],
)
def test_a_rule_that_cannot_be_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rule(**other)


def test_what_people_hold_for_firing_is_resolved_also_where_it_was_pending_again() -> None:
    alert = Alert("depth", LABELS, State.PENDING, T0, T0, 11, {}, State.FIRING)
    (after,) = step(rule(), [alert], [Finding(LABELS, 1, {})], T0 + timedelta(minutes=1)).values()
    assert after
    assert after.state is State.RESOLVED
    untold = replace(alert, told=State.RESOLVED)
    assert step(rule(), [untold], [Finding(LABELS, 1, {})], T0 + timedelta(minutes=1)) == {LABELS: None}


def test_of_what_is_forgotten_nobody_is_told_that_it_is_over() -> None:
    alert = Alert("depth", LABELS, State.FIRING, T0, T0, 11, {}, State.FIRING)
    assert step(rule(missing="forget"), [alert], [], T0 + timedelta(minutes=1)) == {LABELS: None}


@pytest.mark.parametrize("title", ["{value:.1f}", "{queue!r}", "{queue.size}", "{}", "{0}", "{queue", "a } b"])
def test_a_title_that_could_not_be_told_is_refused(title: str) -> None:
    with pytest.raises(ValidationError):
        rule(title=title)
