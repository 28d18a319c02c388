"""Versions of a server that a test is left to `make soak` for, where a quicker one runs on them in `make test`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def soaked(versions: Iterable[str], *older: str) -> list[Any]:
    """Parameters: all versions, of which the ``older`` ones only `make soak` runs."""
    return [pytest.param(each, marks=pytest.mark.soak) if each in older else each for each in versions]
