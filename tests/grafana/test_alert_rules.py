"""Grafana's alert rules: Postel's, with the same states on the same rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from postel.settings import Alerts
from support.alert_cases import CASES, MINUTE, RULES, T0, Case, Platform
from support.grafana import seconds
from support.grafana_alerts import GrafanaRule, Labels
from support.postgres import fresh_database
from timescale_sink.alerts.evaluate import Evaluator
from timescale_sink.store.database import connect
from tools.grafana.__main__ import FOLDER
from tools.grafana.__main__ import RULES as FILE

_GROUPS = yaml.safe_load(FILE.read_text("utf-8"))["groups"]
_RULES = {rule["title"]: rule for group in _GROUPS for rule in group["rules"]}
_INTERVALS = {rule["title"]: seconds(group["interval"]) for group in _GROUPS for rule in group["rules"]}
_TABLES = (
    *("alert", "alert_change", "node", "metrics_system", "metrics_zonemta", "metrics_haraka", "metrics_wildduck"),
    *("email_events", "delivery_events", "otel_series", "otel_metric_point", "dead_letter"),
)
# So many moments of a case are compared, and both evaluators are asked for these only.
_MOMENTS = 24
# Grafana's word -> the states of Postel's that it stands for.
_STATES = {"pending": "Pending", "firing": "Alerting"}


def test_there_is_a_rule_for_each_with_its_own_words() -> None:
    assert _RULES.keys() == RULES.keys()
    assert len({rule["uid"] for rule in _RULES.values()}) == len(_RULES)
    for name, made in _RULES.items():
        rule = RULES[name]
        assert (made["labels"], seconds(made["for"])) == ({"severity": rule.severity}, rule.for_.total_seconds())
        assert _INTERVALS[name] == rule.every.total_seconds()
        # Grafana's database takes no longer ones.
        assert len(made["uid"]) <= 40
        assert (Path(__file__).parents[2] / made["annotations"]["runbook"].removesuffix(" of Postel")).is_file()


def test_what_their_summaries_say_is_what_their_queries_give() -> None:
    for rule in _RULES.values():
        summary, queries = rule["annotations"]["summary"], {one["refId"]: one["model"] for one in rule["data"]}
        assert re.findall(r"{(\w+)}", summary) == []
        for label in re.findall(r"\$labels\.(\w+)", summary):
            assert f" AS {label}, " in queries["value"]["rawSql"]
        for value in re.findall(r"\$values\.(\w+)\.Value", summary):
            assert f" AS {value}\n" in queries[value]["rawSql"]


def test_they_ask_the_data_source_that_is_provisioned() -> None:
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/postel.yaml").read_text("utf-8"))["datasources"]
    asked = {one["datasourceUid"] for rule in _RULES.values() for one in rule["data"]}
    assert asked == {source["uid"], "__expr__"}
    models = [one["model"]["datasource"] for rule in _RULES.values() for one in rule["data"]]
    assert {model["type"] for model in models if model["uid"] == source["uid"]} == {source["type"]}


@pytest.fixture(scope="module")
def url(postgres: str, migrated_template: str) -> Iterator[str]:
    with fresh_database(postgres, migrated_template) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET timezone = 'America/New_York'")
        yield connection
        connection.execute(f"TRUNCATE {', '.join(_TABLES)}".encode())


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_grafana_and_postel_come_to_the_same_states(
    case: Case, url: str, database: psycopg.Connection[Any]
) -> None:
    # Grafana 11 has no `keep`: what is fine is resolved.
    rule = RULES[case.rule].model_copy(update={"every": timedelta(0), "keep": timedelta(0)})
    evaluator, grafana = Evaluator([rule], Alerts(), ""), GrafanaRule(_RULES[case.rule], rule.every)
    platform = Platform(database)
    with database.transaction():
        case.before(platform, T0)
    last = case.minutes + case.recovery + 1
    step = max(1, last // _MOMENTS)
    grafana.interval = step * MINUTE
    seen = []
    async with await connect(url) as connection:
        for number in range(last + 1):
            moment = T0 + number * MINUTE
            (case.wrong if number <= case.minutes else case.fine)(platform, moment)
            if number % step and number != last:
                continue
            await evaluator.evaluate(connection, moment)
            states = _postels(database, rule.labels)
            assert _without_names(grafana.evaluate(database, moment), rule.labels) == states, moment
            seen.append({*states.values()} or {"Normal"})
    # It was so from fine to firing and back.
    assert {"Alerting"} in seen
    assert seen[-1] == {"Normal"}


def _postels(database: psycopg.Connection[Any], labels: tuple[str, ...]) -> dict[Labels, str]:
    rows = database.execute("SELECT labels, state FROM alert WHERE state <> 'resolved'").fetchall()
    assert all(row[0].keys() == {*labels} for row in rows)
    return {tuple(sorted(row[0].items())): _STATES[row[1]] for row in rows}


def _without_names(states: dict[Labels, str], labels: tuple[str, ...]) -> dict[Labels, str]:
    """By the labels that tell subjects apart; a host's name stands beside its id."""
    return {tuple(pair for pair in subject if pair[0] in labels): state for subject, state in states.items()}
