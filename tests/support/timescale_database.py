"""A migrated database with TimescaleDB Community, in process or on a server, asked in one way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg
from testbed import pglite

from support.node import Node
from support.postgres import fresh_database
from timescale_sink.store.database import Connection, connect

_CHUNKS = """
    SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks
    JOIN timescaledb_information.hypertables USING (hypertable_schema, hypertable_name)
    WHERE compression_enabled AND hypertable_schema = 'public'
"""


class TimescaleDatabase(Protocol):
    """What a test asks of either."""

    def run(self, sql: str, /) -> object:
        """Run a text of any number of statements."""

    def rows(self, query: str, /) -> list[tuple[Any, ...]]:
        """The rows of a query, times as datetimes."""

    @property
    def connection(self) -> Connection:
        """What the store takes for a connection."""


class _OnServer:
    def __init__(self, asked: psycopg.Connection[Any], connection: Connection) -> None:
        self._asked = asked
        self.connection = connection

    def run(self, sql: str) -> None:
        self._asked.execute(sql.encode())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._asked.execute(query.encode()).fetchall()


@asynccontextmanager
async def in_process(node: Node, packages: Path, kept: Path) -> AsyncIterator[TimescaleDatabase]:
    """One of a file; see `testbed.pglite.database`."""
    with pglite.database(node, packages, kept) as running:
        yield running


@asynccontextmanager
async def on_server(server: str, template: str) -> AsyncIterator[TimescaleDatabase]:
    """One of a template. Its jobs run when they are told to, as in process, where nobody else runs them.

    Few rows are read by workers too, as only many would be: what cannot be is found here.
    """
    with fresh_database(server, template) as url, psycopg.connect(url, autocommit=True) as asked:
        asked.execute("SET timezone = 'UTC'; SELECT _timescaledb_functions.stop_background_workers()")
        for setting in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
            asked.execute(f"SET {setting} = 0".encode())
        connection = await connect(url)
        try:
            yield _OnServer(asked, connection)
        finally:
            await connection.close()


def pack(url: str) -> None:
    """Put all rows that there are into columns."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for (chunk,) in connection.execute(_CHUNKS).fetchall():
            connection.execute(f"SELECT compress_chunk('{chunk}')".encode())
