"""What a mail server's plugin consists of: the files that npm would pack, and the emitter among its modules.

Standard library only: the wheel's build reads it too (``tools/wheel_data.py``), so that a checkout and an installed
Postel have the same files in the same places, ``mail_plugins/<server>`` and ``mail_plugins/lib``.
Source: npm documentation, package.json, ``files`` and ``bundleDependencies``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent
_MANIFEST = "package.json"
# npm packs these whatever `files` says; of what is bundled, `mail_plugins/pack.js` takes the first alone.
_DOCUMENTS = ("README.md", "LICENSE")


@dataclass(frozen=True)
class Bundle:
    """One plugin.

    Attributes:
        server: the folder's name: ``zone-mta``, ``haraka``.
        name: of its npm package.
        files: where each file stands in the plugin's own folder -> the file here.
    """

    server: str
    name: str
    version: str
    files: Mapping[PurePosixPath, Path]

    def read(self) -> dict[PurePosixPath, bytes]:
        """The content of every file."""
        return {place: file.read_bytes() for place, file in self.files.items()}

    def sample(self) -> Path:
        """The sample of its settings."""
        (sample,) = [file for place, file in self.files.items() if place.parent == PurePosixPath("config")]
        return sample

    def digest(self) -> str:
        """Tells whether two plugins are the same, whatever version they say."""
        sha = hashlib.sha256()
        for place, content in sorted(self.read().items()):
            sha.update(f"{place}\0{len(content)}\0".encode() + content)
        return sha.hexdigest()


def workspace() -> Path:
    """The folder of the plugins, in the wheel or in the checkout."""
    packaged = _PACKAGE / "data" / "mail_plugins"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "mail_plugins"


def bundles(folder: Path | None = None) -> dict[str, Bundle]:
    """Every plugin, by its server."""
    folder = folder or workspace()
    found = {}
    packages = {manifest["name"]: (path, manifest) for path, manifest in _packages(folder)}
    for path, manifest in packages.values():
        if not (bundled := manifest.get("bundleDependencies")):
            continue
        files = dict(_shipped(path, (_MANIFEST, *_DOCUMENTS, *manifest["files"])))
        for name in bundled:
            place = PurePosixPath("node_modules", name)
            home, its = packages[name]
            files |= {place / each: file for each, file in _shipped(home, (_MANIFEST, *its["files"]))}
        found[path.name] = Bundle(path.name, manifest["name"], manifest["version"], files)
    return found


def shipped(folder: Path) -> Iterator[Path]:
    """Every file that the plugins of this workspace consist of, each once."""
    yield from sorted({file for bundle in bundles(folder).values() for file in bundle.files.values()})


def _packages(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for manifest in sorted(folder.glob(f"*/{_MANIFEST}")):
        yield manifest.parent, json.loads(manifest.read_text("utf-8"))


def _shipped(folder: Path, patterns: Iterable[str]) -> Iterator[tuple[PurePosixPath, Path]]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    yield PurePosixPath(file.relative_to(folder).as_posix()), file
