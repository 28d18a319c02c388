"""Looks into the Node.js processes of a server: CPU by the nanosecond, the event loop's delay, the memory held."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.program import until

OBSERVER = Path(__file__).parents[1] / "testbed" / "observer.js"


@dataclass(frozen=True)
class Observation:
    """Of one process, since the observation before.

    Args:
        delay_p99: 99th percentile of the event loop's delay while it was looked at, in ms; it holds the 10 ms from one
            look to the next.
        held: bytes of the heap and outside it (buffers) after a collection of garbage.
    """

    delay_p99: float
    held: int


class NodeObserver:
    """Processes that are started with this `environment` can be observed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.environment = {"NODE_OPTIONS": f"--require {OBSERVER}", "OBSERVER_FOLDER": str(folder)}

    @contextlib.contextmanager
    def looking(self, pids: Collection[int]) -> Iterator[None]:
        """Look at the event loops of these processes during the block."""
        for pid in pids:
            os.kill(pid, signal.SIGWINCH)
        yield
        # Not SIGWINCH: two of a kind are one where the first was not taken yet, as before a next turn. Of two kinds
        # that wait the kernel gives the lower number first, which is this one.
        for pid in pids:
            os.kill(pid, signal.SIGURG)

    def observe(self, pids: Iterable[int]) -> dict[int, Observation]:
        """Of each process what it was since the last time; it begins anew.

        Raises:
            AssertionError: one of them does not answer within 10 s.
        """
        files = {pid: self._folder / f"{pid}.json" for pid in pids}
        for pid, file in files.items():
            file.unlink(missing_ok=True)
            os.kill(pid, signal.SIGUSR2)
        until(lambda: all(file.exists() for file in files.values()), 10, "every process was observed", pause=0.02)
        return {pid: _observation(file) for pid, file in files.items()}


def _observation(file: Path) -> Observation:
    said = json.loads(file.read_text())
    return Observation(delay_p99=said["p99"], held=said["held"])


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU that all threads of these processes took, user and system together, counted by the scheduler in ns.

    Source: Documentation/scheduler/sched-stats.rst of Linux, `/proc/<pid>/task/<tid>/schedstat`, the first field.
    """
    nanoseconds = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            # A thread that ends meanwhile was one of a few milliseconds.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9
