"""Where the OpenTelemetry Collector and its configuration are.

`make collector` builds it into ``.build/collector/<hash of builder.yaml>/`` of the checkout; an installed wheel holds
only the configuration and takes the program from ``PATH``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from postel.errors import SettingsError

PROGRAM = "postel-otelcol"
# The contrib distribution holds every component that agent.yaml names; the core one lacks file_storage.
_ON_PATH = (PROGRAM, "otelcol-contrib")
_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def find_collector() -> Path | None:
    """The Collector to run: what ``POSTEL_COLLECTOR`` names, else the checkout's build, else one on ``PATH``.

    Returns:
        The program, or None where there is none or ``POSTEL_COLLECTOR`` is ``none``.

    Raises:
        SettingsError: ``POSTEL_COLLECTOR`` names no program.
    """
    named = os.environ.get("POSTEL_COLLECTOR")
    if named == "none":
        return None
    if named:
        program = Path(named).expanduser().absolute()
        if not _is_program(program):
            raise SettingsError(f"POSTEL_COLLECTOR is {named}, where no program is: give the path of a Collector")
        return program
    if (built := built_collector()) and _is_program(built):
        return built
    for name in _ON_PATH:
        if found := shutil.which(name):
            return Path(found).absolute()
    return None


def collector_config(name: str = "agent.yaml") -> Path:
    """The shipped configuration file of that name, in the wheel or in the checkout."""
    return _config_folder() / name


def built_collector(checkout: Path = _CHECKOUT) -> Path | None:
    """Where the checkout's build of the present ``builder.yaml`` is or will be; None where there is no checkout."""
    manifest = checkout / "collector-config" / "builder.yaml"
    if not manifest.is_file():
        return None
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]
    return checkout / ".build" / "collector" / digest / PROGRAM


def _config_folder() -> Path:
    packaged = _PACKAGE / "data" / "collector-config"
    return packaged if packaged.is_dir() else _CHECKOUT / "collector-config"


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
