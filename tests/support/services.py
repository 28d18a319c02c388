"""The units of `postel install` where no systemd runs: what it does to files is done to a root folder of the test's."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from support.requirements import require

SYSTEMD = {
    "/opt/postel/bin/postel install": "postel install --root $ROOT --python /opt/postel/bin/python",
    "systemd-sysusers": "systemd-sysusers --root=$ROOT",
    "systemctl daemon-reload": "true",
    "systemctl enable --now": "systemctl --root=$ROOT enable",
}
"""A page's commands -> what stands for them; ``ROOT`` is that folder."""


def make_root(folder: Path) -> Path:
    """An empty root folder; the test is skipped where systemd's programs are missing."""
    require("systemd", available=shutil.which("systemd-sysusers") and shutil.which("systemctl"))
    (folder / "etc/systemd/system").mkdir(parents=True)
    return folder


def started_by(unit: Path, settings: Path, variables: Path) -> str:
    """What systemd starts by a unit, as a block of a shell's.

    Args:
        unit: its file.
        settings: what stands for `/etc/postel/postel.toml`.
        variables: what stands for `/etc/postel/environment`, which need not be there.
    """
    text = unit.read_text("utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert "\nLoadCredential=postel.toml:/etc/postel/postel.toml\n" in text
    assert "\nEnvironmentFile=-/etc/postel/environment\n" in text
    command = command.replace("/opt/postel/bin/python", sys.executable)
    command = command.replace("${CREDENTIALS_DIRECTORY}/postel.toml", str(settings))
    given = f"set -a\n. {variables}\nset +a\n" if variables.exists() else ""
    return f"{given}exec {command}\n"
