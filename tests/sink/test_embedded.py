"""The embedded PostgreSQL over the deaths of everybody who uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest

_USER = """
import sys
from pathlib import Path
from timescale_sink.store.embedded import start
print(start(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@dataclass
class Users:
    """Programs that use the embedded server of one data folder."""

    folder: Path
    programs: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self) -> str:
        """Start one more; returns the URL that it got."""
        program = subprocess.Popen(
            [sys.executable, "-c", _USER, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.programs.append(program)
        assert program.stdout
        return program.stdout.readline().strip()

    @property
    def server(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "postgres/postmaster.pid").read_text().split()[0]))

    def kill(self) -> None:
        """End all programs and the server with SIGKILL."""
        server = self.server
        for program in self.programs:
            program.kill()
        server.kill()
        self.end()

    def end(self) -> None:
        """Let all programs end as they want to."""
        for program in self.programs:
            program.communicate(timeout=30)
        self.programs.clear()


@pytest.fixture
def users() -> Iterator[Users]:
    users = Users(Path(tempfile.mkdtemp(prefix="postel-")))
    yield users
    users.end()
    shutil.rmtree(users.folder)


def _rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row
    return int(row[0])


def _keep(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000)")


def _runs(server: psutil.Process) -> bool:
    # A container without an init leaves what has ended as a zombie.
    return server.is_running() and server.status() != psutil.STATUS_ZOMBIE


def test_the_last_user_stops_the_server(users: Users) -> None:
    url = users.start()
    assert users.start() == url
    server = users.server
    first, second = users.programs
    first.communicate(timeout=20)
    assert _runs(server)
    second.communicate(timeout=20)
    assert not _runs(server)


def test_it_comes_back_after_everything_was_killed(users: Users) -> None:
    _keep(users.start())
    users.start()
    users.kill()
    assert _rows(users.start()) == 1000
    server = users.server
    users.end()
    assert not _runs(server), "the killed ones still count as users"


def test_it_is_not_fooled_by_a_stranger_with_its_number(users: Users) -> None:
    _keep(users.start())
    users.kill()
    file = users.folder / "postgres/postmaster.pid"
    file.write_text("\n".join([str(os.getpid()), *file.read_text().splitlines()[1:]]) + "\n")
    assert _rows(users.start()) == 1000


@pytest.mark.parametrize("left", ["", "12345\n", "not a number\n/somewhere\n"])
def test_it_is_not_stopped_by_files_cut_short(users: Users, left: str) -> None:
    _keep(users.start())
    users.kill()
    (users.folder / "postgres/postmaster.pid").write_text(left)
    (users.folder / "postgres/.handle_pids.json").write_text("[12,")
    assert _rows(users.start()) == 1000
