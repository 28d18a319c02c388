"""What the sink costs beside Telegraf for the same requests: `make bench`, figures in docs/benchmarks.md.

By turns both take them over gRPC and write them into a database each, on the same server. Telegraf answers before it
writes, its tables have no key, and what comes twice is there twice; it is measured until its rows are there.
`POSTEL_SINK_LOAD` is the number of records of a case, in millions.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from testbed.program import until

from support.node_observer import cpu_seconds
from support.postgres import fresh_database
from support.sink import running_sink
from support.sink_load import EVENTS, POINTS, SERIES, Load, backend_seconds, send
from support.telegraf import running_telegraf

MILLIONS = float(os.environ.get("POSTEL_SINK_LOAD", "1"))
TURNS = 5
TABLES = {"otel_metric_point": "load.attempts", "delivery_events": "logs"}
"""Postel's table and Telegraf's."""

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]


@dataclass
class Used:
    """Seconds of CPU, of the program and of its database's backends, and of time; over all turns."""

    url: str
    pid: int
    program: float = 0.0
    database: float = 0.0
    taken: float = 0.0
    _before: tuple[float, float, float] = field(default=(0, 0, 0))

    def begin(self) -> None:
        """A turn begins."""
        self._before = (time.monotonic(), cpu_seconds([self.pid]), backend_seconds(self.url))

    def end(self) -> None:
        """All rows are there."""
        begun, program, database = self._before
        self.taken += time.monotonic() - begun
        self.program += cpu_seconds([self.pid]) - program
        self.database += backend_seconds(self.url) - database

    def row(self, name: str, total: int) -> str:
        """A line with the figures."""
        each = 1e6 / total
        return (
            f"{name}: CPU each {self.program * each:.2f} us, its database {self.database * each:.2f};"
            f" {total / self.program:.0f} records a second of CPU, {total / self.taken:.0f} a second"
        )


@pytest.mark.parametrize("load", [pytest.param(POINTS, id="points"), pytest.param(EVENTS, id="events")])
def test_the_sink_is_ahead_of_telegraf(
    load: Load, postgres: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = int(MILLIONS * 1e6 / TURNS) // SERIES * SERIES
    with (
        fresh_database(postgres) as ours,
        fresh_database(postgres) as theirs,
        running_sink(tmp_path, ours) as sink,
        running_telegraf(tmp_path, theirs) as telegraf,
    ):
        sink.start()
        assert sink.process
        by_sink = Used(ours, sink.process.pid)
        (pid,) = telegraf.program.pids()
        by_telegraf = Used(theirs, pid)
        rows = 0

        def take(address: str, bodies: list[bytes], arrived: Callable[[], bool]) -> None:
            asyncio.run(send(address, load.signal, bodies))
            until(arrived, 120, "all rows are there", pause=0.2)

        for turn in range(-1, TURNS):
            # Before the first turn come connections, caches and Telegraf's table.
            first, more = (0, SERIES) if turn < 0 else (SERIES + turn * count, count)
            bodies = list(load.make(first, more))
            rows += more
            for used, address, arrived in (
                (by_sink, sink.grpc, lambda: True),
                (by_telegraf, telegraf.address, lambda rows=rows: telegraf.rows(TABLES[load.table]) == rows),
            ):
                used.begin()
                take(address, bodies, arrived)
                if turn >= 0:
                    used.end()
        assert sink.command("db", "check").returncode == 0
    total = TURNS * count
    with capsys.disabled():
        told = [f"\n{load.table}, {total} records", by_sink.row("sink", total), by_telegraf.row("Telegraf", total)]
        print(*told, sep="\n")  # noqa: T201 - the figures
    assert by_sink.program < by_telegraf.program
