"""What the agent costs a host that it watches: `make bench`, figures in docs/benchmarks.md."""

import time
from pathlib import Path

import psutil
import pytest

from postel.collector import find_collector
from support.requirements import require
from support.running_postel import running, until

SECONDS = 120


@pytest.mark.bench
@pytest.mark.timeout(400)
def test_the_agent_at_rest(tmp_path: Path) -> None:
    """Under 1 % of a core and 90 MiB, with the default intervals and everything else running beside it."""
    require("collector", available=find_collector() is not None)
    with running(tmp_path) as postel:
        until(lambda: postel.query("SELECT 1 FROM metrics_system"), 90, "the first row")
        agent = psutil.Process(postel.pid("agent"))
        time.sleep(15)
        begin, used = time.monotonic(), sum(agent.cpu_times()[:2])
        resident = []
        while time.monotonic() < begin + SECONDS:
            resident.append(agent.memory_info().rss)
            time.sleep(1)
        share = (sum(agent.cpu_times()[:2]) - used) / (time.monotonic() - begin)
        print(f"agent at rest: {share:.2%} of a core, at most {max(resident) / 2**20:.1f} MiB resident")  # noqa: T201 - the figure
        assert share < 0.01
        assert max(resident) < 90 * 2**20
