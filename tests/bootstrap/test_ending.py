"""Set-up that is told to end while it builds: nothing runs on, nothing half-made stays, the next start clears up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from postel.collector import built_collector
from support.bootstrap import Make, left
from support.running_postel import until


def built(checkout: Path) -> Path:
    target = built_collector(checkout)
    assert target
    return target


def test_a_build_leaves_the_collector_alone(checkout: Path, made: Path, make: Make) -> None:
    (made / "quick").touch()
    said, _ = make().communicate(timeout=30)
    assert "set-up: OpenTelemetry Collector is built" in said
    assert list(built(checkout).parents[1].glob("**/*")) == [built(checkout).parent, built(checkout)]


@pytest.mark.parametrize(
    ("tell", "number"),
    [
        # What `kill` reaches, and what a terminal reaches at Ctrl-C and when it hangs up.
        (os.kill, signal.SIGTERM),
        (os.killpg, signal.SIGINT),
        (os.killpg, signal.SIGHUP),
    ],
)
def test_a_signal_ends_all_that_was_started_and_removes_what_is_half_made(
    checkout: Path, made: Path, make: Make, tell: Callable[[int, int], None], number: signal.Signals
) -> None:
    if number == signal.SIGTERM:
        (made / "deaf").touch()
    process = make()
    until((made / "compiling").exists, 30, "it compiles", pause=0.02)
    tell(process.pid, number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in said, said
    assert left(checkout) == []
    assert list(built(checkout).parents[1].iterdir()) == []


def test_what_a_killed_build_left_is_cleared_up_at_the_next_start(checkout: Path, made: Path, make: Make) -> None:
    (made / "quick").touch()
    builds = built(checkout).parents[1]
    for _ in ("nothing is built yet", "all is built"):
        old = builds / f"{built(checkout).parent.name}.12345"
        (old / "sources").mkdir(parents=True)
        said, _ = make().communicate(timeout=30)
        assert [folder.name for folder in builds.iterdir()] == [built(checkout).parent.name], said
    assert (made / "installed").read_text().split() == ["install"]


def test_the_second_of_two_waits_and_builds_what_the_first_did_not(checkout: Path, made: Path, make: Make) -> None:
    first = make()
    until((made / "compiling").exists, 30, "the first compiles", pause=0.02)
    second = make()
    assert second.stdout
    assert second.stdout.readline() == "set-up: another set-up builds the Collector; waiting for it ...\n"
    (made / "quick").touch()
    first.terminate()
    said, _ = second.communicate(timeout=30)
    assert "set-up: OpenTelemetry Collector is built" in said
    assert second.returncode == 0
    assert built(checkout).exists()
