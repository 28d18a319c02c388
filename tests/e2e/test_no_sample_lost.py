"""Sink away, Collector killed, agent killed: every tick at which the agent ran has its row, once."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postel.collector import find_collector
from support.requirements import require
from support.running_postel import RunningPostel, running, until


@pytest.fixture(autouse=True)
def collector() -> None:
    require("collector", available=find_collector() is not None)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_sample_is_lost_or_doubled_with_short_ticks(tmp_path: Path) -> None:
    # Two seconds: a tick that is a whole interval late is not made up, and a busy machine may hold one up for a second.
    environment = {
        "POSTEL_INTERVALS__SYSTEM_METRICS": "2",
        "POSTEL_INTERVALS__SEND_METRICS": "1",
        # So that it is seen to pass through the Collector too.
        "POSTEL_SINK__TOKEN": "a-token-of-the-test",
    }
    with running(tmp_path, **environment) as postel:
        endure(postel, interval=2, sink_away=6)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_no_sample_is_lost_or_doubled_with_the_default_intervals(tmp_path: Path) -> None:
    with running(tmp_path) as postel:
        endure(postel, interval=15, sink_away=60)


def endure(postel: RunningPostel, *, interval: int, sink_away: float) -> None:
    until(lambda: len(ticks(postel)) >= 3, 90 + 3 * interval, "first rows")
    begin = min(ticks(postel))

    away_from = time.time()
    with kept_away(postel, "sink"):
        time.sleep(sink_away)
        there = ticks(postel)
    assert all(tick < away_from + 1 for tick in there), "the sink was to be away"

    # Who serves the page has no part in it, and comes back all the same.
    for program in ("collector", "serve"):
        before = postel.kill(program)
        until(lambda: postel.runs(program, but=before), 30, f"{program} runs again")  # noqa: B023 - used at once
    time.sleep(2 * interval)

    agent_killed = time.time()
    before = postel.kill("agent")
    until(lambda: postel.runs("agent", but=before), 30, "the agent runs again")
    until(lambda: len(looks(postel)) == 2, 30, "the agent looks for servers")
    agent_back = looks(postel)[1]

    end = (int(time.time()) // interval + 3) * interval
    until(lambda: max(ticks(postel), default=0) >= end, 120 + 4 * interval, "the rows of now")
    # What waited behind the Collector's or the sink's retries.
    away = (agent_killed - interval / 2, agent_back)
    with suppress(AssertionError):
        until(lambda: not missing(postel, begin, end, interval, away), 60, "every row")
    assert not missing(postel, begin, end, interval, away), f"the agent was away from {away[0]} to {away[1]}"

    there = ticks(postel)
    assert len(there) == len(set(there))
    ((twice,),) = postel.query(
        "SELECT count(*) FROM (SELECT 1 FROM otel_metric_point GROUP BY series_id, time HAVING count(*) > 1) AS doubled"
    )
    assert twice == 0
    checked = postel.command("db", "check")
    assert checked.returncode == 0, checked.stdout
    print(  # noqa: T201 - the figures of a soak run
        f"{len(there)} rows from tick {begin} to {max(there)}; the agent was away for {agent_back - agent_killed:.1f} s"
    )


def ticks(postel: RunningPostel) -> list[int]:
    rows = postel.query("SELECT extract(epoch FROM time)::bigint FROM metrics_system WHERE cpu_load IS NOT NULL")
    return [row[0] for row in rows]


def missing(postel: RunningPostel, begin: int, end: int, interval: int, away: tuple[float, float]) -> set[int]:
    """Ticks of the time when the agent ran that have no row."""
    wanted = {tick for tick in range(begin, end + 1, interval) if not away[0] <= tick <= away[1]}
    return wanted - set(ticks(postel))


def looks(postel: RunningPostel) -> list[float]:
    """When the agent had looked for servers after each start: by then the host is asked at every tick."""
    stamps = re.findall(r"^agent +\| (\S+) .*looked for mail servers", postel.log.read_text(), re.MULTILINE)
    return [datetime.fromisoformat(stamp).astimezone(UTC).timestamp() for stamp in stamps]


@contextmanager
def kept_away(postel: RunningPostel, program: str) -> Iterator[None]:
    """Kill a program whenever it runs, until the body is done."""
    enough = threading.Event()

    def kill() -> None:
        while not enough.wait(0.1):
            with suppress(LookupError):
                postel.kill(program)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        enough.set()
        killer.join()
