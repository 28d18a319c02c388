"""The shipped files that are laid over agent.yaml, with an OTLP receiver in place of the one that asks the database.

The databases' receivers are in no Collector that set-up builds (docs/decisions/0092), and all else of the files is.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from postel.collector import collector_config

STAND_IN = "otlp/stand_in"


def with_stand_in(name: str, folder: Path, port: int) -> Path:
    """Write a shipped file into a folder, its receiver replaced by one that takes OTLP/HTTP on this port."""
    content = yaml.safe_load(collector_config(f"{name}.yaml").read_text())
    content["receivers"] = {STAND_IN: {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}}
    content["service"]["pipelines"][f"metrics/{name}"]["receivers"] = [STAND_IN]
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
