"""What the sink costs beside the database's own work: `make bench`, figures in docs/benchmarks.md.

By turns the sink takes requests over gRPC, and the rows that they became go by raw COPY into a twin of their table.
`POSTEL_SINK_LOAD` is the number of records of a case, in millions.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from support.node_observer import cpu_seconds
from support.postgres import SERVERS, fresh_database
from support.sink import RunningSink, running_sink
from support.sink_load import EVENTS, POINTS, SERIES, Load, Twin, backends, send

MILLIONS = float(os.environ.get("POSTEL_SINK_LOAD", "1"))
TURNS = 5
TOGETHER = 20_000
"""Rows in a transaction of the sink's at most."""

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]


@dataclass
class Used:
    """Seconds of CPU and of time, over all turns."""

    sink: float = 0.0
    database: float = 0.0
    taken: float = 0.0
    copy: float = 0.0
    copy_taken: float = 0.0
    peak: int = 0
    repeated: int = 0

    def add_turn(self, load: Load, first: int, count: int, sink: RunningSink, twin: Twin) -> None:
        """So many records through the sink, then their rows by COPY."""
        assert sink.process
        bodies = list(load.make(first, count))
        before = cpu_seconds([sink.process.pid]), cpu_seconds(backends(sink.url))
        taken, repeated = asyncio.run(send(sink.grpc, load.signal, bodies))
        self.taken += taken
        self.repeated += repeated
        self.sink += cpu_seconds([sink.process.pid]) - before[0]
        self.database += cpu_seconds(backends(sink.url)) - before[1]
        self.peak = max(self.peak, psutil.Process(sink.process.pid).memory_info().rss)
        copied = twin.copy(load.until(first), load.until(first + count), together=TOGETHER)
        assert copied.rows == count
        self.copy += copied.cpu
        self.copy_taken += copied.taken

    def row(self, table: str, total: int) -> str:
        """A line with the figures."""
        each = 1e6 / total
        return (
            f"{table}, {total} records, CPU each: sink {self.sink * each:.2f} us, database {self.database * each:.2f},"
            f" raw COPY {self.copy * each:.2f}; sink by COPY {self.sink / self.copy:.2f};"
            f" {total / self.taken:.0f} a second, raw COPY {total / self.copy_taken:.0f},"
            f" {self.copy_taken / self.taken:.0%} of it; {self.peak / 2**20:.0f} MiB; {self.repeated} sent again"
        )


@pytest.fixture(params=[server for server in SERVERS if server != "old_postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database of each server; of TimescaleDB its tables are hypertables."""
    with fresh_database(request.getfixturevalue(request.param)) as url:
        yield url


@pytest.mark.parametrize("load", [pytest.param(POINTS, id="points"), pytest.param(EVENTS, id="events")])
def test_the_sink_costs_little_beside_the_database(
    load: Load, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = int(MILLIONS * 1e6 / TURNS) // SERIES * SERIES
    used = Used()
    with running_sink(tmp_path, database) as sink:
        sink.start()
        # Its connections, its caches and the database's.
        asyncio.run(send(sink.grpc, load.signal, list(load.make(0, SERIES))))
        twin = Twin(database, load.table)
        for turn in range(TURNS):
            used.add_turn(load, SERIES + turn * count, count, sink, twin)
        assert sink.command("db", "check").returncode == 0
    with capsys.disabled():
        print(f"\n{used.row(load.table, TURNS * count)}")  # noqa: T201 - the figures
    assert used.sink <= load.bound * used.copy
    assert used.taken <= used.copy_taken / 0.6
    assert used.peak < 250 << 20
