"""Where the OpenTelemetry Collector and its configuration are.

`make collector` builds it into ``.build/collector/<hash of its sources>/`` of the checkout; an installed wheel holds
only the configuration and takes the program from ``PATH``. A distribution's Collector does not do: agent.yaml names
Postel's own extensions.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from postel.errors import SettingsError

PROGRAM = "postel-otelcol"


class Tier(StrEnum):
    """What a Collector of Postel's is."""

    AGENT = "agent"
    """Beside an agent: takes what this host tells."""
    GATEWAY = "gateway"
    """What other hosts send to (docs/gateway.md)."""
    KAFKA_MEMBER = "kafka-member"
    """What reads from Kafka for a sink (docs/kafka.md)."""


_TIERS = {
    Tier.AGENT: ("agent",),
    Tier.GATEWAY: ("agent", "gateway"),
    Tier.KAFKA_MEMBER: ("agent", "kafka"),
}
# Layers that are not whole over another tier's files.
_OF_TIER = {"gateway-mtls": Tier.GATEWAY}
_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def find_collector() -> Path | None:
    """The Collector to run: what ``POSTEL_COLLECTOR`` names, else the checkout's build, else one on ``PATH``.

    Returns:
        The program, or None where there is none or ``POSTEL_COLLECTOR`` is ``none``.

    Raises:
        SettingsError: ``POSTEL_COLLECTOR`` names no program.
    """
    if turned_off():
        return None
    if named := os.environ.get("POSTEL_COLLECTOR"):
        program = Path(named).expanduser().absolute()
        if not _is_program(program):
            raise SettingsError(f"POSTEL_COLLECTOR is {named}, where no program is: give the path of a Collector")
        return program
    if (built := built_collector()) and _is_program(built):
        return built
    found = shutil.which(PROGRAM)
    return Path(found).absolute() if found else None


def turned_off() -> bool:
    """Whether the user wants none: ``POSTEL_COLLECTOR`` is ``none``."""
    return os.environ.get("POSTEL_COLLECTOR") == "none"


def missing() -> str:
    """Why :func:`find_collector` found none, for who runs this Postel."""
    if turned_off():
        return "POSTEL_COLLECTOR is none"
    if built_collector():
        return "no Collector is built (`make collector` says why)"
    return f"no {PROGRAM} is on PATH, and POSTEL_COLLECTOR names none"


def collector_config(name: str = "agent.yaml") -> Path:
    """The shipped configuration file of that name, in the wheel or in the checkout."""
    return _config_folder() / name


def collector_configs(tier: Tier, layers: Sequence[str], folder: Path | None) -> list[Path]:
    """The files that make up a configuration, each laid over those before it.

    Args:
        tier: what it is to be. A member of the Kafka tier takes no OTLP, and has nothing of the other two.
        layers: of the shipped files, without ``.yaml``: ``[otlp] collector_layers``.
        folder: of the user's own files, ``[otlp] collector_config_dir``; None: there are none.

    Raises:
        SettingsError: a layer is of another tier; or no such folder is there, or it cannot be read.
    """
    shipped = [collector_config(f"{name}.yaml") for name in _TIERS[tier]]
    if tier is Tier.KAFKA_MEMBER:
        # The setting is that of the Collector that it may stand beside.
        return shipped
    for layer in layers:
        if (needed := _OF_TIER.get(layer, tier)) is not tier:
            raise SettingsError(
                f"[otlp] collector_layers: {layer} lies over a {needed} alone; take it out, or run "
                f"`postel collector --tier {needed}`"
            )
    shipped += (collector_config(f"{name}.yaml") for name in layers)
    if folder is None:
        return shipped
    try:
        return [*shipped, *sorted(path for path in folder.iterdir() if path.suffix == ".yaml")]
    except OSError as error:
        raise SettingsError(f"[otlp] collector_config_dir is {folder}: {error.strerror}") from None


def built_collector(checkout: Path = _CHECKOUT) -> Path | None:
    """Where the checkout's build of the present sources is or will be; None where there is no checkout."""
    manifest = checkout / "collector-config" / "builder.yaml"
    if not manifest.is_file():
        return None
    digest = hashlib.sha256()
    extensions = (path for path in sorted(manifest.parent.glob("extensions/**/*")) if path.is_file())
    for source in (manifest, *extensions):
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return checkout / ".build" / "collector" / digest.hexdigest()[:16] / PROGRAM


def _config_folder() -> Path:
    packaged = _PACKAGE / "data" / "collector-config"
    return packaged if packaged.is_dir() else _CHECKOUT / "collector-config"


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
