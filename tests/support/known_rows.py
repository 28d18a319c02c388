"""The rows that the records of support.known_load lead to, and what the tables hold otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import psycopg

from support.known_load import KINDS, STATUS, TICK, TIME, ZONES, at, counter_cell, gauge_cell, uid

Row = tuple[Any, ...]
_QUERIES = {
    "delivery_events": """
        SELECT event_id::text, (extract(epoch FROM time) * 1000)::bigint, status, queue_id, zone, attempt, duration,
            smtp_code, response, to_domain
        FROM delivery_events
    """,
    "delivery_events_daily": "SELECT status, sum(attempts)::bigint FROM delivery_events_daily GROUP BY 1",
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
    for number in range(2, made, KINDS):
        tick, zone, state = gauge_cell(number)
        cells.setdefault((tick, zone), {})[state] = number
    last: dict[str, int] = {}
    for number in range(3, made, KINDS):
        tick, zone, value = counter_cell(number)
        cells.setdefault((tick, zone), {})["delivered"] = value
        last[zone] = value
    deliveries = [number for number in range(made) if number % KINDS in (0, 1)]
    return {
        "delivery_events": map(_delivery, deliveries),
        "delivery_events_daily": Counter(_status(number)[1] for number in deliveries).items(),
        "otel_log": [(uid(number), at(number), number) for number in range(5, made, KINDS)],
        "otel_metric_point": [
            (TIME + number // 600 * TICK, f"{number // KINDS % 100}", number) for number in range(4, made, KINDS)
        ],
        "metrics_zonemta": [
            (TIME + tick * TICK, zone, row.get("queued"), row.get("deferred"), row.get("delivered"))
            for (tick, zone), row in cells.items()
        ],
        # The counters began before their first points, which count in full: each rose by what it is at last.
        "metrics_zonemta_increase": last.items(),
        "metrics_zonemta_1h": last.items(),
    }


def _status(number: int) -> tuple[str, str, int]:
    return STATUS[number // KINDS % len(STATUS)]


def _delivery(number: int) -> Row:
    _, status, code = _status(number)
    identity = (uid(number), at(number), status, f"{number:016x}", f"z{number % ZONES}")
    return (*identity, number % 5 + 1, number / 8, code, f"{code} said to {number}", f"d{number % 7}.example")
