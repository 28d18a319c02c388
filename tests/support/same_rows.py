"""What two databases hold, compared row by row: every table, rollup and increase that the contract knows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg
from contract.contract import TABLES
from psycopg.rows import dict_row

from postel.signals import load_all
from support.sink import recount
from timescale_sink.store.rollup_views import names

# The aggregates themselves make up for what is not made yet.
_MADE = """
    SELECT count(*) FROM timescaledb_information.chunks AS chunk
    JOIN timescaledb_information.continuous_aggregates ON chunk.hypertable_name = materialization_hypertable_name
"""


def roll_up(url: str, rollups: Collection[str] = names(load_all())) -> None:
    """One refresh cycle: smaller buckets before larger ones; of all rollups, or of some."""
    with psycopg.connect(url, autocommit=True) as connection:
        for rollup in rollups:
            connection.execute(f"CALL refresh_continuous_aggregate('{rollup}_1', NULL, NULL)".encode())
        made = connection.execute(_MADE).fetchone()
    assert not rollups or made != (0,)


async def assert_same(plain: str, other: str) -> None:
    """Compare all of them, and each database with its own ledger."""
    for table, (query, _) in TABLES.items():
        assert _rows(other, query) == _rows(plain, query), table
    for url in (plain, other):
        assert await recount(url) == []


def _rows(url: str, query: str) -> list[str]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute("SET timezone = 'UTC'")
        found: list[dict[str, Any]] = connection.execute(query.encode()).fetchall()
    # Two servers count their transactions apart.
    return sorted(repr({name: value for name, value in row.items() if name != "xact"}) for row in found)
