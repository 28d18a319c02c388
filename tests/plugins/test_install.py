"""Putting a plugin in and taking it out: what is the user's stays, what was made goes, and what cannot be is said."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from postel.cli import main
from postel.errors import PostelError
from postel.plugins import haraka, zone_mta
from postel.plugins.bundle import Bundle, bundles
from postel.plugins.install import Record, plan_install, plan_uninstall
from postel.plugins.servers import PluginError, Server
from support.mounts import mounting

CHECKOUT = Path(__file__).parents[2]
TEMPLATE = '[api]\nport = 12080\n\n[plugins]\n# @include "plugins/*.toml"\n\n[pools]\n# @include "pools.toml"\n'

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


def plugin(folder: Path, *, server: str = "zone-mta", version: str = "1.0.0", sample: str = "postel.toml") -> Bundle:
    """A plugin of two files, in a version of the test's own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.js").write_text(f"// {version}\n")
    (folder / sample).write_text(f'# {version}\n["modules/x"]\nenabled = true\n# endpoint = "http://127.0.0.1:4319"\n')
    files = {
        PurePosixPath("index.js"): folder / "index.js",
        PurePosixPath("config", sample): folder / sample,
    }
    return Bundle(server, f"postel-{server}", version, files)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application as WildDuck's set-up makes it, with its configuration in a folder of its own."""
    folder = tmp_path / "opt" / "zone-mta"
    (folder / "node_modules/@zone-eu/zone-mta").mkdir(parents=True)
    (folder / "node_modules/@zone-eu/zone-mta/package.json").write_text(
        '{"name": "@zone-eu/zone-mta", "version": "3.11.0"}'
    )
    (folder / "package.json").write_text('{"scripts": {"start": "node index.js --config=../../etc/zonemta.toml"}}')
    (tmp_path / "etc" / "plugins").mkdir(parents=True)
    (tmp_path / "etc" / "zonemta.toml").write_text(TEMPLATE)
    return folder


@pytest.fixture
def server(app: Path) -> Server:
    (found,) = zone_mta.find(app).servers
    return found


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """An instance of Haraka, as `haraka -i` makes it."""
    (tmp_path / "config").mkdir()
    (tmp_path / "plugins").mkdir()
    (tmp_path / "config" / "plugins").write_text("# access\nrspamd\nqueue/discard\n")
    return tmp_path


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")}


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["plugins", *map(str, arguments)])


def test_settings_and_plugin_go_where_the_configuration_includes_them(server: Server, tmp_path: Path) -> None:
    before = state(tmp_path)
    plan_install(server, bundles()["zone-mta"], {"endpoint": "http://127.0.0.1:9999"}).run()
    settings = (tmp_path / "etc/plugins/postel.toml").read_text()
    assert f'\n["{server.code}"]\n' in settings
    assert '\nendpoint = "http://127.0.0.1:9999"\n' in settings
    assert (server.code / "node_modules/postel-emitter/index.js").is_file()
    assert plan_install(server, bundles()["zone-mta"], {"endpoint": "http://127.0.0.1:9999"}).steps == []
    plan_uninstall(server).run()
    assert state(tmp_path) == before


TLS = {"TLS_CERTIFICATE": "/etc/postel/tls.crt"}
SHOWN = {"TLS_CLIENT_CERTIFICATE": "/etc/postel/c.crt", "TLS_CLIENT_KEY": "/etc/postel/c.key"}


