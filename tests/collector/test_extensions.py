"""Postel's own extensions of the Collector: their unit tests in Go, and what Go's own tools say of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from postel.collector import collector_config
from support.requirements import require
from tools.bootstrap.collector import find_go, go_environment

_MODULE = collector_config().parent / "extensions"


def _run(program: Path, *arguments: str) -> str:
    """What it prints; the test fails where it fails."""
    done = subprocess.run(
        [program, *arguments],
        cwd=_MODULE,
        env=go_environment(program),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# The first time it compiles gRPC, and may fetch modules.
@pytest.mark.timeout(300)
def test_unit_tests_vet_and_format() -> None:
    go = find_go()
    require("go", available=go, how="`make collector` installs it where it builds one")
    assert go
    assert "ok" in _run(go, "test", "./...")
    _run(go, "vet", "./...")
    assert _run(go.with_name("gofmt"), "-l", ".") == ""
