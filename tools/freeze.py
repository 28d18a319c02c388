"""Freezes migrations: `python -m tools.freeze` writes the hash of each new one into `SHA256SUMS` beside them.

A database that a migration was applied to refuses one that reads otherwise, so an edited one would stop every sink that
runs. The list is what a change of theirs is seen by before that; `sha256sum -c SHA256SUMS` reads it too.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

MIGRATIONS = Path(__file__).parents[1] / "timescale_sink/store/sql/migrations"
LIST = "SHA256SUMS"


class EditedError(Exception):
    """A frozen migration reads otherwise, or is gone; its text names it."""


def frozen(folder: Path) -> dict[str, str]:
    """The list of a folder: name -> SHA-256, hexadecimal; empty where there is none."""
    file = folder / LIST
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return {name: checksum for checksum, name in (line.split("  ") for line in lines)}


def freeze(folder: Path) -> list[str]:
    """Add to the list of a folder what is new there.

    Returns:
        The names of what was added.

    Raises:
        EditedError: one that is listed was changed; nothing is added.
    """
    known = frozen(folder)
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.sql"))}
    for name, checksum in known.items():
        if there.get(name) != checksum:
            raise EditedError(f"{name} is frozen: restore it, and put the change into a new migration")
    lines = (f"{checksum}  {name}\n" for name, checksum in (known | there).items())
    (folder / LIST).write_text("".join(lines), "utf-8")
    return [name for name in there if name not in known]


def main() -> None:
    """Freeze the project's."""
    try:
        added = freeze(MIGRATIONS)
    except EditedError as error:
        sys.exit(str(error))
    for name in added:
        print(f"frozen: {name}")


if __name__ == "__main__":
    main()
