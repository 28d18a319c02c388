"""Set-up in a checkout of the test's own, and a Go that only looks like one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from support.markdown import files

Make = Callable[..., subprocess.Popen[str]]
"""`make(VARIABLE=value)`: starts `make collector` in a process group of its own, as a shell does."""

# What the build sees as Go. It notes its environment and installs a builder whose compilers take minutes, unless there
# is a file `quick`, and are deaf to SIGTERM where there is a file `deaf`; with a file `broken` it fails.
GO = """#!/bin/sh
[ "$1" = version ] && {{ echo go version go1.26.0 linux/amd64; exit; }}
echo install >> {made}/installed
env > {made}/environment
[ "$GOPATH" ] && mkdir -p "$GOPATH/pkg/mod/module" "$GOCACHE"
[ -e {made}/broken ] && exit 1
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


CHECKOUT = Path(__file__).parents[2]


def copy_checkout(copy: Path) -> Path:
    """Copy as much of the checkout as the Collector's build needs, with nothing built; returns the copy."""
    for part in ("collector-config", "postel", "tools", "requirements"):
        shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def copy_project(copy: Path) -> Path:
    """Copy every file of the checkout that is not made, also what is not committed yet; returns the copy."""
    for name in files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, copy / name)
    return copy


def left(checkout: Path) -> list[psutil.Process]:
    """The processes that run in a folder of the checkout, also where that is removed already."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd().startswith(str(checkout)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
