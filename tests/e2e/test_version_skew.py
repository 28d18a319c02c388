"""Programs of two versions: what an earlier agent and Collector send to this sink, and these to an earlier sink, also
while its database is migrated, is stored once.

The earlier version is the commit before the one that added the newest migration; on TimescaleDB Community two came with
it, which make aggregates over what the earlier sink writes to. It is run by the same Python environment, and its
Collector is its configuration in the program that this checkout has built.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from postel.collector import find_collector
from postel.signals import load_all
from support.collector import Collector
from support.known_load import Load, routes
from support.known_rows import ROLLUPS, differences
from support.postgres import fresh_database
from support.requirements import require
from support.running_agent import KillableAgent
from support.running_postel import until
from support.sink import RunningSink
from timescale_sink.store.database import Tier
from timescale_sink.store.housekeeping import keep_house
from timescale_sink.store.migrate import scripts

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).parents[2]
RATE = 300
"""Records a second."""
_NEW = {Tier.PLAIN: 1, Tier.COMMUNITY: 2}
"""How many migrations come meanwhile."""
AS_SAID = "the tables hold what the ledger says\n"


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=CHECKOUT, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@dataclass(frozen=True)
class Earlier:
    """The project's folder of an earlier version, and the migrations that it does not have, of this kind of server."""

    folder: Path
    new: Sequence[str]


@pytest.fixture(params=[Tier.PLAIN, Tier.COMMUNITY])
def tier(request: pytest.FixtureRequest) -> Tier:
    """What the server offers."""
    tier: Tier = request.param
    return tier


@pytest.fixture
def earlier(tier: Tier, tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    whole = (CHECKOUT / ".git").exists() and git("rev-parse", "--is-shallow-repository") == "false"
    require("history", available=whole, how="an earlier version is taken from it; git fetch --unshallow brings it")
    new = [script.name for script in scripts("migrations") if script.fits(tier)][-_NEW[tier] :]
    migration = f"timescale_sink/store/sql/migrations/{new[0]}"
    added = git("log", "--max-count=1", "--diff-filter=A", "--format=%H", "--", migration)
    assert added, f"{new[0]} is not committed"
    archive = subprocess.run(
        ["git", "archive", "--format=tar", f"{added}^"], cwd=CHECKOUT, check=True, capture_output=True, timeout=60
    )
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder)  # noqa: S202 - of this repository
    assert not (folder / migration).exists()
    # It is what runs where it is named, whatever is installed.
    program = [sys.executable, "-c", "import postel, timescale_sink; print(postel.__file__, timescale_sink.__file__)"]
    found = subprocess.run(
        program, cwd=folder.parent, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    )
    assert all(path.startswith(str(folder)) for path in found.stdout.split())
    print(f"the earlier version: {git('log', '--max-count=1', '--format=%h, %cd', f'{added}^')}")  # noqa: T201
    return Earlier(folder, new)


