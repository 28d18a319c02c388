"""The mail servers' plugins: their workspace for the tests in JavaScript, and as they are packed for users."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import fasteners

from support.node import Node

WORKSPACE = Path(__file__).parents[2] / "mail_plugins"
LOCK = WORKSPACE.parent / ".build" / "mail_plugins.lock"


def link_workspace(node: Node) -> None:
    """Let the plugins find the emitter, `mail_plugins/node_modules`; npm reaches for no registry."""
    with _locked():
        if not (WORKSPACE / "node_modules/postel-emitter").exists():
            _npm(node, "ci", "--offline", "--no-progress")


def pack(node: Node, name: str, folder: Path) -> Path:
    """Pack the plugin in `mail_plugins/<name>` and unpack it in `folder`, as `npm install` of the file does.

    Returns:
        The plugin's own folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked():
        _npm(node, "pack", "--workspace", name, "--pack-destination", str(folder))
    (packed,) = folder.glob("*.tgz")
    # Python 3.11 has a safe extractall() only from 3.11.4 on.
    subprocess.run(["tar", "-xzf", str(packed), "-C", str(folder)], check=True)
    return folder / "package"


def install(node: Node, plugin: Path, folder: Path) -> None:
    """`npm install` of the file that `pack` made, in this folder; npm reaches for no registry.

    Args:
        node: whose npm does it.
        plugin: what `pack` returned.
        folder: of the server's installation.
    """
    (packed,) = plugin.parent.glob("*.tgz")
    _npm(node, "install", "--offline", "--no-progress", str(packed), folder=folder)


def run_tests(node: Node, name: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of `mail_plugins/<name>` with Node's own runner."""
    link_workspace(node)
    return subprocess.run(
        # Most of them wait; by default Node runs one file less at once than there are cores.
        [node.path, "--test", "--test-concurrency=3"],
        cwd=WORKSPACE / name,
        # Node's runner tells its children by this variable; the tests' own children must not be taken for such.
        env={key: value for key, value in os.environ.items() if key != "NODE_TEST_CONTEXT"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def _locked() -> fasteners.InterProcessLock:
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    return fasteners.InterProcessLock(LOCK)


def _npm(node: Node, *arguments: str, folder: Path = WORKSPACE) -> None:
    # npm's scripts look for `node` on PATH.
    environment = {**os.environ, "PATH": f"{node.path.parent}{os.pathsep}{os.environ['PATH']}"}
    command = node.npm(*arguments, "--no-audit", "--no-fund", "--no-update-notifier")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"npm {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}"
