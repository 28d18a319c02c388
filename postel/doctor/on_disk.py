"""The doctor's checks of the data folder: whether it can be used, and what the agent keeps there."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import fasteners

from postel.doctor.result import Result, Verdict
from postel.settings import Settings

_LOW_DISK_BYTES = 1 << 30
_SPOOL_LATE_SECONDS = 300.0


async def folder(settings: Settings) -> AsyncIterator[Result]:
    """The data folder can be reached and written, and has room."""
    folder = settings.data_dir
    there = _nearest(folder)
    if not there.is_dir():
        yield Result(Verdict.FAIL, "data folder", f"{there} is no folder", "set data_dir to a folder")
        return
    if not _allowed(there, os.X_OK):
        yield Result(
            Verdict.FAIL,
            "data folder",
            f"{there} keeps user {os.geteuid()} out, so {folder} cannot be reached",
            f"give this user the right to pass through {there}, or set data_dir to a folder of its own",
        )
        return
    if not _allowed(there, os.W_OK):
        yield Result(
            Verdict.FAIL,
            "data folder",
            f"{folder} cannot be written by user {os.geteuid()}",
            f"give this user the right to write {there}, or set data_dir to a folder of its own",
        )
        return
    free = shutil.disk_usage(there).free
    if free < _LOW_DISK_BYTES:
        yield Result(
            Verdict.FAIL,
            "data folder",
            f"{folder} has {free >> 20} MiB left",
            "free space: the spool, the Collector's queue and the embedded database live there",
        )
        return
    yield Result(Verdict.OK, "data folder", f"{folder}, {free >> 30} GiB free")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that can be looked at."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            place.stat()
            return place
    return Path(folder.anchor)


def _allowed(folder: Path, mode: int) -> bool:
    return os.access(folder, mode, effective_ids=os.access in os.supports_effective_ids)


async def agent(settings: Settings) -> AsyncIterator[Result]:
    """An agent runs on the data folder, and what it spools is taken."""
    try:
        held = _held(settings)
    except OSError as error:
        yield Result(
            Verdict.FAIL,
            "agent",
            f"whether one runs cannot be seen: {error.filename}: {error.strerror}",
            "run the doctor as the agent's user, or mend the data folder",
        )
        return
    if not held:
        yield Result(
            Verdict.FAIL, "agent", "none runs on this data folder", "start it with `postel up` or `postel agent`"
        )
    else:
        yield Result(Verdict.OK, "agent", "runs")
    spool = settings.data_dir / "spool.db"
    if not spool.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            waiting, size, oldest = database.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0), min(created) FROM request"
            ).fetchone()
    except sqlite3.Error as error:
        yield Result(
            Verdict.FAIL, "spool", f"{spool} cannot be read: {error}", "is it this user's? Move it away if damaged"
        )
        return
    age = time.time() - oldest if oldest else 0.0
    text = f"{waiting} requests, {size >> 10} KiB wait, the oldest for {age:.0f} s"
    if age > _SPOOL_LATE_SECONDS + settings.intervals.send_metrics:
        yield Result(
            Verdict.FAIL, "spool", text, f"nobody takes what the agent sends to {settings.otlp.endpoint}: see above"
        )
    else:
        yield Result(Verdict.OK, "spool", text)


def _held(settings: Settings) -> bool:
    path = settings.data_dir / "agent.lock"
    if not path.exists():
        return False
    lock = fasteners.InterProcessLock(path)
    if lock.acquire(blocking=False):
        lock.release()
        return False
    return True
