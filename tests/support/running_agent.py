"""The agent as a program, on ports of the test's own, and what a receiver took of it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from postel.otlp.signal import Signal
from support.environment import without_settings
from support.otlp_receiver import Receiver
from support.ports import free_ports


def environment(tmp_path: Path, endpoint: str, **more: object) -> dict[str, str]:
    """One-second intervals, and every place to look at on a port where nobody listens.

    ``more`` are settings beside these or in their place: ``DISCOVERY__ZONE_MTA_PORT=port``.
    """
    ports = iter(free_ports(7))
    return {
        **without_settings(),
        "POSTEL_DATA_DIR": str(tmp_path / "data"),
        "POSTEL_NODE__ID": "node-1",
        "POSTEL_OTLP__ENDPOINT": endpoint,
        "POSTEL_INTERVALS__SYSTEM_METRICS": "1",
        "POSTEL_INTERVALS__ZONE_MTA_PROMETHEUS": "1",
        "POSTEL_INTERVALS__WILDDUCK_API_QUERY": "1",
        "POSTEL_INTERVALS__WILDDUCK_PROMETHEUS": "1",
        "POSTEL_INTERVALS__RSPAMD_CONTROLLER": "1",
        "POSTEL_INTERVALS__SEND_METRICS": "0.2",
        "POSTEL_INTAKE__ADDRESS": f"127.0.0.1:{next(ports)}",
        "POSTEL_DISCOVERY__ZONE_MTA_PORT": str(next(ports)),
        "POSTEL_DISCOVERY__WILDDUCK_API_PORT": str(next(ports)),
        "POSTEL_DISCOVERY__WILDDUCK_METRICS_PORT": str(next(ports)),
        "POSTEL_DISCOVERY__HARAKA_SMTP_PORT": str(next(ports)),
        "POSTEL_DISCOVERY__RSPAMD_TCP_PORT": str(next(ports)),
        "POSTEL_DISCOVERY__RSPAMD_CONTROLLER_PORT": str(next(ports)),
        **{f"POSTEL_{name}": str(value) for name, value in more.items()},
    }


@asynccontextmanager
async def agent(
    variables: dict[str, str], *arguments: str, within: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        "-m",
        "postel.cli",
        "agent",
        *arguments,
        env=variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def stop(process: asyncio.subprocess.Process, number: int = signal.SIGTERM) -> str:
    process.send_signal(number)
    _, said = await asyncio.wait_for(process.communicate(), 10)
    return said.decode()


class KillableAgent:
    """The agent with its spool, which outlives its process.

    Args:
        folder: for all that it keeps.
        endpoint: where it sends.
        code: the project's folder whose code runs; None: the one that is installed.
        more: as of :func:`environment`.
    """

    def __init__(self, folder: Path, endpoint: str, *, code: Path | None = None, **more: object) -> None:
        self._folder = folder
        self._variables = environment(folder, endpoint, **more)
        if code:
            self._variables["PYTHONPATH"] = str(code)
        self.url = f"http://{self._variables['POSTEL_INTAKE__ADDRESS']}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything it has said."""
        return (self._folder / "agent.log").read_text("utf-8", "replace")

    def spawn(self) -> None:
        """Start it, and wait for nothing."""
        with (self._folder / "agent.log").open("ab") as log:
            command = [sys.executable, "-m", "postel.cli", "agent"]
            self.process = subprocess.Popen(command, cwd=self._folder, env=self._variables, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a crash would: kill -9."""
        assert self.process
        self.process.kill()
        self.process.wait(10)


Point = tuple[str, dict[str, Any], Any]


def points(receiver: Receiver, name: str) -> list[Point]:
    """(service.instance.id, attributes, point) of a metric, in order of arrival."""
    found = []
    for kind, request in receiver.taken:
        if kind is not Signal.METRICS:
            continue
        for resource in request.resource_metrics:  # type: ignore[union-attr]
            instance = next(
                a.value.string_value for a in resource.resource.attributes if a.key == "service.instance.id"
            )
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in getattr(metric, metric.WhichOneof("data") or "").data_points:
                            attributes = {
                                a.key: getattr(a.value, a.value.WhichOneof("value")) for a in point.attributes
                            }
                            found.append((instance, attributes, point))
    return found


async def until(condition: Callable[[], object], limit: float = 20) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        await asyncio.sleep(0.02)
