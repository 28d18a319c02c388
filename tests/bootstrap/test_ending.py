"""Set-up that is told to end while it builds: nothing runs on, nothing half-made stays, the next start clears up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from postel.collector import built_collector
from support.running_postel import until

Make = Callable[[], subprocess.Popen[str]]
# What the build sees as Go. It installs a builder whose compilers take minutes, unless there is a file `quick`, and are
# deaf to SIGTERM where there is a file `deaf`.
GO = """#!/bin/sh
[ "$1" = env ] && {{ echo go1.26.0; exit; }}
echo install >> {made}/installed
cat > "$GOBIN/builder" <<'BUILDER'
#!/bin/sh
mkdir -p sources && cp /bin/true sources/postel-otelcol
[ -e {made}/quick ] && exit
[ -e {made}/deaf ] && trap "" TERM
sleep 300 &
touch {made}/compiling
wait
BUILDER
chmod +x "$GOBIN/builder"
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Where that Go says what it does, and is told what to do."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "go").write_text(GO.format(made=made))
    (made / "go").chmod(0o755)
    return made


@pytest.fixture
def make(checkout: Path, made: Path) -> Iterator[Make]:
    """Starts `make collector` in a process group of its own, as a shell does."""
    (checkout / ".venv").symlink_to(sys.prefix)
    (checkout / "Makefile").write_text(f"collector:\n\t@{sys.executable} -m tools.bootstrap collector\n")

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["make", "collector"],
            cwd=checkout,
            env={**os.environ, "PATH": f"{made}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    yield start
    for process in left(checkout):
        process.kill()


def left(checkout: Path) -> list[psutil.Process]:
    """The processes that run in a folder of the checkout, also where that is removed already."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd().startswith(str(checkout)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


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
    with make() as process:
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


def test_two_at_a_time_build_once(checkout: Path, made: Path, make: Make) -> None:
    with make() as first:
        until((made / "compiling").exists, 30, "the first compiles", pause=0.02)
        with make() as second:
            assert second.stdout
            assert second.stdout.readline() == "set-up: another set-up builds the Collector; waiting for it ...\n"
            (made / "quick").touch()
            first.terminate()
            said, _ = second.communicate(timeout=30)
            assert second.returncode == 0
    assert built(checkout).exists()
    assert "set-up: OpenTelemetry Collector is built" in said
