"""A streaming replica of a PostgreSQL that a test runs, made with the server's own programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from support.postgres import KillableServer
from support.running_postel import until
from tools.bootstrap.programs import PostgresServer


@contextmanager
def replica_of(primary: str, server: PostgresServer, *options: str) -> Iterator[KillableServer]:
    """A replica that runs until the block ends.

    Args:
        primary: the URL of a :class:`support.postgres.KillableServer`, or of one that lets replicas in as it does.
        server: its PostgreSQL.
        options: of the replica's `postgres`.
    """
    making = ("pg_basebackup", "-d", primary, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
    replica = KillableServer(server, *options, making=making)
    try:
        replica.start()
        assert in_recovery(replica.url)
        yield replica
    finally:
        replica.remove()


def in_recovery(url: str) -> bool:
    """Whether a server is there, and follows another."""
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    except psycopg.OperationalError:
        return False


def follow(primary: str, replica: str) -> None:
    """Wait until a replica has all that its primary has now."""
    with psycopg.connect(primary) as connection:
        (position,) = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("",)
    with psycopg.connect(replica, autocommit=True) as connection:
        asked = "SELECT pg_last_wal_replay_lsn() >= %s::text::pg_lsn"
        until(lambda: connection.execute(asked, [position]).fetchone() == (True,), 20, "the replica follows", 0.02)
