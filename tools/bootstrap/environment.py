"""The Python environment ``.venv``: made once, brought to the locked requirements, stamped with what it holds.

uv installs (pinned in ``requirements/uv.txt``, itself installed by pip), since it takes seconds where pip takes
minutes. It does not read pip's settings, so a machine's package index and certificates are handed on to it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bootstrap.caches import uv_cache
from tools.bootstrap.console import CHECKOUT, SetupError, run, say

VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
REQUIREMENTS = CHECKOUT / "requirements"
LOGS = CHECKOUT / ".build" / "log"
_STAMP = VENV / ".postel-stamp"
# pip's setting -> uv's variable of the same meaning
_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


def ensure(kind: str) -> None:
    """Bring ``.venv`` to ``requirements/<kind>.txt`` and install the project, editable.

    Args:
        kind: ``runtime``, or ``dev``, which holds all of ``runtime``.

    Raises:
        SetupError: a package cannot be had or does not match its hash.
    """
    kinds = ("runtime", "dev") if kind == "runtime" else ("dev",)
    if _runs(PYTHON) and any(_stamp() == _wanted(each) for each in kinds):
        return
    start = time.monotonic()
    say(f"Python environment .venv ({kind}) ...")
    if not _runs(PYTHON):
        _make()
    _STAMP.unlink(missing_ok=True)
    install: list[str | Path] = [UV, "pip", "install", "--python", PYTHON]
    log = LOGS / "environment.log"
    with uv_environment() as env:
        # Where Python is told to write no bytecode, as in many containers, each program would compile what it imports
        # anew, for two seconds of a start.
        install_all = [*install, "--compile-bytecode", "--require-hashes", "-r", REQUIREMENTS / f"{kind}.txt"]
        run(install_all, log=log, env=env)
        run([*install, "--no-deps", "--no-build-isolation", "--editable", "."], log=log, env=env)
    _STAMP.write_text(_wanted(kind))
    say(f"Python environment .venv is ready ({time.monotonic() - start:.0f} s)")


def for_developers() -> bool:
    """Whether ``.venv`` was made for more than to run Postel."""
    return _stamp().startswith("dev ")


@contextmanager
def uv_environment() -> Iterator[dict[str, str]]:
    """This process's environment, with pip's settings handed on to uv where uv has none of its own.

    A cache that is uv's for as long as the block lasts is in the checkout, unless the user has one.
    """
    env = dict(os.environ)
    # The machine's certificate store rather than the one that uv ships: registries behind a company's proxy.
    env.setdefault("UV_SYSTEM_CERTS", "true")
    listing = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    for line in listing.stdout.splitlines():
        name, _, value = line.partition("=")
        variable = _PIP_TO_UV.get(name.rpartition(".")[2])
        # UV_INDEX_URL is uv's former name for UV_DEFAULT_INDEX, which would win over it.
        if variable and variable not in env and not (variable == "UV_DEFAULT_INDEX" and "UV_INDEX_URL" in env):
            env[variable] = " ".join(value.strip("'").replace("\\n", " ").split())
    with uv_cache(env):
        yield env


def lock() -> None:
    """Resolve pyproject.toml anew into ``requirements/*.txt``, for every platform, with hashes and no index's name."""
    common: list[str | Path] = [
        *(UV, "pip", "compile", "--quiet", "--generate-hashes", "--universal", "--python-version", "3.11"),
        *("--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock"),
    ]
    runtime = Path("requirements/runtime.txt")
    with uv_environment() as env:
        for source, target in (
            (["pyproject.toml", "--group", "build"], runtime),
            (["pyproject.toml", "--group", "dev", "-c", runtime], Path("requirements/dev.txt")),
            (["requirements/uv.in"], Path("requirements/uv.txt")),
            (["requirements/go.in"], Path("requirements/go.txt")),
        ):
            took = run([*common, *source, "-o", target], log=LOGS / "lock.log", env=env)
            say(f"{target} ({took:.0f} s)")


def _make() -> None:
    if VENV.exists():
        say(".venv is incomplete, or its Python is gone: made anew")
        shutil.rmtree(VENV)
    log = LOGS / "environment.log"
    try:
        run([sys.executable, "-m", "venv", VENV], log=log)
    except SetupError as error:
        raise SetupError(f"{error}; on Debian and Ubuntu: apt-get install python3-venv", error.output) from error
    # For this one package, which uv replaces from here on, pip shall leave no cache in the home folder.
    pip: list[str | Path] = [PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    run([*pip, "install", "--require-hashes", "-r", REQUIREMENTS / "uv.txt"], log=log)


def _runs(python: Path) -> bool:
    # An environment whose Python was upgraded or moved is a dead link; one that was interrupted lacks uv.
    return python.exists() and UV.exists()


def _stamp() -> str:
    return _STAMP.read_text() if _STAMP.exists() else ""


def _wanted(kind: str) -> str:
    names = ["runtime.txt"] if kind == "runtime" else ["runtime.txt", "dev.txt"]
    inputs = [CHECKOUT / "pyproject.toml", *(REQUIREMENTS / name for name in names)]
    # An editable environment knows the checkout by its path: moved, it is made anew.
    return f"{kind} {_digest(inputs, f'{CHECKOUT}')}"


def _digest(files: Iterable[Path], salt: str) -> str:
    digest = hashlib.sha256(salt.encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