@pytest.mark.parametrize(
    ("intake", "written", "said"),
    [
        ({}, '# endpoint = "http://127.0.0.1:4319"', ""),
        ({"ADDRESS": "127.0.0.1:4320"}, 'endpoint = "http://127.0.0.1:4320"', ""),
        ({"ADDRESS": "0.0.0.0:4319", "TOKEN": "t0"}, 'endpoint = "http://127.0.0.1:4319"', "asks for a token"),
        ({"ADDRESS": "0.0.0.0:4319", **TLS, "TOKEN": "t0"}, 'endpoint = "https://127.0.0.1:4319"', "asks for a token"),
        ({"ADDRESS": "0.0.0.0:4319", **TLS}, "", "certificate must be of 127.0.0.1, else set endpoint = ... in"),
        ({"ADDRESS": "[::1]:4319", **TLS}, 'endpoint = "https://[::1]:4319"', "must be of ::1, else"),
        ({"ADDRESS": "mx.example.org:4319", **TLS, "TLS_CA": "/a"}, '# token = ""', "must be of mx.example.org, else"),
        (TLS, 'endpoint = "https://127.0.0.1:4319"', "trust the agent's certificate: set tlsCa = ... in"),
        ({**TLS, "TLS_CA": "/etc/postel/a.crt"}, 'tlsCa = "/etc/postel/a.crt"', "must be let to /etc/postel/a.crt\n"),
        ({**TLS, "TLS_CLIENT_CA": "/b.crt"}, '# tlsClientCertificate = ""', "for a certificate: set tlsClientCertif"),
        ({**TLS, **SHOWN}, 'tlsClientCertificate = "/etc/postel/c.crt"', "must be let to /etc/postel/c.crt, /etc/pos"),
        ({**TLS, **SHOWN}, 'tlsClientKey = "/etc/postel/c.key"', ""),
        ({**TLS, "SOCKET": "/run/postel/i.sock", "TLS_CA": "/a"}, '# tlsCa = ""', "let to /run/postel/i.sock\n"),
        ({"SOCKET": "/run/postel/i.sock", "TOKEN": "t0"}, '# token = ""', "asks for a token"),
        ({"SOCKET": "/run/postel/i.sock"}, 'endpoint = "unix:/run/postel/i.sock"', "must be let to /run/postel/i.sock"),
    ],
)
def test_the_plugin_sends_where_the_agent_listens(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, intake: dict[str, str], written: str, said: str
) -> None:
    for key, value in intake.items():
        monkeypatch.setenv(f"POSTEL_INTAKE__{key}", value)
    done = command("install", "--zone-mta", app)
    assert done.exit_code == 0, done.output
    settings = (tmp_path / "etc/plugins/postel.toml").read_text()
    assert written in settings.splitlines()
    assert said in done.output
    # A secret goes into no file that others may read.
    assert "t0" not in settings


def test_a_key_without_its_certificate_is_written_nowhere(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {**TLS, "TLS_CLIENT_KEY": "/etc/postel/c.key"}.items():
        monkeypatch.setenv(f"POSTEL_INTAKE__{key}", value)
    done = command("install", "--zone-mta", app)
    assert done.exit_code == 2
    assert "[intake] tls_client_key: /etc/postel/c.key is of no tls_client_certificate; set that too" in done.output


def test_settings_of_both_samples_are_written_in_their_own_way(server: Server, instance: Path) -> None:
    values = {"endpoint": "https://127.0.0.1:4319", "tlsCa": '/etc/"a" b.crt'}
    (other,) = haraka.find(instance).servers
    plan_install(server, bundles()["zone-mta"], values).run()
    plan_install(other, bundles()["haraka"], values).run()
    assert server.config
    (section,) = tomllib.loads(server.config.read_text()).values()
    assert {name: section[name] for name in values} == values
    lines = (instance / "config/postel.ini").read_text().splitlines()
    assert [f"{name} = {value}" for name, value in values.items()] == [line for line in lines if line[:1].isalpha()]
    assert ";tlsClientCertificate =" in lines


def test_a_later_version_replaces_what_is_unchanged(server: Server, tmp_path: Path) -> None:
    before = state(server.folder)
    plan_install(server, plugin(tmp_path / "old")).run()
    plan_install(server, plugin(tmp_path / "new", version="2.0.0")).run()
    assert server.config
    assert server.config.read_text().startswith("# 2.0.0\n")
    assert (server.code / "index.js").read_text() == "// 2.0.0\n"
    assert Record.of(server) == replace(Record.of(server) or Record("", ""), version="2.0.0", made_parent=True)
    plan_uninstall(server).run()
    assert state(server.folder) == before


def test_a_later_version_leaves_settings_that_were_changed(server: Server, tmp_path: Path) -> None:
    plan_install(server, plugin(tmp_path / "old")).run()
    assert server.config
    server.config.write_text("mine\n")
    for version in ("2.0.0", "3.0.0"):
        plan = plan_install(server, plugin(tmp_path / version, version=version))
        plan.run()
        assert plan.notes == [f"{server.config} was changed and stays as it is"]
    assert server.config.read_text() == "mine\n"
    assert (server.code / "index.js").read_text() == "// 3.0.0\n"
    plan_uninstall(server).run()
    assert not server.config.exists()
    assert server.config.with_name("postel.toml.saved").read_text() == "mine\n"


def test_settings_that_were_there_before_are_never_touched(server: Server, tmp_path: Path) -> None:
    assert server.config
    server.config.write_text("mine\n")
    plan = plan_install(server, plugin(tmp_path / "old"))
    plan.run()
    assert any(f'add ["{server.code}"] with enabled = true' in note for note in plan.notes)
    plan_uninstall(server).run()
    assert server.config.read_text() == "mine\n"
    assert not server.code.exists()


def test_a_plugin_that_somebody_changed_is_put_right(server: Server, tmp_path: Path) -> None:
    bundle = plugin(tmp_path / "it")
    plan_install(server, bundle).run()
    (server.code / "index.js").write_text("broken")
    (server.code / "more.js").write_text("")
    plan_install(server, bundle).run()
    assert (server.code / "index.js").read_text() == "// 1.0.0\n"
    assert not (server.code / "more.js").exists()


def test_where_the_settings_moved_the_old_ones_go(server: Server, tmp_path: Path) -> None:
    bundle = plugin(tmp_path / "it")
    plan_install(server, bundle).run()
    elsewhere = tmp_path / "elsewhere" / "postel.toml"
    elsewhere.parent.mkdir()
    assert server.config
    moved = replace(server, config=elsewhere)
    plan_install(moved, bundle).run()
    assert (server.config.exists(), elsewhere.exists()) == (False, True)
    plan_uninstall(moved).run()
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda code: code.mkdir(parents=True), "was not put there by `postel plugins install`"),
        (lambda code: (code.parent.mkdir(), code.symlink_to("/etc")), "was not put there"),
        (
            lambda code: (code.parents[1] / "node_modules" / "postel-zone-mta").mkdir(),
            "is the same plugin, installed by npm",
        ),
    ],
)
def test_what_is_somebody_elses_is_left_alone(
    app: Path, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(app / "plugins" / "postel")
    before = state(tmp_path)
    done = command("install", "--zone-mta", app)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert state(tmp_path) == before


def test_a_record_that_names_other_files_removes_nothing(server: Server, tmp_path: Path) -> None:
    plan_install(server, plugin(tmp_path / "it")).run()
    victim = tmp_path / "passwd"
    victim.write_text("")
    record = json.loads((server.code / "postel-installed.json").read_text())
    (server.code / "postel-installed.json").write_text(json.dumps({**record, "config": str(victim)}))
    with pytest.raises(PluginError, match="is no file of settings that Postel writes"):
        plan_uninstall(server)
    assert victim.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"nothing": "known"}'])
