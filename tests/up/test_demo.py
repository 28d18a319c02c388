"""What `postel demo` says of the receiver that it sends to."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from postel.otlp.answers import Outcome
from postel.otlp.errors import Malformed, Retryable
from support.environment import without_settings
from support.otlp_receiver import running_receiver
from support.ports import free_port

WAITS = "the OTLP receiver takes nothing now"
AGAIN = "the OTLP receiver takes data again"
SENT = "the demo platform's day so far is sent"


class Demo:
    """A `postel demo` that runs."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def said(self) -> str:
        return self._log.read_text("utf-8")

    async def says(self, text: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            await asyncio.sleep(0.05)


@asynccontextmanager
async def demo(folder: Path, endpoint: str) -> AsyncIterator[Demo]:
    log = folder / "demo.log"
    kept = without_settings()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postel.cli", "demo"),
            cwd=folder,
            env={**kept, "POSTEL_OTLP__ENDPOINT": endpoint, "POSTEL_DATA_DIR": str(folder / "data")},
            stdout=output,
            stderr=output,
        )
    try:
        yield Demo(process, log)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def test_nobody_who_listens_is_said_once_with_where_that_is(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    async with demo(tmp_path, endpoint) as running:
        await running.says(WAITS)
        # Two more tries.
        await asyncio.sleep(2.5)
        said = running.said
    assert running.process.returncode == 0
    (line,) = (line for line in said.splitlines() if WAITS in line)
    assert f"endpoint={endpoint}" in line
    assert "All connection attempts failed" in line
    assert SENT not in said


async def test_a_receiver_that_takes_data_again_is_said_and_only_then_the_day_is_sent(tmp_path: Path) -> None:
    async with running_receiver() as receiver:
        receiver.answer = Retryable(1, "the disk is full")
        async with demo(tmp_path, receiver.http) as running:
            await running.says(WAITS)
            assert "the disk is full" in running.said
            assert SENT not in running.said
            receiver.answer = Outcome()
            await running.says(SENT)
            said = running.said
        assert said.count(WAITS) == said.count(AGAIN) == 1
        assert said.index(WAITS) < said.index(AGAIN) < said.index(SENT)


async def test_a_refusal_says_by_whom(tmp_path: Path) -> None:
    async with running_receiver() as receiver:
        receiver.answer = Malformed("nothing of mine")
        async with demo(tmp_path, receiver.http) as running:
            assert await asyncio.wait_for(running.process.wait(), 20) == 2
        assert f"postel: {receiver.http} refuses the demo: HTTP 400: nothing of mine" in running.said
        assert SENT not in running.said
