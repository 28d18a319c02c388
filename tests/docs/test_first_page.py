"""README.md, as somebody copies it: from a clone to rows of this host on the page, the demo, and its removal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from postel.collector import find_collector
from support.bootstrap import copy_project
from support.markdown import reading, run, variables
from support.requirements import require
from support.running_postel import RunningPostel, until


@pytest.fixture
def postel(tmp_path: Path) -> Iterator[RunningPostel]:
    """The ports and the data folder of the Postel that the page starts."""
    require("make", available=shutil.which("make"))
    require("git", available=shutil.which("git"))
    postel = RunningPostel(tmp_path, {"POSTEL_INTERVALS__SYSTEM_METRICS": "1", "POSTEL_INTERVALS__SEND_METRICS": "1"})
    yield postel
    shutil.rmtree(postel.data, ignore_errors=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What is cloned: the project as it is here, with what is not committed yet."""
    repository = copy_project(tmp_path / "repository")
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.hooksPath=/dev/null")
    for command in (("init", "--quiet"), ("add", "--all"), (*author, "commit", "--quiet", "--message", "All")):
        subprocess.run(["git", *command], cwd=repository, check=True, capture_output=True, timeout=60)
    return repository


@contextlib.contextmanager
def until_interrupted(command: str, folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A command that runs until Ctrl-C, which is pressed at the end of the block; gives its log."""
    log = folder / "terminal.log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        said = log.read_text("utf-8", "replace")[-8000:]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGINT)
        try:
            shell.wait(60)
            until(lambda: gone(shell.pid), 60, f"all of it has ended\n{said}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


def gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def follow(postel: RunningPostel, folder: Path, instead: dict[str, str], seconds: float) -> float:
    """Follow the page in a folder; the seconds from the first command to the page."""
    environment = {**variables(), **postel.variables}
    with reading("README.md", instead=instead) as page:
        first, demo = page.take("sh")
        began = time.monotonic()
        with until_interrupted(first, folder, environment) as log:
            until(lambda: shown(postel), seconds, lambda: log.read_text()[-4000:])
            took = time.monotonic() - began
            until(postel.rows_of_host, 30, lambda: log.read_text()[-4000:])
        clone = folder / "postel"
        running, removing = demo.splitlines()
        with until_interrupted(running, clone, environment) as log:
            sent = "SELECT count(*) FROM delivery_events"
            until(lambda: postel.query(sent) > [(0,)], 60, lambda: log.read_text()[-4000:])
        removed = run(removing, clone, environment)
        assert "delivery_events: " in removed
        assert " rows deleted" in removed
    return took


def shown(postel: RunningPostel) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(postel.page, timeout=10, trust_env=False).status_code == httpx.codes.OK
    return False


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_by_what_this_checkout_has_made(postel: RunningPostel, repository: Path, tmp_path: Path) -> None:
    require("collector", available=find_collector(), how="`make collector` builds it")
    instead = {
        "<this repository>": str(repository),
        # Its environment and its Collector are those of this checkout, which takes the minutes out of it.
        "cd postel": f"cd postel && ln -s {sys.prefix} .venv",
        "make up": "make up PYTHON=true",
        "make demo": "make demo PYTHON=true",
    }
    follow(postel, tmp_path, instead, 60)


@pytest.mark.soak
def test_from_nothing_within_five_minutes(postel: RunningPostel, repository: Path) -> None:
    # As root the embedded PostgreSQL runs as another user, who has to reach the programs that it consists of.
    with tempfile.TemporaryDirectory(prefix="postel-") as folder:
        Path(folder).chmod(0o755)
        took = follow(postel, Path(folder), {"<this repository>": str(repository)}, 300)
    print(f"from the clone to the page: {took:.0f} s")  # noqa: T201 - the figure
