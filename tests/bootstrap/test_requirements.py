"""The locked requirements: complete, hashed, and naming no package index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_CHECKOUT = Path(__file__).parents[2]
_LOCKS = ("runtime", "dev", "uv", "go")


def _lock(name: str) -> str:
    return (_CHECKOUT / "requirements" / f"{name}.txt").read_text()


def _pinned(name: str) -> dict[str, str]:
    """Package -> version."""
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==([^ ;]+)", _lock(name), re.MULTILINE))


def _project() -> dict[str, Any]:
    return tomllib.loads((_CHECKOUT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", _LOCKS)
def test_every_package_is_pinned_and_hashed(name: str) -> None:
    entries = re.split(r"^(?=[^ #])", re.sub(r"^ *#.*\n?", "", _lock(name), flags=re.MULTILINE), flags=re.MULTILINE)
    entries = [entry for entry in entries if entry.strip()]
    assert entries
    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", _LOCKS)
def test_no_index_is_named(name: str) -> None:
    assert re.findall(r"https?://\S+|--(?:index-url|extra-index-url|find-links)\S*", _lock(name)) == []


def test_runtime_satisfies_what_the_project_depends_on() -> None:
    pinned = _pinned("runtime")
    wanted = [Requirement(text) for text in _project()["project"]["dependencies"]]
    unmet = [str(each) for each in wanted if pinned.get(canonicalize_name(each.name), "") not in each.specifier]
    assert unmet == [], "make lock"


def test_dev_satisfies_the_tests_and_agrees_with_runtime() -> None:
    pinned = _pinned("dev")
    wanted = [Requirement(text) for text in _project()["dependency-groups"]["dev"] if isinstance(text, str)]
    unmet = [str(each) for each in wanted if pinned.get(canonicalize_name(each.name), "") not in each.specifier]
    assert unmet == [], "make lock"
    assert {name: version for name, version in _pinned("runtime").items() if pinned.get(name) != version} == {}
