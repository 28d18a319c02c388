"""What the plugin costs Zone-MTA: `make bench`, figures in docs/benchmarks.md."""

from __future__ import annotations

import math
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from testbed.fixtures import NewZoneMta, WatchedZoneMta
from testbed.zone_mta import ZoneMta

from support.otlp_thread import OtlpThread

PAIRS = 20
MESSAGES = 200
CLIENTS = 4
# Student's t for 19 degrees of freedom, one-sided 95 %.
T = 1.729


@pytest.mark.bench
@pytest.mark.timeout(3600)
def test_the_plugin_adds_little_cpu_to_a_message(
    new_zone_mta: NewZoneMta, watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread
) -> None:
    """The upper 95 % bound of the CPU per message is at most 3 % above that without the plugin, in pairs by turns."""
    plain = new_zone_mta(zones=("only",), connections=10)
    watched = watched_zone_mta(
        otlp_receiver.endpoint, zones=("only",), connections=10, plugin={"heartbeatInterval": 30}
    )
    for server in (plain, watched):
        cpu_of(server, MESSAGES)
    extra, base = [], []
    for turn in range(PAIRS):
        servers = [plain, watched] if turn % 2 else [watched, plain]
        used = {server: cpu_of(server, MESSAGES) for server in servers}
        extra.append(used[watched] / used[plain] - 1)
        base.append(used[plain])
    mean = statistics.mean(extra)
    bound = mean + T * statistics.stdev(extra) / math.sqrt(PAIRS)
    print(  # noqa: T201 - the figure
        f"plugin: {mean:+.2%} CPU of Zone-MTA per message, upper 95 % bound {bound:+.2%};"
        f" {1000 * statistics.mean(base) / MESSAGES:.1f} ms without it"
    )
    assert bound <= 0.03


def cpu_of(server: ZoneMta, count: int) -> float:
    """Seconds of CPU that all its processes take for so many messages."""
    processes = [psutil.Process(pid) for pid in server.program.pids()]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(server.send, [count // CLIENTS] * CLIENTS))
    server.wait_until_idle()
    time.sleep(0.3)
    return sum(sum(process.cpu_times()[:2]) for process in processes) - before
