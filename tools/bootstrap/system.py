"""The distribution's programs that the tests run: installed by apt when root, else the line to type is printed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bootstrap.console import SetupError, run, say
from tools.bootstrap.environment import LOGS

# A maintainer script asks this program whether to start the service that it installed; 101 means no.
_POLICY = Path("/usr/sbin/policy-rc.d")


def _on_path(*names: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(name) for name in names)


def _postgres() -> bool:
    # Debian keeps the server's programs out of PATH.
    return bool(shutil.which("postgres") or any(Path("/usr/lib/postgresql").glob("*/bin/postgres")))


# Debian package -> whether what the tests need of it is there
NEEDED: dict[str, Callable[[], bool]] = {
    "rspamd": _on_path("rspamd"),
    "redis-server": _on_path("redis-server"),
    "chromium": _on_path("chromium", "chromium-browser", "google-chrome"),
    "chromium-driver": _on_path("chromedriver"),
    "postgresql": _postgres,
}


def ensure() -> None:
    """Install what is missing, or say what is missing and what that means. Never fails: the tests decide on that."""
    missing = [package for package, there in NEEDED.items() if not there()]
    if not missing:
        return
    line = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if not shutil.which("apt-get"):
        say(f"for the tests install with this system's package manager: {' '.join(missing)}; {_INSTEAD}")
    elif os.geteuid() != 0:
        say(f"for the tests type: sudo {line}; {_INSTEAD}")
    else:
        _install(missing)


_INSTEAD = "without them the tests that run these programs are skipped"


def _install(packages: list[str]) -> None:
    start = time.monotonic()
    say(f"for the tests by apt: {' '.join(packages)} ...")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = LOGS / "apt.log"
    try:
        with _no_services():
            run(["apt-get", "update", "-qq"], log=log, env=env)
            run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], log=log, env=env)
    except SetupError as error:
        say(f"{error}; {_INSTEAD}")
        return
    say(f"apt is done ({time.monotonic() - start:.0f} s)")
    if missing := [package for package in packages if not NEEDED[package]()]:
        say(f"apt installed no program for {' '.join(missing)}; {_INSTEAD}")


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep apt from starting a Redis, an Rspamd and a PostgreSQL that nobody asked for: the tests start their own."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
