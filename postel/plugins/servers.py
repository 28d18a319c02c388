"""A mail server on this host that a plugin can be put into: which it is, and where plugin and settings go.

What runs is found by its process, what does not run by the folders that it is usually in.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from postel.errors import PostelError

_UNIT = re.compile(r"/([^/]+\.service)$", re.MULTILINE)


class PluginError(PostelError):
    """A plugin cannot be installed or removed; the message says why and what to do."""


@dataclass(frozen=True)
class Running:
    """A server's process.

    Attributes:
        arguments: of its command line; only its title where the server gave itself one.
        environment: as it was started with; empty where this user may not read it.
        started: seconds since the epoch.
        unit: of systemd, '' where it is none's.
    """

    pid: int
    folder: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    started: float
    unit: str

    def restart(self) -> str:
        """How it is restarted."""
        return f"systemctl restart {self.unit}" if self.unit else f"in the way it was started (process {self.pid})"


@dataclass(frozen=True)
class Listed:
    """A list of plugins that the user keeps, and the line in it that names this one."""

    path: Path
    line: str

    def names(self) -> bool:
        """Whether the line is there."""
        return self.line in [line.strip() for line in self.path.read_text("utf-8", "surrogateescape").splitlines()]


@dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
        kind: the folder of its plugin in ``mail_plugins``.
        title: its name.
        folder: what it runs in.
        version: '' where it is not known.
        running: its main process; None where it does not run, or not so that this user sees it.
        code: the plugin's folder.
        config: the file of the plugin's settings; None: the server's configuration has no place for one.
        header: what the settings' first section is called there, '' for as the sample calls it.
        listed: where the plugin is to be named.
        elsewhere: where npm puts the same plugin; the server would load both.
        by_hand: what the user has to do where Postel cannot; '' for nothing.
    """

    kind: str
    title: str
    folder: Path
    version: str
    running: Running | None
    code: Path
    config: Path | None
    header: str = ""
    listed: Listed | None = None
    elsewhere: Path | None = None
    by_hand: str = ""

    def __str__(self) -> str:
        return f"{self.title}{f' {self.version}' if self.version else ''} in {self.folder}"


@dataclass(frozen=True)
class Look:
    """What a search found, and what it saw and could not use."""

    servers: list[Server] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def processes(is_one: re.Pattern[str]) -> tuple[list[Running], list[str]]:
    """The processes of Node.js whose command line, joined by spaces, matches; children of such ones left out.

    Returns:
        Those that can be used, and a sentence for each that cannot.
    """
    found, unusable, pids = [], [], set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            arguments = _arguments(process)
            if not (is_one.search(" ".join(arguments)) and _is_node(process)):
                continue
            pids.add(process.pid)
            if process.ppid() in pids:
                continue
            if not _same_root(process.pid):
                unusable.append(f"process {process.pid} runs in a container: its image is where the plugin belongs")
                continue
            try:
                found.append(_running(process, arguments))
            except psutil.AccessDenied:
                unusable.append(f"process {process.pid} is another user's: run this as root, or name its folder")
    return found, unusable


def _is_node(process: psutil.Process) -> bool:
    """Whether Node.js runs in it, and not a shell or an editor that names a server's file."""
    try:
        return Path(process.exe()).name.startswith("node")
    except (psutil.AccessDenied, OSError):
        return True


def _arguments(process: psutil.Process) -> tuple[str, ...]:
    try:
        # A process that gave itself a title leaves the rest of its command line empty.
        return tuple(argument for argument in process.cmdline() if argument)
    except psutil.AccessDenied:
        return ()


def _running(process: psutil.Process, arguments: tuple[str, ...]) -> Running:
    environment: Mapping[str, str] = {}
    with contextlib.suppress(psutil.AccessDenied):
        environment = process.environ()
    return Running(process.pid, Path(process.cwd()), arguments, environment, process.create_time(), _unit(process.pid))


def _same_root(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/root").samefile("/")
    except OSError:
        return True


def _unit(pid: int) -> str:
    try:
        found = _UNIT.search(Path(f"/proc/{pid}/cgroup").read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def manifest(folder: Path) -> Mapping[str, Any]:
    """The ``package.json`` of a folder; empty where there is none that can be read."""
    try:
        content = json.loads((folder / "package.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def first(folders: Iterable[Path]) -> Path | None:
    """The first that is there."""
    return next((folder for folder in folders if folder.exists()), None)


def unit_commands(folder: Path, units: Iterable[Path] | None = None) -> Iterator[str]:
    """The commands with which systemd starts something in this folder.

    Source: systemd.unit(5), "Unit File Load Path"; systemd.exec(5), WorkingDirectory.
    """
    places = (
        units
        if units is not None
        else map(Path, ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"))
    )
    for file in (file for place in places for file in sorted(place.glob("*.service"))):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            settings = re.findall(r"^\s*(WorkingDirectory|ExecStart)\s*=\s*(.+?)\s*$", file.read_text(), re.MULTILINE)
            if any(name == "WorkingDirectory" and Path(value.strip('"')) == folder for name, value in settings):
                yield from (value for name, value in settings if name == "ExecStart")
