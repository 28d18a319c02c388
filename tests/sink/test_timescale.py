"""What only a server with TimescaleDB shows; the rest of its behaviour is tested by test_schema.py."""

from __future__ import annotations

import psycopg

from support.postgres import fresh_database, migrate_now


def test_the_tables_of_points_and_records_are_hypertables(timescale: str) -> None:
    with fresh_database(timescale) as url:
        assert "0002_hypertables.timescale.sql" in migrate_now(url)
        with psycopg.connect(url, autocommit=True) as connection:
            found = connection.execute("SELECT hypertable_name FROM timescaledb_information.hypertables").fetchall()
    assert {name for (name,) in found} == {"metrics_system", "metrics_zonemta", "otel_metric_point", "otel_log"}
