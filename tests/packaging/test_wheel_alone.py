"""The wheel in an environment that has nothing else, away from the checkout: it runs, on the direct way, saying so."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from support.running_postel import running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# As the units have it, NoNewPrivileges= and MemoryDenyWriteExecute= (prctl(2); the second from Linux 6.3 on).
_SANDBOX = """
import ctypes, os, sys
for option in (38, 65):
    ctypes.CDLL(None).prctl(option, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_FAST = {"POSTEL_INTERVALS__SYSTEM_METRICS": "1", "POSTEL_INTERVALS__SEND_METRICS": "1"}


def test_up_runs_without_a_collector_says_so_and_rows_arrive(
    python_alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Collector that this machine has otherwise; the environment has none.
    monkeypatch.delenv("POSTEL_COLLECTOR", raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    under = (str(python_alone), "-c", _SANDBOX)
    with running(tmp_path, python=python_alone, under=under, PATH="/usr/bin:/bin", **_FAST) as postel:
        sink = f"127.0.0.1:{postel.ports['sink_http']}"
        until(lambda: postel.rows_of_host() >= 2, 90, "rows of this host")
        assert (
            "postel: no postel-otelcol is on PATH, and POSTEL_COLLECTOR names none: the agent sends straight to the "
            f"sink at {sink}\n"
        ) in postel.log.read_text()
        page = httpx.get(postel.page, timeout=20, trust_env=False)
        assert page.status_code == httpx.codes.OK
        # What the page needs is in the wheel as well.
        for name in set(re.findall(r"/[\w/.-]+/page\.(?:css|js)", page.text)):
            assert httpx.get(postel.page.rstrip("/") + name, trust_env=False).status_code == httpx.codes.OK, name
        doctor = postel.command("doctor").stdout
        for subject in ("database", "schema", "samples", "sink", "agent", "spool", "page"):
            assert f"ok    {subject}: " in doctor
        assert "no postel-otelcol is on PATH" in doctor
        assert postel.stop() == 0
