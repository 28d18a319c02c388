"""Each shipped rule fires on what it is for and resolves, on rows as the sink writes them, minute by minute."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from postel.settings import Alerts
from support.alert_cases import CASES, MINUTE, RULES, T0, Case, Minute, Platform, certificate, nothing
from timescale_sink.alerts.evaluate import Evaluator
from timescale_sink.store.database import Connection, connect

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"


def test_every_rule_has_its_case_and_its_runbook() -> None:
    assert sorted(case.rule for case in CASES) == sorted(RULES)
    assert {path.stem for path in RUNBOOKS.glob("*.md")} >= {*RULES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_fires_when_it_is_so_resolves_when_it_is_over_and_is_quiet_else(
    case: Case, migrated_database: str
) -> None:
    asyncio.run(_check(case, migrated_database))


async def _check(case: Case, url: str) -> None:
    rule = RULES[case.rule]
    evaluator = Evaluator([rule.model_copy(update={"every": timedelta(0)})], Alerts(), "")
    async with await connect(url) as connection:
        await _check_over(case, evaluator, connection, url)


async def _check_over(case: Case, evaluator: Evaluator, connection: Connection, url: str) -> None:
    rule = RULES[case.rule]
    with psycopg.connect(url, autocommit=True) as inserting:
        platform = Platform(inserting)
        case.before(platform, T0)
        states: list[tuple[str, dict[str, str]]] = []

        async def minute(number: int, happens: Minute) -> None:
            moment = T0 + number * MINUTE
            happens(platform, moment)
            await evaluator.evaluate(connection, moment)
            found = inserting.execute("SELECT state, labels, rule FROM alert").fetchall()
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
        changes = inserting.execute("SELECT state FROM alert_change ORDER BY id").fetchall()
        assert changes == [("firing",), ("resolved",)]


@pytest.mark.parametrize("case", [case for case in CASES if case.fine is not nothing], ids=str)
def test_a_rule_is_quiet_while_all_is_fine(case: Case, migrated_database: str) -> None:
    async def check() -> None:
        evaluator = Evaluator([RULES[case.rule].model_copy(update={"every": timedelta(0)})], Alerts(), "")
        with psycopg.connect(migrated_database, autocommit=True) as inserting:
            async with await connect(migrated_database) as connection:
                platform = Platform(inserting)
                case.before(platform, T0)
                for number in range(30):
                    case.fine(platform, T0 + number * MINUTE)
                    await evaluator.evaluate(connection, T0 + number * MINUTE)
            assert inserting.execute("SELECT * FROM alert").fetchall() == []

    asyncio.run(check())


def test_a_certificate_that_was_renewed_under_another_name_is_no_longer_wrong(migrated_database: str) -> None:
    async def check() -> None:
        evaluator = Evaluator([RULES["certificate-expiring"]], Alerts(), "")
        with psycopg.connect(migrated_database, autocommit=True) as inserting:
            async with await connect(migrated_database) as connection:
                platform = Platform(inserting)
                for number, shown in enumerate([certificate(3, "old.test"), certificate(90, "new.test")]):
                    shown(platform, T0 + number * 5 * MINUTE)
                    await evaluator.evaluate(connection, T0 + number * 5 * MINUTE)
            states = inserting.execute("SELECT state FROM alert_change ORDER BY id").fetchall()
            assert states == [("firing",), ("resolved",)]

    asyncio.run(check())


@pytest.mark.parametrize("rule", ["bounce-rate", "deferral-rate", "provider-blocking"])
def test_what_haraka_hands_on_to_mailboxes_is_no_mail_that_goes_out(rule: str, migrated_database: str) -> None:
    async def check() -> None:
        evaluator = Evaluator([RULES[rule]], Alerts(), "")
        with psycopg.connect(migrated_database, autocommit=True) as inserting:
            async with await connect(migrated_database) as connection:
                platform = Platform(inserting)
                for number in range(25):
                    moment = T0 + number * MINUTE
                    platform.attempts(moment, delivered=100)
                    platform.attempts(moment, "here.test", None, rejected=100, deferred=100)
                    await evaluator.evaluate(connection, moment)
            assert inserting.execute("SELECT * FROM alert").fetchall() == []

    asyncio.run(check())


def test_a_few_unknown_users_among_little_mail_are_no_bounce_rate(migrated_database: str) -> None:
    async def check() -> None:
        evaluator = Evaluator([RULES["bounce-rate-high"]], Alerts(), "")
        with psycopg.connect(migrated_database, autocommit=True) as inserting:
            async with await connect(migrated_database) as connection:
                platform = Platform(inserting)
                platform.attempts(T0, delivered=80, rejected=29)
                for number in range(25):
                    await evaluator.evaluate(connection, T0 + number * MINUTE)
            assert inserting.execute("SELECT * FROM alert").fetchall() == []

    asyncio.run(check())
