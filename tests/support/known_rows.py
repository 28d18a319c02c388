"""The rows that the records of support.known_load lead to, and what the tables hold otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import psycopg

from support.known_load import KINDS, TICK, TIME, ZONES, Kind, at, counter_cell, delta_point, fate, gauge_cell, uid

Row = tuple[Any, ...]
ROLLUPS = {"delivery_events_daily", "metrics_zonemta_1h"}
"""They are as the tables after one refresh cycle: the records are from further back than TimescaleDB's jobs look."""
_QUERIES = {
    "delivery_events": """
        SELECT event_id::text, (extract(epoch FROM time) * 1000)::bigint, status, queue_id, zone, attempt, duration,
            smtp_code, response, to_domain
        FROM delivery_events
    """,
    "delivery_events_daily": "SELECT status, sum(attempts)::bigint FROM delivery_events_daily GROUP BY 1",
    "email_events": """
        SELECT event_id::text, (extract(epoch FROM time) * 1000)::bigint, outcome, direction, queue_id, size_bytes,
            from_domain
        FROM email_events
    """,
    "otel_log": """
        SELECT event_id::text, (extract(epoch FROM time) * 1000)::bigint, (body #>> '{}')::bigint
        FROM otel_log WHERE event_name = 'known.load'
    """,
    "otel_metric_point": """
        SELECT extract(epoch FROM time)::bigint, attributes ->> 'zonemta.of', value_int
        FROM otel_metric_point JOIN otel_series USING (series_id) WHERE metric = 'd'
    """,
    "metrics_zonemta": """
        SELECT extract(epoch FROM time)::bigint, zone, queue_size, deferred_size, delivered_total FROM metrics_zonemta
    """,
    "metrics_zonemta_increase": """
        SELECT zone, sum(delivered_total)::bigint FROM metrics_zonemta_increase
        WHERE delivered_total IS NOT NULL GROUP BY 1
    """,
    "metrics_zonemta_1h": """
        SELECT zone, sum(delivered_total)::bigint FROM metrics_zonemta_1h WHERE delivered_total IS NOT NULL GROUP BY 1
    """,
    # What the agent makes of the events that it is told: each counts once, however often it came.
    "metrics_haraka": "SELECT max(inbound_total), max(rejected_count) FROM metrics_haraka",
    "metrics_haraka_increase": """
        SELECT sum(inbound_total)::bigint, sum(rejected_count)::bigint FROM metrics_haraka_increase
    """,
    "zonemta.delivery.duration": """
        SELECT DISTINCT ON (series_id) attributes ->> 'zonemta.zone', attributes ->> 'zonemta.outcome', count::bigint,
            sum
        FROM otel_metric_point JOIN otel_series USING (series_id)
        WHERE metric = 'zonemta.delivery.duration' ORDER BY series_id, time DESC
    """,
}


def differences(url: str, made: int) -> dict[str, list[str]]:
    """What tables, rollups and increases hold too little or too much of, each by its name; {} where nothing.

    Args:
        url: of the database.
        made: how many records there are.
    """
    wanted = _rows(made)
    found = {}
    with psycopg.connect(url) as connection:
        for name, query in _QUERIES.items():
            stored, expected = Counter(connection.execute(query.encode()).fetchall()), Counter(wanted[name])
            wrong = [f"missing {row}" for row in expected - stored] + [f"too many {row}" for row in stored - expected]
            if wrong:
                found[name] = [f"{len(wrong)} of {expected.total()}", *wrong[:5]]
    return found


def _rows(made: int) -> dict[str, Iterable[Row]]:
    cells: dict[tuple[int, str], dict[str, int]] = {}
    for number in _of(Kind.GAUGE, made):
        tick, zone, state = gauge_cell(number)
        cells.setdefault((tick, zone), {})[state] = number
    last: dict[str, int] = {}
    for number in _of(Kind.COUNTER, made):
        tick, zone, value = counter_cell(number)
        cells.setdefault((tick, zone), {})["delivered"] = value
        last[zone] = value
    deliveries = [*_of(Kind.ATTEMPT, made), *_of(Kind.DELIVERY, made)]
    messages = _of(Kind.MESSAGE, made)
    counted = [(len(messages), sum(fate(number)[0] == "rejected" for number in messages))]
    return {
        "delivery_events": map(_delivery, deliveries),
        "delivery_events_daily": Counter(fate(number)[1] for number in deliveries).items(),
        "email_events": map(_message, messages),
        "otel_log": [(uid(number), at(number), number) for number in _of(Kind.LOG, made)],
        "otel_metric_point": [
            (TIME + tick * TICK, series, number)
            for number in _of(Kind.DELTA, made)
            for tick, series in [delta_point(number)]
        ],
        "metrics_zonemta": [
            (TIME + tick * TICK, zone, row.get("queued"), row.get("deferred"), row.get("delivered"))
            for (tick, zone), row in cells.items()
        ],
        # The counters began before their first points, which count in full: each rose by what it is at last.
        "metrics_zonemta_increase": last.items(),
        "metrics_zonemta_1h": last.items(),
        "metrics_haraka": counted,
        "metrics_haraka_increase": counted,
        "zonemta.delivery.duration": _durations(made),
    }


def _of(kind: Kind, made: int) -> range:
    """The numbers of a kind."""
    return range(kind, made, KINDS)


def _delivery(number: int) -> Row:
    _, status, code = fate(number)
    identity = (uid(number), at(number), status, f"{number:016x}", f"z{number % ZONES}")
    return (*identity, number % 5 + 1, number / 8, code, f"{code} said to {number}", f"d{number % 7}.example")


def _message(number: int) -> Row:
    outcome = fate(number)[0]
    return (uid(number), at(number), outcome, "inbound", f"{number:016x}", number, f"d{number % 7}.example")


def _durations(made: int) -> list[Row]:
    """How many attempts of each zone and outcome the agent measured, and how long they took together."""
    taken: dict[tuple[str, str], list[float]] = {}
    for number in _of(Kind.ATTEMPT, made):
        taken.setdefault((f"z{number % ZONES}", fate(number)[1]), []).append(number / 8)
    return [(*series, len(each), sum(each)) for series, each in taken.items()]
