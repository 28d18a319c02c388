"""Installs what a test needs once per lock file, and lets every later run use it.

It is made beside its place and renamed into it, under a lock between processes: a test run that is killed leaves no
half of one, and two runs install it once.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import fasteners


class InstallationError(Exception):
    """It could not be installed; the message ends with what the installing program said."""


def install_once(installed: Path, name: str, sources: Sequence[Path], make: Callable[[Path, str], Path]) -> Path:
    """The folder ``<name>-<hash of the sources>`` below ``installed``, made if it is not there yet.

    Args:
        installed: made too.
        name: of what is installed.
        sources: the files that say all of it.
        make: makes it in a folder that is removed afterwards, and is told its name for messages; gives where it is.

    Raises:
        InstallationError: as ``make`` does.
    """
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    place = installed / f"{name}-{digest}"
    if place.is_dir():
        return place
    installed.mkdir(parents=True, exist_ok=True)
    with fasteners.InterProcessLock(installed / f"{name}.lock"):
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=installed, prefix=f"{place.name}.") as parent:
                make(Path(parent), place.name).rename(place)
    return place
