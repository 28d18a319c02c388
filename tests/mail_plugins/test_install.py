"""`postel plugins install` into real servers: they tell of their mail then, and are as before after `uninstall`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed import haraka as harakas
from testbed.fixtures import NewZoneMta
from testbed.haraka import DISCARD, Haraka
from testbed.npm_packages import install
from testbed.program import until
from testbed.zone_mta import OLDER_IN_SOAK, ZoneMta

from postel.plugins import haraka, zone_mta
from postel.plugins.bundle import bundles
from support.node import Node
from support.otlp_thread import OtlpThread

HEARTBEAT = "postel.plugin.heartbeat"
WORKSPACE = Path(__file__).parents[2]


def postel(*arguments: str | Path, intake: str = "127.0.0.1:4319", user: int | None = None) -> str:
    """What the command printed; its exit code must be 0."""
    done = run(*arguments, intake=intake, user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(
    *arguments: str | Path, intake: str = "127.0.0.1:4319", user: int | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "postel.cli", "plugins", *arguments],
        env={**os.environ, "PYTHONPATH": str(WORKSPACE), "POSTEL_INTAKE__ADDRESS": intake},
        cwd="/",
        user=user,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def content(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder below: its mode, its owner and what is in it."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_uid,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def checkout(server: ZoneMta, folder: Path, buffer: Path) -> Path:
    """Let the server run in a copy of its package, as in a checkout of Zone-MTA."""
    package = server.program.directory
    modules = Path(str(package).removesuffix(f"/{server.package}"))
    copy = folder / "node_modules" / server.package
    shutil.copytree(package, copy)
    for other in [*modules.iterdir(), *modules.glob("@*/*")]:
        place = folder / "node_modules" / other.relative_to(modules)
        if not place.exists():
            place.symlink_to(other)
    # What the user's own configuration says of the plugin is laid over what was installed.
    configuration = json.loads(server.config_path.read_text())
    configuration["plugins"][str(copy / "plugins" / "postel")] = {"bufferDirectory": str(buffer)}
    server.config_path.write_text(json.dumps(configuration))
    server.program.directory = copy
    return copy


def application(server: ZoneMta, folder: Path) -> tuple[Path, Path]:
    """Let the server run as an application of zone-mta-template, with its configuration in another folder.

    Returns:
        Both folders.
    """
    package = server.program.directory
    app, etc = folder / "app", folder / "etc"
    (app / "plugins").mkdir(parents=True)
    (etc / "plugins").mkdir(parents=True)
    (app / "index.js").write_text("require('@zone-eu/zone-mta');\n")
    (app / "node_modules").symlink_to(package.parents[1])
    shutil.copy(Path(__file__).parents[1] / "testbed/plugins/prompt.js", app / "plugins")
    configuration = json.loads(server.config_path.read_text())
    (etc / "plugins" / "testbed.json").write_text(json.dumps(configuration.pop("plugins")))
    del configuration["pluginsPath"]
    configuration["corePluginsPath"] = "./node_modules/@zone-eu/zone-mta/plugins"
    (etc / "server.json").write_text(json.dumps(configuration))
    (etc / "zonemta.toml").write_text(
        '# @include "server.json"\n\n[plugins]\n# @include "plugins/*.toml"\n# @include "plugins/testbed.json"\n'
    )
    start = f"--config={etc / 'zonemta.toml'}"
    (app / "package.json").write_text(json.dumps({"name": "app", "scripts": {"start": f"node index.js {start}"}}))
    server.program.arguments[1:] = ["index.js", start]
    del server.program.environment["NODE_CONFIG_PATH"]
    server.program.directory = app
    return app, etc


def kinds(receiver: OtlpThread) -> list[str]:
    """The kind of each process that was heard of, one for each process."""
    heard = {
        record.resource["process.pid"]: record.attributes["postel.plugin.process.kind"]
        for record in receiver.records()
        if record.name == HEARTBEAT
    }
    return sorted(map(str, heard.values()))


def deliveries(receiver: OtlpThread) -> list[object]:
    return [r.attributes["email.to.address"] for r in receiver.records() if r.name == "zonemta.delivery.accepted"]


@pytest.mark.slow
@pytest.mark.parametrize("version", OLDER_IN_SOAK)
def test_a_checkout_of_zone_mta_tells_of_its_mail_and_is_then_as_it_was_before(
    new_zone_mta: NewZoneMta, otlp_receiver: OtlpThread, tmp_path: Path, version: str
) -> None:
    server = new_zone_mta(version=version, begin=False)
    folder = checkout(server, tmp_path / "server", tmp_path / "buffer")
    before = content(folder)
    intake = otlp_receiver.endpoint.removeprefix("http://")

    shown = postel("install", "--zone-mta", folder, "--dry-run", intake=intake)
    assert f"would make {folder / 'plugins/postel'}" in shown
    assert content(folder) == before
    assert f"undo: postel plugins uninstall --zone-mta {folder}" in postel(
        "install", "--zone-mta", folder, intake=intake
    )
    installed = content(folder)
    assert "nothing to do" in postel("install", "--zone-mta", folder, intake=intake)
    assert content(folder) == installed

    server.start()
    until(lambda: len(kinds(otlp_receiver)) == 4, 15, "all processes have the plugin")
    assert kinds(otlp_receiver) == ["main", "receiver", "sender", "sender"]
    (recipient,) = server.send(1)
    until(lambda: deliveries(otlp_receiver) == [[recipient]], 15, "the delivery is told")
    server.stop()
    assert content(folder) == installed

    postel("uninstall", "--zone-mta", folder)
    assert content(folder) == before
    assert "nothing to do" in postel("uninstall", "--zone-mta", folder)
    told = len(otlp_receiver.records())
    server.start()
    server.send(1)
    server.wait_until_idle()
    assert len(otlp_receiver.records()) == told
    assert server.sink.counts() == {("default", "delivered"): 2}


@pytest.mark.slow
def test_an_application_is_found_as_it_runs_and_the_users_settings_stay(
    new_zone_mta: NewZoneMta, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    server = new_zone_mta(zones=("only",), begin=False)
    app, etc = application(server, tmp_path)
    server.start()
    # It gave itself a title, so its command line says nothing any more.
    (found,) = [each for each in zone_mta.find().servers if each.folder == app]
    assert found.running
    assert found.running.pid in server.program.pids()
    assert (found.version, found.config) == ("3.11.0", etc / "plugins" / "postel.toml")

    before = content(etc), content(app)
    said = postel("install", "--zone-mta", app, intake=otlp_receiver.endpoint.removeprefix("http://"))
    assert f"loads the plugin when it is restarted: in the way it was started (process {found.running.pid})" in said
    settings = etc / "plugins" / "postel.toml"
    changed = f'{settings.read_text()}\nbufferDirectory = "{tmp_path / "buffer"}"\n'
    settings.write_text(changed)
    assert f"{settings} was changed and stays as it is" in postel("install", "--zone-mta", app)
    assert settings.read_text() == changed

    server.stop()
    server.start()
    until(lambda: kinds(otlp_receiver) == ["main", "receiver", "sender"], 15, "all processes have the plugin")
    server.stop()
    said = postel("uninstall", "--zone-mta", app)
    saved = etc / "plugins" / "postel.toml.saved"
    assert f"keep {settings}, which was changed, as {saved}" in said
    assert saved.read_text() == changed
    saved.unlink()
    assert (content(etc), content(app)) == before
    told = len(otlp_receiver.records())
    server.start()
    assert len(otlp_receiver.records()) == told


@pytest.fixture(params=harakas.OLDER_IN_SOAK)
def haraka_server(request: pytest.FixtureRequest, node: Node, tmp_path: Path) -> Iterator[Haraka]:
    """A Haraka without the plugin, not started."""
    packages = install(harakas.RELEASES[request.param], node)
    server = Haraka(tmp_path / "haraka", node=node, packages=packages, version=request.param, storage=DISCARD)
    yield server
    server.kill()


def hand_over(server: Haraka, recipient: str) -> None:
    with server.client() as client:
        client.sendmail("a@sender.test", [recipient], "Subject: a message\r\n\r\nIts body.\r\n")


@pytest.mark.slow
def test_haraka_tells_of_its_mail_and_is_then_as_it_was_before(
    haraka_server: Haraka, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    server = haraka_server
    folder = server.program.log.parent
    (folder / "config" / "postel.ini").unlink()
    before = content(folder)
    intake = otlp_receiver.endpoint.removeprefix("http://")
    said = postel("install", "--haraka", folder, intake=intake)
    assert f"add the line 'postel' to {folder / 'config/plugins'}" in said
    settings = folder / "config" / "postel.ini"
    assert f"\nendpoint = {otlp_receiver.endpoint}\n" in settings.read_text()
    assert "nothing to do" in postel("install", "--haraka", folder, intake=intake)
    settings.write_text(f"{settings.read_text().replace(';bufferDirectory =', f'bufferDirectory = {tmp_path}/buffer')}")

    server.start()
    (found,) = [each for each in haraka.find().servers if each.folder == folder]
    assert found.running
    assert found.running.pid in server.program.pids()
    until(lambda: kinds(otlp_receiver) == ["single"], 15, "the process has the plugin")
    hand_over(server, "a@here.test")
    until(lambda: told(otlp_receiver, "haraka.message.accepted"), 15, "the message is told")
    server.stop()

    postel("uninstall", "--haraka", folder)
    saved = folder / "config" / "postel.ini.saved"
    assert "/buffer" in saved.read_text()
    saved.unlink()
    assert {name: is_ for name, is_ in content(folder).items() if name in before and "haraka.log" not in name} == {
        name: was for name, was in before.items() if "haraka.log" not in name
    }
    assert not (folder / "plugins" / "postel").exists()
    count = len(otlp_receiver.records())
    server.start()
    hand_over(server, "b@here.test")
    server.stop()
    assert len(otlp_receiver.records()) == count


def told(receiver: OtlpThread, name: str) -> list[object]:
    return [record for record in receiver.records() if record.name == name]


@pytest.mark.parametrize(("server", "fixture"), [("zone-mta", "zone_mta_plugin"), ("haraka", "haraka_plugin")])
def test_what_is_installed_is_what_npm_packs(server: str, fixture: str, request: pytest.FixtureRequest) -> None:
    plugin: Path = request.getfixturevalue(fixture)
    packed = {path.relative_to(plugin): path.read_bytes() for path in plugin.rglob("*") if path.is_file()}
    ours = {Path(place): content for place, content in bundles()[server].read().items()}
    assert ours == packed
