"""`postel collector`: the Collector as `up` runs it, in the place of the command."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import httpx
import psutil

from postel.collector import find_collector
from support.requirements import require
from support.running_postel import RunningPostel, until


def test_it_becomes_the_collector_with_the_addresses_of_the_settings(tmp_path: Path) -> None:
    require("collector", available=find_collector() is not None)
    postel = RunningPostel(tmp_path)
    health = f"http://127.0.0.1:{postel.ports['col_health']}/"
    with subprocess.Popen([sys.executable, "-m", "postel.cli", "collector"], env=postel.variables) as process:
        try:
            until(lambda: _is_well(health), 30, "it is well")
            assert "otelcol" in psutil.Process(process.pid).cmdline()[0]
            # Its sink is away, and the queue on disk takes what comes.
            answer = httpx.post(
                f"http://127.0.0.1:{postel.ports['col_http']}/v1/logs",
                json={"resourceLogs": []},
                trust_env=False,
            )
            assert answer.status_code == httpx.codes.OK
            assert list((postel.data / "collector").iterdir())
        finally:
            process.terminate()
        assert process.wait(20) == 0


def _is_well(health: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(health, timeout=2, trust_env=False).status_code == httpx.codes.OK
    return False


def test_without_one_it_says_so(tmp_path: Path) -> None:
    done = RunningPostel(tmp_path, {"POSTEL_COLLECTOR": "none"}).command("collector")
    assert done.returncode == 2
    assert done.stderr.startswith("postel: POSTEL_COLLECTOR is none: ")
