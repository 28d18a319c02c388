"""Where uv and Go keep what they download and compile: the user's own caches, or folders of the checkout.

A user who has such a cache gets it used: it saves minutes, and Go and uv tidy it. For one who has none, nothing is left
behind in the home folder: the cache is in ``.build/cache`` and goes when what it was for is done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bootstrap.console import CHECKOUT

_UV = CHECKOUT / ".build" / "cache" / "uv"
_GO = CHECKOUT / ".build" / "cache" / "go"


@contextmanager
def uv_cache(env: dict[str, str]) -> Iterator[None]:
    """Say in ``env`` where uv keeps its cache. One of the checkout is removed when the block has succeeded.

    Args:
        env: uv's environment, which is changed.
    """
    # Where packages are links into the cache, it must stay.
    chosen = "UV_CACHE_DIR" in env or "UV_NO_CACHE" in env or env.get("UV_LINK_MODE") == "symlink"
    if chosen or _usable(_user_folder(env, "XDG_CACHE_HOME", ".cache") / "uv"):
        env.setdefault("UV_LINK_MODE", "copy")
        yield
        return
    env["UV_CACHE_DIR"] = str(_UV)
    # What is in a cache that goes need not be there twice. Elsewhere the cache may be on another disk than .venv.
    env.setdefault("UV_LINK_MODE", "hardlink")
    yield
    shutil.rmtree(_UV, ignore_errors=True)


def go_caches(env: dict[str, str]) -> None:
    """Say in ``env`` where Go keeps modules and what it compiled.

    Args:
        env: Go's environment, which is changed.
    """
    # Not asked of Go, which leaves something in the home folder even when it is only asked.
    home, config = Path(env.get("HOME", os.sep)), _user_folder(env, "XDG_CONFIG_HOME", ".config")
    signs = (
        home / "go" / "pkg",
        _user_folder(env, "XDG_CACHE_HOME", ".cache") / "go-build",
        home / "Library" / "Caches" / "go-build",
        # Written by `go env -w`, which may name caches.
        config / "go" / "env",
        home / "Library" / "Application Support" / "go" / "env",
    )
    if any(name in env for name in ("GOPATH", "GOMODCACHE", "GOCACHE", "GOENV")) or any(map(_usable, signs)):
        return
    env["GOPATH"], env["GOCACHE"] = str(_GO / "path"), str(_GO / "build")
    # Modules are made read-only, which neither this nor `make clean` could remove.
    env["GOFLAGS"] = f"{env.get('GOFLAGS', '')} -modcacherw".strip()
    # Go counts its own use there. Git, which fetches some modules, is configured there too.
    if not (config / "git").exists():
        env["XDG_CONFIG_HOME"] = str(_GO / "config")


def forget_go() -> None:
    """Remove Go's caches of the checkout, if there are any."""
    shutil.rmtree(_GO, ignore_errors=True)


def _usable(path: Path) -> bool:
    return os.access(path, os.W_OK)


def _user_folder(env: dict[str, str], variable: str, usual: str) -> Path:
    """A folder of the XDG base directories."""
    return Path(env.get(variable) or Path(env.get("HOME", os.sep)) / usual)
