"""Where the Collector is looked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from postel.collector import PROGRAM, built_collector, collector_config, find_collector
from postel.errors import SettingsError


def _checkout(folder: Path, manifest: str) -> Path:
    (folder / "collector-config").mkdir(parents=True)
    (folder / "collector-config" / "builder.yaml").write_text(manifest)
    return folder


def _program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_build_is_named_after_the_manifest(tmp_path: Path) -> None:
    manifest = collector_config("builder.yaml").read_text()
    built = built_collector(_checkout(tmp_path / "a", manifest))
    assert built
    assert built.relative_to(tmp_path / "a").parts[:2] == (".build", "collector")
    assert built.parent.name == hashlib.sha256(manifest.encode()).hexdigest()[:16]

    changed = built_collector(_checkout(tmp_path / "b", f"{manifest}# another\n"))
    assert changed
    assert changed.parent.name != built.parent.name
    assert built_collector(tmp_path) is None


def test_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = _program(tmp_path / "mine")
    monkeypatch.setenv("POSTEL_COLLECTOR", str(named))
    assert find_collector() == named


def test_variable_that_names_no_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("")
    for wrong in (tmp_path / "absent", tmp_path / "text", tmp_path):
        monkeypatch.setenv("POSTEL_COLLECTOR", str(wrong))
        with pytest.raises(SettingsError, match="POSTEL_COLLECTOR"):
            find_collector()


def test_without_a_build_the_path_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTEL_COLLECTOR", raising=False)
    monkeypatch.setattr("postel.collector.built_collector", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_collector() is None
    contrib = _program(tmp_path / "otelcol-contrib")
    assert find_collector() == contrib
    own = _program(tmp_path / PROGRAM)
    assert find_collector() == own


def test_every_component_of_the_config_is_in_the_manifest() -> None:
    """The real Collector proves the same where it is built; this names the missing module where it is not."""
    manifest = yaml.safe_load(collector_config("builder.yaml").read_text())
    config = yaml.safe_load(collector_config().read_text())
    modules = {
        "otlp": "/otlpreceiver ",
        "memory_limiter": "/memorylimiterprocessor ",
        "otlp_grpc": "/otlpexporter ",
        "file_storage": "/filestorage ",
        "health_check": "/healthcheckextension ",
    }
    for section in ("receivers", "processors", "exporters", "extensions"):
        built = " ".join(entry["gomod"] for entry in manifest[section])
        for component in config[section]:
            assert modules[component.partition("/")[0]] in built
