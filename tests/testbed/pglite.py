"""TimescaleDB with its Community features, in process under Node: SQL in, rows out; no server, no COPY by a socket."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.node import Node

_PROGRAM = Path(__file__).with_name("pglite.mjs")


def ask(node: Node, packages: Path, *, run: Sequence[str], ask: Sequence[str]) -> list[list[list[Any]]]:
    """Run SQL in a new database that has the extension, and ask it.

    Args:
        node: what it runs on.
        packages: the folder with its `node_modules`.
        run: texts of any number of statements, in order.
        ask: queries of one statement.

    Returns:
        The rows of each query, as JSON has them: times are ISO texts.
    """
    done = subprocess.run(
        [node.path, _PROGRAM, packages],
        input=json.dumps({"run": list(run), "ask": list(ask)}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[list[list[Any]]] = json.loads(done.stdout)
    return answers
