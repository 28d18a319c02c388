"""Makes Grafana's alert rules of Postel's (`timescale_sink/alerts/rules.yaml`), as a file of its provisioning.

Grafana takes an answer with one column of numbers and any of texts as one value for each row, labelled by the texts; an
expression beside it says which values are wrong. So a rule's subjects, values and bound are what they are in Postel.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from string import Formatter
from typing import Any

import yaml
from grafana_foundation_sdk.cog import encoder
from grafana_foundation_sdk.models import alerting, expr
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from timescale_sink.alerts.rules import Rule
from tools.grafana.render import DATASOURCE, PLUGIN, Query

FOLDER = "Postel"
# What Grafana calls the queries and the expression of a rule, in templates too.
VALUE, WRONG = "value", "wrong"
_EXPRESSION = "__expr__"
# `$__timeTo()` is the moment for which a rule is evaluated; no rule asks for the begin of a range.
_NOW = "$__timeTo()::timestamptz"
_RANGE = alerting.RelativeTimeRange(from_val=3600, to=0)
# Details that are texts and change seldom: where one does, the subject is another one to Grafana. Others are numbers,
# each with a query of its own.
_NAMES = frozenset({"host", "reasons", "subject"})
_HEAD = """\
# Postel's alert rules for Grafana, made by `python -m tools.grafana` of timescale_sink/alerts/rules.yaml. Where Postel
# itself evaluates them and tells people (postel serve), with this file they are told twice (docs/grafana.md).
"""


def render(rules: Sequence[Rule]) -> str:
    """The text of the file: a group for each interval at which rules are evaluated."""
    intervals = sorted({rule.every for rule in rules})
    groups = [
        {
            "orgId": 1,
            "name": f"Postel, every {_duration(interval)}",
            "folder": FOLDER,
            "interval": _duration(interval),
            "rules": [_rule(rule) for rule in rules if rule.every == interval],
        }
        for interval in intervals
    ]
    plain = json.loads(json.dumps({"apiVersion": 1, "groups": groups}, cls=encoder.JSONEncoder))
    return _HEAD + yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _rule(rule: Rule) -> dict[str, Any]:
    details = sorted(_said(rule) - {"value", *rule.labels} - _NAMES)
    return {
        "uid": f"postel-{rule.name}",
        "title": rule.name,
        "condition": WRONG,
        "for": _duration(rule.for_),
        # A subject of which nothing is known stays as it is, or is fine; a rule that cannot be asked is an alert.
        "noDataState": "KeepLast" if rule.missing == "keep" else "OK",
        "execErrState": "Error",
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": _summary(rule),
            "runbook": rule.runbook or f"docs/runbooks/{rule.name}.md of Postel",
        },
        "data": [*(_query(rule, column) for column in ("value", *details)), _bound(rule)],
    }


def _query(rule: Rule, column: str) -> alerting.Query:
    return alerting.Query(
        datasource_uid=DATASOURCE,
        model=Query(sql_of(rule, column), "table", DataSourceRef(type_val=PLUGIN, uid=DATASOURCE), column),
        ref_id=column,
        relative_time_range=_RANGE,
    )


def sql_of(rule: Rule, column: str = "value") -> str:
    """A rule's query as Grafana asks it: the labels as texts, and one number."""
    named = [*rule.labels, *sorted(_said(rule) & _NAMES - {*rule.labels})]
    texts = "".join(f"coalesce({name}::text, '') AS {name}, " for name in named)
    inner = "".join(f"    {line}\n" for line in (rule.sql % {"now": _NOW}).splitlines())
    return f"SELECT {texts}{column}::float8 AS {column}\nFROM (\n{inner}) AS judged\nWHERE value IS NOT NULL"


def _bound(rule: Rule) -> alerting.Query:
    bound = rule.above if rule.above is not None else rule.below
    evaluator = expr.ExprTypeThresholdConditionsEvaluator(
        params=[bound or 0.0], type_val="lt" if rule.above is None else "gt"
    )
    model = expr.TypeThreshold(
        conditions=[expr.ExprTypeThresholdConditions(evaluator=evaluator)],
        datasource=DataSourceRef(type_val=_EXPRESSION, uid=_EXPRESSION),
        expression=VALUE,
        ref_id=WRONG,
    )
    return alerting.Query(datasource_uid=_EXPRESSION, model=model, ref_id=WRONG, relative_time_range=_RANGE)


def _said(rule: Rule) -> set[str]:
    """The columns that the title names."""
    return {name for _, name, _, _ in Formatter().parse(rule.title) if name}


def _summary(rule: Rule) -> str:
    """The title as a template of Grafana's."""
    texts = {*rule.labels, *_NAMES}
    return rule.title.format_map(
        {
            name: f"{{{{ $labels.{name} }}}}" if name in texts else f'{{{{ printf "%.6g" $values.{name}.Value }}}}'
            for name in _said(rule)
        }
    )


def _duration(length: timedelta) -> str:
    seconds = int(length.total_seconds())
    return f"{seconds // 60}m" if seconds % 60 == 0 else f"{seconds}s"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it is, so that queries can be read."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)
