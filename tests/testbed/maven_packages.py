"""Brings the jars of a pinned project of Maven's once, and lets every later run use them.

`tests/testbed/maven/<name>/pom.xml` names them with their versions; they lie in `.build/maven/<name>-<hash of it>/`.
Maven asks what it is set up to ask, and takes nothing whose checksum differs.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed.once import InstallationError, install_once

from tools.bootstrap.programs import Java

FOLDERS = Path(__file__).parent / "maven"
INSTALLED = Path(__file__).parents[2] / ".build" / "maven"
TIMEOUT_S = 280  # a first run fetches Maven's own plugins as well


def install(name: str, java: Java) -> Path:
    """The folder with the jars of `tests/testbed/maven/<name>`, made if it is not there yet.

    Raises:
        InstallationError: Maven failed, for instance because no registry is within reach.
    """
    project = FOLDERS / name / "pom.xml"

    def make(parent: Path, told: str) -> Path:
        making = parent / "made"
        command: list[str | Path] = [java.maven, "--batch-mode", "--quiet", "--strict-checksums", f"--file={project}"]
        command += ["dependency:copy-dependencies", f"-DoutputDirectory={making}"]
        # Who has a store of Maven's gets it used; else none is left in the home folder.
        if not (Path.home() / ".m2").exists():
            command.append(f"-Dmaven.repo.local={parent}/repository")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise InstallationError(f"Maven took more than {TIMEOUT_S} s for {told}") from error
        if done.returncode:
            said = (done.stdout + done.stderr)[-2000:]
            raise InstallationError(f"Maven failed for {told}; is its registry within reach?\n{said}")
        return making

    return install_once(INSTALLED, name, [project], make)
