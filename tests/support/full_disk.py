"""A PostgreSQL whose disk is a small tmpfs that a test fills and empties, in a mount namespace of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from support.mounts import mounting
from support.requirements import require
from tools.bootstrap.programs import PostgresServer

_MIB = 1 << 20
# Segments of 1 MiB, so that those that are kept leave room on a small disk.
_OPTIONS = ["-c", "listen_addresses=", "-c", "min_wal_size=2MB", "-c", "max_wal_size=4MB", "-c", "shared_buffers=2MB"]


class SmallDisk:
    """The server and its disk. A server that the full disk ends is started by `revive`, as its supervisor would.

    Args:
        server: which PostgreSQL.
        folder: an empty one; the disk is mounted over it.
        holder: the process whose mounts have it.
        options: of `postgres`, beside those that keep it small.
    """

    def __init__(
        self, server: PostgresServer, folder: Path, holder: subprocess.Popen[bytes], options: Sequence[str]
    ) -> None:
        self._options = options
        self._programs, self._folder, self._holder = server.programs, folder, holder
        self._filler = Path(f"/proc/{holder.pid}/root{folder}/filler")
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://postgres@/postgres?host={folder.parent}"

    def make(self) -> None:
        """Make the cluster, and start it."""
        initdb = ["initdb", "-U", "postgres", "-A", "trust", "-E", "utf8", "--wal-segsize=1", "--no-sync", "-D"]
        subprocess.run(self._inside(*initdb, f"{self._folder}/data"), check=True, capture_output=True)
        self.revive()

    def revive(self) -> None:
        """Start the server where it has ended, and wait until it answers."""
        deadline = time.monotonic() + 30
        while True:
            if self._process is None or self._process.poll() is not None:
                where = ("-D", f"{self._folder}/data", "-k", str(self._folder.parent))
                command = self._inside("postgres", *where, *_OPTIONS, *self._options)
                with (self._folder.parent / "log").open("ab") as log:
                    self._process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self._folder.parent / "log").read_text("utf-8", "replace")[-5000:]
                time.sleep(0.2)
            else:
                return

    def fill(self) -> None:
        """Take all that is free."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (_MIB, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # noqa: PT017 - any other ends the test

    def empty(self) -> None:
        """Give it back."""
        self._filler.unlink()

    def end(self) -> None:
        """End the server."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()

    def _inside(self, program: str, *arguments: str) -> list[str]:
        # The server refuses to run as root.
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return ["nsenter", "-t", str(self._holder.pid), "-m", "-r", *user, str(self._programs / program), *arguments]


@contextmanager
def small_disk(server: PostgresServer, mebibytes: int, *options: str) -> Iterator[SmallDisk]:
    """A server on a disk of this size; needs root, who may mount and be another user."""
    require("root", available=os.geteuid() == 0, how="the server's disk is a mount of its own")
    parent = Path(tempfile.mkdtemp(prefix="postel-"))
    owner = pwd.getpwnam("postgres")
    os.chown(parent, owner.pw_uid, owner.pw_gid)
    folder = parent / "disk"
    folder.mkdir()
    size = f"size={mebibytes}m,mode=0700,uid={owner.pw_uid},gid={owner.pw_gid}"
    mount = f"mount -t tmpfs -o {size} none {folder} && echo mounted && exec sleep 3600"
    with subprocess.Popen([*mounting(), "sh", "-c", mount], stdout=subprocess.PIPE) as holder:
        disk = SmallDisk(server, folder, holder, options)
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"mounted\n"
            disk.make()
            yield disk
        finally:
            disk.end()
            holder.terminate()
            holder.wait(10)
            shutil.rmtree(parent)
