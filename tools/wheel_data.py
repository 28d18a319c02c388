"""Lays the mail servers' plugins into the wheel, as `postel.plugins.bundle` finds them there; run by hatchling."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PLACE = Path("postel/data")


class PluginsHook(BuildHookInterface[Any]):
    """A build hook; pyproject.toml names it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files that the plugins consist of, and nothing of their tests."""
        del version
        root = Path(self.root)
        for file in _bundle(root).shipped(root / "mail_plugins"):
            build_data["force_include"][str(file)] = str(_PLACE / file.relative_to(root))


def _bundle(root: Path) -> ModuleType:
    """The module by its file: what it belongs to needs packages that a build does not have."""
    spec = importlib.util.spec_from_file_location("bundle", root / "postel" / "plugins" / "bundle.py")
    if spec is None or spec.loader is None:
        raise ImportError("postel/plugins/bundle.py is not there")
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
