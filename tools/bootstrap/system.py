"""Installs the programs of `tools.bootstrap.programs` by apt when root; else prints the line to type.

What apt cannot install is named with what the tests do without it, and keeps nothing else from being installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bootstrap.console import SetupError, run, say
from tools.bootstrap.environment import LOGS
from tools.bootstrap.programs import NEEDED, Needed

# A maintainer script asks this program whether to start the service that it installed; 101 means no.
_POLICY = Path("/usr/sbin/policy-rc.d")


def ensure() -> None:
    """Install what is missing, or say what is missing and what that means. Never fails: the tests decide on that."""
    missing = [needed for needed in NEEDED if not needed.find()]
    if not missing:
        return
    if not shutil.which("apt-get"):
        names = ", ".join(needed.what for needed in missing)
        say(f"for the tests install with this system's package manager: {names}; {_INSTEAD}")
    elif os.geteuid() != 0:
        packages = " ".join(package for needed in missing for package in _choices(needed)[0])
        say(f"for the tests type: sudo apt-get install --no-install-recommends {packages}; {_INSTEAD}")
    else:
        start = time.monotonic()
        say(f"for the tests by apt: {', '.join(needed.what for needed in missing)} ...")
        with _no_services():
            _update()
            # Each alone: apt installs nothing at all where it does not know one of the names.
            for needed in missing:
                _install(needed)
        say(f"apt is done ({time.monotonic() - start:.0f} s)")


_INSTEAD = "without them the tests that run these programs are skipped"


def _update() -> None:
    try:
        _apt("update")
    except SetupError as error:
        say(f"{error}; packages are taken as they were last listed")


def _install(needed: Needed) -> None:
    failure = ""
    for packages in _choices(needed):
        try:
            _apt("install", *packages)
            failure = f"{' and '.join(packages)} by apt did not bring it"
        except SetupError as error:
            failure = str(error)
        if needed.find():
            return
    say(f"no {needed.what}: {failure}; {needed.without}")


def _choices(needed: Needed) -> list[tuple[str, ...]]:
    """The sets of packages of which this distribution knows each; the names of Debian where it knows none."""
    return [packages for packages in needed.packages if all(map(_known, packages))] or [needed.packages[0]]


def _known(package: str) -> bool:
    return subprocess.run(["apt-cache", "show", package], capture_output=True, check=False).returncode == 0


def _apt(command: str, *packages: str) -> None:
    options = ["-y", "--no-install-recommends"] if command == "install" else []
    # A machine that has just started updates itself and holds the lock for a while.
    run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", command, *options, *packages],
        log=LOGS / "apt.log",
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


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
