"""What the sink costs beside the database's own work: `make bench`, figures in docs/benchmarks.md.

By turns the sink takes requests over gRPC or HTTP, and the rows that they became go by raw COPY into a twin of their
table. In a last turn each tenth request of the turn before comes again between the new ones. `POSTEL_SINK_LOAD` is the
number of records of a case without that turn, in millions.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from support.node_observer import cpu_seconds
from support.postgres import SERVERS, fresh_database
from support.sink import RunningSink, running_sink
from support.sink_load import (
    EVENTS,
    IN_REQUEST,
    POINTS,
    REPEATED,
    SERIES,
    Load,
    Twin,
    backend_seconds,
    post,
    repeating,
    send,
)

MILLIONS = float(os.environ.get("POSTEL_SINK_LOAD", "1"))
TURNS = 5
TOGETHER = 20_000
"""Rows in a transaction of the sink's at most."""
WARM = 25 * SERIES
"""Records before the first turn: connections, caches and what the sink remembers are there then."""
RATE = {"gRPC": 0.6, "HTTP": 0.5}
"""Of raw COPY's, at least. By HTTP as many senders wait longer for each body, which comes in pieces."""
MEMORY = 250 << 20
FLAT = 1.1
"""The sink's peak of memory after the last turn, by that after the second, at most."""

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]


@dataclass(frozen=True)
class Case:
    """What is measured: a load by a protocol, beside the twin of its table."""

    load: Load
    protocol: str
    sink: RunningSink
    twin: Twin

    def send(self, bodies: Sequence[bytes]) -> tuple[float, int]:
        """All of them; gives what `send` of the load does."""
        if self.protocol == "HTTP":
            return asyncio.run(post(self.sink.http, self.load.signal, bodies))
        return asyncio.run(send(self.sink.grpc, self.load.signal, bodies))


@dataclass
class Used:
    """Seconds of CPU and of time, over some turns.

    Attributes:
        peaks: after each turn the most bytes that the sink has held since its start.
        refused: requests that were to be sent again, since a queue was full or a commit came late.
    """

    sink: float = 0.0
    database: float = 0.0
    taken: float = 0.0
    copy: float = 0.0
    copy_taken: float = 0.0
    peaks: list[int] = field(default_factory=list)
    refused: int = 0

    def add_turn(self, case: Case, first: int, count: int, taken: Sequence[bytes] = ()) -> None:
        """So many records through the sink, with some that were ``taken`` before, then the new ones' rows by COPY."""
        load, sink = case.load, case.sink
        assert sink.process
        bodies = list(repeating(list(load.make(first, count)), taken))
        before = cpu_seconds([sink.process.pid]), backend_seconds(sink.url)
        seconds, refused = case.send(bodies)
        self.taken += seconds
        self.refused += refused
        self.sink += cpu_seconds([sink.process.pid]) - before[0]
        self.database += backend_seconds(sink.url) - before[1]
        self.peaks.append(peak_of(sink.process.pid))
        copied = case.twin.copy(load.until(first), load.until(first + count), together=TOGETHER)
        assert copied.rows == count
        self.copy += copied.cpu
        self.copy_taken += copied.taken

    def row(self, what: str, total: int) -> str:
        """A line with the figures."""
        each = 1e6 / total
        return (
            f"{what}, {total} records, CPU each: sink {self.sink * each:.2f} us, database {self.database * each:.2f},"
            f" raw COPY {self.copy * each:.2f}; sink by COPY {self.sink / self.copy:.2f};"
            f" {total / self.taken:.0f} a second, raw COPY {total / self.copy_taken:.0f},"
            f" {self.copy_taken / self.taken:.0%} of it; peak by turns"
            f" {', '.join(f'{peak / 2**20:.0f}' for peak in self.peaks)} MiB; {self.refused} refused"
        )


def peak_of(pid: int) -> int:
    """The most memory that a process has held since its start, in bytes.

    Source: proc_pid_status(5), `VmHWM`.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kibibytes) << 10


@pytest.fixture(params=[server for server in SERVERS if server != "old_postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database of each server; of TimescaleDB its tables are hypertables."""
    with fresh_database(request.getfixturevalue(request.param)) as url:
        yield url


@pytest.mark.parametrize("protocol", ["gRPC", "HTTP"])
@pytest.mark.parametrize("load", [pytest.param(POINTS, id="points"), pytest.param(EVENTS, id="events")])
def test_the_sink_costs_little_beside_the_database(
    load: Load, protocol: str, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = int(MILLIONS * 1e6 / TURNS) // SERIES * SERIES
    used, with_repeated = Used(), Used()
    with running_sink(tmp_path, database) as sink:
        sink.start()
        case = Case(load, protocol, sink, Twin(database, load.table))
        case.send(list(load.make(0, WARM)))
        case.twin.copy(load.until(0), load.until(WARM), together=TOGETHER)
        for turn in range(TURNS):
            used.add_turn(case, WARM + turn * count, count)
        first = WARM + TURNS * count
        with_repeated.add_turn(case, first, count, taken=list(load.make(first - count, count)))
        assert sink.command("db", "check").returncode == 0
    with capsys.disabled():
        what = f"{load.table} by {protocol}"
        print(f"\n{used.row(what, TURNS * count)}")  # noqa: T201 - the figures
        print(with_repeated.row(f"{what}, each tenth request twice", count))  # noqa: T201 - the figures
    stored, duplicate, conflicting = tallied(database, load.table)
    assert (stored, conflicting) == (first + count, 0)
    # Who was told to come again may have been committed nevertheless.
    came_twice = len(range(0, count // IN_REQUEST, REPEATED)) * IN_REQUEST
    assert came_twice <= duplicate <= came_twice + (used.refused + with_repeated.refused) * IN_REQUEST
    bounds = {
        "CPU by that of raw COPY": used.sink <= load.bound * used.copy,
        "rate by that of raw COPY": used.taken <= used.copy_taken / RATE[protocol],
        "memory": max(used.peaks + with_repeated.peaks) < MEMORY,
        "memory is flat": used.peaks[-1] <= FLAT * used.peaks[1],
    }
    # Together: a run takes minutes, and tells of each.
    missed = [name for name, is_kept in bounds.items() if not is_kept]
    assert not missed, ", ".join(missed)


def tallied(url: str, table: str) -> tuple[int, int, int]:
    """Records of a table that the ledger says were stored, had come before, and said another thing then."""
    with psycopg.connect(url) as connection:
        ((stored, duplicate, conflicting),) = connection.execute(
            "SELECT sum(stored)::bigint, sum(duplicate)::bigint, sum(conflicting)::bigint FROM ingest_ledger"
            " WHERE destination = %s",
            (table,),
        ).fetchall()
    return stored, duplicate, conflicting
