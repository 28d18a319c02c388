"""Each shipped rule fires on what it is for and resolves, on rows as the sink writes them, minute by minute."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from support.alert_cases import (
    CASES,
    MINUTE,
    RULES,
    T0,
    Case,
    Minute,
    certificate,
    hosted,
    nothing,
    quotas,
    week_of_quotas,
)
from support.judged import each_time, judged

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"


def test_every_rule_has_its_case_and_its_runbook() -> None:
    assert sorted(case.rule for case in CASES) == sorted(RULES)
    assert {path.stem for path in RUNBOOKS.glob("*.md")} >= {*RULES}


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


async def test_who_refuses_is_said_with_the_domains_that_were_refused_most(migrated_database: str) -> None:
    async with judged(RULES["provider-blocking"], migrated_database) as over:
        for number in range(0, 30, 5):
            moment = T0 + number * MINUTE
            for domain, failed in (("a.test", 9), ("b.test", 7), ("c.test", 5), ("d.test", 3)):
                over.platform.attempts(moment, domain, mx="mx.big.co.uk", deferred=failed)
            over.platform.attempts(moment, "a.test", mx="mx.small.co.uk", delivered=100)
            await over.evaluate(moment)
        said = "big.co.uk rejects or defers 100 % of the 144 attempts of the last hour, most to a.test, b.test, c.test"
        assert over.rows("SELECT state, title FROM alert") == [("firing", said)]


async def test_who_lets_nobody_in_is_told_by_its_customers_other_attempts(migrated_database: str) -> None:
    async with judged(RULES["provider-blocking"], migrated_database) as over:
        for number in range(0, 30, 5):
            moment = T0 + number * MINUTE
            for customer in range(20):
                over.platform.attempts(moment, f"customer{customer}.test", mx=f"mx{customer}.big.co.uk", delivered=1)
                over.platform.attempts(moment, f"customer{customer}.test", deferred=2)
            # Where no exchanger ever was.
            over.platform.attempts(moment, "dead.test", deferred=20)
            over.platform.attempts(moment, "rare.test", deferred=2)
            await over.evaluate(moment)
        assert over.rows("SELECT state, labels ->> 'provider' FROM alert ORDER BY 2") == [
            ("firing", "big.co.uk"), ("firing", "dead.test"),
        ]  # fmt: skip


async def test_a_customer_whose_mail_is_refused_is_no_provider_that_blocks(migrated_database: str) -> None:
    async with judged(RULES["provider-blocking"], migrated_database) as over:
        for number in range(0, 30, 5):
            moment = T0 + number * MINUTE
            hosted(delivered=40)(over.platform, moment)
            over.platform.attempts(moment, "full.test", mx="full-test.mx.big.co.uk", rejected=30)
            await over.evaluate(moment)
        assert over.rows("SELECT * FROM alert") == []


@pytest.mark.parametrize(
    ("before", "now", "fires"),
    [
        # One of ten is to be told of; one of fifty and one of a hundred thousand come and go.
        (quotas(0, users=10), quotas(1, users=10), True),
        (quotas(2, users=50), quotas(3, users=50), False),
        (quotas(900, users=100_000), quotas(901, users=100_000), False),
        # Where many always are, as many more than that say something.
        (quotas(900, users=100_000), quotas(1300, users=100_000), False),
        (quotas(900, users=100_000), quotas(1000, 351, users=100_000), True),
        (quotas(10, users=100_000), quotas(60, users=100_000), False),
        (quotas(10, users=100_000), quotas(61, users=100_000), True),
        # Who was near and is over now was there before.
        (quotas(60), quotas(0, 60), False),
        (quotas(60), quotas(10), False),
    ],
)
async def test_users_are_near_their_quota_where_they_are_many_more(
    before: Minute, now: Minute, *, fires: bool, migrated_database: str
) -> None:
    async with judged(RULES["users-near-quota"], migrated_database) as over:
        before(over.platform, T0 - timedelta(days=6))
        for number in range(12):
            now(over.platform, T0 + number * MINUTE)
            await over.evaluate(T0 + number * MINUTE)
        assert over.rows("SELECT state FROM alert") == ([("firing",)] if fires else [])


async def test_how_many_are_near_their_quota_is_said_and_is_usual_after_a_week(migrated_database: str) -> None:
    said = "41 more users of WildDuck w than a week ago hold 90 % of their quota or more: 101 of 4000, 2.5 %"
    async with judged(RULES["users-near-quota"], migrated_database) as over:
        week_of_quotas(over.platform, T0)
        for minutes in (0, 10, 7 * 24 * 60 - 1, 7 * 24 * 60 + 1, 7 * 24 * 60 + 10):
            quotas(90, 11)(over.platform, T0 + minutes * MINUTE)
            await over.evaluate(T0 + minutes * MINUTE)
            if minutes == 10:
                assert over.rows("SELECT title FROM alert") == [(said,)]
        assert over.rows("SELECT state FROM alert_change ORDER BY id") == [("firing",), ("resolved",)]


async def test_a_few_unknown_users_among_little_mail_are_no_bounce_rate(migrated_database: str) -> None:
    async with judged(RULES["bounce-rate-high"], migrated_database) as over:
        over.platform.attempts(T0, delivered=80, rejected=29)
        for number in range(25):
            await over.evaluate(T0 + number * MINUTE)
        assert over.rows("SELECT * FROM alert") == []
