"""The services of compose.yaml by their own commands, variables and secrets, on a server that is set up as the image's.

No engine runs here. What one does beside that, containers, networks and mounts, is the rest of the file, and
tests/packaging/test_compose.py reads it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from psycopg import conninfo

from postel.collector import find_collector
from support.markdown import CHECKOUT, variables
from support.ports import free_port, free_ports
from support.postgres import KillableServer, timescale_programs
from support.requirements import require
from support.running_postel import until
from tools.bootstrap.programs import find_postgres

SERVICES: Mapping[str, Mapping[str, Any]] = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())["services"]
DATABASE = SERVICES["timescaledb"]["environment"]
PORTS = ("4317", "4318", "4417", "4418", "13133", "3001")
RUNNING = ("collector", "sink", "serve", "housekeeping")


@dataclass
class Host:
    """This host in the place of the containers.

    Attributes:
        folder: for secrets, logs, and what the volumes are.
        server: the database's, whose superuser comes in by its Unix socket and everybody else with a password.
        superuser: the URL of the superuser in Postel's database.
        ports: of the containers -> of this host.
    """

    folder: Path
    server: KillableServer
    superuser: str
    ports: dict[str, int] = field(default_factory=lambda: dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def here(self, text: str) -> str:
        """A text of compose.yaml with this host's names and ports."""
        text = re.sub(r"\b(0\.0\.0\.0|sink|collector|127\.0\.0\.1):(?=\d)", "127.0.0.1:", text)
        text = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: str(self.ports[found[0]]), text)
        return text.replace("/run/secrets/", f"{self.secrets}/")

    def variables(self, service: str) -> dict[str, str]:
        said = {name: self.here(value) for name, value in SERVICES[service]["environment"].items()}
        of_container = {
            "POSTEL_DATA_DIR": str(self.folder / service),
            # In a container it has the port to itself.
            "POSTEL_OTLP__COLLECTOR_HEALTH_ADDRESS": f"127.0.0.1:{self.ports['13133']}",
            "POSTEL_COLLECTOR": str(find_collector()),
        }
        return {**variables(), **of_container, **said}

    def command(self, service: str) -> list[str]:
        return [*SERVICES[service].get("entrypoint", ["postel"]), *SERVICES[service].get("command", ())]

    def once(self, service: str) -> str:
        """Run a service that ends; what it prints."""
        done = subprocess.run(
            self.command(service),
            cwd=self.folder,
            env=self.variables(service),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, service: str) -> None:
        with (self.folder / f"{service}.log").open("wb") as log:
            self.processes[service] = subprocess.Popen(
                self.command(service), cwd=self.folder, env=self.variables(service), stdout=log, stderr=log
            )

    def healthy(self, service: str) -> bool:
        *_, script = SERVICES[service]["healthcheck"]["test"]
        done = subprocess.run([sys.executable, "-c", self.here(script)], capture_output=True, check=False)
        return done.returncode == 0

    def wait_for(self, service: str) -> None:
        until(lambda: self.healthy(service), 60, lambda: self.log(service))

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text("utf-8", "replace")

    def set_up_roles(self) -> None:
        """As the database's image runs the script that it mounts.

        As a program: one that may not be executed it would read into its own script, and `set -u` with it.
        """
        parts = {key: str(value) for key, value in conninfo.conninfo_to_dict(self.superuser).items()}
        of_image = {
            "PGHOST": parts["host"],
            "PGPORT": parts["port"],
            "POSTGRES_USER": DATABASE["POSTGRES_USER"],
            "POSTGRES_DB": DATABASE["POSTGRES_DB"],
            "POSTEL_SECRETS": str(self.secrets),
        }
        subprocess.run([CHECKOUT / "compose" / "roles.sh"], env={**os.environ, **of_image}, check=True, timeout=30)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.superuser, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def login(self, user: str, password: str) -> Iterator[psycopg.Connection[Any]]:
        """As a container reaches the database."""
        parts = conninfo.conninfo_to_dict(self.superuser)
        url = conninfo.make_conninfo(
            host="127.0.0.1", port=parts["port"], dbname=DATABASE["POSTGRES_DB"], user=user, password=password
        )
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    require("collector", available=find_collector(), how="`make collector` builds it")
    require("psql", available=shutil.which("psql"), how="PostgreSQL's client; `make test` installs PostgreSQL")
    with_timescale = timescale_programs()
    require("postgresql", available=with_timescale or find_postgres())
    program = with_timescale or find_postgres()[-1]
    port = free_port()
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1"]
    if with_timescale:
        options += ["-c", "shared_preload_libraries=timescaledb"]
    # As the image's own script: whoever comes by TCP shows a password.
    making = ("initdb", "-U", DATABASE["POSTGRES_USER"], "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync")
    server = KillableServer(program, *options, making=(*making, "-E", "utf8"))
    (tmp_path / "compose").mkdir()
    shutil.copy(CHECKOUT / "compose" / "secrets.sh", tmp_path / "compose")
    subprocess.run(["sh", tmp_path / "compose" / "secrets.sh"], check=True, capture_output=True, timeout=30)
    for secret in (tmp_path / "secrets").glob("*_url"):
        secret.write_text(secret.read_text().replace("timescaledb:5432", f"127.0.0.1:{port}"))
    local = conninfo.make_conninfo(server.url, port=str(port), user=DATABASE["POSTGRES_USER"])
    host = Host(tmp_path, server, conninfo.make_conninfo(local, dbname=DATABASE["POSTGRES_DB"]))
    try:
        server.spawn()
        until(lambda: "ready to accept connections" in server.log, 30, lambda: server.log)
        with psycopg.connect(local, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE['POSTGRES_DB']} TEMPLATE template0".encode())
        if with_timescale:
            host.ask("CREATE EXTENSION timescaledb")
        yield host
    finally:
        for process in host.processes.values():
            process.kill()
            process.wait(10)
        server.remove()


