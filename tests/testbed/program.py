"""A real program under test: in a process group of its own, its output in a file, ended by its id.

The group is the unit: `kill` ends all that the program forked, `pids` tells who is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

_started: weakref.WeakSet[Program] = weakref.WeakSet()


def started() -> list[Program]:
    """Every program that was started and is still referred to: their logs explain a failed test."""
    return list(_started)


def until(true: Callable[[], object], seconds: float, what: str, pause: float = 0.05) -> None:
    """Ask until the answer is truthy.

    Raises:
        AssertionError: it is not within `seconds`; the message is `what` that was waited for.
    """
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)


class Program:
    """One program, which can be started again after its end; it appends to the same log."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str | Path],
        log: Path,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.arguments = [str(argument) for argument in arguments]
        self.log = log
        self.directory = directory or log.parent
        self.environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self, ready: Callable[[], object], seconds: float = 30) -> None:
        """Start it and wait until it is `ready`.

        Raises:
            AssertionError: it ended or was not ready in time; the message holds the end of its log. It is ended.
        """
        assert not self.pids(), f"{self.name} runs already"
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=self.environment,
                start_new_session=True,
            )
        _started.add(self)

        def ready_or_dead() -> object:
            assert process.poll() is None, f"{self.name} ended with {process.returncode}"
            return ready()

        try:
            until(ready_or_dead, seconds, f"{self.name} is ready")
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.tail()}") from error
        except BaseException:  # the test's own time limit, Ctrl-C
            self.kill()
            raise

    def pids(self) -> list[int]:
        """The processes of its group that live; zombies do not."""
        if self._process is None:
            return []
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(process.pid) == self._process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def stop(self, seconds: float = 15, how: signal.Signals = signal.SIGTERM) -> None:
        """A signal to the program, which ends its children itself; SIGKILL to the group where some are left.

        Raises:
            AssertionError: some were left after `seconds`; they are killed.
        """
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.kill(self._process.pid, how)
        try:
            until(lambda: self._process is None or self._process.poll() is not None, seconds, f"{self.name} ends")
            until(lambda: not self.pids(), 5, f"the children of {self.name} end")
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group; returns when nobody of it lives."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        until(lambda: not self.pids(), 10, f"the group of {self.name} is gone")
        self._process = None

    def said(self) -> str:
        """What it wrote since its last start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def tail(self, lines: int = 60) -> str:
        """The end of its log, for the reader of a failure."""
        if not self.log.exists():
            return f"{self.log} does not exist"
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join([f"--- end of {self.log} ---", *text[-lines:]])
