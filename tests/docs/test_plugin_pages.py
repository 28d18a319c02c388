"""The pages of the mail servers' plugins: their commands in copies, their samples as the plugins have them.

What the real servers do with a plugin is of tests/mail_plugins.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from postel.settings import load_settings
from support.bootstrap import copy_project
from support.environment import forget_settings
from support.markdown import CHECKOUT, reading, run, variables
from support.node import Node

# No systemd runs here; `postel plugins` names the unit that is to be restarted.
RESTART = {"haraka": "systemctl restart haraka", "zone-mta": "systemctl restart zone-mta"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """npm writes into what it packs. Of the plugins' tests only those of the settings: tests/mail_plugins runs all."""
    checkout = copy_project(tmp_path_factory.mktemp("checkout"))
    for path in (checkout / "mail_plugins").glob("*/test/*.test.js"):
        if path.name not in ("settings.test.js", "config.test.js"):
            path.unlink()
    return checkout


@pytest.fixture
def shell(node: Node, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell whose node and npm are the tests', and whose npm reaches no registry."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "node").symlink_to(node.path)
    (programs / "npm").write_text(f'#!/bin/sh\nexec {node.path} {node.npm_cli} "$@"\n')
    (programs / "npm").chmod(0o755)
    quiet = {f"npm_config_{name}": "false" for name in ("audit", "fund", "update_notifier", "progress")}
    return variables(programs, npm_config_offline="true", POSTEL_DATA_DIR=str(tmp_path), **quiet)


def server(name: str, folder: Path) -> Path:
    """A folder as the server's set-up makes it, as far as the installer looks at it."""
    if name == "haraka":
        (folder / "config").mkdir(parents=True)
        (folder / "config" / "plugins").write_text("queue/discard\n")
    else:
        (folder / "node_modules/@zone-eu/zone-mta").mkdir(parents=True)
        package = '{"name": "@zone-eu/zone-mta", "version": "3.11.0"}'
        (folder / "node_modules/@zone-eu/zone-mta/package.json").write_text(package)
        (folder / "package.json").write_text('{"scripts": {"start": "node index.js --config=config/zonemta.toml"}}')
        (folder / "config/plugins").mkdir(parents=True)
        (folder / "config/zonemta.toml").write_text('[plugins]\n# @include "plugins/*.toml"\n')
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "page", "place", "packed", "sample"),
    [
        ("haraka", "mail_plugins/haraka/README.md", "/etc/haraka", "haraka-plugin-postel", "postel.ini"),
        ("zone-mta", "mail_plugins/zone-mta/README.md", "/opt/zone-mta", "postel-zone-mta", "postel.toml"),
    ],
)
def test_the_page_of_a_plugin(
    checkout: Path, shell: dict[str, str], tmp_path: Path, *, name: str, page: str, place: str, packed: str, sample: str
) -> None:
    by_npm, by_postel = tmp_path / "by-npm", server(name, tmp_path / "by-postel")
    by_npm.mkdir()
    instead = {
        "install --dry-run": f"install --dry-run --{name} {by_postel}",
        RESTART[name]: "true",
        place: str(by_npm),
        f"/path/of/{packed}": f"{checkout}/mail_plugins/{packed}",
    }
    with reading(page, instead=instead) as reader:
        install, npm = reader.take("sh")
        before = sorted(by_postel.rglob("*"))
        said = run(install, tmp_path, shell)
        assert "would" in said
        assert sorted(by_postel.rglob("*")) == before
        # "without it, does it"
        run(install.replace("--dry-run ", ""), tmp_path, shell)
        assert (by_postel / "plugins" / "postel").is_dir()
        run(npm, checkout, shell)
        assert (by_npm / "node_modules" / packed / "node_modules/postel-emitter").is_dir()
        # The sample, which the plugin's own tests load.
        path = CHECKOUT / "mail_plugins" / name / "config" / sample
        (shown,) = reader.take(path.suffix.removeprefix("."))
        assert shown.strip() == path.read_text("utf-8").strip()


@pytest.mark.slow
def test_the_page_of_all(
    checkout: Path, shell: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_settings(monkeypatch)
    instead = {
        # This machine has neither the user nor the group.
        "-o postel -g mail": f"-o {os.geteuid()} -g {os.getegid()}",
        "/run/postel": str(tmp_path / "run"),
    }
    with reading("mail_plugins/README.md", instead=instead) as page:
        (folder, npm), (toml,) = page.take("sh"), page.take("toml")
        run(folder, tmp_path, shell)
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o2750
        (tmp_path / "postel.toml").write_text(toml)
        intake = load_settings(tmp_path / "postel.toml").intake
        assert (intake.socket, intake.socket_mode) == (tmp_path / "run" / "intake.sock", "0660")
        said = run(npm, checkout / "mail_plugins", shell)
        assert len(re.findall(r"^\S+ pass [1-9]", said, re.MULTILINE)) == 3
        assert (checkout / "mail_plugins" / "postel-zone-mta-0.1.0.tgz").is_file()
