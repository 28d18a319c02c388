"""Alerts in the database."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from timescale_sink.alerts.rules import Rule, Severity
from timescale_sink.alerts.state import Alert, Finding, Labels, State, title_of
from timescale_sink.store.database import Connection

# What is over stays for so long, in the list of alerts and in their history.
KEEP_RESOLVED = timedelta(days=7)
KEEP_CHANGES = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Message:
    """What is told of one or more alerts at once."""

    title: str
    body: str
    severity: Severity
    made_at: datetime


async def findings(connection: Connection, rule: Rule, now: datetime) -> list[Finding]:
    """What a rule's query says of each subject at a moment; psycopg.Error where it cannot be asked."""
    cursor = await connection.execute(rule.sql.encode(), {"now": now})
    names = [column.name for column in cursor.description or ()]
    found = []
    for row in await cursor.fetchall():
        cells = dict(zip(names, row, strict=True))
        value = cells.pop("value")
        if value is None or math.isnan(value):
            continue
        labels = tuple(sorted((name, _text(cells.pop(name))) for name in rule.labels))
        # JSON has no infinity.
        bounded = max(-sys.float_info.max, min(float(value), sys.float_info.max))
        found.append(Finding(labels, bounded, {name: _text(cell) for name, cell in cells.items()}))
    return found


async def alerts(connection: Connection, rule: str | None = None) -> list[Alert]:
    """Those of a rule, or all."""
    cursor = connection.cursor(row_factory=tuple_row)
    await cursor.execute(
        "SELECT rule, labels, state, since, seen, value, details, told FROM alert"
        " WHERE %(rule)s::text IS NULL OR rule = %(rule)s ORDER BY rule, labels",
        {"rule": rule},
    )
    return [_alert(row) for row in await cursor.fetchall()]


async def write(connection: Connection, rule: Rule, changed: Mapping[Labels, Alert | None], now: datetime) -> None:
    """Write what `timescale_sink.alerts.state.step` gave, and the changes to firing and resolved beside it."""
    for labels, alert in changed.items():
        if alert is None:
            await connection.execute("DELETE FROM alert WHERE rule = %s AND labels = %s", (rule.name, _json(labels)))
            continue
        values = {
            "rule": rule.name,
            "labels": _json(labels),
            "state": alert.state.value,
            "since": alert.since,
            "seen": alert.seen,
            "value": alert.value,
            "details": Jsonb(dict(alert.details)),
            "title": title_of(rule, alert),
            "severity": rule.severity,
        }
        # A new trouble is nobody's yet.
        await connection.execute(
            """
            INSERT INTO alert (rule, labels, state, since, seen, value, details, title, severity)
            VALUES (
                %(rule)s, %(labels)s, %(state)s, %(since)s, %(seen)s, %(value)s, %(details)s, %(title)s, %(severity)s
            )
            ON CONFLICT (rule, labels) DO UPDATE SET
                state = excluded.state, since = excluded.since, seen = excluded.seen, value = excluded.value,
                details = excluded.details, title = excluded.title, severity = excluded.severity,
                acknowledged_by = CASE WHEN alert.state <> 'resolved' THEN alert.acknowledged_by END,
                acknowledged_at = CASE WHEN alert.state <> 'resolved' THEN alert.acknowledged_at END
            """,
            values,
        )
        if alert.since == now and alert.state is not State.PENDING:
            await connection.execute(
                "INSERT INTO alert_change (time, rule, labels, state, value)"
                " VALUES (%(since)s, %(rule)s, %(labels)s, %(state)s, %(value)s)",
                values,
            )


async def forget(connection: Connection, rules: Sequence[str], now: datetime) -> None:
    """Delete what is long over, and alerts of rules that are not there any more."""
    await connection.execute(
        "DELETE FROM alert WHERE rule <> ALL (%s) OR (state = 'resolved' AND since < %s)",
        ([*rules], now - KEEP_RESOLVED),
    )
    await connection.execute("DELETE FROM alert_change WHERE time < %s", (now - KEEP_CHANGES,))
    await connection.execute("DELETE FROM alert_silence WHERE ends < %s", (now - KEEP_CHANGES,))
    await connection.execute("DELETE FROM alert_notification WHERE made_at < %s", (now - KEEP_RESOLVED,))


async def untold(connection: Connection, now: datetime, repeat: timedelta) -> list[Alert]:
    """Alerts to tell of: firing and not told so, or not for ``repeat``, or resolved after they were told to fire.

    Not of what is silenced; and what was acknowledged is not told again.
    """
    cursor = connection.cursor(row_factory=tuple_row)
    await cursor.execute(
        """
        SELECT rule, labels, state, since, seen, value, details, told FROM alert
        WHERE
            (
                (state = 'firing' AND told IS DISTINCT FROM 'firing')
                OR (state = 'firing' AND acknowledged_at IS NULL AND told_at <= %(again)s)
                OR (state = 'resolved' AND told = 'firing')
            )
            AND NOT EXISTS (
                SELECT FROM alert_silence AS silence
                WHERE
                    %(now)s >= silence.starts AND %(now)s < silence.ends
                    AND coalesce(silence.rule, alert.rule) = alert.rule AND alert.labels @> silence.labels
            )
        ORDER BY rule, labels
        """,
        {"now": now, "again": now - repeat},
    )
    return [_alert(row) for row in await cursor.fetchall()]


async def tell(connection: Connection, told: Sequence[Alert], message: Message, targets: Sequence[str]) -> None:
    """Note a message of these alerts for each target; in one transaction, or it would be told twice or never."""
    async with connection.transaction():
        for alert in told:
            await connection.execute(
                "UPDATE alert SET told = state, told_at = %s WHERE rule = %s AND labels = %s",
                (message.made_at, alert.rule, _json(alert.labels)),
            )
        for target in targets:
            await connection.execute(
                "INSERT INTO alert_notification (target, title, body, severity, made_at, next_attempt)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                (target, message.title, message.body, message.severity, message.made_at, message.made_at),
            )


def _alert(row: Sequence[Any]) -> Alert:
    rule, labels, state, since, seen, value, details, told = row
    return Alert(
        rule, tuple(sorted(labels.items())), State(state), since, seen, value, details, State(told) if told else None
    )


def _json(labels: Labels) -> Jsonb:
    return Jsonb(dict(labels))


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
