"""The dashboard of WildDuck."""

from __future__ import annotations

from tools.grafana import counters, points, queries, tables
from tools.grafana.model import MOMENT, TEXT, Board, Panel, Reading, Row, Shown
from tools.grafana.queries import NODE
from tools.grafana.tables import Figure

_LMTP = {"lmtp_accepted_total": "accepted", "lmtp_rejected_total": "rejected", "lmtp_error_total": "failed"}


def _wildduck(*columns: str) -> tuple[str, ...]:
    return tuple(f"metrics_wildduck.{column}" for column in columns)


def _mailboxes(title: str, unit: str, columns: dict[str, str], *, width: int = 12, note: str = "") -> Panel:
    return Panel(
        title,
        "lines",
        # Users are read every five minutes, or when WildDuck has answered: no step without a value is a gap.
        queries.gauges("metrics_wildduck", columns, instances=True, fill=False),
        Shown(unit, _wildduck(*columns)),
        note=note,
        width=width,
        interval="5m",
        connected=True,
    )


MAILBOXES = Board(
    "mailboxes",
    "Postel: mailboxes",
    "WildDuck: users, what they store, who is near the quota, connections, and mail handed over to it.",
    [
        Row(
            "Users and storage",
            [
                tables.latest(
                    "At the end of the range",
                    "metrics_wildduck",
                    {
                        "user_count": Figure("Users", "short"),
                        "storage_usage": Figure("Stored", "bytes"),
                        "storage_limit": Figure("Quotas", "bytes"),
                        "near_quota_count": Figure("Near quota", "short"),
                        "over_quota_count": Figure("Over quota", "short"),
                        "mailbox_count": Figure("Mailboxes", "short"),
                        "message_count": Figure("Messages", "short"),
                        "unseen_count": Figure("Unseen", "short"),
                    },
                    note="Instances on one database say the same figures: they are not to be added up.",
                    height=5,
                ),
                _mailboxes("Stored", "bytes", {"storage_usage": "quota", "mailbox_size": "messages"}, width=8),
                _mailboxes(
                    "Near and over quota", "short", {"near_quota_count": "near", "over_quota_count": "over"}, width=8
                ),
                _mailboxes("Users", "short", {"user_count": "users"}, width=8),
                _mailboxes("Messages", "short", {"message_count": "all", "unseen_count": "unseen"}),
                Panel(
                    "Users nearest to their quota",
                    "table",
                    f"""SELECT
    coalesce(told.attributes ->> 'user.name', told.attributes ->> 'user.id') AS "User",
    (told.attributes ->> 'wildduck.quota.used')::float8 AS "Stored",
    (told.attributes ->> 'wildduck.quota.allowed')::float8 AS "Quota",
    (told.attributes ->> 'wildduck.quota.used')::float8
    / nullif((told.attributes ->> 'wildduck.quota.allowed')::float8, 0) AS "Used", time AS "As of"
FROM (
    SELECT DISTINCT ON (attributes ->> 'user.id') attributes, time
    FROM otel_log
    WHERE
        event_name = 'wildduck.quota.snapshot' AND {NODE}
        -- Each user is told once a day.
        AND time > $__timeTo()::timestamptz - interval '2 days' AND time <= $__timeTo()::timestamptz
    ORDER BY attributes ->> 'user.id', time DESC
) AS told
WHERE told.attributes ? 'wildduck.quota.allowed'
ORDER BY "Used" DESC NULLS LAST, "User"
LIMIT 50""",
                    TEXT,
                    {
                        "Stored": Shown("bytes", ("wildduck.storage.usage",)),
                        "Quota": Shown("bytes", ("wildduck.storage.limit",)),
                        "Used": Shown(
                            "percentunit", ("wildduck.storage.usage", "wildduck.storage.limit"), Reading.SHARE
                        ),
                        "As of": MOMENT,
                    },
                    note="As it was last told within two days before the end of the range.",
                    height=8,
                ),
            ],
        ),
        Row(
            "Traffic",
            [
                Panel(
                    "Recipients by LMTP",
                    "lines",
                    counters.rates("metrics_wildduck", _LMTP),
                    Shown("cps", _wildduck(*_LMTP), Reading.RATE),
                    width=8,
                ),
                Panel(
                    "Open connections",
                    "lines",
                    queries.gauges(
                        "metrics_wildduck", {"imap_connections": "IMAP", "pop3_connections": "POP3"}, instances=True
                    ),
                    Shown("short", _wildduck("imap_connections", "pop3_connections")),
                    width=8,
                ),
                Panel(
                    "Log-ins",
                    "lines",
                    points.rates(
                        "wildduck.auth.attempts",
                        "coalesce(attributes ->> 'wildduck.service', '') || ' '"
                        " || coalesce(attributes ->> 'wildduck.result', 'unknown')",
                    ),
                    Shown("cps", ("wildduck.auth.attempts",), Reading.RATE),
                    width=8,
                ),
            ],
        ),
    ],
    ["docs/reference/wildduck.md"],
    begin="now-24h",
)
