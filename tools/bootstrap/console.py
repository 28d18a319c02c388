"""What the set-up says: one line per step; what the programs that it runs say goes into a log file."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
_TAIL_LINES = 15


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
            subprocess.run(
                [str(part) for part in command],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=True,
            )
    except OSError as error:
        raise SetupError(f"{name} does not start: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{name} was not done after {timeout:.0f} s; its output is in {_short(log)}") from error
    except subprocess.CalledProcessError as error:
        said = log.read_bytes()[before:].decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
        last = said[-1].strip() if said else f"exit code {error.returncode}"
        raise SetupError(f"{name} failed: {last} (all of it: {_short(log)})", "\n".join(said)) from error
    return time.monotonic() - start


def _short(path: Path) -> Path:
    return path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path
