import asyncio
import io
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import psutil
import pytest

from postel.supervisor import Program, Supervisor


def python(name: str, code: str, **options: int | bool) -> Program:
    return Program(name, [sys.executable, "-u", "-c", code], **options)  # type: ignore[arg-type]


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)


SLEEP = "import time; print('here'); time.sleep(60)"


async def test_a_program_that_dies_is_started_again_and_its_death_is_told() -> None:
    output = io.StringIO()
    supervisor = Supervisor([python("one", SLEEP), python("three", SLEEP)], output=output)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: output.getvalue().count("here") == 2)
    first, other = supervisor.pid("one"), supervisor.pid("three")
    assert first
    os.kill(first, signal.SIGKILL)
    await until(lambda: output.getvalue().count("here") == 3)
    assert supervisor.pid("one") not in (None, first)
    assert supervisor.pid("three") == other
    assert "one   | ended with signal SIGKILL after 0 s; starts again in 0.5 s" in output.getvalue()
    supervisor.stop()
    assert await running == 0


RECORD = """
import signal, sys, time
def end(*_):
    time.sleep(0.2)
    print('ending')
    write({name!r})
    sys.exit(0)
def write(text):
    with open({path!r}, 'a') as file: file.write(text)
signal.signal(signal.SIGTERM, end)
write({name!r}.upper())
for turn in range(600): print('here', turn); time.sleep(0.1)
"""


def recording(record: Path) -> list[Program]:
    """Programs that write A, B, C when they start and a, b, c when they end, which they are asked to in this order."""
    ranks = (("c", 2), ("a", 0), ("b", 1))
    return [python(name, RECORD.format(path=str(record), name=name), stop_rank=rank) for name, rank in ranks]


async def test_programs_end_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    record = tmp_path / "record"
    supervisor = Supervisor(recording(record), output=io.StringIO())
    running = asyncio.create_task(supervisor.run())
    await until(lambda: record.exists() and sorted(record.read_text()) == ["A", "B", "C"])
    supervisor.stop()
    assert await running == 0
    assert record.read_text()[3:] == "abc"


async def test_one_that_lingers_goes_on_when_those_before_it_have_ended(tmp_path: Path) -> None:
    record = tmp_path / "record"
    programs = [replace(program, linger_seconds=0.5 * (program.name == "b")) for program in recording(record)]
    supervisor = Supervisor(programs, output=io.StringIO())
    running = asyncio.create_task(supervisor.run())
    await until(lambda: record.exists() and sorted(record.read_text()) == ["A", "B", "C"])
    supervisor.stop()
    await until(lambda: "a" in record.read_text())
    ended = time.monotonic()
    await until(lambda: "b" in record.read_text())
    # Its own end takes 0.2 s.
    assert time.monotonic() - ended >= 0.5
    assert await running == 0
    assert record.read_text()[3:] == "abc"


async def test_one_that_has_ended_is_not_waited_for() -> None:
    supervisor = Supervisor([replace(python("gone", "print('here')"), linger_seconds=30)], output=io.StringIO())
    running = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.restarts["gone"])
    supervisor.stop()
    async with asyncio.timeout(10):
        assert await running == 0


def hung_up_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def hung_up_terminal() -> TextIO:
    master, terminal = pty.openpty()
    os.close(master)
    return os.fdopen(terminal, "w")


def full_disk() -> TextIO:
    return Path("/dev/full").open("w", encoding="utf-8")


@pytest.mark.parametrize("nobody", [hung_up_pipe, hung_up_terminal, full_disk])
async def test_where_nobody_takes_the_log_all_else_goes_on(tmp_path: Path, nobody: Callable[[], TextIO]) -> None:
    record = tmp_path / "record"
    with nobody() as output:
        supervisor = Supervisor(recording(record), output=output)
        running = asyncio.create_task(supervisor.run())
        await until(lambda: record.exists() and sorted(record.read_text()) == ["A", "B", "C"])
        first = supervisor.pid("a")
        assert first
        os.kill(first, signal.SIGKILL)
        await until(lambda: record.read_text()[3:] == "A")
        # The child may write before its start is known here.
        await until(lambda: supervisor.pid("a") not in (None, first))
        supervisor.stop()
        assert await running == 0
    assert record.read_text()[4:] == "abc"


async def test_what_takes_the_log_again_gets_the_next_lines(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    terminal = hung_up_terminal()
    with os.fdopen(writing, "w") as output, os.fdopen(reading) as lines, terminal:
        took = os.dup(writing)
        os.dup2(terminal.fileno(), writing)
        supervisor = Supervisor(recording(tmp_path / "record"), output=output)
        running = asyncio.create_task(supervisor.run())
        await until(lambda: supervisor.pid("a"))
        await asyncio.sleep(0.5)
        os.dup2(took, writing)
        os.close(took)
        assert "| here" in await asyncio.to_thread(lines.readline)
        supervisor.stop()
        assert await running == 0


async def test_a_fault_in_keeping_a_program_is_raised_once_all_have_ended_in_their_order(tmp_path: Path) -> None:
    record = tmp_path / "record"

    def fail(line: str) -> str:
        if sorted(record.read_text()) == ["A", "B", "C"]:
            raise LookupError(line)
        return line

    # The fault is in keeping b, which is to end after a.
    programs = [replace(each, clean_line=fail) if each.name == "b" else each for each in recording(record)]
    supervisor = Supervisor(programs, output=io.StringIO())
    with pytest.raises(LookupError, match="here"):
        await asyncio.wait_for(supervisor.run(), 20)
    assert record.read_text()[3:] == "abc"
    assert [supervisor.pid(name) for name in "abc"] == [None] * 3


async def test_a_program_that_refuses_its_settings_stops_everything() -> None:
    output = io.StringIO()
    supervisor = Supervisor(
        [python("good", SLEEP), python("bad", "import sys; print('wrong key'); sys.exit(2)", refuses=True)],
        output=output,
    )
    assert await asyncio.wait_for(supervisor.run(), 20) == 2
    assert "bad  | wrong key" in output.getvalue()
    assert supervisor.pid("good") is None


async def test_exit_code_2_of_a_stranger_is_a_death_like_any_other() -> None:
    output = io.StringIO()
    supervisor = Supervisor([python("good", SLEEP), python("panics", "import sys; sys.exit(2)")], output=output)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.restarts["panics"] >= 2)
    assert supervisor.pid("good")
    supervisor.stop()
    assert await running == 0


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_stop_while_a_child_is_on_its_way_ends_that_child_too(turns: int) -> None:
    supervisor = Supervisor([python("late", SLEEP)], output=io.StringIO())
    running = asyncio.create_task(supervisor.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    supervisor.stop()
    assert await asyncio.wait_for(running, 5) == 0
    assert supervisor.pid("late") is None


async def test_a_program_that_does_not_exist_is_named() -> None:
    output = io.StringIO()
    supervisor = Supervisor([Program("ghost", ["/nowhere/ghost"])], output=output)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "ghost | cannot be started: " in output.getvalue())
    supervisor.stop()
    assert await running == 0


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import asyncio, sys\n"
        "from postel.supervisor import Program, Supervisor\n"
        f"program = Program('child', [sys.executable, '-u', '-c', {SLEEP!r}])\n"
        "asyncio.run(Supervisor([program]).run())\n"
    )
    parent = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    assert parent.stderr
    assert "here" in parent.stderr.readline()
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    parent.stderr.close()
    assert child.wait(timeout=5) is not None or not child.is_running()
