"""Mounts of a test's own, which end with the program that made them."""

from __future__ import annotations

import os
import shutil
import subprocess

from support.requirements import require


def mounting() -> list[str]:
    """The command that runs a program as root with mounts of its own; skips where nobody may mount."""
    require("unshare", available=shutil.which("unshare"), how="install util-linux; Linux alone has it")
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    refused = subprocess.run([*command, "true"], capture_output=True, check=False, text=True)
    require("mounts", available=not refused.returncode, how=f"the kernel lets nobody mount: {refused.stderr.strip()}")
    return command
