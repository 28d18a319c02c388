"""What Zone-MTA stores its queue and its caches in: `secantusdb` in MongoDB's place, and Redis."""

from __future__ import annotations

import itertools
import socket
import sys
from pathlib import Path

from testbed.program import Program

from support.ports import free_ports
from tools.bootstrap.programs import find_redis

# More than all tests of a run take: one that is handed out again holds what another test's server has learned.
REDIS_DATABASES = 1_000


def listens(port: int) -> bool:
    """True when something accepts connections on this port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Backends:
    """One MongoDB and one Redis on free ports; each mail server under test takes a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.mongo_port, self.redis_port = free_ports(2)
        self._serial = itertools.count(1)
        self._redis_serial = itertools.count()
        self.mongo = Program(
            "mongo",
            [
                *(sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", str(self.mongo_port)),
                *("--storage-path", folder / "mongo", "--cache-size", "256M", "--log-level", "WARNING"),
            ],
            folder / "mongo.log",
        )
        self.redis = Program(
            "redis",
            [
                *(find_redis() or "redis-server", "--bind", "127.0.0.1", "--port", str(self.redis_port)),
                *("--save", "", "--appendonly", "no", "--dir", folder, "--databases", str(REDIS_DATABASES)),
            ],
            folder / "redis.log",
        )

    def start(self) -> None:
        """Start both; AssertionError with the log's end when one does not."""
        self.redis.start(lambda: listens(self.redis_port))
        self.mongo.start(lambda: listens(self.mongo_port))

    def stop(self) -> None:
        """End both. What they store lies in a temporary folder, so nothing waits for it to be written."""
        self.mongo.kill()
        self.redis.kill()

    def new_redis_number(self) -> int:
        """One of Redis's own databases that nobody uses yet; the first four are left to others."""
        return 4 + next(self._redis_serial)

    def new_database(self) -> str:
        """The connection string of a database that nobody uses yet."""
        return f"mongodb://127.0.0.1:{self.mongo_port}/testbed{next(self._serial)}"
