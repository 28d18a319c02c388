"""Sink, Collector and PostgreSQL killed -9 at random moments under load, acknowledgements swallowed: nothing is lost,
nothing is stored twice.

    POSTEL_CHAOS_SEED=7 POSTEL_CHAOS_ROUNDS=50 pytest -m soak -s tests/e2e/test_killed_at_random.py

repeats the victims and the pauses of a run; what the kills meet depends on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from postel.collector import find_collector
from postel.signals import load_all
from support.collector import Collector
from support.known_load import Load, routes
from support.known_rows import ROLLUPS, differences
from support.postgres import KillableServer, migrate_now, timescale_programs
from support.requirements import require
from support.running_agent import KillableAgent
from support.sink import RunningSink, running_sink
from support.swallowing_proxy import Passed, swallowing_proxy
from timescale_sink.store.database import Tier
from timescale_sink.store.housekeeping import keep_house
from tools.bootstrap.programs import PostgresServer, find_postgres

RATE = 400
"""Records a second."""
PAUSE = (0.1, 7.0)
"""Seconds until the next kill: some meet a program that is starting."""
AWAY = (0.0, 2.5)
"""Seconds until what was killed is started again."""
BESIDE = 0.1
"""How often each other one is killed at the same time."""
QUIET = 6.0
"""Seconds after which what was under way has come: the Collector tries again after 4.5 s at most."""
CLEAN = "the tables hold what the ledger says\n"


class Program(Protocol):
    """What is killed and started again."""

    @property
    def process(self) -> subprocess.Popen[bytes] | None: ...

    def spawn(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Platform:
    """All that runs."""

    postgres: KillableServer
    sink: RunningSink
    collector: Collector
    agent: KillableAgent
    passed: Passed

    @property
    def programs(self) -> Mapping[str, Program]:
        """By their names."""
        return {"postgres": self.postgres, "sink": self.sink, "collector": self.collector, "agent": self.agent}

    @property
    def logs(self) -> str:
        """The last that each has said."""
        said = {"postgres": self.postgres.log, "sink": self.sink.log, "collector": self.collector.log()}
        said["agent"] = self.agent.log
        return "\n".join(f"--- {name}\n{log[-5000:]}" for name, log in said.items())


@asynccontextmanager
async def platform(folder: Path, server: PostgresServer, tier: Tier) -> AsyncIterator[Platform]:
    """A database, a sink on it, a Collector that sends to it through the proxy, and an agent that sends to that."""
    program = find_collector()
    require("collector", available=program, how="`make collector` builds it")
    assert program
    # As it is by default: of each commit the server waits until the disk has it.
    options = ["-c", "fsync=on"]
    if tier is Tier.COMMUNITY:
        options += ["-c", "shared_preload_libraries=timescaledb"]
    postgres = KillableServer(server, *options)
    with contextlib.ExitStack() as ending:
        ending.callback(postgres.remove)
        postgres.start()
        await asyncio.to_thread(migrate_now, postgres.url)
        sink = ending.enter_context(running_sink(folder, postgres.url))
        async with swallowing_proxy(sink.ports[0]) as passed:
            collector = Collector(program, folder, passed.port)
            ending.callback(collector.end)
            agent = KillableAgent(folder, collector.url, INTERVALS__SYSTEM_METRICS=15, INTERVALS__SEND_METRICS=2)
            await asyncio.to_thread(sink.start)
            await asyncio.to_thread(collector.start)
            agent.spawn()
            ending.callback(agent.kill)
            yield Platform(postgres, sink, collector, agent, passed)


def victims(chance: random.Random, rounds: int) -> Iterator[list[str]]:
    """Whom each round kills: each of three in turn, and another one, or the agent, beside it now and then."""
    while rounds > 0:
        names = ["postgres", "sink", "collector"]
        chance.shuffle(names)
        for name in names[:rounds]:
            others = [other for other in (*names, "agent") if other != name and chance.random() < BESIDE]
            yield [name, *others]
        rounds -= len(names)


async def kill_at_random(ours: Platform, chance: random.Random, rounds: int) -> Counter[str]:
    """Kill and start again; returns how often each was killed."""
    kills: Counter[str] = Counter()
    for names in victims(chance, rounds):
        await asyncio.sleep(chance.uniform(*PAUSE))
        for name in names:
            program = ours.programs[name]
            assert program.process
            assert program.process.poll() is None, f"{name} ended by itself"
            await asyncio.to_thread(program.kill)
            kills[name] += 1
        await asyncio.sleep(chance.uniform(*AWAY))
        for name in names:
            ours.programs[name].spawn()
    return kills


async def come_true(ask: Callable[[], Awaitable[bool]], seconds: float, *, pause: float = 0.5) -> bool:
    """Ask until it is true; whether it was within so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := await ask()) and time.monotonic() < deadline:  # noqa: ASYNC110 - asked, not told
        await asyncio.sleep(pause)
    return answer


async def everything_has_arrived(load: Load, url: str) -> None:
    """Wait until all is acknowledged, and stored and rolled up, or does not come, and until nothing is under way."""

    async def acknowledged() -> bool:
        return not load.left

    async def stored() -> bool:
        # The database may have been killed in the last round, and be starting.
        with contextlib.suppress(psycopg.OperationalError):
            found = await asyncio.to_thread(differences, url, load.made)
            if found.keys() and found.keys() <= ROLLUPS:
                await keep_house(url, load_all())
            return not found
        return False

    assert await come_true(acknowledged, 60), f"{load.left} records are not taken: {load.answers}"
    # A machine that is busy with other things stores the backlog of the last rounds slowly.
    await come_true(stored, 60 + load.made / 500, pause=2)
    await asyncio.sleep(QUIET)