def test_a_damaged_record_is_named(server: Server, text: str) -> None:
    server.code.mkdir(parents=True)
    (server.code / "postel-installed.json").write_text(text)
    with pytest.raises(PluginError, match="is damaged"):
        plan_install(server, bundles()["zone-mta"])


def test_the_configurations_file_links_are_not_written_through(server: Server, tmp_path: Path) -> None:
    assert server.config
    target = tmp_path / "target"
    server.config.symlink_to(target)
    with pytest.raises(PostelError, match="is a symbolic link"):
        plan_install(server, plugin(tmp_path / "it")).run()
    assert not target.exists()
    assert not server.code.exists()


@as_root
def test_what_is_new_belongs_to_whom_the_folder_belongs_to(server: Server, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    assert server.config
    for folder in (server.folder, server.config.parent):
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        folder.chmod(0o750)
    plan_install(server, bundles()["zone-mta"]).run()
    made = [server.code.parent, *server.code.parent.rglob("*"), server.config]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(nobody.pw_uid, nobody.pw_gid)}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o750}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {0o640}
    # Rights that the user gave the settings stay when they are replaced.
    server.config.chmod(0o600)
    plan_install(server, plugin(tmp_path / "new", version="2.0.0")).run()
    assert (server.config.stat().st_mode & 0o777, server.config.stat().st_uid) == (0o600, nobody.pw_uid)


