"""What is built for users, and an empty environment into which the wheel alone is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.requirements import require
from tools.bootstrap.environment import REQUIREMENTS, UV, uv_environment

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout."""
    return _built("wheel", CHECKOUT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheel_of_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the source distribution, unpacked: what an installer makes where it is given that."""
    folder = tmp_path_factory.mktemp("sdist")
    packed = _built("sdist", CHECKOUT, folder)
    subprocess.run(["tar", "-xzf", packed, "-C", folder], check=True)
    return _built("wheel", folder / packed.name.removesuffix(".tar.gz"), folder)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked into a folder as an installer would."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture(scope="session")
def python_alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that was empty until the wheel and what it depends on came into it."""
    # As root the embedded PostgreSQL runs as another user, who has to reach the programs that it consists of.
    folder = tmp_path_factory.mktemp("alone")
    for each in (folder, folder.parent, folder.parent.parent):
        each.chmod(0o755)
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, capture_output=True, timeout=60)
    python = venv / "bin" / "python"
    # The versions of the lock, without which the test would be about what a registry has today.
    command: list[str | Path] = [UV, "pip", "install", "--python", python, "--compile-bytecode"]
    command += ["-c", REQUIREMENTS / "runtime.txt", wheel]
    with uv_environment() as environment:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170, check=False)
    require("packages", available=done.returncode == 0, how=f"is a package index within reach?\n{done.stderr[-2000:]}")
    return python


def _built(kind: str, source: Path, folder: Path) -> Path:
    before = set(folder.iterdir())
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = set(folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")) - before
    return built
