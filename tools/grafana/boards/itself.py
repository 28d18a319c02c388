"""The dashboard of Postel itself."""

from __future__ import annotations

from tools.grafana import points
from tools.grafana.model import MOMENT, TEXT, Board, Panel, Reading, Row, Shown
from tools.grafana.queries import NAMED, NODE

_LEDGER = """FROM ingest_ledger
WHERE
    -- Rows stand by the hour, and the one in which the range begins belongs to it.
    hour > $__timeFrom()::timestamptz - interval '1 hour' AND hour <= $__timeTo()::timestamptz"""
_RECORDS = ("postel.sink.records",)

POSTEL = Board(
    "postel",
    "Postel: itself",
    "Whether everything that was sent is stored: the ledger, dead letters, the sinks, the agents and their spools.",
    [
        Row(
            "What became of the data",
            [
                Panel(
                    "Points and records of this range",
                    "stat",
                    f"""SELECT
    sum(received)::float8 AS "Received", sum(stored)::float8 AS "Stored", sum(duplicate)::float8 AS "Duplicate",
    sum(dead_lettered)::float8 AS "Dead letters",
    sum(received - stored - duplicate - dead_lettered)::float8 AS "Unaccounted"
{_LEDGER}""",
                    Shown("short", _RECORDS),
                    note="By the hour of their own time. What is unaccounted for is 0, or the ledger is broken.",
                    width=24,
                    height=4,
                ),
                Panel(
                    "Stored",
                    "bars",
                    f"""SELECT
    $__timeGroup(hour, $__interval) AS time, destination AS metric, sum(stored)::float8 AS value
{_LEDGER}
GROUP BY 1, 2
ORDER BY 1, 2""",
                    Shown("short", _RECORDS),
                    note="How many in each step, by the hour of their own time and the table that they came for.",
                    interval="1h",
                ),
                Panel(
                    "Duplicates and dead letters",
                    "bars",
                    f"""SELECT
    $__timeGroup(hour, $__interval) AS time, sum(duplicate - conflicting)::float8 AS "came again",
    sum(conflicting)::float8 AS "came again with another value", sum(dead_lettered)::float8 AS "dead letters"
{_LEDGER}
GROUP BY 1
ORDER BY 1""",
                    Shown("short", _RECORDS),
                    note="How many in each step, by the hour of their own time.",
                    interval="1h",
                ),
                Panel(
                    "Dead letters",
                    "table",
                    f"""SELECT
    destination AS "Table", reason AS "Reason", coalesce(records, 0) AS "Records", first AS "First", last AS "Last"
FROM (SELECT DISTINCT destination {_LEDGER}) AS told
FULL JOIN (
    SELECT destination, reason, count(*) AS records, min(received_at) AS first, max(received_at) AS last
    FROM dead_letter
    WHERE $__timeFilter(received_at)
    GROUP BY destination, reason
) AS letters USING (destination)
ORDER BY last DESC NULLS LAST, 1, 2
LIMIT 100""",
                    TEXT,
                    {"Records": Shown("short", _RECORDS, Reading.COUNT), "First": MOMENT, "Last": MOMENT},
                    note="By when they came; 0 for a table of whose data none was refused. The view dead_letter_request"
                    " has each as the request that brought it.",
                    width=24,
                ),
            ],
        ),
        Row(
            "Sinks",
            [
                Panel(
                    "Records",
                    "lines",
                    points.rates("postel.sink.records", "coalesce(attributes ->> 'postel.sink.fate', 'unknown')"),
                    Shown("cps", _RECORDS, Reading.RATE),
                    width=8,
                ),
                Panel(
                    "Requests that wait",
                    "lines",
                    points.gauge("postel.sink.queue.size", "node || ' ' || instance", "max(value)"),
                    Shown("bytes", ("postel.sink.queue.size",)),
                    width=8,
                ),
                Panel(
                    "How long a commit takes",
                    "lines",
                    points.rates("postel.sink.commit.duration", "node || ' ' || instance", value="sum", per="count"),
                    Shown("s", ("postel.sink.commit.duration",)),
                    note="The mean of each step.",
                    width=8,
                    connected=True,
                ),
            ],
        ),
        Row(
            "Agents",
            [
                Panel(
                    "Receivers at the end of the range",
                    "table",
                    points.latest(
                        "postel.receiver.up",
                        {
                            "Node": "node",
                            "Source": "attributes ->> 'postel.receiver.name'",
                            "At": "concat_ws(':', attributes ->> 'server.address', attributes ->> 'server.port')",
                            "Up": "value",
                            "As of": "time",
                        },
                        rest="ORDER BY value, 1, 2, 3",
                    ),
                    TEXT,
                    {"Up": Shown("none", ("postel.receiver.up",)), "As of": MOMENT},
                    note="1: the last asking gave a whole answer.",
                    width=8,
                ),
                Panel(
                    "How long asking takes",
                    "lines",
                    points.gauge(
                        "postel.scrape.duration", "node || ' ' || coalesce(attributes ->> 'postel.receiver.name', '')"
                    ),
                    Shown("s", ("postel.scrape.duration",)),
                    width=8,
                    connected=True,
                ),
                Panel(
                    "Spools",
                    "lines",
                    points.gauge("postel.spool.size", "node", "max(value)"),
                    Shown("bytes", ("postel.spool.size",)),
                    note="What waits on disk for the Collector.",
                    width=8,
                ),
                Panel(
                    "Plugins in the mail servers",
                    "table",
                    f"""SELECT DISTINCT ON (node_id, resource ->> 'service.name', resource ->> 'process.pid')
    coalesce(named.name, node_id) AS "Node", resource ->> 'service.name' AS "Server",
    attributes ->> 'postel.plugin.process.kind' AS "Process",
    (attributes ->> 'postel.plugin.events.delivered')::float8 AS "Delivered",
    (attributes ->> 'postel.plugin.events.waiting')::float8 AS "Waiting",
    (attributes ->> 'postel.plugin.events.dropped')::float8 AS "Dropped", time AS "As of"
FROM otel_log LEFT JOIN {NAMED} AS named ON named.id = node_id
WHERE
    event_name = 'postel.plugin.heartbeat' AND {NODE}
    AND time > greatest($__timeFrom()::timestamptz, $__timeTo()::timestamptz - interval '1 hour')
    AND time <= $__timeTo()::timestamptz
ORDER BY node_id, resource ->> 'service.name', resource ->> 'process.pid', time DESC""",
                    TEXT,
                    {
                        "Delivered": Shown("short", ("postel.plugin.events.delivered",), Reading.COUNT),
                        "Waiting": Shown("short", ("postel.plugin.events.waiting",), Reading.COUNT),
                        "Dropped": Shown("short", ("postel.plugin.events.dropped",), Reading.COUNT),
                        "As of": MOMENT,
                    },
                    note="The last heartbeat of each process, since its start.",
                ),
                Panel(
                    "Lives of nodes and sources",
                    "table",
                    f"""SELECT
    time AS "Time", coalesce(named.name, node_id) AS "Node", event_name AS "Event",
    attributes ->> 'postel.source.name' AS "Source", attributes ->> 'error.type' AS "Error"
FROM otel_log LEFT JOIN {NAMED} AS named ON named.id = node_id
WHERE
    $__timeFilter(time) AND {NODE}
    AND event_name IN (
        'postel.node.registered', 'postel.node.booted', 'postel.source.appeared', 'postel.source.lost',
        'system.oom_kill', 'system.filesystem.read_only'
    )
ORDER BY time DESC
LIMIT 100""",
                    TEXT,
                    {"Time": MOMENT},
                ),
            ],
        ),
    ],
    ["docs/reference/sink.md", "docs/reference/agent.md"],
)
