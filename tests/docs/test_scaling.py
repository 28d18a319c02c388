"""The page on growing: its replica, made from a primary of the test's own as the page says, is one to the doctor."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
import pytest

from support.markdown import reading, run, variables
from support.postgres import KillableServer, fresh_database, migrate_now
from support.replica import in_recovery
from support.requirements import require
from support.roles import make_roles
from tools.bootstrap.programs import find_postgres


@pytest.mark.slow
def test_a_replica_for_readers(tmp_path: Path) -> None:
    require("postgresql", available=find_postgres())
    server = find_postgres()[-1]
    primary = KillableServer(server)
    # The page makes its data.
    replica = KillableServer(server, making=("/bin/true",))
    try:
        primary.start()
        with fresh_database(primary.url) as url:
            migrate_now(url)
            make_roles(url)
            _follow(tmp_path, url, primary, replica, variables(server.programs))
    finally:
        replica.remove()
        primary.remove()


def _follow(
    folder: Path, url: str, primary: KillableServer, replica: KillableServer, environment: dict[str, str]
) -> None:
    at_replica = f"{url} host={replica.folder} user=postel_reader"
    instead = {
        "host=db.example.org": f"host={primary.folder}",
        "/var/lib/postgresql/15/main": str(replica.folder / "data"),
        "postgresql://postel:choose-one@db.example.org/postel": url,
        "postgresql://postel_reader:choose-another@replica.example.org/postel": at_replica,
        # Nothing else of Postel's runs here: it has to say so, and that is what its exit code is.
        "postel doctor": "postel doctor || test $? = 1",
    }
    with reading("docs/scaling.md", instead=instead) as page:
        (roles,), (copy,), (toml,), (doctor,) = (
            page.take("sql"),
            page.take("sh", "copy"),
            page.take("toml"),
            page.take("sh", "doctor"),
        )
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in filter(str.strip, roles.split(";")):
                connection.execute(statement.encode())
        run(copy, folder, environment)
        if os.geteuid() == 0:
            owner = f"{replica.folder.owner()}:{replica.folder.group()}"
            subprocess.run(["chown", "-R", owner, replica.folder / "data"], check=True)
        replica.start()
        assert in_recovery(replica.url)
        (folder / "postel.toml").write_text(toml)
        said = run(doctor, folder, environment | {"HOME": str(folder)})
        assert "ok    replica: PostgreSQL" in said, said
        assert "it had what the primary has after" in said
