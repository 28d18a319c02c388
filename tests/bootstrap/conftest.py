"""A checkout of the test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as the build needs, with nothing built."""
    copy = tmp_path / "checkout"
    for part in ("collector-config", "postel", "tools", "requirements"):
        shutil.copytree(_CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    # The Go that set-up installed where the machine has none.
    if (_CHECKOUT / ".build" / "go").exists():
        (copy / ".build").mkdir()
        (copy / ".build" / "go").symlink_to(_CHECKOUT / ".build" / "go")
    return copy
