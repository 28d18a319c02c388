"""How fast events are stored once their indexes no longer fit into memory: `make bench`, figures in docs/benchmarks.md.

A database that may hold `POSTEL_MEMORY_MIB` in memory, pages of its files among them, takes events until their indexes
are several times as large. `POSTEL_SINK_LOAD` is how many there are, in millions.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest

from postel.otlp.signal import Signal
from support.memory_limit import limit_is_possible, limited_memory
from support.postgres import KillableServer, migrate_now, timescale_programs
from support.requirements import require
from support.sink import running_sink
from support.sink_load import IN_REQUEST, events, seconds_by_backend, send
from tools.bootstrap.programs import find_postgres

MILLIONS = float(os.environ.get("POSTEL_SINK_LOAD", "8"))
MEMORY = int(os.environ.get("POSTEL_MEMORY_MIB", "768")) << 20
TURNS = 8
# A page is written whole to the WAL at its first change behind a checkpoint: at the usual distance of them.
OPTIONS = ("fsync=on", "shared_buffers=256MB", "max_wal_size=2GB", "checkpoint_timeout=5min")

pytestmark = [pytest.mark.bench, pytest.mark.timeout(0)]


@dataclass(frozen=True)
class Turn:
    """What so many events cost.

    Attributes:
        rate: events a second.
        cpu: microseconds of the database's processor for each.
        wal: bytes for each.
        table, indexes: bytes, all until now.
    """

    rate: float
    cpu: float
    wal: float
    table: int
    indexes: int


def test_indexes_larger_than_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_postgres()
    require("postgresql", available=found)
    if not limit_is_possible():
        pytest.skip("no bound of memory: this user may make no control groups")
    timescale = timescale_programs()
    options = [*OPTIONS, *(["shared_preload_libraries=timescaledb"] if timescale else [])]
    server = KillableServer(timescale or found[-1], *(word for option in options for word in ("-c", option)))
    try:
        server.start()
        assert server.process
        # Each of its processes that reads or writes rows is started from now on.
        with limited_memory(server.process.pid, MEMORY):
            migrate_now(server.url)
            turns = take(server.url, tmp_path)
    finally:
        server.remove()
    with capsys.disabled():
        print(f"\n{MEMORY >> 20} MiB of memory; {'TimescaleDB' if timescale else 'PostgreSQL'}")  # noqa: T201
        for turn in turns:
            print(  # noqa: T201 - the figures
                f"{turn.rate:.0f} events a second, {turn.cpu:.1f} us of the database's CPU and {turn.wal:.0f} bytes of"
                f" WAL each; {turn.table / 2**20:.0f} MiB of rows, {turn.indexes / 2**20:.0f} of indexes"
            )
    assert turns[0].indexes < MEMORY < turns[-1].indexes


def take(url: str, folder: Path) -> list[Turn]:
    """Send all, a turn after the other."""
    count = int(MILLIONS * 1e6 / TURNS) // IN_REQUEST * IN_REQUEST
    turns = []
    with running_sink(folder, url) as sink, psycopg.connect(url, autocommit=True) as database:
        sink.start()
        # Its connections are there then.
        asyncio.run(send(sink.grpc, Signal.LOGS, list(events(0, IN_REQUEST, scattered=True))))
        for turn in range(TURNS):
            first = IN_REQUEST + turn * count
            make = partial(events, scattered=True)
            ((wal,),) = database.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchall()
            cpu, taken = seconds_by_backend(url), 0.0
            # Not all in memory at once, and none made while the clock runs.
            for part in range(first, first + count, 25 * IN_REQUEST):
                bodies = list(make(part, min(25 * IN_REQUEST, first + count - part)))
                begun = time.monotonic()
                asyncio.run(send(sink.grpc, Signal.LOGS, bodies))
                taken += time.monotonic() - begun
            # Of the sink's connections: its housekeeping, and the bench's own look, come and go.
            used = sum(seconds - cpu[pid] for pid, seconds in seconds_by_backend(url).items() if pid in cpu)
            ((written, table, indexes),) = database.execute(
                """
                SELECT pg_current_wal_lsn() - '0/0', sum(pg_table_size(relid)), sum(pg_indexes_size(relid))
                FROM pg_stat_user_tables
                """
            ).fetchall()
            turns.append(
                Turn(count / taken, used / count * 1e6, float(written - wal) / count, int(table), int(indexes))
            )
    return turns