@as_root
def test_without_the_right_to_write_nothing_is_done_and_who_may_is_named(app: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    before = state(tmp_path)
    # Python's own files may be root's alone, so it reads them before it lets go of that.
    become = (
        "import os, sys, postel.settings, postel.plugins.commands, postel.cli; os.setuid(65534);"
        "postel.cli.main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", become, "plugins", "install", "--zone-mta", app],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "HOME": "/nonexistent"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{app} cannot be written or read by this user" in done.stderr
    assert "do it as root, with sudo" in done.stderr
    assert "Traceback" not in done.stderr
    assert state(tmp_path) == before


def test_a_read_only_file_system_is_named(app: Path, tmp_path: Path) -> None:
    before = state(tmp_path)
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" $COMMAND "$1"'
    done = subprocess.run(
        [*mounting(), "sh", "-c", script, "sh", str(app), sys.executable],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "COMMAND": "-m postel.cli plugins install --zone-mta"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2, done.stderr
    assert f"{app} is on a file system that is mounted read-only" in done.stderr
    assert "Traceback" not in done.stderr
    assert state(tmp_path) == before


def test_a_folder_of_no_server_is_refused(tmp_path: Path) -> None:
    for option, text in (
        ("--zone-mta", "is no folder that a Zone-MTA runs in"),
        ("--haraka", "is no folder of a Haraka"),
    ):
        done = command("install", option, tmp_path)
        assert (done.exit_code, text in done.output) == (2, True), done.output


def test_where_no_file_can_be_given_to_the_configuration_the_section_is_said(app: Path, tmp_path: Path) -> None:
    (tmp_path / "etc" / "zonemta.toml").write_text("[api]\nport = 12080\n")
    (server,) = zone_mta.find(app).servers
    plan = plan_install(server, bundles()["zone-mta"])
    plan.run()
    assert (server.code / "index.js").is_file()
    (note,) = plan.notes
    assert f"{tmp_path / 'etc/zonemta.toml'} includes no folder of plugins' settings" in note
    assert str(server.code) in note
    plan_uninstall(server).run()
    assert not server.code.exists()


@pytest.mark.parametrize(
    ("text", "included"),
    [
        (TEMPLATE, True),
        ('[plugins]\n  #@include "./plugins/*.toml"\n', True),
        ('[plugins] # all\n# @INCLUDE "plugins/p*.toml"\n', True),
        ('[plugins]\n# @include "plugins/*.json"\n', False),
        ('[plugins]\n# @include "plugins/postel.toml"\n', False),
        ('[plugins]\n# @include "missing/*.toml"\n', False),
        ('[zones]\n# @include "plugins/*.toml"\n', False),
        ('[plugins]\n[plugins."core/x"]\n# @include "plugins/*.toml"\n', False),
        ("", False),
    ],
)
def test_which_includes_take_a_file_of_settings(app: Path, tmp_path: Path, text: str, *, included: bool) -> None:
    (tmp_path / "etc" / "zonemta.toml").write_text(text)
    (server,) = zone_mta.find(app).servers
    assert server.config == (tmp_path / "etc/plugins/postel.toml" if included else None)


def test_a_configuration_that_is_named_wins(app: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "plugins").mkdir(parents=True)
    shutil.copy(tmp_path / "etc" / "zonemta.toml", tmp_path / "other" / "main.toml")
    (server,) = zone_mta.find(app, tmp_path / "other" / "main.toml").servers
    assert server.config == tmp_path / "other" / "plugins" / "postel.toml"


LINES = st.lists(st.sampled_from(["rspamd", "# postel", "  tls", "queue/discard", "", "postel.x", "ä"]))


@given(lines=LINES, ends=st.booleans(), newline=st.sampled_from(["\n", "\r\n"]))
def test_harakas_list_is_given_one_line_and_is_then_as_before(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], newline: str, *, ends: bool
) -> None:
    folder = tmp_path_factory.mktemp("haraka")
    (folder / "config").mkdir()
    listed = folder / "config" / "plugins"
    listed.write_bytes((newline.join(lines) + newline * ends).encode())
    before = state(folder)
    (server,) = haraka.find(folder).servers
    bundle = plugin(folder.parent / "bundle", server="haraka", sample="postel.ini")
    plan_install(server, bundle).run()
    added = [line.strip() for line in listed.read_bytes().splitlines()]
    assert added.count(b"postel") == 1
    assert added[-1] == b"postel"
    assert plan_install(server, bundle).steps == []
    plan_uninstall(server).run()
    assert state(folder) == before


def test_a_line_that_the_user_wrote_goes_with_what_it_names(instance: Path, tmp_path: Path) -> None:
    (instance / "config" / "plugins").write_text("postel\nrspamd\n")
    (server,) = haraka.find(instance).servers
    plan_install(server, plugin(tmp_path / "bundle", server="haraka", sample="postel.ini")).run()
    plan_uninstall(server).run()
    # Haraka would not start with it.
    assert (instance / "config" / "plugins").read_text() == "rspamd\n"


@pytest.mark.parametrize(("name", "value"), [("config", 5), ("line", None), ("made_parent", "yes"), ("version", [])])
def test_a_record_of_other_types_is_damaged(instance: Path, tmp_path: Path, name: str, value: object) -> None:
    (server,) = haraka.find(instance).servers
    plan_install(server, plugin(tmp_path / "bundle", server="haraka", sample="postel.ini")).run()
    (record,) = server.code.glob("postel-installed.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), name: value}))
    with pytest.raises(PluginError, match="is damaged"):
        plan_uninstall(server)


def test_lines_that_came_later_stay_too(instance: Path, tmp_path: Path) -> None:
    (server,) = haraka.find(instance).servers
    plan_install(server, plugin(tmp_path / "bundle", server="haraka", sample="postel.ini")).run()
    listed = instance / "config" / "plugins"
    listed.write_text(listed.read_text() + "toobusy\n")
    plan_uninstall(server).run()
    assert listed.read_text() == "# access\nrspamd\nqueue/discard\ntoobusy\n"


def test_alone_the_command_says_what_is_where() -> None:
    done = command()
    assert done.exit_code == 0
    assert "Zone-MTA" in done.output or "no mail server" in done.output or "Haraka" in done.output