def fates(url: str) -> dict[str, int]:
    """The ledger's sums."""
    columns = ("received", "stored", "duplicate", "conflicting", "dead_lettered")
    with psycopg.connect(url) as connection:
        sums = ", ".join(f"sum({column})::bigint" for column in columns)
        row = connection.execute(f"SELECT {sums} FROM ingest_ledger".encode()).fetchone()
    return dict(zip(columns, row or (), strict=True))


_KEY = """
    SELECT string_agg(attname, ', ')
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
    WHERE indisunique AND indrelid = %s::regclass
"""


def notices_rows_that_are_gone(ours: Platform) -> None:
    """The proof can fail: one row less of a table, and it is told."""
    tables = ("delivery_events", "metrics_zonemta", "otel_metric_point", "otel_log")
    with psycopg.connect(ours.postgres.url) as connection:
        for table in tables:
            # By its key: a row in columns has no place of its own.
            key = (connection.execute(_KEY, (table,)).fetchone() or ("",))[0]
            row = f"SELECT {key} FROM {table} ORDER BY time DESC LIMIT 1"
            deleted = connection.execute(f"DELETE FROM {table} WHERE ({key}) = ({row})".encode())
            assert deleted.rowcount == 1
    checked = ours.sink.command("db", "check")
    assert checked.returncode == 1
    told = [line for line in checked.stdout.splitlines() if ": the ledger says" in line]
    assert sorted(line.split()[3].rstrip(":") for line in told) == sorted(tables)


async def endure(folder: Path, server: PostgresServer, tier: Tier, *, seed: int, rounds: int) -> None:
    print(f"POSTEL_CHAOS_SEED={seed}, {rounds} rounds")  # noqa: T201 - by it a failure is repeated
    chance = random.Random(seed)  # noqa: S311 - repeatable
    async with platform(folder, server, tier) as ours:
        assert tier.value in ours.sink.log
        load = Load(routes(ours.agent.url, ours.collector.url), random.Random(seed))  # noqa: S311
        began = time.monotonic()
        sending = asyncio.create_task(load.send())
        making = asyncio.create_task(load.make(RATE))
        try:
            kills = await kill_at_random(ours, chance, rounds)
            killed_for = time.monotonic() - began
            making.cancel()
            await everything_has_arrived(load, ours.postgres.url)
            seconds = time.monotonic() - began
            assert all(p.process and p.process.poll() is None for p in ours.programs.values())
            wrong, told = differences(ours.postgres.url, load.made), fates(ours.postgres.url)
            figures = {name: n for name, n in vars(ours.passed).items() if isinstance(n, int) and name != "port"}
            print(  # noqa: T201 - the figures of a run
                f"{rounds} rounds in {killed_for:.0f} s, all stored after {seconds:.0f} s; killed: {dict(kills)}",
                f"to agent and Collector: {load.made} records, {load.sent} with those sent again, of these"
                f" {load.unheard} because their acknowledgement was lost: {dict(load.answers)}",
                f"to the sink: {figures}",
                f"the ledger: {told}",
                sep="\n",
            )
            assert ours.passed.faults == []
            assert wrong == {}
            checked = await asyncio.to_thread(ours.sink.command, "db", "check")
            assert (checked.stdout, checked.returncode) == (CLEAN, 0)
            everything_was_tried(ours.passed, load, kills, told)
            assert "panic" not in ours.collector.log()
            assert "Traceback" not in ours.sink.log
            await asyncio.to_thread(notices_rows_that_are_gone, ours)
        except BaseException:
            sys.stderr.write(ours.logs)
            raise
        finally:
            for task in (making, sending):
                task.cancel()
            await asyncio.gather(making, sending, return_exceptions=True)


def everything_was_tried(passed: Passed, load: Load, kills: Mapping[str, int], told: Mapping[str, int]) -> None:
    """The run met what it is about."""
    assert min(kills[name] for name in ("postgres", "sink", "collector")) >= 1
    assert passed.swallowed == passed.acknowledged // 10 > 0
    assert min(passed.recut, passed.committed_again, load.unheard) > 0
    assert told["received"] == told["stored"] + told["duplicate"]
    assert told["duplicate"] > 0
    # A repetition says what the first one said.
    assert (told["conflicting"], told["dead_lettered"]) == (0, 0)


@pytest.fixture(params=[Tier.PLAIN, Tier.COMMUNITY])
def tier(request: pytest.FixtureRequest) -> Tier:
    """What the server offers."""
    tier: Tier = request.param
    return tier


@pytest.fixture
def server(tier: Tier) -> PostgresServer:
    """The programs of such a server."""
    if tier is Tier.COMMUNITY:
        found = timescale_programs()
        if not found:
            pytest.skip("no TimescaleDB whose programs are on this machine")
        return found
    servers = find_postgres()
    require("postgresql", available=servers)
    return servers[-1]


@pytest.mark.slow
async def test_a_few_kills_cost_nothing(tmp_path: Path, server: PostgresServer, tier: Tier) -> None:
    await endure(tmp_path, server, tier, seed=4, rounds=4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_fifty_kills_cost_nothing(tmp_path: Path, server: PostgresServer, tier: Tier) -> None:
    seed = int(os.environ.get("POSTEL_CHAOS_SEED", secrets.randbelow(1 << 32)))
    await endure(tmp_path, server, tier, seed=seed, rounds=int(os.environ.get("POSTEL_CHAOS_ROUNDS", "50")))
