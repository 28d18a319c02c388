"""The dashboard of what Rspamd does."""

from __future__ import annotations

from tools.grafana import counters, queries
from tools.grafana.model import TEXT, Board, Panel, Reading, Row, Shown
from tools.grafana.queries import LAST_DAY, NODE

_ACTIONS = {
    "no_action_total": "no action",
    "greylist_total": "greylist",
    "add_header_total": "add header",
    "rewrite_subject_total": "rewrite subject",
    "soft_reject_total": "soft reject",
    "reject_total": "reject",
}
_ACTED = tuple(f"metrics_rspamd.{column}" for column in _ACTIONS)
# As Rspamd counts spam itself (controller.c, "spam_count").
_SPAM = " + ".join(
    f"coalesce({column}, 0)"
    for column in ("reject_total", "soft_reject_total", "rewrite_subject_total", "add_header_total")
)
_DAY = "Of the last day of the range at most: no rollup has it."

SPAM = Board(
    "spam",
    "Postel: spam",
    "What Rspamd does with the mail, with which scores and for which symbols.",
    [
        Row(
            "Rspamd",
            [
                Panel(
                    "Messages by action",
                    "area",
                    counters.rates("metrics_rspamd", _ACTIONS),
                    Shown("cps", _ACTED, Reading.RATE),
                ),
                Panel(
                    "Scanned in this range",
                    "stat",
                    counters.totals(
                        "metrics_rspamd",
                        ["scanned_total", "learned_total"],
                        {"Scanned": "scanned_total", "Learned": "learned_total"},
                    ),
                    Shown("short", ("metrics_rspamd.scanned_total", "metrics_rspamd.learned_total")),
                    width=6,
                ),
                Panel(
                    "Spam of what was scanned",
                    "stat",
                    counters.totals(
                        "metrics_rspamd",
                        ["scanned_total", *_ACTIONS],
                        {"Spam": f"({_SPAM}) / nullif(scanned_total, 0)"},
                    ),
                    Shown("percentunit", ("metrics_rspamd.scanned_total", *_ACTED), Reading.SHARE),
                    note="What Rspamd counts as spam: to be rejected, for good or for now, or marked.",
                    width=6,
                ),
                Panel(
                    "How long a scan takes",
                    "lines",
                    queries.gauges("metrics_rspamd", {"scan_duration": "scan"}, instances=True),
                    Shown("s", ("metrics_rspamd.scan_duration",)),
                ),
                Panel(
                    "Inbound mail, rejected and spam",
                    "lines",
                    counters.rates(
                        "metrics_haraka", {"inbound_total": "came", "rejected_count": "rejected", "spam_count": "spam"}
                    ),
                    Shown(
                        "cps",
                        tuple(f"metrics_haraka.{c}" for c in ("inbound_total", "rejected_count", "spam_count")),
                        Reading.RATE,
                    ),
                    note="As Haraka's plugin tells it.",
                ),
            ],
        ),
        Row(
            "Messages",
            [
                Panel(
                    "Messages by action, as Haraka saw it",
                    "bars",
                    queries.events("email_events", "spam_action", only="spam_action IS NOT NULL"),
                    Shown("short", ("email_events.spam_action",), Reading.COUNT),
                    note="How many in each step.",
                ),
                Panel(
                    "Mean score",
                    "lines",
                    queries.events(
                        "email_events",
                        "coalesce(outcome, 'unknown')",
                        "(sum(spam_score_sum) / sum(spam_score_count))::float8",
                        only="spam_score_count > 0",
                    ),
                    Shown("none", ("email_events.spam_score",)),
                    note="By what became of the message.",
                    connected=True,
                ),
                Panel(
                    "Scores",
                    "table",
                    f"""SELECT
    greatest(-20, least(40, floor(spam_score))) AS "From", count(*) AS "Messages",
    count(*) FILTER (WHERE outcome = 'rejected') AS "Rejected"
FROM email_events
WHERE {LAST_DAY} AND spam_score IS NOT NULL AND {NODE}
GROUP BY 1
ORDER BY 1""",
                    Shown("short", ("email_events.spam_score",), Reading.COUNT),
                    {"From": Shown("none", ("email_events.spam_score",))},
                    note=f"{_DAY} Each line is of one point of score; the outer ones hold what is beyond.",
                    width=8,
                    height=10,
                ),
                Panel(
                    "Symbols of messages",
                    "table",
                    f"""SELECT
    symbol AS "Symbol", count(*) AS "Messages", avg(score::float8) AS "Mean score",
    count(*) FILTER (WHERE outcome = 'rejected') AS "Rejected"
FROM email_events CROSS JOIN LATERAL jsonb_each_text(symbols) AS found (symbol, score)
WHERE {LAST_DAY} AND jsonb_typeof(symbols) = 'object' AND {NODE}
GROUP BY symbol
ORDER BY "Messages" DESC, symbol
LIMIT 100""",
                    TEXT,
                    {
                        "Messages": Shown("short", ("email_events.symbols",), Reading.COUNT),
                        "Rejected": Shown("short", ("email_events.symbols",), Reading.COUNT),
                        "Mean score": Shown("none", ("email_events.symbols",)),
                    },
                    note=_DAY,
                    width=8,
                    height=10,
                ),
                Panel(
                    "Hits of rules",
                    "table",
                    f"""SELECT attributes ->> 'rspamd.symbol' AS "Symbol", sum(hits)::float8 AS "Messages"
FROM (
    SELECT
        attributes, CASE WHEN last.started_at IS NOT DISTINCT FROM first.started_at THEN last.value - first.value
        ELSE last.value END AS hits
    FROM otel_series AS series
    CROSS JOIN LATERAL (
        SELECT value, started_at FROM otel_metric_point AS point
        WHERE point.series_id = series.series_id AND $__timeFilter(time) ORDER BY time LIMIT 1
    ) AS first
    CROSS JOIN LATERAL (
        SELECT value, started_at FROM otel_metric_point AS point
        WHERE point.series_id = series.series_id AND $__timeFilter(time) ORDER BY time DESC LIMIT 1
    ) AS last
    WHERE metric = 'rspamd.symbol.hits' AND {NODE}
) AS rule
GROUP BY 1
HAVING sum(hits) > 0
ORDER BY "Messages" DESC, 1
LIMIT 100""",
                    TEXT,
                    {"Messages": Shown("short", ("rspamd.symbol.hits",))},
                    note="From the first to the last point in the range; after a restart of Rspamd in it, since that.",
                    width=8,
                    height=10,
                ),
            ],
        ),
    ],
    ["docs/reference/rspamd.md", "docs/reference/mail.md"],
)
