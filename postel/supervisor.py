"""Runs child programs together: one readable log, what dies is started again, all stop cleanly.

Each :class:`Program` becomes a child in a session of its own, so that Ctrl-C reaches the supervisor alone and the order
of stopping is the supervisor's. Every line that a child prints appears on stderr behind the child's name. On Linux
the kernel ends the children when the supervisor is killed, so that a second start finds the ports free.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TextIO

from postel.streams import say

# A child that lived this long has started well: its next death begins with a short wait again.
SETTLED_SECONDS = 30.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
STOP_SECONDS = 15.0
# The exit code of a PostelError (postel.cli): starting again would fail the same way.
REFUSED = 2
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True)
class Program:
    """A child to run.

    Attributes:
        name: what stands in front of its lines.
        command: argument vector.
        environment: variables beside those of the supervisor.
        stop_rank: programs of a lower rank are stopped, and have ended, before those of a higher one.
        linger_seconds: how long it goes on when those of lower ranks have ended, to hand on what they sent last.
        refuses: its exit code 2 says that starting again would not help, as that of Postel's own programs does. A Go
            program that panics ends with 2 as well.
        clean_line: turns a printed line into what is shown, for programs with a log format of their own.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_rank: int = 0
    linger_seconds: float = 0.0
    refuses: bool = False
    clean_line: Callable[[str], str] = str


class Supervisor:
    """Keeps programs running until :meth:`stop`; use :meth:`run`."""

    def __init__(self, programs: Sequence[Program], *, output: TextIO | None = None) -> None:
        self._programs = programs
        self._output = output
        self._width = max(len(program.name) for program in programs)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._refused: str | None = None
        self.restarts: dict[str, int] = dict.fromkeys((program.name for program in programs), 0)

    async def run(self) -> int:
        """Run until :meth:`stop`, or until a program refuses to start.

        Returns:
            0 after a stop, 2 when a program said that starting again would not help.

        Raises:
            Exception: what nobody foresaw in keeping a program, after every child has ended: nothing may run unwatched.
        """
        keepers = {program.name: asyncio.create_task(self._keep(program)) for program in self._programs}
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping, *keepers.values()], return_when=asyncio.FIRST_COMPLETED)
        self.stop()
        await stopping
        for rank in sorted({program.stop_rank for program in self._programs}):
            programs = [program for program in self._programs if program.stop_rank == rank]
            await asyncio.gather(*(self._end(program, keepers[program.name]) for program in programs))
        for keeper in keepers.values():
            keeper.result()
        return REFUSED if self._refused else 0

    def stop(self) -> None:
        """Ask for the end; :meth:`run` returns when every child has ended."""
        self._stopping.set()

    def pid(self, name: str) -> int | None:
        """The process id of a program that runs now."""
        process = self._running(name)
        return process.pid if process else None

    async def _keep(self, program: Program) -> None:
        wait = FIRST_WAIT_SECONDS
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once(program)
            if self._stopping.is_set():
                return
            lived = time.monotonic() - started
            if program.refuses and code == REFUSED and lived < SETTLED_SECONDS and self.restarts[program.name] == 0:
                self._refused = program.name
                self._say(program.name, "cannot start; its message stands above. Stopping everything.")
                self.stop()
                return
            wait = FIRST_WAIT_SECONDS if lived >= SETTLED_SECONDS else wait
            self._say(program.name, f"ended with {_describe(code)} after {lived:.0f} s; starts again in {wait:g} s")
            self.restarts[program.name] += 1
            with contextlib.suppress(TimeoutError):
                # The stop event ends the wait early.
                await asyncio.wait_for(self._stopping.wait(), wait)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _run_once(self, program: Program) -> int:
        try:
            process = await asyncio.create_subprocess_exec(
                *program.command,
                env={**os.environ, **program.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_die_with_parent, os.getpid()) if sys.platform == "linux" else None,
            )
        except OSError as error:
            self._say(program.name, f"cannot be started: {error}")
            return 127
        self._processes[program.name] = process
        if self._stopping.is_set():
            # The order to stop found no child yet.
            process.terminate()
        assert process.stdout is not None  # noqa: S101 - asked for above
        await self._copy(program, process.stdout)
        return await process.wait()

    async def _copy(self, program: Program, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                # Longer than the reader's limit: the start is gone from the buffer, what follows is shown.
                continue
            if not line:
                return
            self._say(program.name, program.clean_line(line.decode("utf-8", "replace").rstrip()))

    async def _end(self, program: Program, keeper: asyncio.Task[None]) -> None:
        name = program.name
        await asyncio.wait([keeper], timeout=program.linger_seconds)
        if child := self._running(name):
            child.terminate()
        ended = asyncio.create_task(self._ended(name, keeper))
        done, _ = await asyncio.wait([ended], timeout=STOP_SECONDS)
        while not done:
            # Asked anew each time: a child may have been on its way when the order came.
            if child := self._running(name):
                self._say(name, f"did not stop within {STOP_SECONDS:g} s and is killed")
                child.kill()
            done, _ = await asyncio.wait([ended], timeout=1)

    async def _ended(self, name: str, keeper: asyncio.Task[None]) -> None:
        await asyncio.wait([keeper])
        if child := self._running(name):
            # Its keeper failed. What it still prints is read, for it may wait for that before it can end.
            await child.communicate()

    def _running(self, name: str) -> asyncio.subprocess.Process | None:
        process = self._processes.get(name)
        return process if process and process.returncode is None else None

    def _say(self, name: str, text: str) -> None:
        say(f"{name:<{self._width}} | {text}", self._output)


def _describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _die_with_parent(parent: int) -> None:
    """Runs in the child before exec: SIGTERM when the supervisor is gone, however it went (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
