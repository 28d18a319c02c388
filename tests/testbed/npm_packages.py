"""Installs a pinned folder of npm packages once per lock file, and lets every later run use it.

`tests/testbed/npm/<name>/` holds `package.json`, `package-lock.json` and `.npmrc`; the installation lies in
`.build/npm/<name>-<hash of these>/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from testbed.once import InstallationError, install_once

from support.node import Node

FOLDERS = Path(__file__).parent / "npm"
INSTALLED = Path(__file__).parents[2] / ".build" / "npm"
FILES = ("package.json", "package-lock.json", ".npmrc")
TIMEOUT_S = 150  # under the limit of one test; the registry answers in seconds or not at all


def install(name: str, node: Node) -> Path:
    """The folder with the `node_modules` of `tests/testbed/npm/<name>`, installed if it is not there yet.

    Raises:
        InstallationError: npm failed, for instance because no registry is within reach.
    """
    sources = [FOLDERS / name / file for file in FILES]

    def make(parent: Path, told: str) -> Path:
        making = parent / "made"
        making.mkdir()
        for source in sources:
            shutil.copy(source, making)
        # Lifecycle scripts and npm's own children look for `node` on PATH.
        environment = {**os.environ, "PATH": f"{node.path.parent}{os.pathsep}{os.environ['PATH']}"}
        # Who has a cache of npm's gets it used; else none is left in the home folder.
        if not (Path.home() / ".npm").exists() and "npm_config_cache" not in map(str.lower, environment):
            environment["npm_config_cache"] = str(parent / "cache")
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
            raise InstallationError(f"npm ci for {told} took more than {TIMEOUT_S} s") from error
        if done.returncode:
            raise InstallationError(f"npm ci for {told} failed; is its registry within reach?\n{done.stderr[-2000:]}")
        return making

    return install_once(INSTALLED, name, sources, make)
