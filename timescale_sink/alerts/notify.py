"""Tells people: by apprise, to mail, chats and webhooks, each target apart and again until it took the message."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pydantic import SecretStr
from structlog import get_logger

from postel.errors import SettingsError
from timescale_sink.alerts.records import Message
from timescale_sink.alerts.rules import Rule
from timescale_sink.alerts.state import Alert, State, title_of
from timescale_sink.store.database import Connection

_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=30)
_MOST_TOLD = 50
# Sent at the same time, each by a thread.
_AT_ONCE = 8
# By severity; apprise's names.
_KINDS = {"critical": "failure", "warning": "warning"}

_log = get_logger()


def check(targets: Sequence[SecretStr]) -> None:
    """See that each target can be told anything, before something has to be.

    Raises:
        SettingsError: apprise cannot read one; the message has its place in the list, and nothing of it but the scheme.
    """
    # It logs what it cannot read as it is.
    logger = logging.getLogger("apprise")
    logger.disabled = True
    try:
        wrong = [place for place, url in enumerate(targets) if not _target(url.get_secret_value())]
    finally:
        logger.disabled = False
    if wrong:
        place = wrong[0]
        scheme, there, _ = targets[place].get_secret_value().partition("://")
        named = f"of the scheme {scheme!r}" if there else "without a scheme"
        raise SettingsError(f"[alerts] notify: number {place + 1} of the list, {named}, is no URL that apprise can use")


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
    lines += (f"what to do: {runbook_of(rules[name], page)}" for name in dict.fromkeys(alert.rule for alert in firing))
    lines.append(f"all alerts: {page}/alerts")
    return Message(title, "\n".join(lines), "critical" if critical else "warning", now)


def runbook_of(rule: Rule, page: str) -> str:
    """The address of what to do."""
    return rule.runbook or f"{page}/runbooks/{rule.name}"


async def send(connection: Connection, targets: Sequence[SecretStr], now: datetime) -> bool:
    """Send some of what waits, each message to its target; what is not taken waits twice as long the next time.

    Returns:
        Whether there was anything to send.
    """
    by_hash = {hash_of(url): url for url in targets}
    cursor = await connection.execute(
        "SELECT id, target, title, body, severity, attempts FROM alert_notification"
        " WHERE sent_at IS NULL AND next_attempt <= %s AND target = ANY (%s) ORDER BY next_attempt, id LIMIT %s",
        (now, [*by_hash], _AT_ONCE),
    )
    waiting = await cursor.fetchall()
    # At the same time, for one that takes its time must not hold the others up.
    taken = await asyncio.gather(
        *(
            _aside(partial(_notify, by_hash[target].get_secret_value(), title, body, severity))
            for _, target, title, body, severity, _ in waiting
        ),
        return_exceptions=True,
    )
    for (id_, target, *_, attempts), done in zip(waiting, taken, strict=True):
        if isinstance(done, BaseException):
            # Not its words, which may hold the target's address.
            _log.error("a notification failed", target=target, error=type(done).__name__)
        if done is True:
            await connection.execute("UPDATE alert_notification SET sent_at = %s WHERE id = %s", (now, id_))
        else:
            pause = min(_FIRST_PAUSE * 2 ** min(attempts, 10), _LONGEST_PAUSE)
            _log.warning("a notification was not taken; trying again", target=target, attempts=attempts + 1)
            await connection.execute(
                "UPDATE alert_notification SET attempts = attempts + 1, next_attempt = %s WHERE id = %s",
                (now + pause, id_),
            )
    return bool(waiting)


async def _aside(work: Callable[[], bool]) -> bool:
    """What a function gives in a thread that nobody waits for when the process ends: a target may hang for minutes."""
    done = concurrent.futures.Future[bool]()
    # It cannot be cancelled from now on: the thread would find it so.
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - told to who awaits it
            done.set_exception(error)

    threading.Thread(target=run, name="postel-notify", daemon=True).start()
    return await asyncio.wrap_future(done)


def _notify(url: str, title: str, body: str, severity: str) -> bool:
    target = _target(url)
    return target is not None and bool(target.notify(body=body, title=title, notify_type=_KINDS[severity]))


def _target(url: str) -> Any:
    """Apprise's object of a target, None where it cannot read the URL.

    Asked itself, since `apprise.Apprise.notify` asks in a pool of threads for which the process waits at its end.
    """
    import apprise  # noqa: PLC0415 - half a second and its memory, which who tells nobody need not pay

    return apprise.Apprise.instantiate(url)
