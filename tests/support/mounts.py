"""Mounts of a test's own, which end with the program that made them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from support.requirements import require


def mounting() -> list[str]:
    """The command that runs a program as root with mounts of its own; skips where nobody may mount."""
    require("unshare", available=shutil.which("unshare"), how="install util-linux; Linux alone has it")
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    # In a chroot the root is no mount that could be made private; where none is shared it need not be.
    kept = [*command, "--propagation", "unchanged"]
    refused = _refused(command)
    if refused and not _shared() and not _refused(kept):
        return kept
    require("mounts", available=not refused, how=f"the kernel lets nobody mount: {refused}")
    return command


def _refused(command: list[str]) -> str:
    tried = subprocess.run([*command, "true"], capture_output=True, check=False, text=True)
    return "" if tried.returncode == 0 else tried.stderr.strip() or f"exit code {tried.returncode}"


def _shared() -> bool:
    """Whether what is mounted here may be seen elsewhere (proc_pid_mountinfo(5), optional fields)."""
    return " shared:" in Path("/proc/self/mountinfo").read_text("utf-8", "replace")
