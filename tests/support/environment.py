"""The environment of this process without Postel's settings, which a test gives itself or leaves alone."""

from __future__ import annotations

import os

import pytest

_SETTINGS = ("POSTEL_", "OTEL_")


def without_settings(*also: str, keep: str = "") -> dict[str, str]:
    """This process's environment for another one: without Postel's settings, and what else begins so; but for one name.

    Args:
        also: with what names begin that are left out too.
        keep: the name that stays.
    """
    left_out = (*_SETTINGS, *also)
    return {name: value for name, value in os.environ.items() if name == keep or not name.startswith(left_out)}


def forget_settings(monkeypatch: pytest.MonkeyPatch, *also: str, keep: str = "") -> None:
    """Leave the same out of this process's own, until the test's end."""
    for name in os.environ.keys() - without_settings(*also, keep=keep).keys():
        monkeypatch.delenv(name)
