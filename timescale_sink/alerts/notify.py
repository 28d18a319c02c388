"""Tells people: by apprise, to mail, chats and webhooks, each target apart and again until it took the message."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import SecretStr
from structlog import get_logger

from timescale_sink.alerts.records import Message
from timescale_sink.alerts.rules import Rule
from timescale_sink.alerts.state import Alert, State, title_of
from timescale_sink.store.database import Connection

_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=30)
_MOST_TOLD = 50

_log = get_logger()


def hash_of(url: SecretStr) -> str:
    """What a target is called in the database and the log."""
    return hashlib.sha256(url.get_secret_value().encode()).hexdigest()[:12]


def message_of(alerts: Sequence[Alert], rules: Mapping[str, Rule], now: datetime, page: str) -> Message:
    """One message of all that is to be told, the worst first.

    Args:
        alerts: one at least, firing or resolved.
        rules: by their names; of alerts that are told, each is there.
        now: when it is told.
        page: the address under which the reader reaches Postel, without the last slash.
    """
    firing = [alert for alert in alerts if alert.state is State.FIRING]
    critical = any(rules[alert.rule].severity == "critical" for alert in firing)
    first = min(alerts, key=lambda alert: (alert.state is not State.FIRING, rules[alert.rule].severity))
    more = f" and {len(alerts) - 1} more" if len(alerts) > 1 else ""
    title = f"{'' if firing else 'Resolved: '}{title_of(rules[first.rule], first)}{more}"
    lines = [
        f"{'FIRING' if alert.state is State.FIRING else 'resolved'} {rules[alert.rule].severity}: "
        f"{title_of(rules[alert.rule], alert)} (since {alert.since:%Y-%m-%d %H:%M} UTC)"
        for alert in alerts[:_MOST_TOLD]
    ]
    if len(alerts) > _MOST_TOLD:
        lines.append(f"and {len(alerts) - _MOST_TOLD} more")
    lines.append(f"{page}/alerts")
    return Message(title, "\n".join(lines), "critical" if critical else "warning", now)


async def send(connection: Connection, targets: Sequence[SecretStr], now: datetime) -> int:
    """Send what waits, each message to its target; what is not taken waits twice as long the next time.

    Returns:
        How many were taken.
    """
    by_hash = {hash_of(url): url for url in targets}
    cursor = await connection.execute(
        "SELECT id, target, title, body, severity, attempts FROM alert_notification"
        " WHERE sent_at IS NULL AND next_attempt <= %s AND target = ANY (%s) ORDER BY id",
        (now, [*by_hash]),
    )
    waiting = await cursor.fetchall()
    # At the same time, for one that takes its time must not hold the others up.
    taken = await asyncio.gather(
        *(
            asyncio.to_thread(_notify, by_hash[target].get_secret_value(), title, body, severity)
            for _, target, title, body, severity, _ in waiting
        )
    )
    for (id_, target, *_, attempts), done in zip(waiting, taken, strict=True):
        if done:
            await connection.execute("UPDATE alert_notification SET sent_at = %s WHERE id = %s", (now, id_))
        else:
            pause = min(_FIRST_PAUSE * 2 ** min(attempts, 10), _LONGEST_PAUSE)
            _log.warning("a notification was not taken; trying again", target=target, attempts=attempts + 1)
            await connection.execute(
                "UPDATE alert_notification SET attempts = attempts + 1, next_attempt = %s WHERE id = %s",
                (now + pause, id_),
            )
    return sum(taken)


def _notify(url: str, title: str, body: str, severity: str) -> bool:
    import apprise  # noqa: PLC0415 - half a second and its memory, which who tells nobody need not pay

    target = apprise.Apprise()
    kind = apprise.NotifyType.FAILURE if severity == "critical" else apprise.NotifyType.WARNING
    return bool(target.add(url)) and bool(target.notify(body=body, title=title, notify_type=kind))
