"""What a query reads of a long history."""

from __future__ import annotations

from typing import Any

import psycopg


def make_history(database: psycopg.Connection[Any]) -> None:
    """40,000 rows of two zones of a Zone-MTA, every 30 seconds of one epoch."""
    database.execute(
        "INSERT INTO metrics_zonemta (time, node_id, instance, zone, started_at, queue_size, delivered_total)"
        " SELECT to_timestamp(1000000 + 30 * i), 'n', 'i', z, to_timestamp(1000000), 1, CASE WHEN z <> '' THEN i END"
        " FROM generate_series(1, 20000) AS i, (VALUES (''), ('default')) AS zones (z)"
    )
    database.execute("ANALYZE metrics_zonemta")


def blocks_read(database: psycopg.Connection[Any], query: str) -> int:
    """Blocks that a query looks into, in memory or on the disk."""
    plan = database.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}".encode()).fetchone()
    assert plan
    root = plan[0][0]["Plan"]
    return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])
