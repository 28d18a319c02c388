"""A python3 that is too old for Postel: one line that says so, and what to type instead."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]
# Runs the module as an older Python does, as far as the module can tell.
_AS_OLD = """
import collections, runpy, sys
version = collections.namedtuple("version", "major minor micro releaselevel serial")(3, {minor}, 2, "final", 0)
sys.version_info, sys.version = version, "3.{minor}.2 (main)"
runpy.run_module("tools.bootstrap", run_name="__main__", alter_sys=True)
"""


def test_is_told_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AS_OLD.format(minor=9), "runtime"],
        cwd=_CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout + done.stderr == "Postel needs Python 3.11 or later, this is 3.9.2: make PYTHON=python3.12 ...\n"


def test_the_older_python_gets_as_far_as_that_line() -> None:
    for name in ("__init__.py", "__main__.py"):
        source = (_CHECKOUT / "tools" / "bootstrap" / name).read_text()
        module = ast.parse(source, feature_version=(3, 7))
        first = [type(node).__name__ for node in module.body[:3]]
        assert first == ["Expr"] if name == "__init__.py" else ["Expr", "Import", "If"]
