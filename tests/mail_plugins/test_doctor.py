"""`postel doctor` of real Zone-MTAs with, with half of, and without the plugin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed.fixtures import NewZoneMta, WatchedZoneMta
from testbed.program import Program, until

from support.otlp_thread import OtlpThread
from support.ports import free_port
from support.running_agent import environment

pytestmark = pytest.mark.slow


@contextmanager
def agent(variables: dict[str, str], folder: Path) -> Iterator[Program]:
    command = [sys.executable, "-m", "postel.cli", "agent"]
    program = Program("agent", command, folder / "agent.log", environment=variables)
    try:
        program.start(lambda: "the intake listens" in program.said())
        yield program
    finally:
        program.kill()


def lines(variables: dict[str, str], subject: str) -> list[str]:
    """What the doctor says of a subject, what to do about it with it."""
    command = [sys.executable, "-m", "postel.cli", "doctor"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    said = done.stdout.replace("\n      ", " ").splitlines()
    return [line for line in said if line[6:].startswith(subject)]


def test_it_says_in_which_processes_the_plugin_is(
    watched_zone_mta: WatchedZoneMta, new_zone_mta: NewZoneMta, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    intake = free_port()
    server = watched_zone_mta(f"http://127.0.0.1:{intake}")
    variables = environment(
        tmp_path,
        otlp_receiver.endpoint,
        INTAKE__ADDRESS=f"127.0.0.1:{intake}",
        DISCOVERY__ZONE_MTA_PORT=server.api_port,
    )
    subject = f"plugin of zone-mta at node-1:{server.api_port}: "
    with agent(variables, tmp_path) as program:
        server.send(3)
        server.wait_until_idle()
        # A receiver, a main process and the senders of two zones; a heartbeat every 2 s.
        # Each time the doctor is asked it is a program that starts.
        until(lambda: all_have_it(lines(variables, subject)), 30, "all processes have it", pause=0.5)
        (line,) = lines(variables, subject)
        assert "main (1), receiver (1), sender (" in line
        assert " 0 dropped" in line
        # Queued and delivered, three times, beside the heartbeats.
        until(lambda: _delivered(lines(variables, subject)[0]) >= 6, 20, "the events are delivered")

        program.kill()
        with agent(variables, tmp_path):
            # It is known over a restart of the agent.
            assert lines(variables, subject)[0].startswith("ok ")

    bare = new_zone_mta(("only",))
    variables["POSTEL_DISCOVERY__ZONE_MTA_PORT"] = str(bare.api_port)
    (line,) = lines(variables, "plugin of zone-mta: ")
    assert line.startswith(f"note  plugin of zone-mta: none was heard of at 127.0.0.1:{bare.api_port}")


def test_it_complains_where_a_kind_of_process_lacks_it(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    variables = environment(tmp_path, otlp_receiver.endpoint)
    with agent(variables, tmp_path):
        address = variables["POSTEL_INTAKE__ADDRESS"]
        server = watched_zone_mta(f"http://{address}", plugin={"enabled": ["main", "receiver"]})
        subject = f"plugin of zone-mta at node-1:{server.api_port}: "
        until(lambda: any("receiver (1)" in line for line in lines(variables, subject)), 30, "both are heard")
        (line,) = lines(variables, subject)
    assert line.startswith("FAIL ")
    assert "main (1), receiver (1) since " in line
    assert "; not in: sender mend: load it in all processes" in line


def all_have_it(said: list[str]) -> bool:
    return bool(said) and "sender (" in said[0] and said[0].startswith("ok ")


def _delivered(line: str) -> int:
    return int(line.partition(" emitted, ")[2].partition(" delivered")[0])
