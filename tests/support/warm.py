"""`postel` commands without the time that their imports take: forks of a process that has made these already.

For tests that start the same command again and again, where its start is not what is tested: of 1.5 s until `postel
serve` answers more than a second are its imports. All else is as in a process of its own: arguments, environment,
working directory, log, signals and exit code. This file is run by that process too, without the other tests' folders.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_IMPORTED = (
    "dashboards.web.app",
    "dashboards.web.pages",
    "postel.log",
    "timescale_sink.alerts.evaluate",
    "timescale_sink.alerts.notify",
)
"""What `postel serve` imports."""


class Forked:
    """A command that runs; what `subprocess.Popen` has by the same names."""

    def __init__(self, parent: _Parent, pid: int) -> None:
        self._parent = parent
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative where a signal ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = self._parent.ask(pid=self.pid)
        return self.returncode

    def wait(self, seconds: float) -> int:
        """Its exit code; `subprocess.TimeoutExpired` while it runs after so many seconds."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", seconds)
            time.sleep(0.02)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Parent:
    """The process that has made the imports; it ends with its standard input."""

    def __init__(self) -> None:
        # Not in the folder of this file, whose names would hide those of packages.
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._end)

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def _end(self) -> None:
        self._process.communicate(timeout=10)


_parents: list[_Parent] = []


def start(arguments: Sequence[str], *, folder: Path, variables: Mapping[str, str], log: Path) -> Forked:
    """Start a command.

    Args:
        arguments: of `postel`.
        folder: where it runs.
        variables: its whole environment.
        log: what it says is appended to.
    """
    if not _parents:
        _parents.append(_Parent())
    pid = _parents[0].ask(arguments=[*arguments], folder=str(folder), variables={**variables}, log=str(log))
    return Forked(_parents[0], pid)


def _answer() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    # Ctrl-C goes to it too, and its tests still have to end what they started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        answer: int | None
        if "pid" in request:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif not (answer := os.fork()):
            _become(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become(request: Mapping[str, Any]) -> None:
    """Be the command that is asked for; ends the process as the command does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number, place in enumerate((nothing, log, log)):
        os.dup2(place, number)
    importlib.import_module("postel.cli").main(request["arguments"], prog_name="postel")


if __name__ == "__main__":
    _answer()
