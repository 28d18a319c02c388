"""The units, as systemd itself reads and judges them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from postel.cli import main
from postel.services.units import PARTS, wanted
from support.requirements import require
from tools.bootstrap.programs import find_systemd_analyze

# What systemd-analyze finds open, from 0 to 10, at most. The agent and what runs it see the host as it is.
EXPOSURE = dict.fromkeys(PARTS, 1.5) | {"up": 3.0, "agent": 3.0}


@pytest.fixture(scope="module")
def systemd_analyze() -> Path:
    found = find_systemd_analyze()
    require("systemd", available=found)
    assert found
    return found


@pytest.fixture(params=PARTS)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit of a part, in a folder of its own."""
    *_, file = wanted([request.param], Path("/usr/bin/python3"))
    path = tmp_path / PARTS[request.param]
    assert file.place.name == path.name
    path.write_bytes(file.content)
    return path


def test_systemd_takes_each_line(unit: Path, systemd_analyze: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False
    )
    # It says so and goes on where it does not know a key or a value.
    assert (done.returncode, [line for line in done.stderr.splitlines() if "postel" in line]) == (0, [])


def test_systemd_finds_little_exposed(unit: Path, systemd_analyze: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "security", "--offline=yes", "--no-pager", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(rf"Overall exposure level for {re.escape(unit.name)}: ([\d.]+)", done.stdout)
    assert found, done.stdout
    (part,) = (part for part, name in PARTS.items() if name == unit.name)
    assert float(found[1]) <= EXPOSURE[part], done.stdout


def test_each_starts_a_command_that_there_is(unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    python, *arguments = command.split()
    assert (python, arguments[:3]) == ("/usr/bin/python3", ["-P", "-m", "postel.cli"])
    name, *options, config, file = arguments[3:]
    assert (config, file) == ("--config", "${CREDENTIALS_DIRECTORY}/postel.toml")
    monkeypatch.setenv("POSTEL_CONFIG", "")  # which that option sets, for the programs that `up` starts
    settings = tmp_path / "postel.toml"
    settings.write_text("")
    with main.commands[name].make_context(name, [*options, config, str(settings)]) as context:
        assert context.params["settings"]


def test_nothing_is_left_to_be_put_in(unit: Path) -> None:
    assert "@" not in re.sub(r"@(system-service|privileged|resources)\b", "", unit.read_text())


def test_the_agent_sees_no_filesystem_as_its_sandbox_makes_it(unit: Path) -> None:
    """Each of these lays mounts over the host's, and what the agent tells of filesystems would be of those."""
    laid_over = {"ProtectSystem", "ProtectHome", "PrivateTmp", "ReadOnlyPaths", "TemporaryFileSystem", "DynamicUser"}
    keys = set(re.findall(r"^(\w+)=", unit.read_text(), re.MULTILINE))
    sees_host = unit.name in (PARTS["agent"], PARTS["up"])
    assert bool(keys & laid_over) is not sees_host


# As MemoryDenyWriteExecute= and NoNewPrivileges= have it (prctl(2), PR_SET_MDWE and PR_SET_NO_NEW_PRIVS).
_DENIED = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
sys.exit(77) if libc.prctl(65, 1, 0, 0, 0) else os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.slow
def test_the_agent_needs_no_memory_that_is_written_and_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DENIED, sys.executable, "-m", "postel.cli", "agent", "--once"],
        env={"POSTEL_DATA_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    require("mdwe", available=done.returncode != 77, how="Linux 6.3 and later deny it when asked")
    assert done.returncode == 0, done.stderr
    assert '"system.cpu.time"' in done.stdout
