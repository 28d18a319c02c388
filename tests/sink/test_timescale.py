"""What only TimescaleDB shows: in process wherever the tests run, and on a server where there is one.

The rest of a server's behaviour is tested by test_schema.py.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from testbed import pglite

from postel.signals import load_all
from support.node import Node
from support.postgres import fresh_database, migrate_now
from timescale_sink.store import increase, suffixes
from timescale_sink.store.migrate import scripts

_HYPERTABLES = {*load_all().tables, *load_all().event_tables, "otel_metric_point", "otel_log"}
# Two epochs of one counter over three days, with a gap, a first point that is met late, and a row without the counter.
_ROWS = """
INSERT INTO metrics_zonemta (time, node_id, instance, zone, started_at, queue_size, delivered_total) VALUES
    ('2026-01-14 23:59:30+00', 'n1', '', 'default', '2026-01-14 23:59:30+00', 1, 100),
    ('2026-01-15 00:00:00+00', 'n1', '', 'default', '2026-01-14 23:59:30+00', 1, 107),
    ('2026-01-15 00:00:30+00', 'n1', '', 'default', '2026-01-14 23:59:30+00', 2, NULL),
    ('2026-01-16 12:00:00+00', 'n1', '', 'default', '2026-01-14 23:59:30+00', 2, 120),
    ('2026-01-16 12:00:30+00', 'n1', '', 'default', '2026-01-16 12:00:10+00', 0, 4),
    ('2026-01-16 12:01:00+00', 'n1', '', 'default', '2026-01-16 12:00:10+00', 0, 9),
    ('2026-01-16 12:01:00+00', 'n1', '', 'bulk', '2026-01-16 12:00:10+00', 0, 1)
"""
_AGAIN = _ROWS + "ON CONFLICT DO NOTHING"
_INCREASE = (
    "SELECT to_char(time AT TIME ZONE 'UTC', 'DD HH24:MI:SS'), zone, delivered_total::int"
    " FROM metrics_zonemta_increase ORDER BY time, zone"
)


@pytest.fixture(scope="session")
def schema() -> list[str]:
    """All of it, in the order in which it is applied to a new database."""
    views = [increase.view(table, counters) for table, counters in increase.counters_of(load_all()).items()]
    tables, functions = ([script.text for script in scripts(folder)] for folder in ("migrations", "views"))
    return [*tables, suffixes.function(), *functions, *views]


def test_the_schema_makes_hypertables_that_answer_as_plain_tables_do(
    node: Node, pglite_packages: Path, schema: list[str], postgres: str
) -> None:
    hypertables, chunks, licence, increase, count = pglite.ask(
        node,
        pglite_packages,
        run=[*schema, _ROWS, _AGAIN],
        ask=[
            "SELECT hypertable_name FROM timescaledb_information.hypertables",
            "SELECT count(*)::int FROM timescaledb_information.chunks WHERE hypertable_name = 'metrics_zonemta'",
            "SELECT current_setting('timescaledb.license')",
            _INCREASE,
            "SELECT count(*)::int FROM metrics_zonemta",
        ],
    )
    assert {name for (name,) in hypertables} == _HYPERTABLES
    assert (chunks, licence, count) == ([[3]], [["timescale"]], [[7]])
    with fresh_database(postgres) as url:
        migrate_now(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_ROWS)
            plain = connection.execute(_INCREASE.encode()).fetchall()
    assert [tuple(row) for row in increase] == plain
    assert [row[2] for row in plain] == [0, 7, None, 13, 4, 1, 5]


def test_rows_that_are_there_already_become_part_of_the_hypertables(
    node: Node, pglite_packages: Path, schema: list[str]
) -> None:
    """A database that began without the extension: 0002 comes later, and takes its rows along."""
    tables, hypertables, *views = schema
    ((count,),), ((parent,),) = pglite.ask(
        node,
        pglite_packages,
        run=[tables, _ROWS, hypertables, *views],
        ask=["SELECT count(*)::int FROM metrics_zonemta", "SELECT count(*)::int FROM ONLY metrics_zonemta"],
    )
    assert (count, parent) == (7, 0)


def test_the_tables_of_points_and_records_are_hypertables(timescale: str) -> None:
    with fresh_database(timescale) as url:
        assert "0002_hypertables.timescale.sql" in migrate_now(url)
        with psycopg.connect(url, autocommit=True) as connection:
            found = connection.execute("SELECT hypertable_name FROM timescaledb_information.hypertables").fetchall()
    assert {name for (name,) in found} == _HYPERTABLES
