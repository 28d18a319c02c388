"""How Grafana evaluates an alert rule of its provisioning, and goes from state to state.

Sources, of Grafana 11: pkg/expr/nodes.go (an answer with one column of numbers and any of texts is one number for each
row, labelled by the texts), pkg/expr/threshold.go, and pkg/services/ngalert/state (`resultNormal`, `resultAlerting`,
`resultKeepLast`, and that a subject which two evaluations have not given is gone).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg

from support.grafana import Range, expand, seconds

Labels = tuple[tuple[str, str], ...]
_NUMBERS = frozenset({20, 21, 23, 700, 701, 1700})
_TEXTS = frozenset({25, 1043})


@dataclass
class _Subject:
    state: str
    since: datetime
    seen: datetime


@dataclass
class GrafanaRule:
    """One rule.

    Args:
        rule: as its file has it.
        interval: of its group.
    """

    rule: Mapping[str, Any]
    interval: timedelta
    _subjects: dict[Labels, _Subject] = field(default_factory=dict)

    def evaluate(self, connection: psycopg.Connection[Any], now: datetime) -> dict[Labels, str]:
        """Evaluate it for a moment; subject -> Pending or Alerting, of those that are not Normal."""
        (wrong,) = (one["model"] for one in self.rule["data"] if one["refId"] == self.rule["condition"])
        asked = {
            one["refId"]: self._ask(connection, one, now) for one in self.rule["data"] if one["model"] is not wrong
        }
        # What a template says of a subject is there for each.
        assert all(values.keys() == asked[wrong["expression"]].keys() for values in asked.values())
        (condition,) = wrong["conditions"]
        (bound,) = condition["evaluator"]["params"]
        met = {
            labels: value > bound if condition["evaluator"]["type"] == "gt" else value < bound
            for labels, value in asked[wrong["expression"]].items()
        }
        if not met:
            self._nothing(now)
        for labels, is_met in met.items():
            self._result(labels, now, is_met=is_met)
        self._subjects = {
            labels: subject
            for labels, subject in self._subjects.items()
            if not met or now - subject.seen < 2 * self.interval
        }
        return {labels: one.state for labels, one in self._subjects.items() if one.state != "Normal"}

    def _ask(self, connection: psycopg.Connection[Any], query: Mapping[str, Any], now: datetime) -> dict[Labels, float]:
        model, length = query["model"], query["relativeTimeRange"]
        assert (model["format"], query["datasourceUid"]) == ("table", "postel")
        over = Range(now - timedelta(seconds=length["from"]), now - timedelta(seconds=length["to"]))
        cursor = connection.execute(expand(model["rawSql"], over, 1000, timescale=False).encode())
        assert cursor.description
        numbers = [column.name for column in cursor.description if column.type_code in _NUMBERS]
        texts = [column.name for column in cursor.description if column.type_code in _TEXTS]
        assert len(numbers) == 1
        assert len(numbers) + len(texts) == len(cursor.description)
        found: dict[Labels, float] = {}
        for row in cursor.fetchall():
            cells = dict(zip([column.name for column in cursor.description], row, strict=True))
            labels = tuple(sorted((name, cells[name]) for name in texts))
            # Two rows of the same labels are an error there.
            assert labels not in found
            found[labels] = cells[numbers[0]]
        return found

    def _nothing(self, now: datetime) -> None:
        if self.rule["noDataState"] == "OK":
            self._subjects.clear()
            return
        assert self.rule["noDataState"] == "KeepLast"
        for labels, subject in self._subjects.items():
            self._result(labels, now, is_met=subject.state != "Normal")

    def _result(self, labels: Labels, now: datetime, *, is_met: bool) -> None:
        before = self._subjects.get(labels)
        if not is_met:
            self._subjects[labels] = _Subject("Normal", now, now)
            return
        if before is None or before.state == "Normal":
            before = _Subject("Pending", now, now)
        if before.state == "Pending" and now - before.since >= timedelta(seconds=seconds(self.rule["for"])):
            before = _Subject("Alerting", now, now)
        self._subjects[labels] = _Subject(before.state, before.since, now)
