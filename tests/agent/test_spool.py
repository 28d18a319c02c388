"""The spool keeps what it took: in order, within its bounds, over kill -9, damage and a full disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from otel_receivers import spool_memory
from otel_receivers.spool import Block, Spool, SpoolError
from otel_receivers.spool_file import ROW_OVERHEAD, NoRoomError, SpoolFile
from otel_receivers.spool_requests import Request
from postel.errors import PostelError
from postel.otlp.errors import TooLarge
from postel.otlp.signal import Signal

METRICS, LOGS = Signal.METRICS, Signal.LOGS


@contextmanager
def spool_file(tmp_path: Path, max_bytes: int = 1 << 20, max_age: float = 3600) -> Iterator[SpoolFile]:
    with closing(SpoolFile(tmp_path / "spool.db", max_bytes, max_age)) as file:
        yield file


@asynccontextmanager
async def opened(tmp_path: Path, max_bytes: int = 1 << 20, max_age: float = 3600) -> AsyncIterator[Spool]:
    spool = await Spool.open(tmp_path, max_bytes=max_bytes, max_age=max_age)
    try:
        yield spool
    finally:
        await spool.close()


async def on_file(spool: Spool, work: Callable[[SpoolFile], Any]) -> None:
    """Do to the file, in the spool's own thread, what a test cannot wait for."""
    await spool._call(lambda store: store.on_file(work))


def request(number: int, size: int = 100, kind: Signal = METRICS) -> Request:
    return Request(kind, b"%08d" % number + b"x" * (size - 8), 1)


def set_aside(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.glob("spool.db.corrupt-*")}


def numbers(body: bytes, size: int = 100) -> list[int]:
    return [int(body[start : start + 8]) for start in range(0, len(body), size)]


def drained(file: SpoolFile, kind: Signal = METRICS, limit: int = 1000) -> list[int]:
    found: list[int] = []
    while (block := file.peek(kind, limit)) is not None:
        assert len(block.body) <= limit
        assert block.items == len(block.ids)
        found += numbers(block.body)
        file.remove(block.ids)
    return found


