"""A Collector that cannot be built: one line that says why and what happens instead, nothing half-made, exit code 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from postel.collector import built_collector


def _build(checkout: Path, *options: str) -> list[str]:
    """Run the step without any Go module within reach; returns the lines that it printed."""
    # A module cache of its own, empty; Go makes it read-only, which is undone for the removal of the folder.
    own = {"HOME": str(checkout / "home"), "GOMODCACHE": str(checkout / "modules"), "GOFLAGS": "-modcacherw"}
    env = {**os.environ, **own, "GOPROXY": "off"}
    done = subprocess.run(
        [sys.executable, "-m", "tools.bootstrap.collector", *options],
        cwd=checkout,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_says_why_and_what_instead_and_leaves_nothing_half_made(checkout: Path) -> None:
    *_progress, line = _build(checkout)
    assert line.startswith("set-up: no Collector: go failed: ")
    assert "disabled by GOPROXY=off" in line
    assert line.endswith("the agent sends straight to the sink")

    built = built_collector(checkout)
    assert built
    assert not built.exists()
    assert list(built.parent.parent.iterdir()) == [built.parent], "no working folder is left"


def test_is_not_tried_at_every_start_but_when_asked(checkout: Path) -> None:
    first = _build(checkout)
    again = _build(checkout)
    assert len(again) == 1
    assert "`make collector` tries again" in again[0]
    assert len(_build(checkout, "--retry")) == len(first)


def test_is_tried_again_after_an_hour(checkout: Path) -> None:
    first = _build(checkout)
    built = built_collector(checkout)
    assert built
    failed = built.parent / "failed"
    os.utime(failed, times=(failed.stat().st_atime - 3601, failed.stat().st_mtime - 3601))
    assert len(_build(checkout)) == len(first)
