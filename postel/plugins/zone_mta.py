"""Finds Zone-MTA, and where its plugins and their settings go.

The plugin lies in ``plugins/postel`` of the folder that it runs in, where npm removes nothing; the key of its settings
is that whole path, so that ``pluginsPath`` does not matter. The settings become a file of their own: among those that
``[plugins]`` of the TOML configuration includes, else ``default.toml`` in the folder of configuration of Zone-MTA's own
checkout, which it lays under all other. Where neither is, the user has to write the section.

Source: Zone-MTA, app.js (NODE_CONFIG_DIR); wild-config, index.js (includes, --config, NODE_CONFIG_PATH);
wild-plugins, index.js (preparePlugins); zone-mta-template; WildDuck, setup/09_install_zone_mta.sh.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from postel.plugins.servers import Look, PluginError, Running, Server, first, manifest, processes, unit_commands

KIND = "zone-mta"
_TITLE = re.compile(r": master process\b|\bzone-?mta\b", re.IGNORECASE)
_PACKAGE = re.compile(r"(@zone-eu/)?zone-mta")
_PACKAGES = ("@zone-eu/zone-mta", "zone-mta")
_FOLDERS = ("/opt/zone-mta", "/opt/zonemta", "/srv/zone-mta", "/usr/local/zone-mta", "/var/lib/zone-mta")
_CONFIGS = ("/etc/zone-mta/zonemta.toml", "/etc/zonemta/zonemta.toml")
_TABLE = re.compile(r"^\s*\[([^\[\]]+)\]\s*(#.*)?$")
_INCLUDE = re.compile(r'^\s*#\s*@include\s*"([^"]+)"', re.IGNORECASE)
_NAME = "postel.toml"
_DEFAULT = "default.toml"


def find(folder: Path | None = None, config: Path | None = None) -> Look:
    """Every Zone-MTA on this host, or the one in this folder.

    Args:
        folder: what it runs in.
        config: its configuration file, where it is not one that it can be seen to read.

    Raises:
        PluginError: there is no Zone-MTA in ``folder``.
    """
    running, unusable = processes(_TITLE)
    if folder is not None:
        folder = folder.absolute()
        if _own_package(folder) is None:
            raise PluginError(
                f"{folder} is no folder that a Zone-MTA runs in: it has no node_modules/@zone-eu/zone-mta"
            )
        its = next((process for process in running if process.folder == folder.resolve()), None)
        return Look([_server(folder, its, config)])
    servers = {
        process.folder: _server(process.folder, process, config) for process in running if _own_package(process.folder)
    }
    for place in map(Path, _FOLDERS):
        if _own_package(place) and place.resolve() not in servers:
            servers[place.resolve()] = _server(place, None, config)
    return Look(list(servers.values()), unusable)


def _own_package(folder: Path) -> Path | None:
    """The folder of Zone-MTA itself: this one, or one among its modules."""
    if _PACKAGE.fullmatch(str(manifest(folder).get("name", ""))):
        return folder
    return first(folder / "node_modules" / name for name in _PACKAGES)


def _server(folder: Path, running: Running | None, config: Path | None) -> Server:
    package = _own_package(folder) or folder
    code = folder / "plugins" / "postel"
    place, by_hand = _config_place(folder, package, running, config)
    if place is None:
        by_hand = (
            f'{by_hand} there: under "plugins", as key {str(code)!r}, the settings in {code / "config/postel.toml"}'
        )
    return Server(
        kind=KIND,
        title="Zone-MTA",
        folder=folder,
        version=str(manifest(package).get("version", "")),
        running=running,
        code=code,
        config=place,
        header=_header(code, place),
        elsewhere=first([folder / "node_modules" / "postel-zone-mta"]),
        by_hand=by_hand,
    )


def _header(code: Path, place: Path | None) -> str:
    # The sample's section stands in what [plugins] includes; default.toml is a whole configuration.
    return f'[plugins."{code}"]' if place is not None and place.name == _DEFAULT else f'["{code}"]'


def _config_place(folder: Path, package: Path, running: Running | None, given: Path | None) -> tuple[Path | None, str]:
    main = (
        given.absolute() if given else next((path for path in _main_configs(folder, running) if path.is_file()), None)
    )
    if main is not None and (included := _included(main, running)):
        return included / _NAME, ""
    # In a checkout of Zone-MTA itself nobody but the user owns its config/; among npm's modules npm does.
    if package == folder and (folder / "config").is_dir():
        return folder / "config" / _DEFAULT, ""
    if main is None:
        return None, "which file its configuration is could not be seen; name it with --zone-mta-config FILE, or add"
    return None, f"{main} includes no folder of plugins' settings; add"


def _main_configs(folder: Path, running: Running | None) -> Iterator[Path]:
    """Where its own configuration may be, the surest first. A running one overwrote its command line with its title."""
    if running and (named := running.environment.get("NODE_CONFIG_PATH")):
        yield Path(os.path.normpath(folder / named))
    commands = [shlex.join(running.arguments)] if running else []
    commands += [*unit_commands(folder), str(manifest(folder).get("scripts", {}).get("start", ""))]
    for command in commands:
        if found := re.search(r"""--config[= ]["']?([^"'\s]+)""", command):
            yield Path(os.path.normpath(folder / found[1]))
    yield from map(Path, _CONFIGS)
    yield folder / "config" / "zonemta.toml"


def _included(main: Path, running: Running | None) -> Path | None:
    """The folder of which ``[plugins]`` includes every TOML file."""
    if main.suffix.lower() != ".toml":
        return None
    table = ""
    for line in main.read_text("utf-8", "replace").splitlines():
        if header := _TABLE.match(line):
            table = header[1].strip()
        elif table == "plugins" and (found := _INCLUDE.match(line)):
            pattern = main.parent / re.sub(r"\{env\}", _environment(running), found[1], flags=re.IGNORECASE)
            if pattern.parent.is_dir() and fnmatch(_NAME, pattern.name) and "*" in pattern.name:
                return pattern.parent
    return None


def _environment(running: Running | None) -> str:
    # A service that does not run now will run as the template's unit says.
    if running is None or not running.environment:
        return "production"
    return running.environment.get("NODE_ENV") or "development"