@pytest.fixture
def url(tier: Tier, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database on such a server."""
    server: str = request.getfixturevalue("timescale" if tier is Tier.COMMUNITY else "postgres")
    with fresh_database(server) as url:
        yield url


@dataclass
class Platform:
    """Agent, Collector and sink, and what is sent to them until the block of :func:`platform` ends."""

    sink: RunningSink
    collector: Collector
    agent: KillableAgent
    load: Load

    @property
    def logs(self) -> str:
        return "\n".join([self.sink.log[-4000:], self.collector.log()[-4000:], self.agent.log[-4000:]])


@asynccontextmanager
async def platform(
    folder: Path, url: str, *, senders: Path | None = None, receiver: Path | None = None
) -> AsyncIterator[Platform]:
    """A platform under load, whose agent and Collector are of one version and whose sink is of another."""
    program = find_collector()
    require("collector", available=program, how="`make collector` builds it")
    assert program
    sink = RunningSink(folder, url, code=receiver)
    configuration = senders / "collector-config" / "agent.yaml" if senders else None
    collector = Collector(program, folder, sink.ports[0], configuration)
    agent = KillableAgent(folder, collector.url, code=senders, INTERVALS__SYSTEM_METRICS=1, INTERVALS__SEND_METRICS=1)
    load = Load(routes(agent.url, collector.url), random.Random(7))  # noqa: S311 - repeatable
    tasks = []
    with contextlib.ExitStack() as ending:
        ending.callback(lambda: end(sink))
        await asyncio.to_thread(sink.start, seconds=60)
        ending.callback(collector.end)
        await asyncio.to_thread(collector.start)
        agent.spawn()
        ending.callback(agent.kill)
        ours = Platform(sink, collector, agent, load)
        tasks = [asyncio.create_task(load.send()), asyncio.create_task(load.make(RATE))]
        try:
            yield ours
            tasks[1].cancel()
            await come_true(lambda: not load.left, 60, lambda: f"{load.left} are not taken: {load.answers}")
            await come_true(lambda: all_is_stored(url, load.made), 120, "all is stored")
        except BaseException:
            sys.stderr.write(f"{differences(url, load.made)}\n{ours.logs}")
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def end(sink: RunningSink) -> None:
    if sink.process and sink.process.poll() is None:
        sink.kill()


async def come_true(ask: Callable[[], object], seconds: float, what: str | Callable[[], str]) -> None:
    """While the tasks of the test go on."""
    await asyncio.to_thread(until, ask, seconds, what, 0.5)


def all_is_stored(url: str, made: int) -> bool:
    """And rolled up: after a refresh cycle, where it is only that."""
    found = differences(url, made)
    if found.keys() and found.keys() <= ROLLUPS:
        asyncio.run(keep_house(url, load_all()))
    return not found


def stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT coalesce(sum(stored), 0)::bigint FROM ingest_ledger").fetchone()
    return int(row[0]) if row else 0


def have(url: str) -> set[str]:
    """The migrations that were applied."""
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM postel_migration").fetchall()}


async def nothing_is_missing(ours: Platform, url: str) -> None:
    """By the ledger and by SQL; and the host's own rows came too."""
    checked = await asyncio.to_thread(RunningSink(ours.sink.folder, url).command, "db", "check")
    assert (checked.stdout, checked.returncode) == (AS_SAID, 0), checked.stderr
    assert differences(url, ours.load.made) == {}
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM dead_letter").fetchone() == (0,)
        rows = connection.execute("SELECT count(*) FROM metrics_system WHERE cpu_load IS NOT NULL").fetchone()
    assert rows
    assert rows[0] > 5
    assert "Traceback" not in ours.sink.log + ours.agent.log
    print(f"{ours.load.made} records, stored {stored(url)}")  # noqa: T201 - the figures


async def test_an_earlier_agent_and_collector_send_to_this_sink(earlier: Earlier, url: str, tmp_path: Path) -> None:
    async with platform(tmp_path, url, senders=earlier.folder) as ours:
        assert have(url) >= {*earlier.new}
        await come_true(lambda: stored(url) > 1000, 60, "rows of the earlier ones")
        await asyncio.to_thread(ours.sink.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(ours.sink.start)
        await asyncio.sleep(10)
    await nothing_is_missing(ours, url)


async def test_these_send_to_an_earlier_sink_whose_database_is_migrated_meanwhile(
    earlier: Earlier, url: str, tmp_path: Path
) -> None:
    async with platform(tmp_path, url, receiver=earlier.folder) as ours:
        assert have(url).isdisjoint(earlier.new)
        await come_true(lambda: stored(url) > 1000, 60, "rows that the earlier one writes")

        later = RunningSink(tmp_path, url, ports=ours.sink.ports)
        rehearsed = await asyncio.to_thread(later.command, "db", "migrate", "--check")
        assert rehearsed.returncode == 0, rehearsed.stderr
        assert all(f"would apply: {name} (" in rehearsed.stdout for name in earlier.new)
        assert have(url).isdisjoint(earlier.new)
        migrated = await asyncio.to_thread(later.command, "db", "migrate")
        assert migrated.returncode == 0, migrated.stderr
        assert have(url) >= {*earlier.new}

        # The earlier one goes on with the schema of the later.
        before = stored(url)
        await come_true(lambda: stored(url) > before + 3000, 60, "rows that the earlier one writes after it")
        assert await asyncio.to_thread(ours.sink.end, signal.SIGTERM) == 0
        refused = await asyncio.to_thread(ours.sink.command, "sink")
        assert refused.returncode == 2
        assert "update Postel" in refused.stderr

        ours.sink = later
        await asyncio.to_thread(later.start)
        try:
            before = stored(url)
            await come_true(lambda: stored(url) > before + 1000, 60, "rows that the later one writes")
            await come_true(lambda: not ours.load.left or stored(url) > before + 3000, 60, "more of them")
        except BaseException:
            end(later)
            raise
    await nothing_is_missing(ours, url)
    end(later)
