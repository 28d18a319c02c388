"""One alert rule over a platform that a test lets be, by the evaluator of production."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from postel.settings import Alerts
from support.alert_cases import RULES, Platform
from timescale_sink.alerts.evaluate import Evaluator
from timescale_sink.alerts.rules import Rule
from timescale_sink.store.database import connect


def each_time(rule: str) -> Rule:
    """A rule that is evaluated whenever its evaluator is."""
    return RULES[rule].model_copy(update={"every": timedelta(0)})


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
