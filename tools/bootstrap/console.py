"""What the set-up says: one line per step on stdout, the last lines of a program that failed on stderr."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
_TAIL_LINES = 15


class SetupError(Exception):
    """A step failed; the message is what the user reads."""


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
        SetupError: it could not start, failed, or took longer than ``timeout`` seconds. The last lines of its output
            are on stderr by then.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    name = Path(command[0]).name
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
        tail = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        print("\n".join(f"    {line}" for line in tail), file=sys.stderr, flush=True)
        raise SetupError(f"{name} failed (exit code {error.returncode}); all it said is in {_short(log)}") from error
    return time.monotonic() - start


def _short(path: Path) -> Path:
    return path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path
