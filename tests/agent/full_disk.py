"""Uses a spool on a disk that fills up and becomes free again, and prints what came of it: a process of its own.

A disk is full either truly, a small tmpfs that is filled, or for this process alone, which may make no file larger
than nothing (``ulimit -f``): there not even what is allocated can be written anew.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from otel_receivers.spool import Request, Spool
from otel_receivers.spool_file import SpoolFile
from postel.otlp.signal import Signal

SIZE = 2000


class Limit:
    """Of this process: works for every user."""

    def __init__(self, folder: Path) -> None:
        del folder

    def full(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Tmpfs:
    """In a mount namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)

    def full(self) -> None:
        with self.filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def free(self) -> None:
        self.filler.unlink()


class ReadOnly(Tmpfs):
    """A filesystem that the kernel has made read-only."""

    def full(self) -> None:
        subprocess.run(["mount", "-o", "remount,bind,ro", self.folder], check=True)

    def free(self) -> None:
        subprocess.run(["mount", "-o", "remount,bind,rw", self.folder], check=True)


Disk = Limit | Tmpfs
DISKS: dict[str, Callable[[Path], Disk]] = {"limit": Limit, "tmpfs": Tmpfs, "read-only": ReadOnly}


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Spool]:
    spool = await Spool.open(folder, max_bytes=1 << 20, max_age=3600)
    try:
        yield spool
    finally:
        await spool.close()


def requests(*numbers: int, kind: Signal = Signal.METRICS) -> list[Request]:
    return [Request(kind, b"%08d" % number + b"x" * (SIZE - 8), 1) for number in numbers]


async def sent(spool: Spool, kind: Signal = Signal.METRICS, most: int = 100) -> list[int]:
    """What a receiver is sent that takes everything, one block of two requests after the other."""
    found: list[int] = []
    while len(found) < most and (block := await spool.peek(kind, 2 * SIZE)) is not None:
        found += [int(block.body[start : start + 8]) for start in range(0, len(block.body), SIZE)]
        await spool.remove(block.ids)
    return found


async def fills_up(folder: Path, disk: Disk) -> dict[str, Any]:
    """While the spool is open."""
    async with opened(folder) as spool:
        await spool.append(requests(1, 2, 3) + requests(11, kind=Signal.LOGS), {"a": "1"})
        disk.full()
        told: dict[str, Any] = {}
        with capture_logs() as logs:
            await spool.append(requests(4) + requests(12, kind=Signal.LOGS), {"a": "2", "b": "2"})
            await spool.append(requests(5), {"a": "3"})
            told["metrics"], told["logs"] = await sent(spool), await sent(spool, Signal.LOGS)
            # What was handed over and stays in the file is not handed over again.
            told["again"] = await sent(spool)
            await spool.append(requests(6), {"a": "4"})
            told["later"] = await sent(spool)
            await spool.append(requests(7), {"a": "5"})
            disk.free()
            await spool.append(requests(8), {"c": "1"})
        told["said"] = [(entry["log_level"], entry["event"]) for entry in logs]
        told["size"] = spool.size
    return told | await left(folder)


async def starts(folder: Path, disk: Disk) -> dict[str, Any]:
    """On a full disk, where an earlier run left something."""
    async with opened(folder) as spool:
        await spool.append(requests(1, 2, 3), {"a": "1", "b": "1"})
    disk.full()
    return await _start(folder, disk)


async def starts_after_a_kill(folder: Path, disk: Disk) -> dict[str, Any]:
    """On a full disk, where an earlier run left what it wrote last in SQLite's log."""
    earlier = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(folder,))
    earlier.start()
    earlier.join()
    assert (folder / "spool.db-wal").stat().st_size > SIZE
    disk.full()
    return await _start(folder, disk)


def _write_and_die(folder: Path) -> None:
    async def write() -> None:
        spool = await Spool.open(folder, max_bytes=1 << 20, max_age=3600)
        await spool.append(requests(1, 2, 3), {"a": "1", "b": "1"})
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(write())


async def starts_first(folder: Path, disk: Disk) -> dict[str, Any]:
    """On a full disk, where no file was ever made."""
    disk.full()
    return await _start(folder, disk)


async def taken_meanwhile(folder: Path, disk: Disk) -> dict[str, Any]:
    """A folder that could not be locked at the start has another agent by the time that it can be."""
    disk.full()
    told: dict[str, Any] = {}
    with capture_logs() as logs:
        async with opened(folder) as spool:
            await spool.append(requests(1), {"a": "1"})
            disk.free()
            other = await asyncio.create_subprocess_exec(
                sys.executable, "-c", OTHER, folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            assert other.stdout
            assert await other.stdout.readline() == b"locked\n"
            await spool.append(requests(2), {"a": "2"})
            told["metrics"] = await sent(spool)
            await other.communicate(b"")
            await spool.append(requests(3), {"a": "3"})
    told["said"] = [(entry["log_level"], entry["event"]) for entry in logs]
    return told | await left(folder)


OTHER = """
import asyncio, sys
from pathlib import Path
from otel_receivers.spool import Spool

async def main():
    spool = await Spool.open(Path(sys.argv[1]), max_bytes=1 << 20, max_age=3600)
    print("locked", flush=True)
    sys.stdin.read()
    await spool.close()

asyncio.run(main())
"""


async def removes(folder: Path, disk: Disk) -> dict[str, Any]:
    """What was sent leaves the file of a full disk once SQLite's log, which cannot grow, is begun anew."""
    refused: list[str] = []
    with closing(SpoolFile(folder / "spool.db", 1 << 20, 3600)) as file:
        file.append(requests(*range(100)), {})
        file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for number in range(50):
            block = file.peek(Signal.METRICS, 2 * SIZE)
            assert block
            # The log holds some removals, and is far from the size at which SQLite begins it anew by itself.
            if number == 20:
                disk.full()
            try:
                file.remove(block.ids)
            except sqlite3.OperationalError as error:
                refused.append(error.sqlite_errorname)
        return {"refused": refused, "left": [int(body[:8]) for *_, body in file._in_order(Signal.METRICS)]}


async def _start(folder: Path, disk: Disk) -> dict[str, Any]:
    told: dict[str, Any] = {}
    with capture_logs() as logs:
        async with opened(folder) as spool:
            told["state"] = {key: text for key, text in (await spool.state()).items() if key in "abc"}
            told["before"] = await sent(spool)
            await spool.append(requests(4), {"a": "2"})
            await spool.append(requests(5), {"a": "3"})
            told["metrics"] = await sent(spool)
            await spool.append(requests(6), {"a": "4"})
            await spool.trim()
            disk.free()
            await spool.append(requests(7), {"c": "1"})
    told["said"] = [(entry["log_level"], entry["event"], entry.get("reason", "")) for entry in logs]
    return told | await left(folder)


async def left(folder: Path) -> dict[str, Any]:
    """What the next run finds."""
    async with opened(folder) as spool:
        state = {key: text for key, text in (await spool.state()).items() if key in "abc"}
        return {
            "left": await sent(spool),
            "left_logs": await sent(spool, Signal.LOGS),
            "left_state": state,
            "dropped": dict(spool.dropped),
        }


SCENARIOS: dict[str, Callable[[Path, Disk], Coroutine[Any, Any, dict[str, Any]]]] = {
    scenario.__name__: scenario
    for scenario in (fills_up, starts, starts_after_a_kill, starts_first, taken_meanwhile, removes)
}

if __name__ == "__main__":
    place = Path(sys.argv[3])
    sys.stdout.write(json.dumps(asyncio.run(SCENARIOS[sys.argv[1]](place, DISKS[sys.argv[2]](place)))))
