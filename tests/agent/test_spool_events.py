"""Events are counted once: in the transaction that stores them, however often they come and whenever the agent ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from structlog.testing import capture_logs

from otel_receivers import exporter, spool_seen
from otel_receivers.derived import Derivation, Occurrence
from otel_receivers.spool_file import SpoolFile
from otel_receivers.spool_requests import Request
from otel_receivers.spool_store import SpoolStore
from otel_receivers.totals import Histogram
from postel.otlp.signal import Signal
from postel.signals import load_all
from support.mail_events import HARAKA, ZONE_MTA, attempt, event, request, uid

DERIVATION = Derivation(load_all())
ZONES = ("default", "bulk")


@contextmanager
def spool_file(tmp_path: Path, max_bytes: int = 64 << 20) -> Iterator[SpoolFile]:
    with closing(SpoolFile(tmp_path / "spool.db", max_bytes, 3600)) as file:
        yield file


def prepared(*records: Any, **more: Any) -> tuple[list[Request], list[Occurrence]]:
    message = request(*records, **more)
    return exporter.log_requests(message, 1 << 20), DERIVATION.occurrences(message)


def counted(file: SpoolFile) -> Counter[str]:
    """Attempts by zone."""
    found: Counter[str] = Counter()
    for told in file.told():
        for series, total in told.totals.items():
            if series.metric == "zonemta.delivery.duration":
                assert isinstance(total, Histogram)
                found[str(dict(series.attributes)["zonemta.zone"])] += sum(total.counts)
    return found


def stored_records(file: SpoolFile) -> int:
    block = file.peek(Signal.LOGS, 1 << 30)
    return block.items if block else 0


def test_what_comes_again_is_stored_again_and_counted_once(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.take(*prepared(attempt(1), attempt(2), attempt(2)))
        file.take(*prepared(attempt(2), attempt(3)))
        assert counted(file) == {"default": 3}
        # The sink knows what it has; the agent may have dropped the first one.
        assert stored_records(file) == 5
    with spool_file(tmp_path) as file:
        file.take(*prepared(attempt(1), attempt(4, zone="bulk")))
        assert counted(file) == {"default": 3, "bulk": 1}


def test_an_event_that_is_measured_nowhere_is_not_remembered(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.take(*prepared(event("zonemta.message.queued", {}, uid=uid(1))))
        assert file._db.execute("SELECT count(*) FROM seen").fetchone() == (0,)
        ((told),) = file.told()
        assert (told.instance.id, dict(told.totals)) == ("node-1:12080", {})


def test_senders_are_counted_apart(tmp_path: Path) -> None:
    message = event("haraka.message.accepted", {}, uid=uid(9))
    with spool_file(tmp_path) as file:
        file.take(*prepared(attempt(1)))
        file.take(*prepared(attempt(2), resource={**ZONE_MTA, "host.id": "node-2"}))
        file.take(*prepared(message, resource=HARAKA, scope="postel.haraka"))
        assert {(t.instance.source, t.instance.host_id): len(t.totals) for t in file.told()} == {
            ("zone_mta", "node-1"): 2,
            ("zone_mta", "node-2"): 2,
            ("haraka", "node-1"): 1,
        }


def full(file: SpoolFile) -> None:
    """The real error of a full disk, by SQLite's own bound."""
    pages = file._db.execute("PRAGMA page_count").fetchone()[0]
    file._db.execute(f"PRAGMA max_page_count = {pages}")


