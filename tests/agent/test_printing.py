"""`agent --once` where stdout or stderr is closed, full, or hung up on: no traceback, and an exit code that fits."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.environment import without_settings
from support.ports import free_ports

# The shell closes streams as a user's shell does; "$@" is the program.
PROGRAM = [sys.executable, "-m", "postel.cli", "agent", "--once"]
# As the command, without the log of the long-running programs.
RUN_ONCE = """
import asyncio
from otel_receivers.agent import run_once
from postel.settings import load_settings
asyncio.run(run_once(load_settings(None)))
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    settings = ("ZONE_MTA_PORT", "WILDDUCK_API_PORT", "HARAKA_SMTP_PORT", "RSPAMD_TCP_PORT", "RSPAMD_CONTROLLER_PORT")
    ports = zip(settings, free_ports(len(settings)), strict=True)
    return {
        **without_settings(),
        "POSTEL_DATA_DIR": str(tmp_path / "data"),
        "POSTEL_NODE__ID": "node-1",
        **{f"POSTEL_DISCOVERY__{name}": str(port) for name, port in ports},
    }


async def once(
    variables: dict[str, str], redirection: str, program: list[str] = PROGRAM, stdout: int = PIPE, stderr: int = PIPE
) -> tuple[int, str, str]:
    """Exit code, what came on stdout, what came on stderr."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f'exec "$@" {redirection}', "sh", *program, env=variables, stdout=stdout, stderr=stderr
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, (out or b"").decode(), (err or b"").decode()


@pytest.fixture
def hung_up() -> Iterator[int]:
    """The writing end of a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def assert_only_data(out: str) -> None:
    requests = [json.loads(line) for line in out.splitlines()]
    assert {next(iter(request)) for request in requests} == {"resourceMetrics", "resourceLogs"}


async def test_a_closed_stdout_is_named_before_anybody_is_asked(variables: dict[str, str]) -> None:
    code, _, said = await once(variables, ">&-")
    assert code == 2
    assert said.startswith("postel: stdout is closed")
    assert said.count("\n") == 1


async def test_a_full_disk_is_named(variables: dict[str, str]) -> None:
    code, _, said = await once(variables, ">/dev/full")
    assert code == 2
    *looked, last = said.splitlines()
    assert last == "postel: stdout cannot be written: No space left on device"
    assert all(line.startswith("looked for ") for line in looked)


async def test_a_reader_that_had_enough_is_no_error(variables: dict[str, str], hung_up: int) -> None:
    code, _, said = await once(variables, "", stdout=hung_up)
    assert code == 0
    assert all(line.startswith("looked for ") for line in said.splitlines())


async def test_words_that_nobody_takes_stop_nothing(variables: dict[str, str], hung_up: int) -> None:
    code, out, _ = await once(variables, "2>/dev/full")
    assert code == 0
    assert_only_data(out)
    code, out, _ = await once(variables, "", stderr=hung_up)
    assert code == 0
    assert_only_data(out)


async def test_words_never_go_where_the_data_goes(variables: dict[str, str]) -> None:
    code, out, _ = await once(variables, "2>&-", program=[sys.executable, "-c", RUN_ONCE])
    assert code == 0
    assert_only_data(out)
