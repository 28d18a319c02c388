"""What uv and Go download and compile: in the caches that the user has, and nowhere in a home that has none."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from support.bootstrap import Make
from support.requirements import require
from tools.bootstrap import caches, collector
from tools.bootstrap.collector import find_go, go_environment

CHOICES = ("GOPATH", "GOMODCACHE", "GOCACHE", "GOENV", "UV_CACHE_DIR", "UV_NO_CACHE", "UV_LINK_MODE")
SHAPE = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user's."""
    for variable in (*CHOICES, *SHAPE):
        monkeypatch.delenv(variable, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def noted(made: Path) -> dict[str, str]:
    """The environment in which Go was run last."""
    lines = (made / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def build(make: Make, **variables: str) -> str:
    said, _ = make(**variables).communicate(timeout=30)
    return str(said)


def test_a_build_for_a_new_user_keeps_nothing_but_the_collector(
    home: Path, checkout: Path, made: Path, make: Make
) -> None:
    (made / "quick").touch()
    assert "is built" in build(make)
    assert noted(made)["GOPATH"] == str(checkout / ".build" / "cache" / "go" / "path")
    assert list(home.iterdir()) == []
    assert list((checkout / ".build" / "cache").iterdir()) == []


def test_a_build_that_failed_keeps_what_the_next_one_can_use(
    home: Path, checkout: Path, made: Path, make: Make
) -> None:
    (made / "broken").touch()
    assert "no Collector" in build(make)
    assert (checkout / ".build" / "cache" / "go" / "path" / "pkg" / "mod" / "module").exists()
    assert list(home.iterdir()) == []


def test_a_developer_keeps_what_the_next_build_can_use(home: Path, checkout: Path, made: Path, make: Make) -> None:
    (checkout / ".venv" / ".postel-stamp").write_text("dev 0123")
    (made / "quick").touch()
    assert "is built" in build(make)
    assert (checkout / ".build" / "cache" / "go" / "path" / "pkg" / "mod" / "module").exists()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("cache", ["go/pkg/mod", ".cache/go-build", "elsewhere/go-build"])
def test_caches_that_the_user_has_are_used_and_stay(
    home: Path, checkout: Path, made: Path, make: Make, cache: str
) -> None:
    (home / cache / "something").mkdir(parents=True)
    (made / "quick").touch()
    assert "is built" in build(make, **({"XDG_CACHE_HOME": str(home / "elsewhere")} if "elsewhere" in cache else {}))
    assert noted(made).keys() & {"GOPATH", "GOMODCACHE", "GOCACHE"} == set()
    assert not (checkout / ".build" / "cache").exists()
    assert (home / cache / "something").exists()


@pytest.mark.parametrize("variable", ["GOPATH", "GOMODCACHE", "GOCACHE", "GOENV"])
def test_what_the_user_says_of_go_stands(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    del home
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    env = go_environment(Path("/usr/bin/go"))
    assert {name: env[name] for name in CHOICES if name in env} == {variable: str(tmp_path / "own")}


def test_what_go_is_told_by_its_own_command_stands(home: Path) -> None:
    (home / ".config" / "go").mkdir(parents=True)
    (home / ".config" / "go" / "env").write_text("GOPROXY=direct\n")
    assert go_environment(Path("/usr/bin/go")).keys() & {*CHOICES, *SHAPE} == set()


def test_git_that_fetches_modules_keeps_its_settings(home: Path) -> None:
    (home / ".config" / "git").mkdir(parents=True)
    assert "XDG_CONFIG_HOME" not in go_environment(Path("/usr/bin/go"))


def test_the_real_go_leaves_nothing_in_the_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_GO", tmp_path / "go caches")
    monkeypatch.setattr(collector, "say", lambda _line: None)
    go = find_go()
    require("go", available=go, how="`make collector` installs it where it builds one")
    assert go
    # Counts that it was asked, as a build does; whether it makes its cache for that is the version's matter.
    asked = subprocess.check_output([go, "env", "-changed"], env=go_environment(go), text=True)
    assert f"GOCACHE='{tmp_path}/go caches/build'" in asked
    (tmp_path / "go caches" / "build").mkdir(parents=True, exist_ok=True)
    assert list(home.iterdir()) == []
    caches.forget_go()
    assert not (tmp_path / "go caches").exists()


@pytest.fixture
def uv_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    del home
    folder = tmp_path / "uv"
    folder.mkdir()
    monkeypatch.setattr(caches, "_UV", folder)
    return folder


def test_a_new_users_packages_are_kept_only_until_they_are_installed(uv_folder: Path) -> None:
    env = dict(os.environ)
    with caches.uv_cache(env):
        assert (env["UV_CACHE_DIR"], env["UV_LINK_MODE"]) == (str(uv_folder), "hardlink")
    assert not uv_folder.exists()


def test_packages_that_came_before_one_failed_are_kept_for_the_next_time(uv_folder: Path) -> None:
    with contextlib.suppress(LookupError), caches.uv_cache(dict(os.environ)):
        raise LookupError
    assert uv_folder.exists()


@pytest.mark.parametrize("choice", [{"UV_CACHE_DIR": "/own"}, {"UV_NO_CACHE": "1"}, {"UV_LINK_MODE": "symlink"}])
def test_what_the_user_says_of_uv_stands(uv_folder: Path, choice: dict[str, str]) -> None:
    env = {**os.environ, **choice}
    with caches.uv_cache(env):
        assert {name: env[name] for name in CHOICES if name in env} == {"UV_LINK_MODE": "copy", **choice}
    assert uv_folder.exists()


def test_a_cache_of_uv_that_the_user_has_is_used(home: Path, uv_folder: Path) -> None:
    (home / ".cache" / "uv").mkdir(parents=True)
    env = dict(os.environ)
    with caches.uv_cache(env):
        assert "UV_CACHE_DIR" not in env
    assert uv_folder.exists()
