"""The dashboard of how destinations take the mail."""

from __future__ import annotations

from tools.grafana import queries
from tools.grafana.model import MOMENT, TEXT, Board, Panel, Reading, Row, Shown
from tools.grafana.queries import LAST_DAY, NODE


def _share(of: str) -> str:
    return f"sum(events) FILTER (WHERE status = '{of}')::float8 / sum(events)"


def _status(status: str) -> str:
    return f"coalesce(sum(events) FILTER (WHERE status = '{status}'), 0)::float8"


def _rows(status: str) -> str:
    return f"count(*) FILTER (WHERE status = '{status}')"


_STATUS = ("delivery_events.status",)
_COUNTED = Shown("short", _STATUS, Reading.COUNT)
_SHARED = Shown("percentunit", _STATUS, Reading.SHARE)
_ZONE = "('*' IN (${zone:sqlstring}) OR coalesce(zone, '') IN (${zone:sqlstring}))"
_DAY = "Of the last day of the range at most: no rollup has it."
_UNKNOWN_DOMAIN = "coalesce(domain, 'unknown')"
_TABLE_FIELDS = {
    "Delivered": _COUNTED,
    "Deferred": _COUNTED,
    "Rejected": _COUNTED,
    "Attempts": _COUNTED,
    "Bounced": _SHARED,
    "Mean duration": Shown("s", ("delivery_events.duration",)),
}

DELIVERABILITY = Board(
    "deliverability",
    "Postel: deliverability",
    "How destinations take the mail: by domain and MX, with the categories, codes and texts of their answers.",
    [
        Row(
            "Attempts",
            [
                Panel(
                    "Attempts by outcome",
                    "bars",
                    queries.events("delivery_events", "coalesce(status, 'unknown')", where=_ZONE),
                    _COUNTED,
                    note="How many in each step.",
                ),
                Panel(
                    "Deferred and bounced of all attempts",
                    "lines",
                    f"""{queries.told("delivery_events", _ZONE)}
SELECT $__timeGroup(at, $__interval) AS time, {_share("deferred")} AS "deferred", {_share("rejected")} AS "bounced"
FROM told
GROUP BY 1
ORDER BY 1""",
                    _SHARED,
                    connected=True,
                ),
                Panel(
                    "How long attempts took",
                    "lines",
                    queries.events(
                        "delivery_events",
                        "coalesce(status, 'unknown')",
                        "sum(duration_sum) / sum(duration_count)",
                        where=_ZONE,
                        only="duration_count > 0",
                    ),
                    Shown("s", ("delivery_events.duration",)),
                    note="The mean of each step.",
                    connected=True,
                ),
                Panel(
                    "Why: categories of what was not delivered",
                    "bars",
                    queries.events(
                        "delivery_events",
                        "status || ': ' || coalesce(category, 'unknown')",
                        where=_ZONE,
                        only="status <> 'delivered'",
                    ),
                    Shown("short", ("delivery_events.category",), Reading.COUNT),
                    note="How many in each step, by Zone-MTA's category of the answer.",
                ),
            ],
        ),
        Row(
            "Destinations",
            [
                Panel(
                    "Domains",
                    "table",
                    queries.event_table(
                        "delivery_events",
                        {
                            "Domain": _UNKNOWN_DOMAIN,
                            "Attempts": "sum(events)::float8",
                            "Delivered": _status("delivered"),
                            "Deferred": _status("deferred"),
                            "Rejected": _status("rejected"),
                            "Bounced": "sum(events) FILTER (WHERE status = 'rejected')::float8"
                            " / nullif(sum(events) FILTER (WHERE status <> 'deferred'), 0)",
                            "Mean duration": "sum(duration_sum) / nullif(sum(duration_count), 0)",
                        },
                        where=_ZONE,
                        rest='GROUP BY 1\nORDER BY "Attempts" DESC, 1\nLIMIT 100',
                    ),
                    TEXT,
                    _TABLE_FIELDS,
                    note="Bounced: of those that were delivered or given up.",
                    height=12,
                ),
                Panel(
                    "MX",
                    "table",
                    f"""SELECT
    coalesce(mx, 'unknown') AS "MX", count(*) AS "Attempts",
    {_rows("delivered")} AS "Delivered", {_rows("deferred")} AS "Deferred", {_rows("rejected")} AS "Rejected",
    {_rows("rejected")}::float8 / nullif(count(*) FILTER (WHERE status <> 'deferred'), 0) AS "Bounced",
    avg(duration) AS "Mean duration"
FROM delivery_events
WHERE {LAST_DAY} AND {NODE} AND {_ZONE}
GROUP BY 1
ORDER BY "Attempts" DESC, 1
LIMIT 100""",
                    TEXT,
                    _TABLE_FIELDS,
                    note=_DAY,
                    height=12,
                ),
            ],
        ),
        Row(
            "Answers",
            [
                Panel(
                    "Categories",
                    "table",
                    queries.event_table(
                        "delivery_events",
                        {
                            "Category": "coalesce(category, 'unknown')",
                            "Deferred": _status("deferred"),
                            "Rejected": _status("rejected"),
                            "Domains": "count(DISTINCT domain)",
                        },
                        where=_ZONE,
                        only="status <> 'delivered'",
                        rest='GROUP BY 1\nORDER BY "Rejected" DESC, "Deferred" DESC, 1\nLIMIT 50',
                    ),
                    TEXT,
                    {
                        "Deferred": _COUNTED,
                        "Rejected": _COUNTED,
                        "Domains": Shown("short", ("delivery_events.to_domain",), Reading.COUNT),
                    },
                    width=8,
                    height=10,
                ),
                Panel(
                    "Enhanced status codes",
                    "table",
                    f"""SELECT
    coalesce(enhanced_code, 'none') AS "Enhanced code", smtp_code AS "Code",
    {_rows("deferred")} AS "Deferred", {_rows("rejected")} AS "Rejected", count(DISTINCT to_domain) AS "Domains"
FROM delivery_events
WHERE {LAST_DAY} AND status <> 'delivered' AND {NODE} AND {_ZONE}
GROUP BY 1, 2
ORDER BY "Rejected" DESC, "Deferred" DESC, 1, 2
LIMIT 50""",
                    TEXT,
                    {
                        "Deferred": _COUNTED,
                        "Rejected": _COUNTED,
                        "Domains": Shown("short", ("delivery_events.to_domain",), Reading.COUNT),
                    },
                    note=_DAY,
                    width=16,
                    height=10,
                ),
                Panel(
                    "Texts",
                    "table",
                    f"""SELECT
    response AS "Answer", coalesce(mx, 'unknown') AS "MX", max(status) AS "Status", count(*) AS "Times",
    max(time) AS "Last"
FROM delivery_events
WHERE {LAST_DAY} AND status <> 'delivered' AND response IS NOT NULL AND {NODE} AND {_ZONE}
GROUP BY response, mx
ORDER BY "Times" DESC, "Last" DESC
LIMIT 100""",
                    TEXT,
                    {"Times": Shown("short", ("delivery_events.response",), Reading.COUNT), "Last": MOMENT},
                    note=_DAY,
                    width=24,
                    height=12,
                ),
            ],
        ),
    ],
    ["docs/reference/zone_mta.md", "docs/reference/mail.md"],
    zones=True,
    begin="now-24h",
)
