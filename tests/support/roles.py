"""Logins that are in one of Postel's roles and in nothing else, for a database of a test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import conninfo

from postel.signals import load_all
from timescale_sink.store import roles
from timescale_sink.store.database import connect
from timescale_sink.store.migrate import relations


def make_roles(url: str) -> list[str]:
    """As `postel db roles` on a migrated database; returns the roles that were made."""

    async def run() -> list[str]:
        connection = await connect(url)
        try:
            return await roles.make(connection, load_all(), relations(load_all()))
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def logins(url: str) -> Iterator[Mapping[str, str]]:
    """Role -> the URL of a login in it; all of them are gone afterwards."""
    make_roles(url)
    suffix = str(conninfo.conninfo_to_dict(url)["dbname"]).rpartition("_")[2]
    names = {role: f"{role}_{suffix}" for role in roles.ROLES}
    with psycopg.connect(url, autocommit=True) as owner:
        try:
            for role, name in names.items():
                owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' IN ROLE {role}".encode())
            yield {
                role: conninfo.make_conninfo(url, user=name, password="x")  # noqa: S106 - of this test's role
                for role, name in names.items()
            }
        finally:
            for role, name in names.items():
                owner.execute(f"DROP ROLE IF EXISTS {name}".encode())
                owner.execute(f"DROP OWNED BY {role}".encode())
                # Another database of the server may use it too.
                with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):
                    owner.execute(f"DROP ROLE {role}".encode())