def test_what_the_disk_does_not_take_is_not_counted(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.take(*prepared(attempt(1)))
        full(file)
        large = attempt(2)
        large.body.string_value = "x" * 100_000
        with pytest.raises(sqlite3.OperationalError, match="full"):
            file.take(*prepared(large))
        assert counted(file) == {"default": 1}
        file._db.execute("PRAGMA max_page_count = 1000000")
        file.take(*prepared(large))
        assert counted(file) == {"default": 2}


class AnyOrder(RuleBasedStateMachine):
    """Requests of new and old events, answers that are lost, a full disk, kills and restarts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool.db"
        self.file = SpoolFile(self.path, 64 << 20, 3600)
        self.sent: set[int] = set()

    def zone(self, number: int) -> str:
        return ZONES[number % len(ZONES)]

    def take(self, numbers: list[int]) -> None:
        self.file.take(*prepared(*(attempt(number, zone=self.zone(number)) for number in numbers)))

    @rule(numbers=st.lists(st.integers(1, 30), max_size=8))
    def send(self, numbers: list[int]) -> None:
        """Answered or not: whoever has no answer sends it again."""
        if numbers:
            self.take(numbers)
            self.sent |= set(numbers)

    @rule(numbers=st.lists(st.integers(1, 30), min_size=1, max_size=8))
    def send_to_a_full_disk(self, numbers: list[int]) -> None:
        full(self.file)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            self.take_until_full(numbers)
        self.file._db.execute("PRAGMA max_page_count = 1000000")

    def take_until_full(self, numbers: list[int]) -> None:
        for _ in range(100):
            self.take(numbers)
            self.sent |= set(numbers)

    @rule(numbers=st.lists(st.integers(1, 30), min_size=1, max_size=8))
    def fail_on_the_way(self, numbers: list[int]) -> None:
        """Whatever goes wrong within the transaction."""
        insert, self.file._insert = self.file._insert, _raise  # type: ignore[method-assign, assignment]
        with pytest.raises(OSError, match="gone"):
            self.take(numbers)
        self.file._insert = insert  # type: ignore[method-assign]

    @rule()
    def restart(self) -> None:
        self.file.close()
        self.file = SpoolFile(self.path, 64 << 20, 3600)

    @rule()
    def kill(self) -> None:
        """As a killed process leaves the files: the log not folded in, another process opens them."""
        self.file._db.execute("PRAGMA wal_autocheckpoint = 0")
        self.left, self.file = self.file, SpoolFile(self.path, 64 << 20, 3600)

    @invariant()
    def each_event_is_counted_once(self) -> None:
        assert counted(self.file) == Counter(self.zone(number) for number in self.sent)

    def teardown(self) -> None:
        self.file.close()
        self.folder.cleanup()


def _raise(*_: object) -> None:
    raise OSError("gone")


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


def test_nothing_is_lost_or_doubled_when_it_is_killed(tmp_path: Path) -> None:
    """kill -9 while it takes; what was not answered comes again."""
    taken = 0
    for _ in range(4):
        taken = _until_killed(tmp_path, taken)
    with spool_file(tmp_path) as file:
        assert counted(file) == {"default": taken}


_CHILD = """
import sys
from pathlib import Path
from otel_receivers import exporter
from otel_receivers.derived import Derivation
from otel_receivers.spool_file import SpoolFile
from postel.signals import load_all
from support.mail_events import attempt, request

derivation = Derivation(load_all())
file = SpoolFile(Path(sys.argv[1]), 64 << 20, 3600)
for number in range(int(sys.argv[2]), 1_000_000):
    message = request(attempt(number))
    file.take(exporter.log_requests(message, 1 << 20), derivation.occurrences(message))
    print(number, flush=True)
"""


def _until_killed(tmp_path: Path, first: int) -> int:
    """Take events from number `first` on, one by one, until kill -9; how many were taken since 0."""
    tests = Path(__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path / "spool.db"), str(first)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}"},
        text=True,
    )
    assert child.stdout
    try:
        answered = int(child.stdout.readline())
        time.sleep(0.3)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        said, _ = child.communicate(timeout=30)
    answered = max([answered, *(int(line) for line in said.split("\n")[:-1])])
    with spool_file(tmp_path) as file:
        # The one after it may be stored without an answer; whoever has none sends it again.
        assert counted(file)["default"] in (answered + 1, answered + 2)
        file.take(*prepared(attempt(answered), attempt(answered + 1)))
    return answered + 2


def test_a_damaged_file_begins_all_anew(tmp_path: Path) -> None:
    store = SpoolStore(tmp_path, 64 << 20, 3600)
    store.open()
    store.take(*prepared(attempt(1)))
    (before,) = store.told()
    store.close()
    damaged = bytearray((tmp_path / "spool.db").read_bytes())
    damaged[4096 : 4096 * 6] = b"\xff" * (4096 * 5)
    (tmp_path / "spool.db").write_bytes(damaged)
    store = SpoolStore(tmp_path, 64 << 20, 3600)
    store.open()
    try:
        assert store.told() == []
        store.take(*prepared(attempt(1)))
        (after,) = store.told()
        assert after.sender.start > before.sender.start
        assert after.totals.keys() == before.totals.keys()
    finally:
        store.close()


def ids(first: int, number: int) -> list[bytes]:
    return [each.to_bytes(16, "big") for each in range(first, first + number)]


def known(file: SpoolFile) -> int:
    number: int = file._db.execute("SELECT count(*) FROM seen").fetchone()[0]
    kept: int = file._db.execute("SELECT coalesce(sum(ids), 0) FROM seen_period").fetchone()[0]
    assert number == kept
    return number


HOUR = 3600.0
BEGAN = 1_768_471_200.0


def test_an_id_is_remembered_for_a_day_and_then_forgotten(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        seen = file._events._seen
        assert len(seen.add(ids(0, 10), BEGAN)) == 10
        for hours in (1, 5, 12, 23.9):
            assert seen.add(ids(0, 10), BEGAN + hours * HOUR) == set()
        seen.forget(BEGAN + 33 * HOUR)
        assert len(seen.add(ids(0, 11), BEGAN + 33 * HOUR)) == 11
        assert known(file) == 11


@pytest.mark.parametrize("back", [60.0, 5 * HOUR, 20 * HOUR])
def test_it_is_remembered_too_when_the_clock_is_set_back(tmp_path: Path, back: float) -> None:
    with spool_file(tmp_path) as file:
        seen = file._events._seen
        seen.add(ids(0, 10), BEGAN)
        assert seen.add(ids(0, 10), BEGAN - back) == set()


def test_of_a_clock_that_was_a_month_ahead_nothing_stays_for_a_month(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        seen = file._events._seen
        seen.add(ids(20, 5), BEGAN + 30 * 24 * HOUR)
        assert seen.add(ids(20, 5), BEGAN) == set()
        assert known(file) == 0


def test_what_is_due_goes_in_pieces(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        seen = file._events._seen
        with file._transaction():
            seen.add(ids(0, 30_000), BEGAN)
        later = BEGAN + 40 * HOUR
        left = []
        for number in range(12):
            seen.add(ids(100_000 + number, 1), later)
            left.append(known(file))
        assert left[0] < 30_000
        assert max(before - after for before, after in pairwise(left)) <= spool_seen._PIECE + 2
        for _ in range(3):
            seen.forget(later)
        assert known(file) == 12


def test_too_many_ids_are_remembered_for_a_shorter_time_and_that_is_said_once(tmp_path: Path) -> None:
    with spool_file(tmp_path, max_bytes=4 * 1000 * spool_seen.ID_BYTES) as file, capture_logs() as logs:
        seen = file._events._seen
        for number in range(20):
            seen.add(ids(number * 100, 100), BEGAN + number * 60)
        assert known(file) == 1000
        assert seen.add(ids(1500, 100), BEGAN + HOUR) == set()
        assert len(seen.add(ids(0, 100), BEGAN + HOUR)) == 100
    assert [log["log_level"] for log in logs] == ["warning"]


def test_a_file_of_an_older_postel_is_taken_over(tmp_path: Path) -> None:
    with spool_file(tmp_path) as file:
        file.append([Request(Signal.LOGS, b"x" * 8, 1)], {"a": "1"})
        for table in ("seen", "seen_period", "total"):
            file._db.execute(f"DROP TABLE {table}")
        file._db.execute("PRAGMA user_version = 2")
    with spool_file(tmp_path) as file:
        file.take(*prepared(attempt(1)))
        assert counted(file) == {"default": 1}
        assert file.state()["a"] == "1"
        file.remove(file.peek(Signal.LOGS, 1).ids)  # type: ignore[union-attr]
        assert stored_records(file) == 1
