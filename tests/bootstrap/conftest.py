"""A checkout of the test's own, and the Collector's build in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bootstrap import CHECKOUT, GO, Make, copy_checkout, left


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as the build needs, with nothing built."""
    copy = copy_checkout(tmp_path / "checkout")
    # The Go that set-up installed where the machine has none.
    if (CHECKOUT / ".build" / "go").exists():
        (copy / ".build").mkdir()
        (copy / ".build" / "go").symlink_to(CHECKOUT / ".build" / "go")
    return copy


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Where the Go of `make` says what it does, and is told what to do."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "go").write_text(GO.format(made=made))
    (made / "go").chmod(0o755)
    return made


@pytest.fixture
def make(checkout: Path, made: Path) -> Iterator[Make]:
    """`make collector`, with an environment that nobody develops in."""
    (checkout / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (checkout / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (checkout / "Makefile").write_text(f"collector:\n\t@{sys.executable} -m tools.bootstrap collector\n")

    # Below `make test` it would say which folder it enters.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    started = []

    def start(**variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["make", "collector"],
            cwd=checkout,
            env={**env, "PATH": f"{made}:{os.environ['PATH']}", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        started.append(process)
        return process

    yield start
    for process in left(checkout):
        process.kill()
    for each in started:
        with each:
            each.wait(10)
