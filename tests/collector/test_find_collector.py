"""Where the Collector is looked for."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml

from postel.collector import PROGRAM, Tier, built_collector, collector_config, collector_configs, find_collector
from postel.errors import SettingsError
from postel.settings import Layer
from support.running_postel import RunningPostel


def _checkout(folder: Path, manifest: str) -> Path:
    (folder / "collector-config").mkdir(parents=True)
    (folder / "collector-config" / "builder.yaml").write_text(manifest)
    return folder


def _program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_build_is_named_after_all_of_its_sources(tmp_path: Path) -> None:
    assert built_collector(tmp_path) is None, "no checkout"
    checkout = _checkout(tmp_path, "dist:\n")
    extension = checkout / "collector-config" / "extensions" / "readygate"
    extension.mkdir(parents=True)
    builds = [built_collector(checkout)]
    (extension / "gate.go").write_text("package readygate\n")
    builds.append(built_collector(checkout))
    (checkout / "collector-config" / "builder.yaml").write_text("dist: {}\n")
    builds.append(built_collector(checkout))
    (checkout / "collector-config" / "README.md").write_text("no source\n")
    assert built_collector(checkout) == builds[-1]

    assert len(set(builds)) == 3
    assert {build.parent.parent for build in builds if build} == {checkout / ".build" / "collector"}


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
        "ready_gate": "/extensions/readygate ",
        "sure_storage": "/extensions/surestorage ",
        "patient_client": "/extensions/patientclient ",
        "body_limit": "/extensions/bodylimit ",
        "connection_limit": "/extensions/connectionlimit ",
        "health_check": "/healthcheckextension ",
    }
    for section in ("receivers", "processors", "exporters", "extensions"):
        built = "".join(f"{entry.get('import', entry['gomod'])} " for entry in manifest[section])
        for component in config[section]:
            assert modules[component.partition("/")[0]] in built


def test_every_shipped_file_is_a_layer_or_what_a_tier_is_made_of() -> None:
    shipped = {path.stem for path in collector_config().parent.glob("*.yaml")} - {"builder"}
    of_tiers = {path.stem for tier in Tier for path in collector_configs(tier, (), None)}
    assert shipped - of_tiers == {*get_args(Layer)}
    assert of_tiers == {"agent", "gateway", "kafka"}


def test_each_file_lies_over_those_before_it(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        (tmp_path / name).write_text("")

    def files(tier: Tier) -> list[str]:
        return [path.stem for path in collector_configs(tier, ("vendor", "to-kafka"), tmp_path)]

    assert files(Tier.AGENT) == ["agent", "vendor", "to-kafka", "a", "b"]
    assert files(Tier.GATEWAY) == ["agent", "gateway", "vendor", "to-kafka", "a", "b"]
    assert files(Tier.KAFKA_MEMBER) == ["agent", "kafka"]


def test_a_layer_of_a_gateway_lies_over_no_other_tier() -> None:
    """Over agent.yaml it names a door that is not there, and certificates of senders without one to show."""
    layers = ("vendor", "gateway-mtls")
    with pytest.raises(SettingsError, match=r"^\[otlp\] collector_layers: gateway-mtls lies over a gateway alone"):
        collector_configs(Tier.AGENT, layers, None)
    assert [path.stem for path in collector_configs(Tier.GATEWAY, layers, None)] == ["agent", "gateway", *layers]
    # It may stand beside a gateway, whose layers these are.
    assert [path.stem for path in collector_configs(Tier.KAFKA_MEMBER, layers, None)] == ["agent", "kafka"]


@pytest.mark.parametrize("command", ["up", "collector"])
def test_which_layer_is_of_another_tier_is_said_before_anything_runs(tmp_path: Path, command: str) -> None:
    more = {
        "POSTEL_COLLECTOR": str(_program(tmp_path / PROGRAM)),
        "POSTEL_OTLP__COLLECTOR_LAYERS": '["gateway-mtls"]',
    }
    done = RunningPostel(tmp_path, more).command(command)
    assert done.returncode == 2
    assert done.stderr.startswith("postel: [otlp] collector_layers: gateway-mtls lies over a gateway alone")
