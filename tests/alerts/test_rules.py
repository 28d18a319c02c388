"""Each shipped rule fires on what it is for and resolves, on rows as the sink writes them, minute by minute."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from postel.settings import Alerts
from support.alert_cases import CASES, MINUTE, RULES, T0, Case, Minute, Platform, certificate, nothing
from timescale_sink.alerts.evaluate import Evaluator
from timescale_sink.alerts.rules import Rule
from timescale_sink.store.database import connect

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"


def test_every_rule_has_its_case_and_its_runbook() -> None:
    assert sorted(case.rule for case in CASES) == sorted(RULES)
    assert {path.stem for path in RUNBOOKS.glob("*.md")} >= {*RULES}


@dataclass(frozen=True)
class Judged:
    """One rule over a platform of a database of its own."""

    platform: Platform
    evaluate: Callable[[datetime], Awaitable[object]]
    rows: Callable[[str], list[tuple[Any, ...]]]


@asynccontextmanager
async def judged(rule: Rule, url: str) -> AsyncIterator[Judged]:
    evaluator = Evaluator([rule], Alerts(), "")
    with psycopg.connect(url, autocommit=True) as database:
        async with await connect(url) as connection:
            yield Judged(
                Platform(database),
                lambda moment: evaluator.evaluate(connection, moment),
                lambda query: database.execute(query.encode()).fetchall(),
            )


def each_time(rule: str) -> Rule:
    """A rule that is evaluated whenever its evaluator is."""
    return RULES[rule].model_copy(update={"every": timedelta(0)})


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_rule_fires_when_it_is_so_resolves_when_it_is_over_and_is_quiet_else(
    case: Case, migrated_database: str
) -> None:
    rule = each_time(case.rule)
    async with judged(rule, migrated_database) as over:
        case.before(over.platform, T0)
        states: list[tuple[str, dict[str, str]]] = []

        async def minute(number: int, happens: Minute) -> None:
            moment = T0 + number * MINUTE
            happens(over.platform, moment)
            await over.evaluate(moment)
            found = over.rows("SELECT state, labels, rule FROM alert")
            assert {row[2] for row in found} <= {case.rule}
            states.append(found[0][:2] if found else ("", {}))

        for number in range(case.minutes + 1):
            await minute(number, case.wrong)
        # At the end of its time, and not a moment earlier than the rule says.
        assert states[-1] == ("firing", case.labels), states
        assert "firing" not in [state for state, _ in states[: int(rule.for_ / MINUTE)]]
        for number in range(case.minutes + 1, case.minutes + case.recovery + 2):
            await minute(number, case.fine)
        assert states[-1] == ("resolved", case.labels), states
        assert over.rows("SELECT state FROM alert_change ORDER BY id") == [("firing",), ("resolved",)]


@pytest.mark.parametrize("case", [case for case in CASES if case.fine is not nothing], ids=str)
async def test_a_rule_is_quiet_while_all_is_fine(case: Case, migrated_database: str) -> None:
    async with judged(each_time(case.rule), migrated_database) as over:
        case.before(over.platform, T0)
        for number in range(30):
            case.fine(over.platform, T0 + number * MINUTE)
            await over.evaluate(T0 + number * MINUTE)
        assert over.rows("SELECT * FROM alert") == []


async def test_a_certificate_that_was_renewed_under_another_name_is_no_longer_wrong(migrated_database: str) -> None:
    async with judged(RULES["certificate-expiring"], migrated_database) as over:
        for number, shown in enumerate([certificate(3, "old.test"), certificate(90, "new.test")]):
            shown(over.platform, T0 + number * 5 * MINUTE)
            await over.evaluate(T0 + number * 5 * MINUTE)
        assert over.rows("SELECT state FROM alert_change ORDER BY id") == [("firing",), ("resolved",)]


@pytest.mark.parametrize("rule", ["bounce-rate", "deferral-rate", "provider-blocking"])
async def test_what_haraka_hands_on_to_mailboxes_is_no_mail_that_goes_out(rule: str, migrated_database: str) -> None:
    async with judged(RULES[rule], migrated_database) as over:
        for number in range(25):
            moment = T0 + number * MINUTE
            over.platform.attempts(moment, delivered=100)
            over.platform.attempts(moment, "here.test", None, rejected=100, deferred=100)
            await over.evaluate(moment)
        assert over.rows("SELECT * FROM alert") == []


async def test_a_few_unknown_users_among_little_mail_are_no_bounce_rate(migrated_database: str) -> None:
    async with judged(RULES["bounce-rate-high"], migrated_database) as over:
        over.platform.attempts(T0, delivered=80, rejected=29)
        for number in range(25):
            await over.evaluate(T0 + number * MINUTE)
        assert over.rows("SELECT * FROM alert") == []
