"""The WebSocket under load: 2,000 events a second, 200 listeners by 20 filters, one that takes all, one that is frozen.

`make bench ARGS=tests/bench/test_live.py`; figures in docs/benchmarks.md. POSTEL_LIVE_SECONDS says for how long.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import psutil
import psycopg
import pytest
from websockets.asyncio.client import ClientConnection, connect

from support.node_observer import cpu_seconds
from support.page import serving_as_a_program
from support.postgres import fresh_database, migrate_now, wheel_server

RATE = 2000
FILTERS = 20
LISTENERS = 200
SECONDS = int(os.environ.get("POSTEL_LIVE_SECONDS", "60"))

pytestmark = [pytest.mark.bench, pytest.mark.timeout(SECONDS + 300)]

# A process of its own, so that what it does delays no listener: 100 events in a transaction, 20 times a second.
LOAD = f"""
import sys, time, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    begun = time.monotonic()
    for turn in range({SECONDS * RATE // 100}):
        time.sleep(max(0.0, begun + turn * 0.05 - time.monotonic()))
        connection.execute(
            "INSERT INTO delivery_events"
            " (time, event_id, node_id, instance, event_name, status, queue_id, mx, response, attributes)"
            " SELECT clock_timestamp(), gen_random_uuid(), 'mx1', 'mx1', 'zonemta.delivery.accepted',"
            " 'delivered', md5(n::text), 'mx' || n %% {FILTERS}, '250 2.0.0 Ok: queued as ' || md5(random()::text),"
            " jsonb_build_object('number', %s::bigint + n, 'email.to.address', jsonb_build_array(n || '@there.test'))"
            " FROM generate_series(0, 99) AS n", [turn * 100])
print("late", time.monotonic() - begun - {SECONDS})
"""


class Heard:
    """What one listener got."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.delays: list[float] = []

    async def listen(self, socket: ClientConnection) -> None:
        async for text in socket:
            now = time.time()
            message: dict[str, Any] = orjson.loads(text)
            for event in message.get("events", ()):
                self.numbers.append(event["attributes"]["number"])
                self.delays.append(now - datetime.fromisoformat(event["time"]).timestamp())


@pytest.fixture
def database() -> Iterator[str]:
    with wheel_server() as server, fresh_database(server) as url:
        migrate_now(url)
        yield url


async def open_listener(address: str, **more: Any) -> ClientConnection:
    socket = await connect(address, compression=None, max_size=None, proxy=None, **more.pop("options", {}))
    await socket.send(orjson.dumps({"type": "events", "id": "a", "table": "delivery_events", **more}).decode())
    while orjson.loads(await socket.recv())["type"] != "subscribed":
        pass
    return socket


async def run(address: str, url: str) -> tuple[dict[str, list[Heard]], str]:
    """Listen while the load runs, and a little longer."""
    heard: dict[str, list[Heard]] = {}
    tasks, sockets = [], []
    frozen = await open_listener(address, options={"max_queue": 1})
    for number in range(LISTENERS + 1):
        key = "all" if number == LISTENERS else f"mx{number % FILTERS}"
        more = {} if key == "all" else {"filter": [f"mx={key}"]}
        one = Heard()
        heard.setdefault(key, []).append(one)
        sockets.append(await open_listener(address, **more))
        tasks.append(asyncio.create_task(one.listen(sockets[-1])))
    load = await asyncio.create_subprocess_exec(sys.executable, "-c", LOAD, url, stdout=subprocess.PIPE)
    said, _ = await load.communicate()
    await asyncio.sleep(3)
    await asyncio.gather(*(socket.close() for socket in sockets))
    await asyncio.gather(*tasks, return_exceptions=True)
    # Nothing of it was read; it goes without a word.
    frozen.transport.abort()
    await frozen.wait_closed()
    return heard, said.decode().strip()


def test_none_misses_an_event_and_each_comes_within_a_second(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving_as_a_program(tmp_path, database) as page:
        process = next(child.pid for child in psutil.Process().children() if "serve" in child.cmdline())
        before = cpu_seconds([process])
        heard, said = asyncio.run(run(page.replace("http", "ws") + "/api/v1/live", database))
        used = cpu_seconds([process]) - before
    everything = list(range(SECONDS * RATE))
    delays = sorted(delay for group in heard.values() for one in group for delay in one.delays)
    p50, p99 = (delays[int(len(delays) * part)] for part in (0.5, 0.99))
    with capsys.disabled():
        print(  # noqa: T201 - the figures
            f"\n{RATE} events/s for {SECONDS} s, {LISTENERS} listeners, {len(delays)} events given:"
            f" p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms, most {1000 * delays[-1]:.0f} ms;"
            f" serve used {used / SECONDS:.0%} of a core; {said} s"
        )
    for key, group in heard.items():
        asked = everything if key == "all" else [n for n in everything if n % FILTERS == int(key.removeprefix("mx"))]
        for one in group:
            assert sorted(one.numbers) == asked
    assert p99 < 1
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM delivery_events").fetchone() == (len(everything),)
    assert "a listener was sent away" in (tmp_path / "serve.log").read_text("utf-8")
