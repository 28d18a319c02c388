"""PyYAML's safe loader with libyaml's parser, which takes a sixth of the time, where PyYAML was built with it.

Each program of a start reads declarations and rules, so their reading is felt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeLoader
else:
    from yaml import CSafeLoader as SafeLoader

__all__ = ["SafeLoader", "safe_load"]


def safe_load(text: str) -> Any:
    """Plain values, as :func:`yaml.safe_load` makes them.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, SafeLoader)
