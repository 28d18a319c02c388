"""Which processes are mail servers, and what systemd and npm say of how they are started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from testbed.program import until

from postel.plugins import haraka, zone_mta
from postel.plugins.servers import Running, processes, unit_commands
from support.node import Node


def running(folder: Path, *arguments: str, **environment: str) -> Running:
    return Running(1, folder, arguments, environment, 0.0, "")


def test_the_configuration_of_a_service_is_seen_in_its_unit(tmp_path: Path) -> None:
    units = tmp_path / "units"
    units.mkdir()
    (units / "zone-mta.service").write_text(
        '[Service]\nEnvironment="NODE_ENV=production"\nWorkingDirectory=/opt/zone-mta\n'
        'ExecStart=/usr/bin/node index.js --config="/etc/zone-mta/zonemta.toml"\n'
    )
    (units / "other.service").write_text("[Service]\nWorkingDirectory=/opt/other\nExecStart=/bin/other --config=x\n")
    assert list(unit_commands(Path("/opt/zone-mta"), [units])) == [
        '/usr/bin/node index.js --config="/etc/zone-mta/zonemta.toml"'
    ]
    assert list(unit_commands(Path("/opt"), [units, tmp_path / "missing"])) == []


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (("node", "./node_modules/.bin/haraka", "-c", "."), "."),
        (("/usr/bin/node", "/usr/bin/haraka", "-c", "/srv/mx"), "/srv/mx"),
        (("node", "/usr/bin/haraka", "--configs=mx"), "mx"),
        (("Haraka (worker)",), "."),
        (("node", "haraka.js"), "."),
    ],
)
def test_the_folder_of_haraka(tmp_path: Path, arguments: tuple[str, ...], folder: str) -> None:
    assert haraka._instance(running(tmp_path, *arguments)).resolve() == (tmp_path / folder).resolve()


def test_the_environment_names_the_configuration_before_all_else(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"scripts": {"start": "node index.js --config=config/a.toml"}}')
    its = running(tmp_path, "zone-mta: master process", NODE_CONFIG_PATH="etc/b.json")
    assert next(zone_mta._main_configs(tmp_path, its)) == tmp_path / "etc/b.json"
    assert next(zone_mta._main_configs(tmp_path, None)) == tmp_path / "config/a.toml"


def test_a_process_is_found_with_all_that_is_known_of_it(tmp_path: Path, node: Node) -> None:
    with subprocess.Popen(
        [node.path, "-e", "process.stdin.resume()", "a-server-of-this-test"],
        cwd=tmp_path,
        env={"NODE_CONFIG_PATH": "x.json"},
        stdin=subprocess.PIPE,
    ) as process:
        # Its command line is its parent's until it has begun.
        until(lambda: processes(re.compile("a-server-of-this-test"))[0], 10, "it runs")
        found, unusable = processes(re.compile("a-server-of-this-test"))
        process.communicate(b"\n", timeout=10)
    (its,) = [one for one in found if one.pid == process.pid]
    assert (its.folder, its.environment, unusable) == (tmp_path, {"NODE_CONFIG_PATH": "x.json"}, [])
    assert its.restart() == f"in the way it was started (process {process.pid})"


def test_what_only_names_a_server_is_none(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "a-server-of-this-test"], cwd=tmp_path, stdin=subprocess.PIPE
    ) as process:
        found, _ = processes(re.compile("a-server-of-this-test"))
        process.communicate(b"\n", timeout=10)
    assert process.pid not in [one.pid for one in found]


def test_a_service_is_restarted_by_its_unit(tmp_path: Path) -> None:
    assert Running(1, tmp_path, (), {}, 0.0, "zone-mta.service").restart() == "systemctl restart zone-mta.service"
