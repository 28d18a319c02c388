"""Evaluates the rules, one process of many on a database at a time, and has people told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg
from structlog import get_logger

from postel.errors import DatabaseError
from postel.settings import Alerts
from timescale_sink.alerts import notify, records
from timescale_sink.alerts.rules import Rule
from timescale_sink.alerts.state import Finding, step
from timescale_sink.store.database import Connection, connect
from timescale_sink.store.migrate import SCHEMA_LOCK, require_current

_LOCK = SCHEMA_LOCK + 2
_TICK_S = 5.0
_RETRY_S = 5.0
_SEND_S = 2.0
_STATEMENT_TIMEOUT = "10s"

# A rule that cannot be asked judges nothing; this one says so.
BROKEN = Rule.model_validate(
    {
        "name": "rule-broken",
        "title": "The alert rule {rule} cannot be evaluated: {reason}",
        "severity": "critical",
        "sql": "",
        "labels": ["rule"],
        "above": 0,
        "for": "5m",
        "keep": 0,
    }
)

_log = get_logger()


class Evaluator:
    """Evaluates rules and notes what to tell at moments that it is given; `run` gives it those of the clock, and sends.

    Args:
        rules: all of them.
        settings: who is told, and how often.
        page: where who is told reaches Postel, without the last slash.
    """

    def __init__(self, rules: Sequence[Rule], settings: Alerts, page: str) -> None:
        self._rules = {rule.name: rule for rule in (*rules, BROKEN)}
        self._targets = settings.notify
        self._page = page
        self._repeat = timedelta(seconds=settings.repeat)
        self._evaluated: dict[str, datetime] = {}
        self._broken: dict[str, str] = {}

    async def evaluate(self, connection: Connection, now: datetime) -> None:
        """Evaluate the rules that are due at a moment."""
        for rule in self._rules.values():
            if rule is not BROKEN and self._is_due(rule, now):
                await self._evaluate(connection, rule, now)
        broken = [Finding((("rule", rule),), float(bool(why)), {"reason": why}) for rule, why in self._broken.items()]
        await self._advance(connection, BROKEN, broken, now)

    async def tell(self, connection: Connection, now: datetime) -> None:
        """Note what changed, and whom to tell of it."""
        untold = await records.untold(connection, now, self._repeat)
        if told := [alert for alert in untold if alert.rule in self._rules]:
            message = notify.message_of(told, self._rules, now, self._page)
            _log.info("an alert changed", title=message.title, severity=message.severity)
            await records.tell(connection, told, message, [notify.hash_of(url) for url in self._targets])

    def _is_due(self, rule: Rule, now: datetime) -> bool:
        last = self._evaluated.get(rule.name)
        # A clock that was set back must not silence a rule.
        if last is not None and timedelta(0) <= now - last < rule.every:
            return False
        self._evaluated[rule.name] = now
        return True

    async def _evaluate(self, connection: Connection, rule: Rule, now: datetime) -> None:
        try:
            async with connection.transaction():
                await connection.execute("SET TRANSACTION READ ONLY")
                await connection.execute(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT}'")
                found = await records.findings(connection, rule, now)
        except (psycopg.Error, KeyError, ValueError, TypeError) as error:
            if connection.closed:
                raise
            why = str(error).partition("\n")[0]
            if not self._broken.get(rule.name):
                _log.warning("an alert rule cannot be evaluated", rule=rule.name, reason=why)
            self._broken[rule.name] = why
            return
        self._broken[rule.name] = ""
        await self._advance(connection, rule, found, now)

    async def _advance(self, connection: Connection, rule: Rule, found: Sequence[Finding], now: datetime) -> None:
        changed = step(rule, await records.alerts(connection, rule.name), found, now)
        async with connection.transaction():
            await records.write(connection, rule, changed, now)

    async def run(self, url: str) -> None:
        """Evaluate and send until cancelled, while no other process does."""
        said = ""
        while True:
            try:
                connection = await connect(url)
                try:
                    # Rules ask for the newest views.
                    await require_current(connection)
                    # It goes with the connection, and another process has it soon.
                    if await _locked(connection):
                        said = ""
                        # Apart: a target that takes its time must hold no evaluation up.
                        async with asyncio.TaskGroup() as group:
                            group.create_task(self._run(connection))
                            group.create_task(self._send(url))
                finally:
                    await connection.close()
            except* (DatabaseError, psycopg.Error) as errors:
                reason = str(errors.exceptions[0]).partition("\n")[0]
                if reason != said:
                    _log.warning("alerts cannot be evaluated; trying again", reason=reason)
                said = reason
            except* Exception:  # noqa: BLE001 - what nobody foresaw in one evaluation must not end all others
                _log.exception("alerts cannot be evaluated; trying again")
            await asyncio.sleep(_RETRY_S)

    async def _run(self, connection: Connection) -> None:
        _log.info("this process evaluates the alert rules", rules=len(self._rules) - 1)
        while True:
            await self.evaluate(connection, await _now(connection))
            # A silence that began meanwhile counts.
            now = await _now(connection)
            await records.forget(connection, [*self._rules], now)
            await self.tell(connection, now)
            await asyncio.sleep(_TICK_S)

    async def _send(self, url: str) -> None:
        if not self._targets:
            return
        async with await connect(url) as connection:
            while True:
                if not await notify.send(connection, self._targets, await _now(connection)):
                    await asyncio.sleep(_SEND_S)


async def _now(connection: Connection) -> datetime:
    """By the database's clock, the same for every process that may evaluate, and for silences."""
    rows = await (await connection.execute("SELECT clock_timestamp()")).fetchall()
    moment: datetime = rows[0][0]
    return moment


async def _locked(connection: Connection) -> bool:
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))).fetchone()
    return bool(row and row[0])
