"""The cases of the contract, and the comparison with what a database holds after them.

A case (``cases/*.yaml``) has `about`, `requests` and `tables`. An item of `requests` is one of

    metrics, logs    the body in OTLP's JSON, sent over each wire in its own encoding
    body             bytes as they are sent, with `path` (default: /v1/logs), `content_type` and `content_encoding`;
                     `gzip` compresses them
    sql              a statement of the database's owner

and has an `answer`: `status` (default: 200), `rejected` where partial_success is set, `reason` (its beginning). That
503 asks for a retry, and nothing else does, goes without saying. `tables` gives every row that is there afterwards, in
the order of the table's key, without NULLs; tables that it does not name are empty. Of a rollup it gives every row too,
but only the columns that the case is about. ``!repeat [text, times]`` is a long text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from pprint import pformat
from typing import Any
from uuid import UUID

import psycopg
import yaml
from contract.wires import Answer, Wire
from psycopg.rows import dict_row

from postel.signals import load_all
from timescale_sink.store.rollup_views import names

_POINTS = """
    SELECT point.*, series.metric, series.kind, series.temporality, series.attributes
    FROM otel_metric_point AS point LEFT JOIN otel_series AS series USING (series_id)
"""
_LEDGER = """
    SELECT hour, destination, sum(received) AS received, sum(stored) AS stored, sum(duplicate) AS duplicate,
        sum(conflicting) AS conflicting, sum(dead_lettered) AS dead_lettered
    FROM ingest_ledger GROUP BY hour, destination
"""
_TYPED = [
    *load_all().tables,
    *(f"{table}_increase" for table in load_all().tables if any(c.counter for c in load_all().columns_of(table))),
]
ROLLUPS = names(load_all())
# Table -> query and order. What a case does not name must be empty, these aside: they follow from the others.
TABLES: Mapping[str, tuple[str, str]] = {
    **{table: (f"SELECT * FROM {table}", "node_id, instance, zone, time") for table in _TYPED},
    "otel_metric_point": (_POINTS, "metric, attributes, time, kind, temporality, value"),
    "otel_log": ("SELECT * FROM otel_log", "time, event_name"),
    "email_events": ("SELECT * FROM email_events", "time, event_name"),
    "delivery_events": ("SELECT * FROM delivery_events", "time, event_name, to_domain"),
    "dead_letter": ("SELECT hour, destination, reason FROM dead_letter", "hour, destination, reason"),
    "ingest_ledger": (_LEDGER, "hour, destination"),
    "node": ("SELECT * FROM node", "id"),
    **{rollup: (f"SELECT * FROM {rollup}", "bucket, node_id, instance, 4, 5") for rollup in ROLLUPS},
}
_IMPLIED = {"ingest_ledger", "node", *ROLLUPS, *(name for name in TABLES if name.endswith("_increase"))}
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


class _Loader(yaml.SafeLoader):
    """YAML with ``!repeat``."""


def _repeat(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> str:
    text, times = loader.construct_sequence(node)
    return str(text) * int(times)


_Loader.add_constructor("!repeat", _repeat)


def cases() -> list[Case]:
    """All cases, by name."""
    found = []
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml")):
        # _Loader is a SafeLoader: it builds plain values only.
        content = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506
        found.append(Case(path.stem, content["requests"], content["tables"]))
    return found


def compare_answer(expected: Mapping[str, Any], answer: Answer) -> None:
    """Compare an answer with what a case says."""
    status = expected.get("status", 200)
    assert (answer.status, answer.rejected) == (status, expected.get("rejected")), answer.reason
    assert answer.reason.startswith(expected.get("reason", ""))
    assert answer.retry == (status == 503)


async def send(case: Case, wire: Wire, url: str, *, after: Callable[[], None] = lambda: None) -> None:
    """Send a case's requests over a wire, compare each answer, and do what is to be done after each of them."""
    for request in case.requests:
        if statement := request.get("sql"):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(statement.encode())
        elif answer := await wire(request):
            compare_answer(request.get("answer", {}), answer)
        after()


def compare(case: Case, url: str, *, but: str = "") -> None:
    """Compare what a database holds with a case's tables, without the one that is named."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        compare_tables(connection, {table: rows for table, rows in case.tables.items() if table != but})


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
            for name in (row.keys() if table in ROLLUPS else _OPTIONAL) - wanted.keys():
                row.pop(name, None)
        wanted_rows = [_normal(row) for row in expected]
        different = [row for row in rows if row not in wanted_rows], [row for row in wanted_rows if row not in rows]
        assert rows == wanted_rows, f"{table}: there is, and should be:\n{pformat(different, width=160)}"


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items() if value is not None}


def _normal(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:  # noqa: PLR0911 - one for each type
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case Decimal():
            return int(value)
        case float():
            # Equal to itself, unlike a NaN.
            return "nan" if math.isnan(value) else value
        case UUID():
            return str(value)
        case bytes():
            return value.hex()
        case list():
            return [_value(item) for item in value]
        case _:
            return value
