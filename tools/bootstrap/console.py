"""What the set-up says, one line per step, and the programs that it runs, whose words go into a log file.

Contract: a program ends with all that it started when its time is over, and when set-up itself is told to end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

CHECKOUT = Path(__file__).resolve().parents[2]
_TAIL_LINES = 15
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How long a program may take to end by itself before it is killed.
_END_SECONDS = 5.0


class SetupError(Exception):
    """A step failed; the message is what the user reads.

    Args:
        message: what failed, in one line, and how to mend it.
        output: the last lines of the program that failed.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def say(line: str) -> None:
    """Print one line at once, even into a pipe."""
    print(f"set-up: {line}", flush=True)


def heed_signals() -> None:
    """Let a signal that ends set-up end what it runs too, and remove what is half done, before it exits."""
    ending = False

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal ending
        # One is enough: the second of an impatient user, or of make, must not cut the clearing up short.
        if not ending:
            ending = True
            sys.exit(128 + number)

    for number in _ENDING:
        # What is ignored was meant to be: under nohup, and in the background of a script.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path = CHECKOUT,
    timeout: float = 1200,
) -> float:
    """Run a program with all that it prints going into ``log``.

    Returns:
        The seconds it took.

    Raises:
        SetupError: it could not start, failed, or took longer than ``timeout`` seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    name = Path(command[0]).name
    before = log.stat().st_size if log.exists() else 0
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # A group of its own is what can be ended as a whole.
                process_group=0,
            )
        try:
            code = process.wait(timeout)
        except BaseException:
            _end_group(process)
            raise
    except OSError as error:
        raise SetupError(f"{name} does not start: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{name} was not done after {timeout:.0f} s; its output is in {_short(log)}") from error
    if code:
        said = log.read_bytes()[before:].decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
        last = said[-1].strip() if said else f"exit code {code}"
        raise SetupError(f"{name} failed: {last} (all of it: {_short(log)})", "\n".join(said))
    return time.monotonic() - start


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
            deadline = time.monotonic() + _END_SECONDS
            while time.monotonic() < deadline:
                process.poll()
                # ProcessLookupError: nobody is left.
                os.killpg(process.pid, 0)
                time.sleep(0.02)


def _short(path: Path) -> Path:
    return path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path
