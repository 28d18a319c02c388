"""The dashboard that is opened in the morning."""

from __future__ import annotations

from tools.grafana import counters, queries
from tools.grafana.model import MOMENT, TEXT, Board, Panel, Reading, Row, Shown
from tools.grafana.queries import NAMED, NODE

_OUTCOMES = {"delivered_total": "delivered", "deferred_total": "deferred", "rejected_total": "bounced"}
_ATTEMPTS = tuple(f"metrics_zonemta.{column}" for column in _OUTCOMES)
_DEPTH = {"queue_size": "queued", "deferred_size": "deferred"}
_DEPTHS = tuple(f"metrics_zonemta.{column}" for column in _DEPTH)
_AGE = ("metrics_zonemta.oldest_age",)
_ONCE = "A queue that several instances share is counted once."

OVERVIEW = Board(
    "overview",
    "Postel: overview",
    "What the mail platform does: accepted, delivered, deferred, bounced, spam; what waits; which nodes report.",
    [
        Row(
            "In this range",
            [
                Panel(
                    "Outbound",
                    "stat",
                    counters.totals(
                        "metrics_zonemta",
                        list(_OUTCOMES),
                        {"Delivered": "delivered_total", "Deferred": "deferred_total", "Bounced": "rejected_total"},
                    ),
                    Shown("short", _ATTEMPTS),
                    note="One for each recipient and attempt; a bounce is an attempt that gave a recipient up.",
                    width=9,
                    height=4,
                ),
                Panel(
                    "Bounced of what is over",
                    "stat",
                    counters.totals(
                        "metrics_zonemta",
                        ["delivered_total", "rejected_total"],
                        {"Bounced": "rejected_total / nullif(delivered_total + rejected_total, 0)"},
                    ),
                    Shown("percentunit", (_ATTEMPTS[0], _ATTEMPTS[2]), Reading.SHARE),
                    width=3,
                    height=4,
                    levels=(0.05, 0.1),
                ),
                Panel(
                    "Inbound",
                    "stat",
                    counters.totals(
                        "metrics_haraka",
                        ["inbound_total", "rejected_count", "spam_count"],
                        {"Came": "inbound_total", "Rejected": "rejected_count", "Spam": "spam_count"},
                    ),
                    Shown(
                        "short", tuple(f"metrics_haraka.{c}" for c in ("inbound_total", "rejected_count", "spam_count"))
                    ),
                    width=9,
                    height=4,
                ),
                Panel(
                    "Waiting at its end",
                    "stat",
                    queries.queue_now(zones=False),
                    Shown("short", _DEPTHS),
                    {"Oldest": Shown("s", _AGE)},
                    note=_ONCE,
                    width=3,
                    height=4,
                ),
            ],
        ),
        Row(
            "Mail",
            [
                Panel(
                    "Delivery attempts",
                    "area",
                    counters.rates("metrics_zonemta", _OUTCOMES),
                    Shown("cps", _ATTEMPTS, Reading.RATE),
                ),
                Panel(
                    "Waiting",
                    "area",
                    queries.queue(_DEPTH, zones=False),
                    Shown("short", _DEPTHS),
                    note=_ONCE,
                ),
                Panel(
                    "Messages accepted and refused",
                    "bars",
                    queries.events("email_events", "coalesce(direction || ' ', '') || coalesce(outcome, 'unknown')"),
                    Shown("short", ("email_events.outcome",), Reading.COUNT),
                    note="How many in each step, by direction and outcome, as the plugins tell them.",
                ),
                Panel(
                    "Inbound mail and spam",
                    "lines",
                    counters.rates(
                        "metrics_haraka", {"inbound_total": "came", "rejected_count": "rejected", "spam_count": "spam"}
                    ),
                    Shown(
                        "cps",
                        tuple(f"metrics_haraka.{c}" for c in ("inbound_total", "rejected_count", "spam_count")),
                        Reading.RATE,
                    ),
                ),
            ],
        ),
        Row(
            "Nodes",
            [
                Panel(
                    "Nodes",
                    "table",
                    f"""SELECT
    named.name AS "Node", last_seen AS "Last heard of",
    extract(epoch FROM now() - last_seen)::float8 AS "Silent for",
    (SELECT string_agg(one, ', ' ORDER BY one) FROM jsonb_array_elements_text(sources) AS told (one)) AS "Runs",
    first_seen AS "First heard of", demo AS "Synthetic"
FROM node JOIN {NAMED} AS named USING (id) CROSS JOIN LATERAL (SELECT id AS node_id) AS own
WHERE {NODE}
ORDER BY last_seen DESC""",
                    TEXT,
                    {
                        "Last heard of": MOMENT,
                        "First heard of": MOMENT,
                        "Silent for": Shown("s", reading=Reading.TIME),
                    },
                    note="Whenever that was: of all nodes that were ever heard of.",
                    width=24,
                )
            ],
        ),
    ],
    ["docs/reference/zone_mta.md", "docs/reference/haraka.md"],
)
