"""What `npm pack` makes, installed by npm as the READMEs say: the real server loads it, and its mail is told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from testbed import haraka as harakas
from testbed import mail_plugins, npm_packages
from testbed.fixtures import NewZoneMta, Servers
from testbed.haraka import DISCARD, Haraka
from testbed.program import until
from testbed.zone_mta import RELEASES

from support.node import Node
from support.otlp_thread import OtlpThread

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("version", RELEASES)
def test_zone_mta_loads_it_from_its_modules(
    new_zone_mta: NewZoneMta,
    zone_mta_plugin: Path,
    node: Node,
    otlp_receiver: OtlpThread,
    tmp_path: Path,
    *,
    version: str,
) -> None:
    server = new_zone_mta(zones=("only",), version=version, begin=False)
    app = tmp_path / "app"
    # npm tidies a folder that it installs into, which the other tests' must not be.
    shutil.copytree(npm_packages.install(RELEASES[version].folder, node), app, symlinks=True, copy_function=os.link)
    (app / "index.js").write_text(f"require('{server.package}');\n")
    mail_plugins.install(node, zone_mta_plugin, app)

    configuration = json.loads(server.config_path.read_text())
    configuration["corePluginsPath"] = f"./node_modules/{server.package}/plugins"
    # The section of config/postel.toml, as the README has it copied.
    configuration["plugins"]["modules/postel-zone-mta"] = {
        "enabled": True,
        "ordering": 1,
        "endpoint": otlp_receiver.endpoint,
        "bufferDirectory": str(tmp_path / "buffer"),
    }
    server.config_path.write_text(json.dumps(configuration))
    server.program.arguments[1:] = ["index.js"]
    server.program.directory = app
    server.start()
    assert server.program.log.read_text().count("Initialized Postel") == 3
    (recipient,) = server.send(1)
    until(lambda: _recipients(otlp_receiver, "zonemta.delivery.accepted") == [[recipient]], 15, "the delivery is told")


@pytest.mark.parametrize("version", harakas.RELEASES)
def test_haraka_loads_it_by_its_name(
    haraka_plugin: Path, node: Node, servers: Servers, otlp_receiver: OtlpThread, tmp_path: Path, *, version: str
) -> None:
    packages = npm_packages.install(harakas.RELEASES[version], node)
    server = Haraka(
        tmp_path / "haraka",
        node=node,
        packages=packages,
        version=version,
        storage=DISCARD,
        plugin_settings=f"endpoint={otlp_receiver.endpoint}\nbufferDirectory={tmp_path / 'buffer'}\n",
    )
    folder = tmp_path / "haraka"
    mail_plugins.install(node, haraka_plugin, folder)
    listed = folder / "config" / "plugins"
    listed.write_text(f"{listed.read_text()}\npostel\n")
    servers.start(server, server.kill)
    assert "loading postel" in server.program.log.read_text()
    with server.client() as client:
        client.sendmail("a@sender.test", ["a@here.test"], "Subject: a message\r\n\r\nIts body.\r\n")
    until(lambda: _recipients(otlp_receiver, "haraka.message.accepted") == [["a@here.test"]], 15, "the message is told")


def _recipients(receiver: OtlpThread, name: str) -> list[object]:
    return [record.attributes["email.to.address"] for record in receiver.records() if record.name == name]