def test_requests_come_back_in_order_in_blocks_by_signal(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.append([request(n, kind=METRICS if n % 3 else LOGS) for n in range(50)], {})
        assert drained(file, LOGS) == list(range(0, 50, 3))
        assert drained(file) == [n for n in range(50) if n % 3]
        assert file.size == 0


def test_a_request_above_the_limit_goes_alone(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.append([request(1), request(2, 5000), request(3)], {})
        blocks = []
        while (block := file.peek(METRICS, 1000)) is not None:
            blocks.append(len(block.body))
            file.remove(block.ids)
        assert blocks == [100, 5000, 100]


def test_what_is_there_survives_a_new_start(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.append([request(1), request(2)], {"a": "1", "b": "2"})
        file.write_state({"b": "3"})
        size, created = file.size, file.created()
    with spool_file(tmp_path) as file:
        assert {k: v for k, v in file.state().items() if k in "ab"} == {"a": "1", "b": "3"}
        assert (file.size, file.created()) == (size, created)
        assert drained(file) == [1, 2]


def test_the_oldest_make_room_and_are_counted(tmp_path: Path) -> None:
    with spool_file(tmp_path, max_bytes=10 * (100 + ROW_OVERHEAD)) as file:
        for number in range(25):
            file.append([request(number, kind=METRICS if number % 2 else LOGS)], {})
            assert file.size <= 10 * (100 + ROW_OVERHEAD)
        assert file.dropped() == {"size": 15}
        assert drained(file) == [15, 17, 19, 21, 23]
        assert drained(file, LOGS) == [16, 18, 20, 22, 24]


def test_the_point_with_which_a_counter_was_met_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the next point would count in full."""
    with spool_file(tmp_path, max_bytes=5 * (100 + ROW_OVERHEAD), max_age=100) as file:
        for number in range(20):
            file.append([replace(request(number), begins=number in {3, 7})], {})
        assert file.dropped() == {"size": 15}
        began = time.time()
        monkeypatch.setattr(time, "time", lambda: began + 150)
        file.trim()
        assert file.dropped() == {"size": 15, "age": 3}
        # Where there is nothing else, the oldest of them makes room.
        for number in range(20, 24):
            file.append([replace(request(number), begins=True)], {})
        assert drained(file) == [7, 20, 21, 22, 23]


def test_what_is_taken_stays_or_is_not_taken(tmp_path: Path) -> None:
    """Whoever hears that it was taken keeps it no more."""
    with spool_file(tmp_path, max_bytes=5 * (100 + ROW_OVERHEAD)) as file:
        file.append([replace(request(number), begins=True) for number in range(4)], {})
        file.take([request(10, kind=LOGS)])
        # The oldest makes room, and is counted.
        file.take([request(11, kind=LOGS)])
        assert file.dropped() == {"size": 1}
        # Of two there is room for one: neither is taken, and what was there stays.
        size = file.size
        with pytest.raises(NoRoomError, match="full of what counters begin with"):
            file.take([request(12, kind=LOGS), request(13, kind=LOGS)])
        assert (file.size, file.dropped()) == (size, {"size": 1})
        with pytest.raises(TooLarge, match="the spool takes 1780 bytes"):
            file.take([request(number, kind=LOGS) for number in range(6)])
        assert drained(file, LOGS) == [11]
        assert drained(file) == [0, 1, 2, 3]


async def test_the_spool_says_so_in_its_own_words(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=4000) as spool:
        await spool.append([replace(request(number), begins=True) for number in range(11)], {})
        with pytest.raises(SpoolError, match=r"spool\.db: the spool of 4000 bytes is full"):
            await spool.take([request(20, kind=LOGS)])
        assert spool.dropped.get("size", 0) == 0
        block = await spool.peek(METRICS, 4000)
        assert block
        await spool.remove(block.ids)
        await spool.take([request(21, kind=LOGS)])
        assert await spool.peek(LOGS, 4000)


def test_it_ages_out_too_at_twice_the_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with spool_file(tmp_path, max_age=100) as file:
        file.append([replace(request(number), begins=number % 2 == 0) for number in range(200)], {})
        began = time.time()
        for seconds, dropped in ((99, {}), (101, {"age": 100}), (199, {"age": 100}), (201, {"age": 200})):
            monkeypatch.setattr(time, "time", lambda seconds=seconds: began + seconds)
            file.trim()
            assert file.dropped() == dropped
        assert file.size == 0


def test_the_file_itself_stays_near_its_bound_and_shrinks_when_drained(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with spool_file(tmp_path, max_bytes=2 << 20) as file:
        for number in range(200):
            file.append([request(number, 50_000)], {})
        assert path.stat().st_size < 3 << 20
        while (block := file.peek(METRICS, 1 << 20)) is not None:
            file.remove(block.ids)
    assert path.stat().st_size < 1 << 20


def test_what_is_too_old_goes_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with spool_file(tmp_path, max_age=100) as file:
        began = time.time()
        for number in range(150):
            monkeypatch.setattr(time, "time", lambda number=number: began + number)
            file.append([request(number)], {})
        file.trim()
        assert file.dropped() == {"age": 49}
        assert drained(file) == list(range(49, 150))


def test_refused_requests_are_counted_over_starts(tmp_path: Path) -> None:
    for expected in (1, 2):
        with spool_file(tmp_path) as file:
            file.append([request(1)], {})
            block = file.peek(METRICS, 1000)
            assert block
            file.remove(block.ids, {"refused": 1})
            assert file.dropped() == {"refused": expected}


def test_a_damaged_record_is_dropped_and_its_neighbours_stay(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.append([request(n) for n in range(5)], {})
        first = file._db.execute("SELECT min(id) FROM request").fetchone()[0]
        file._db.execute("UPDATE request SET body = zeroblob(100) WHERE id IN (?, ?)", (first, first + 2))
        assert drained(file) == [1, 3, 4]
        assert file.dropped() == {"damaged": 2}
        assert file.size == 0


def test_state_and_requests_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.append([request(1)], {"a": "1"})
        broken: Any = [request(2), Request(METRICS, b"x" * 100, None)]  # type: ignore[arg-type]
        with pytest.raises(sqlite3.IntegrityError):
            file.append(broken, {"a": "2"})
        assert file.state()["a"] == "1"
        assert file.size == 100 + ROW_OVERHEAD
        assert drained(file) == [1]


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    """What only a power cut would show: SQLite's settings for it."""
    with spool_file(tmp_path) as file:
        pragmas = [file._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_others_on_the_host_cannot_read_it(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.append([request(1)], {})
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"spool.db": 0o600, "spool.db-wal": 0o600, "spool.db-shm": 0o600}


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "spool.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(PostelError, match="newer"), spool_file(tmp_path):
        pass


def test_a_kill_while_a_new_file_is_made_leaves_one_that_opens(tmp_path: Path) -> None:
    """Whatever part of the schema is there, the version is not: what stands there is made whole."""
    for table in ("request", "state"):
        with spool_file(tmp_path) as file:
            file.append([request(1)], {})
            file._db.executescript(f"DROP TABLE {table}; PRAGMA user_version = 0")
        with spool_file(tmp_path) as file:
            assert drained(file) == ([] if table == "request" else [1])


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from otel_receivers.spool_file import SpoolFile
    from otel_receivers.spool_requests import Request
    from postel.otlp.signal import Signal

    file = SpoolFile(Path(sys.argv[1]), 1 << 30, 3600)
    number = int(file.state().get("next", "0"))
    while True:
        count = number % 7 + 1
        file.append(
            [Request(Signal.METRICS, b"%08d" % n + b"x" * (n % 3000), 1) for n in range(number, number + count)],
            {"next": str(number + count)},
        )
        number += count
        # What was committed is said only now: all of it must be there whatever happens next.
        print(number, flush=True)
""")


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    moments = random.Random(20)  # noqa: S311 - the same moments in every run
    for _ in range(10):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        said = int(writer.stdout.readline())
        time.sleep(moments.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        said = int(([said, *map(int, writer.stdout.read().split())])[-1])
        writer.stdout.close()
        writer.wait()
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        with closing(SpoolFile(path, 1 << 30, 3600)) as file:
            stored = [int(body[:8]) for *_, body in file._in_order(METRICS)]
            following = int(file.state()["next"])
        assert stored == list(range(following)), "in order, without a gap, none twice"
        assert following >= said


async def test_a_second_agent_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    async with opened(tmp_path):
        child = textwrap.dedent("""
            import asyncio, sys
            from pathlib import Path
            from otel_receivers.spool import Spool
            from postel.errors import PostelError
            try:
                asyncio.run(Spool.open(Path(sys.argv[1]), max_bytes=1 << 20, max_age=60))
            except PostelError as error:
                print(error)
        """)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", child, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert said.decode() == (
            f"{tmp_path}: another agent runs on this folder; end it, or set data_dir to one of its own\n"
        )
    async with opened(tmp_path):
        pass


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PostelError, match=r"file/data: cannot be written: Not a directory; mend it or set data_dir"):
        await Spool.open(tmp_path / "file/data", max_bytes=1 << 20, max_age=60)


@pytest.mark.parametrize(
    "damage", [b"this is no database at all, not even nearly" * 200, b"SQLite format 3\x00" + b"\xff" * 9000]
)
async def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "spool.db").write_bytes(damage)
    with capture_logs() as logs:
        async with opened(tmp_path) as spool:
            await spool.append([request(1)], {})
            assert (await spool.peek(METRICS, 1000)) is not None
    assert [entry["event"] for entry in logs] == ["the spool is damaged: set aside, a new one is begun"]
    assert set_aside(tmp_path) == {logs[0]["kept"]: damage}


async def test_damage_under_way_is_survived_and_counts_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=4000) as spool:
        for number in range(30):
            await spool.append([request(number)], {})
        dropped = spool.dropped["size"]
        assert dropped > 0

        # Nothing in the log and nothing in memory: what is read next is read from the file.
        await on_file(spool, lambda file: file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        await on_file(spool, lambda file: file._db.execute("PRAGMA shrink_memory").fetchall())
        with (tmp_path / "spool.db").open("r+b") as damaged:
            damaged.seek(4096)
            damaged.write(b"\xa5" * 4096 * 8)
        for number in range(100, 105):
            await spool.append([request(number)], {})
        assert spool.dropped["size"] >= dropped
        block = await spool.peek(METRICS, 1000)
        assert block
        assert numbers(block.body)[-1] == 104
    assert set_aside(tmp_path)


async def test_what_is_under_way_when_a_file_is_set_aside_takes_nothing_of_the_new_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([request(1), request(2)], {})
        under_way = await spool.peek(METRICS, 1000)
        assert under_way
        await on_file(spool, lambda file: file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        await on_file(spool, lambda file: file._db.execute("PRAGMA shrink_memory").fetchall())
        with (tmp_path / "spool.db").open("r+b") as damaged:
            damaged.write(b"\xa5" * 4096 * 4)
        await spool.append([request(3), request(4)], {})
        assert set_aside(tmp_path)
        # The receiver answers only now.
        await spool.remove(under_way.ids)
        block = await spool.peek(METRICS, 1000)
        assert block
        assert numbers(block.body) == [3, 4]


async def test_an_error_of_our_own_does_not_set_a_good_file_aside(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([request(1)], {})
        with pytest.raises(SpoolError, match="binding"):
            await on_file(spool, lambda file: file._db.execute("SELECT ?").fetchall())
        assert not set_aside(tmp_path)
        block = await spool.peek(METRICS, 1000)
        assert block
        assert numbers(block.body) == [1]


async def test_pages_that_contradict_each_other_are_damage(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.append([request(1)], {})
    with (tmp_path / "spool.db").open("r+b") as damaged:
        damaged.seek(36)  # the number of free pages
        damaged.write(b"\x00\x00\x00\x07")
    with capture_logs() as logs:
        async with opened(tmp_path) as spool:
            assert spool.size == 0
    assert "quick_check" in logs[0]["reason"]
    assert set_aside(tmp_path)


def _full(file: SpoolFile, spare_pages: int = 0) -> None:
    """SQLite's own "database or disk is full", without filling a disk."""
    pages = file._db.execute("PRAGMA page_count").fetchone()[0]
    file._db.execute(f"PRAGMA max_page_count = {pages + spare_pages}")


async def test_a_full_disk_is_said_once_data_waits_and_comes_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([request(0, 3000)], {"a": "0"})
        await on_file(spool, _full)
        with capture_logs() as logs:
            for number in range(1, 6):
                await spool.append([request(number, 3000)], {"a": str(number)})
            assert [(entry["event"], entry["log_level"]) for entry in logs] == [
                ("nothing can be written to the spool; data waits in memory", "error")
            ]
            assert "full" in logs[0]["reason"]
            assert spool.size > 15_000
            await on_file(spool, lambda file: file._db.execute("PRAGMA max_page_count = 1000000").fetchall())
            await spool.append([request(6, 3000)], {})
            assert logs[-1]["event"] == "the spool can be written again"
        block = await spool.peek(METRICS, 1 << 20)
        assert block
        assert numbers(block.body, 3000) == list(range(7))
        assert (await spool.state())["a"] == "5"
        # What was rolled back is not counted either.
        await spool.remove(block.ids)
        assert spool.size == 0


async def test_a_disk_that_stays_full_costs_the_oldest_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_memory, "PENDING_BYTES", 100_000)
    async with opened(tmp_path) as spool:
        await on_file(spool, _full)
        for number in range(10):
            await spool.append([request(number, 30_000)], {})
        await on_file(spool, lambda file: file._db.execute("PRAGMA max_page_count = 1000000").fetchall())
        await spool.append([], {"a": "1"})
        block = await spool.peek(METRICS, 1 << 20)
        assert block
        assert numbers(block.body, 30_000) == [7, 8, 9]
        assert spool.dropped == {"disk": 7}
        await spool.append([request(10, 30_000)], {})
        assert spool.dropped == {"disk": 7}


def _refusing(file: SpoolFile, *, refuses: bool = True) -> None:
    """SQLite's own refusal of every write, removals too."""
    file._db.execute(f"PRAGMA query_only = {int(refuses)}")


async def peeked(spool: Spool, limit: int = 1000, without: Sequence[int] = ()) -> Block:
    block = await spool.peek(METRICS, limit, without)
    assert block
    return block


async def test_what_moved_into_the_file_while_it_was_sent_leaves_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await on_file(spool, _refusing)
        await spool.append([request(1), request(2)], {})
        under_way = await peeked(spool, 200)
        await spool.append([request(3)], {})
        await on_file(spool, partial(_refusing, refuses=False))
        await spool.append([request(4)], {})
        # The receiver answers only now; the ids are those that the requests had in memory.
        single = await spool.read(METRICS, under_way.ids[0])
        assert single
        assert numbers(single.body) == [1]
        assert numbers((await peeked(spool, without=under_way.ids)).body) == [3, 4]
        await spool.remove(under_way.ids)
        assert numbers((await peeked(spool)).body) == [3, 4]
        assert spool.size == 2 * (100 + ROW_OVERHEAD)


async def test_what_comes_after_a_request_is_had_without_it_wherever_both_are(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([request(1), request(2)], {})
        await on_file(spool, _refusing)
        await spool.append([request(3), request(4)], {})
        passed: list[int] = []
        for number in range(1, 5):
            block = await peeked(spool, 100, passed)
            assert numbers(block.body) == [number]
            passed += block.ids
        assert await spool.peek(METRICS, 100, passed) is None
        assert numbers((await peeked(spool, 100)).body) == [1]


async def test_a_removal_that_the_disk_refuses_is_made_up_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([request(number) for number in range(1500)], {})
        await on_file(spool, _refusing)
        with capture_logs() as logs:
            first = await peeked(spool, 100)
            await spool.drop(first.ids, "refused")
            assert spool.dropped == {"refused": 1}
            for _ in range(140):
                await spool.remove((await peeked(spool)).ids)
            assert await spool.read(METRICS, first.ids[0]) is None
            assert numbers((await peeked(spool)).body)[0] == 1401
            # Nothing is tried meanwhile that would be said each time.
            await spool.trim()
            await on_file(spool, partial(_refusing, refuses=False))
            await spool.append([], {"a": "1"})
        assert [entry["log_level"] for entry in logs] == ["error", "info"]
        assert spool.dropped == {"refused": 1}
        assert spool.size == 99 * (100 + ROW_OVERHEAD)
    async with opened(tmp_path) as spool:
        assert numbers((await peeked(spool, 1 << 20)).body) == list(range(1401, 1500))
        assert spool.dropped == {"refused": 1}


async def test_a_damaged_record_that_cannot_be_dropped_hides_no_other(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([request(1), request(2)], {})
        first = (await peeked(spool)).ids[0]
        damage = f"UPDATE request SET body = zeroblob(100) WHERE id = {first}"
        await on_file(spool, lambda file: file._db.execute(damage).fetchall())
        await on_file(spool, _refusing)
        await spool.append([request(3)], {})
        for number in (2, 3):
            block = await peeked(spool, 100)
            assert numbers(block.body) == [number]
            await spool.remove(block.ids)
        with pytest.raises(SpoolError, match="readonly"):
            await spool.peek(METRICS, 100)
        await on_file(spool, partial(_refusing, refuses=False))
        assert await spool.peek(METRICS, 100) is None
        assert spool.dropped == {"damaged": 1}


async def test_what_was_handed_in_is_stored_though_its_task_is_cancelled(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        busy = asyncio.create_task(spool._call(lambda _: time.sleep(0.3)))
        await asyncio.sleep(0.05)
        task = asyncio.create_task(spool.append([request(1)], {"a": "1"}))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await busy
        assert numbers((await peeked(spool)).body) == [1]


async def test_a_last_try_is_made_at_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await on_file(spool, _refusing)
        await spool.append([request(1)], {"a": "1"})
        await spool.remove((await peeked(spool)).ids)
        await on_file(spool, partial(_refusing, refuses=False))
    async with opened(tmp_path) as spool:
        assert await spool.peek(METRICS, 1000) is None
        assert (await spool.state())["a"] == "1"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("agent.lock", "{folder}: cannot be written: Is a directory; mend it or set data_dir"),
        ("spool.db", "{folder}/spool.db: unable to open database file"),
    ],
)
async def test_what_is_not_the_disks_fault_ends_the_start(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(PostelError) as error:
        await Spool.open(tmp_path, max_bytes=1 << 20, max_age=60)
    assert str(error.value) == reason.format(folder=tmp_path)


async def test_reading_trouble_is_a_spool_error(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await on_file(spool, lambda file: file._db.execute("DROP TABLE request").fetchall())
        with pytest.raises(SpoolError, match="no such table"):
            await spool.peek(METRICS, 1000)


async def test_many_writers_at_once_store_each_request_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await asyncio.gather(*(spool.append([request(number)], {str(number): ""}) for number in range(60)))
        found: list[int] = []
        while (block := await spool.peek(METRICS, 1000)) is not None:
            found += numbers(block.body)
            await spool.remove(block.ids)
        assert sorted(found) == list(range(60))
        assert len([key for key in await spool.state() if key.isdecimal()]) == 60


async def test_the_event_loop_goes_on_while_the_disk_works(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        work = asyncio.create_task(spool._call(lambda _: time.sleep(0.3)))
        began, turns = time.monotonic(), 0
        while not work.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert time.monotonic() - began >= 0.2
        assert turns > 10
