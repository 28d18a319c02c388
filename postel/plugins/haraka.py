"""Finds Haraka, and where its plugins and their settings go.

The plugin lies in ``plugins/postel`` of the instance, the folder of ``haraka -c``; its settings are
``config/postel.ini``, and ``config/plugins`` names it in a line.

Source: Haraka, plugins.js (_get_plugin_path), bin/haraka; WildDuck, setup/08_install_haraka.sh.
"""

from __future__ import annotations

import re
from pathlib import Path

from postel.plugins.servers import Listed, Look, PluginError, Running, Server, first, manifest, processes

KIND = "haraka"
_TITLE = re.compile(r"(^|[/ ])haraka(\.js)?( |$)|^Haraka\b")
_FOLDERS = ("/opt/haraka", "/etc/haraka", "/srv/haraka", "/usr/local/haraka", "/var/lib/haraka", "/home/haraka")
_NAME = "postel"


def find(folder: Path | None = None) -> Look:
    """Every Haraka on this host, or the one of this folder.

    Args:
        folder: of the instance, as for ``haraka -c``.

    Raises:
        PluginError: there is none in ``folder``.
    """
    running, unusable = processes(_TITLE)
    instances = {place: process for process in running if _is_instance(place := _instance(process))}
    if folder is not None:
        folder = folder.absolute()
        if not _is_instance(folder):
            raise PluginError(f"{folder} is no folder of a Haraka: it has no config/plugins, the list of its plugins")
        return Look([_server(folder, instances.get(folder.resolve()))])
    servers = {place: _server(place, process) for place, process in instances.items()}
    for place in map(Path, _FOLDERS):
        if _is_instance(place) and place.resolve() not in servers:
            servers[place.resolve()] = _server(place, None)
    return Look(list(servers.values()), unusable)


def _instance(process: Running) -> Path:
    """The folder of its ``-c``, or what it runs in."""
    options = iter(process.arguments)
    for option in options:
        name, _, value = option.partition("=")
        if name in {"-c", "--configs", "--config"}:
            return (process.folder / (value or next(options, "."))).resolve()
    return process.folder / process.environment.get("HARAKA", ".")


def _is_instance(folder: Path) -> bool:
    return (folder / "config" / "plugins").is_file()


def _server(folder: Path, running: Running | None) -> Server:
    package = folder if manifest(folder).get("name") == "Haraka" else folder / "node_modules" / "Haraka"
    return Server(
        kind=KIND,
        title="Haraka",
        folder=folder,
        version=str(manifest(package).get("version", "")),
        running=running,
        code=folder / "plugins" / _NAME,
        config=folder / "config" / f"{_NAME}.ini",
        listed=Listed(folder / "config" / "plugins", _NAME),
        elsewhere=first([folder / "node_modules" / "haraka-plugin-postel"]),
    )
