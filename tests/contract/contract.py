"""Runs a case of the contract: its requests through the sink's own routes into a real database, then the comparison.

A case (``cases/*.yaml``) has `about`, `requests` and `tables`. A request has `metrics` or `logs` (the body in OTLP's
JSON) and `answer` (default: 200 and an empty body; a reason's beginning is enough). `tables` gives every row that is
there afterwards, in the order of the table's key, without NULLs; tables that it does not name are empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import yaml
from httpx import ASGITransport, AsyncClient
from psycopg.rows import dict_row
from starlette.applications import Starlette

from postel.otlp.answers import Ingest
from postel.otlp.http_server import routes

_POINTS = """
    SELECT point.*, series.metric, series.kind, series.temporality, series.attributes
    FROM otel_metric_point AS point LEFT JOIN otel_series AS series USING (series_id)
"""
_LEDGER = """
    SELECT hour, destination, sum(received) AS received, sum(stored) AS stored, sum(duplicate) AS duplicate,
        sum(conflicting) AS conflicting, sum(dead_lettered) AS dead_lettered
    FROM ingest_ledger GROUP BY hour, destination
"""
# Table -> query and order. What a case does not name must be empty, these aside: they follow from the others.
TABLES: Mapping[str, tuple[str, str]] = {
    "metrics_haraka": ("SELECT * FROM metrics_haraka", "node_id, instance, zone, time"),
    "metrics_haraka_increase": ("SELECT * FROM metrics_haraka_increase", "node_id, instance, zone, time"),
    "metrics_rspamd": ("SELECT * FROM metrics_rspamd", "node_id, instance, zone, time"),
    "metrics_rspamd_increase": ("SELECT * FROM metrics_rspamd_increase", "node_id, instance, zone, time"),
    "metrics_system": ("SELECT * FROM metrics_system", "node_id, instance, zone, time"),
    "metrics_wildduck": ("SELECT * FROM metrics_wildduck", "node_id, instance, zone, time"),
    "metrics_wildduck_increase": ("SELECT * FROM metrics_wildduck_increase", "node_id, instance, zone, time"),
    "metrics_zonemta": ("SELECT * FROM metrics_zonemta", "node_id, instance, zone, time"),
    "metrics_zonemta_increase": ("SELECT * FROM metrics_zonemta_increase", "node_id, instance, zone, time"),
    "otel_metric_point": (_POINTS, "metric, attributes, time"),
    "otel_log": ("SELECT * FROM otel_log", "time, event_name"),
    "email_events": ("SELECT * FROM email_events", "time, event_name"),
    "delivery_events": ("SELECT * FROM delivery_events", "time, event_name, to_domain"),
    "dead_letter": ("SELECT hour, destination, reason FROM dead_letter", "hour, destination, reason"),
    "ingest_ledger": (_LEDGER, "hour, destination"),
    "node": ("SELECT * FROM node", "id"),
}
_IMPLIED = {"ingest_ledger", "node", *(name for name in TABLES if name.endswith("_increase"))}
# Columns that are the same in every row of a case, or hashes: compared where a case names them.
_OPTIONAL = {
    *("series_id", "event_id", "resource", "scope", "instance", "zone", "flags", "attributes", "temporality"),
    "xact",
}


@dataclass(frozen=True)
class Case:
    """One case of the contract."""

    name: str
    requests: Sequence[Mapping[str, Any]]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]


def cases() -> list[Case]:
    """All cases, by name."""
    found = []
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml")):
        content = yaml.safe_load(path.read_text("utf-8"))
        found.append(Case(path.stem, content["requests"], content["tables"]))
    return found


async def send(ingest: Ingest, request: Mapping[str, Any]) -> tuple[int, Any]:
    """Send a request; status and body of the answer."""
    application = Starlette(routes=list(routes(ingest)))
    signal = "metrics" if "metrics" in request else "logs"
    body = json.dumps({f"resource{signal.title()}": request[signal]})
    async with AsyncClient(transport=ASGITransport(application), base_url="http://sink.test") as client:
        answer = await client.post(f"/v1/{signal}", content=body, headers={"content-type": "application/json"})
    return answer.status_code, answer.json()


def compare_answer(expected: Mapping[str, Any], status: int, body: Any) -> None:
    """Compare an answer with what a case says."""
    assert status == expected.get("status", 200)
    wanted = expected.get("rejected")
    if wanted is None:
        assert status != 200 or body == {}
        return
    partial = body["partialSuccess"]
    count = partial.get("rejectedDataPoints") or partial.get("rejectedLogRecords")
    assert int(count) == wanted
    assert partial["errorMessage"].startswith(expected["reason"])


def compare_tables(connection: psycopg.Connection[Any], tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Compare every table with what a case says."""
    for table, (query, order) in TABLES.items():
        if table not in tables and table in _IMPLIED:
            continue
        expected = tables.get(table, [])
        with connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(f"{query} ORDER BY {order}".encode()).fetchall()
        rows = [_shown(row) for row in found]
        for row, wanted in zip(rows, expected, strict=False):
            for name in _OPTIONAL - wanted.keys():
                row.pop(name, None)
        assert rows == [_normal(row) for row in expected], table


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items() if value is not None}


def _normal(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case Decimal():
            return int(value)
        case UUID():
            return str(value)
        case bytes():
            return value.hex()
        case list():
            return [_value(item) for item in value]
        case _:
            return value
