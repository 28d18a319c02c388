"""Installs a pinned folder of npm packages once per lock file, and lets every later run use it.

`tests/testbed/npm/<name>/` holds `package.json`, `package-lock.json` and `.npmrc`; the installation lies in
`.build/npm/<name>-<hash of these>/`. It is made beside its place and renamed into it, under a lock between processes:
a test run that is killed leaves no half of one, and two runs install it once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import fasteners

from support.node import Node

FOLDERS = Path(__file__).parent / "npm"
INSTALLED = Path(__file__).parents[2] / ".build" / "npm"
FILES = ("package.json", "package-lock.json", ".npmrc")
TIMEOUT_S = 150  # under the limit of one test; the registry answers in seconds or not at all


class InstallationError(Exception):
    """npm could not install the packages; the message ends with what it said."""


def install(name: str, node: Node) -> Path:
    """The folder with the `node_modules` of `tests/testbed/npm/<name>`, installed if it is not there yet.

    Raises:
        InstallationError: npm failed, for instance because no registry is within reach.
    """
    sources = [FOLDERS / name / file for file in FILES]
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    place = INSTALLED / f"{name}-{digest}"
    if place.is_dir():
        return place
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with fasteners.InterProcessLock(INSTALLED / f"{name}.lock"):
        if not place.is_dir():
            _install(sources, node, place)
    return place


def _install(sources: list[Path], node: Node, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=INSTALLED, prefix=f"{place.name}.") as parent:
        making = Path(parent) / "made"
        making.mkdir()
        for source in sources:
            shutil.copy(source, making)
        # Lifecycle scripts and npm's own children look for `node` on PATH.
        environment = {**os.environ, "PATH": f"{node.path.parent}{os.pathsep}{os.environ['PATH']}"}
        # Who has a cache of npm's gets it used; else none is left in the home folder.
        if not (Path.home() / ".npm").exists() and "npm_config_cache" not in map(str.lower, environment):
            environment["npm_config_cache"] = str(Path(parent) / "cache")
        try:
            done = subprocess.run(
                node.npm("ci", "--no-progress"),
                cwd=making,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InstallationError(f"npm ci for {place.name} took more than {TIMEOUT_S} s") from error
        if done.returncode:
            raise InstallationError(
                f"npm ci for {place.name} failed; is its registry within reach?\n{done.stderr[-2000:]}"
            )
        making.rename(place)
