"""The wheel: what is data in the checkout is data in it, and an installed Postel finds it without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from postel.plugins.bundle import bundles, shipped

_CHECKOUT = Path(__file__).parents[2]
_DATA = ("*.json", "*.yaml", "*.sql", "*.js", "*.css", "*.html", "*.svg", "*.service", "*.conf", "py.typed")


def _tracked(*patterns: str) -> set[Path]:
    listing = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=_CHECKOUT, check=True, capture_output=True)
    return {Path(name) for name in listing.stdout.decode().split("\0") if name}


def test_every_data_file_of_the_packages_is_in_it(installed: Path) -> None:
    packages = ("postel", "otel_receivers", "timescale_sink", "dashboards")
    data = {path for path in _tracked(*_DATA) if path.parts[0] in packages}
    assert Path("otel_receivers/zone_mta/metadata.yaml") in data
    assert Path("dashboards/grafana/dashboards/overview.json") in data
    assert Path("dashboards/grafana/provisioning/alerting/postel.yaml") in data
    assert Path("postel/services/units/postel-agent.service") in data
    assert {path for path in data if not (installed / path).is_file()} == set()


def test_collector_configuration_is_found_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from postel import collector; print(collector.collector_config(), collector.built_collector())",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    config, built = done.stdout.split()
    assert Path(config) == installed / "postel" / "data" / "collector-config" / "agent.yaml"
    assert Path(config).read_text() == (_CHECKOUT / "collector-config" / "agent.yaml").read_text()
    assert built == "None"


def test_runbooks_are_found_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from dashboards.web import runbooks; print(runbooks.__file__, *runbooks.runbooks())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    module, *names = done.stdout.split()
    assert Path(module).is_relative_to(installed)
    assert set(names) == {path.stem for path in (_CHECKOUT / "docs" / "runbooks").glob("*.md")}


def test_the_mail_servers_plugins_are_installed_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    """A folder that looks like a Zone-MTA's is enough here; the real servers are in tests/mail_plugins."""
    server = tmp_path / "zone-mta"
    (server / "config").mkdir(parents=True)
    (server / "package.json").write_text('{"name": "zone-mta", "version": "3.11.0"}')
    for command in ("install", "uninstall"):
        subprocess.run(
            [sys.executable, "-m", "postel.cli", "plugins", command, "--zone-mta", server],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            check=True,
            capture_output=True,
            timeout=30,
        )
        if command == "install":
            put = server / "plugins" / "postel"
            there = {path.relative_to(put) for path in put.rglob("*") if path.is_file()}
            assert there - {Path("postel-installed.json")} == set(map(Path, bundles()["zone-mta"].files))
    assert not (server / "plugins").exists()


def test_of_the_plugins_nothing_else_is_in_it(installed: Path) -> None:
    data = installed / "postel" / "data" / "mail_plugins"
    there = {path for path in data.rglob("*") if path.is_file()}
    assert {path.relative_to(data) for path in there} == {
        path.relative_to(_CHECKOUT / "mail_plugins") for path in shipped(_CHECKOUT / "mail_plugins")
    }
    assert not any("test" in path.parts or "testdata" in path.parts for path in there)


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, wheel_of_sdist: Path) -> None:
    assert wheel_of_sdist.name == wheel.name
    assert _content(wheel_of_sdist) == _content(wheel)


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
