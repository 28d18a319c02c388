"""The dashboard of Zone-MTA's queues."""

from __future__ import annotations

from tools.grafana import counters, points, queries
from tools.grafana.model import MOMENT, TEXT, Board, Panel, Reading, Row, Shown
from tools.grafana.queries import NODE, ZONE

_DEPTH = {"queue_size": "queued", "deferred_size": "deferred"}
_DEPTHS = tuple(f"metrics_zonemta.{column}" for column in _DEPTH)
_AGE = ("metrics_zonemta.oldest_age",)
_QUEUE_FIELDS = {
    "Zone": Shown("string", reading=Reading.TEXT),
    "Queued": Shown("short", ("metrics_zonemta.queue_size",)),
    "Deferred": Shown("short", ("metrics_zonemta.deferred_size",)),
    "Oldest": Shown("s", _AGE),
}
_ONCE = "A queue that several instances share is counted once."


def _attempts(title: str, outcome: str) -> Panel:
    column = f"{outcome}_total"
    return Panel(
        title,
        "lines",
        counters.rates("metrics_zonemta", {column: outcome}, by="zone", where=ZONE),
        Shown("cps", (f"metrics_zonemta.{column}",), Reading.RATE),
        width=8,
    )


QUEUES = Board(
    "queues",
    "Postel: queues",
    "Zone-MTA's queues by zone: how much waits, since when, for what, and how attempts end.",
    [
        Row(
            "Depth",
            [
                Panel(
                    "Waiting for the first attempt",
                    "area",
                    queries.queue({"queue_size": "queued"}, zones=True),
                    Shown("short", ("metrics_zonemta.queue_size",)),
                    note=_ONCE,
                    width=8,
                ),
                Panel(
                    "Waiting for a further attempt",
                    "area",
                    queries.queue({"deferred_size": "deferred"}, zones=True),
                    Shown("short", ("metrics_zonemta.deferred_size",)),
                    note=_ONCE,
                    width=8,
                ),
                Panel(
                    "Age of the oldest message",
                    "lines",
                    queries.queue({"oldest_age": "oldest"}, zones=True),
                    Shown("s", _AGE),
                    width=8,
                ),
                Panel(
                    "The whole queue",
                    "area",
                    queries.queue(_DEPTH, zones=False),
                    Shown("short", _DEPTHS),
                    note=f"{_ONCE} It is more than its zones where some wait in a zone that is not enabled any more.",
                ),
                Panel(
                    "Zones at the end of the range",
                    "table",
                    queries.queue_now(zones=True),
                    Shown("short", _DEPTHS),
                    _QUEUE_FIELDS,
                    note=_ONCE,
                ),
            ],
        ),
        Row(
            "Attempts",
            [
                _attempts("Delivered", "delivered"),
                _attempts("Deferred", "deferred"),
                _attempts("Bounced", "rejected"),
                Panel(
                    "Connections in the pool",
                    "lines",
                    points.gauge("zonemta.connection.pool.count", "node || ' ' || instance"),
                    Shown("short", ("zonemta.connection.pool.count",)),
                ),
                Panel(
                    "How long recipients were in the queue",
                    "lines",
                    points.rates(
                        "zonemta.message.queue.duration",
                        "coalesce(attributes ->> 'zonemta.outcome', 'unknown')",
                        value="sum",
                        per="count",
                    ),
                    Shown("s", ("zonemta.message.queue.duration",)),
                    note="The mean of those who were delivered or given up in the step, as the plugin tells them.",
                    connected=True,
                ),
            ],
        ),
        Row(
            "What is deferred now",
            [
                Panel(
                    "Deferred destinations",
                    "table",
                    f"""SELECT
    to_domain AS "Domain", mx AS "MX", category AS "Category", count(*) AS "Recipients",
    count(DISTINCT queue_id) AS "Messages", min(since) AS "Since", max(time) AS "Last attempt",
    (array_agg(response ORDER BY time DESC))[1] AS "Last answer"
FROM deferred_recipient
WHERE {NODE} AND {ZONE}
GROUP BY to_domain, mx, category
ORDER BY "Recipients" DESC, "Domain"
LIMIT 100""",
                    TEXT,
                    {
                        "Recipients": Shown("short", ("delivery_events.to_domain",), Reading.COUNT),
                        "Messages": Shown("short", ("delivery_events.queue_id",), Reading.COUNT),
                        "Since": MOMENT,
                        "Last attempt": MOMENT,
                    },
                    note="Now, whatever the range: by the events of the last three days.",
                    width=24,
                    height=10,
                ),
                Panel(
                    "Recipients that wait longest",
                    "table",
                    f"""SELECT
    since AS "Since", queue_id AS "Queue id", message_id AS "Message-ID", zone AS "Zone", to_domain AS "Domain",
    attempt AS "Attempts", next_attempt AS "Next attempt", smtp_code AS "Code", response AS "Last answer"
FROM deferred_recipient
WHERE {NODE} AND {ZONE}
ORDER BY since
LIMIT 50""",
                    TEXT,
                    {
                        "Since": MOMENT,
                        "Attempts": Shown("short", ("delivery_events.attempt",), Reading.COUNT),
                    },
                    note="Now, whatever the range: by the events of the last three days.",
                    width=24,
                    height=10,
                ),
            ],
        ),
    ],
    ["docs/reference/zone_mta.md"],
    zones=True,
)
