import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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


async def test_programs_end_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    record = tmp_path / "ends"
    code = """
import signal, sys, time
def end(*_):
    time.sleep(0.2)
    with open({path!r}, 'a') as file: file.write({name!r})
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print('here'); time.sleep(60)
"""
    output = io.StringIO()
    programs = [
        python(name, code.format(path=str(record), name=name), stop_rank=rank)
        for name, rank in (("c", 2), ("a", 0), ("b", 1))
    ]
    supervisor = Supervisor(programs, output=output)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: output.getvalue().count("here") == 3)
    supervisor.stop()
    assert await running == 0
    assert record.read_text() == "abc"


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