@pytest.mark.slow
def test_each_service_does_its_work_as_a_login_of_its_own(host: Host) -> None:
    host.set_up_roles()
    first = host.once("migrate")
    assert "applied: 0001_tables.sql" in first
    assert "postel_write: a sink" in first
    assert host.once("migrate").startswith("the schema is up to date\n")
    # Nothing of it is the superuser's, nor anybody but the owner may make anything.
    made = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert host.ask(made) == [("postel",)]
    assert host.ask("SELECT count(*) FROM pg_roles WHERE rolsuper AND rolcanlogin") == [(1,)]
    # What the rules find silent, and what is too old.
    host.ask(
        "INSERT INTO node (id, host, first_seen, last_seen)"
        " VALUES ('gone', 'gone', now() - interval '2 hours', now() - interval '1 hour')"
    )
    host.ask(
        "INSERT INTO dead_letter (record_id, received_at, hour, destination, reason, record)"
        " VALUES (gen_random_uuid(), '2020-01-01+00', '2020-01-01+00', 'otel_log', '', '{}')"
    )

    for service in RUNNING:
        host.start(service)
    for service in ("collector", "sink", "serve"):
        host.wait_for(service)

    event = {"eventName": "zonemta.delivery.accepted", "timeUnixNano": "1768471200000000000"}
    logs = {"resource": {"attributes": [{"key": "host.id", "value": {"stringValue": "one"}}]}}
    answer = httpx.post(
        host.here("http://collector:4318/v1/logs"),
        json={"resourceLogs": [{**logs, "scopeLogs": [{"logRecords": [event]}]}]},
        trust_env=False,
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    stored = "SELECT node_id FROM delivery_events"
    until(lambda: host.ask(stored) == [("one",)], 30, lambda: host.log("collector") + host.log("sink"))

    page = host.here("http://127.0.0.1:3001/api/v1")
    assert httpx.get(f"{page}/nodes", trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    (reader,), (admin,) = (yaml.safe_load(host.secret(f"{kind}_tokens")) for kind in ("read", "admin"))
    nodes = httpx.get(f"{page}/nodes", headers={"authorization": f"Bearer {reader}"}, trust_env=False)
    assert {node["id"] for node in nodes.json()["nodes"]} == {"gone", "one"}
    silence = {"rule": "node-silent", "ends": "2099-01-01T00:00:00Z", "author": "a", "reason": "b", "labels": {}}
    made_silence = httpx.post(
        f"{page}/silences", json=silence, headers={"authorization": f"Bearer {admin}"}, trust_env=False
    )
    assert made_silence.status_code == httpx.codes.CREATED, made_silence.text
    alert = "SELECT labels ->> 'node' FROM alert WHERE rule = 'node-silent'"
    until(lambda: ("gone",) in host.ask(alert), 30, lambda: host.log("serve"))
    letters = "SELECT count(*) FROM dead_letter"
    until(lambda: host.ask(letters) == [(0,)], 30, lambda: host.log("housekeeping"))

    for service, process in host.processes.items():
        process.terminate()
        assert process.wait(30) == 0, host.log(service)
    assert not any(host.healthy(service) for service in ("collector", "sink", "serve"))
    # Who has no volume writes nothing, for its container is read-only; nor does anybody in the folder where it starts.
    kept = {name for name in SERVICES if any(":/var/lib/postel" in each for each in SERVICES[name].get("volumes", ()))}
    made_here = {path.name for path in host.folder.iterdir() if path.suffix != ".log"}
    assert made_here - {"compose", "secrets"} <= kept
    assert "collector" in made_here
    for service in ("sink", "serve", "housekeeping"):
        said = [line for line in host.log(service).splitlines() if "[warning" in line or "[error" in line]
        assert said == [], service


def test_who_comes_in_as_grafana_or_the_sink_may_no_more_than_it_needs(host: Host) -> None:
    host.set_up_roles()
    host.once("migrate")
    with host.login("grafana", host.secret("grafana_password")) as grafana:
        for table in ("metrics_system", "metrics_system_1h", "email_events", "node"):
            assert grafana.execute(f"SELECT count(*) FROM {table}".encode()).fetchall() == [(0,)]
        assert grafana.execute("SHOW statement_timeout").fetchall() == [("1min",)]
        assert grafana.execute("SHOW jit").fetchall() == [("off",)]
        for statement in ("DELETE FROM metrics_system", "CREATE TABLE another (x int)", "CREATE TEMP TABLE t (x int)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                grafana.execute(statement.encode())
    for service in ("sink", "serve"):
        password = conninfo.conninfo_to_dict(host.secret(f"database_{service}_url"))["password"]
        with host.login(service, str(password)) as connection:
            for statement in ("DROP TABLE node", "TRUNCATE email_events", "CREATE TABLE another (x int)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


def test_a_password_that_changed_is_given_by_the_same_script(host: Host) -> None:
    host.set_up_roles()
    host.once("migrate")
    before = host.secret("grafana_password")
    (host.secrets / "grafana_password").write_text("another-one\n")
    host.set_up_roles()
    with host.login("grafana", "another-one"):
        pass
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"), host.login("grafana", before):
        pass
    # What would end a string of SQL's, or stand otherwise in a URL.
    (host.secrets / "grafana_password").write_text("it's")
    with pytest.raises(subprocess.CalledProcessError):
        host.set_up_roles()
