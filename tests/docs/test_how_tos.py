"""The how-tos of docs/: each followed in folders of the test's own, with a server where the page has one."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from postel.collector import find_collector
from postel.otlp.client import sender_of
from postel.otlp.sender import Sent
from postel.otlp.signal import Signal
from postel.settings import Settings, load_settings
from support.collector import log_request
from support.environment import forget_settings
from support.markdown import CHECKOUT, reading, run, variables
from support.otlp_thread import OtlpThread
from support.page import status
from support.ports import free_port, free_ports
from support.postgres import KillableServer
from support.requirements import require
from support.running_postel import until
from support.services import SYSTEMD, make_root
from tools.bootstrap.programs import find_postgres

CERTIFICATES = CHECKOUT / "tests" / "support" / "certificates"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget_settings(monkeypatch)
    return make_root(tmp_path / "root")


def settings(text: str, folder: Path) -> Settings:
    (folder / "postel.toml").write_text(text)
    return load_settings(folder / "postel.toml")


def haraka(folder: Path) -> Path:
    """As far as the installer of plugins looks at one."""
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "plugins").write_text("queue/discard\n")
    return folder


@pytest.mark.slow
def test_the_wildduck_suite_on_one_host(root: Path, tmp_path: Path) -> None:
    instead = {
        **SYSTEMD,
        "systemctl restart zone-mta haraka": "true",
        "/opt/postel/bin/postel plugins install": f"postel plugins install --haraka {haraka(tmp_path / 'haraka')}",
        "/opt/postel/bin/postel agent": "postel agent",
        "/etc/postel/postel.toml": str(tmp_path / "postel.toml"),
        "/var/lib/postel": str(tmp_path / "data"),
        # Nothing is started here: it has to say so, and that is what its exit code is.
        "/opt/postel/bin/postel doctor": f"postel doctor --config {tmp_path}/postel.toml || test $? = 1",
    }
    environment = variables(POSTEL_COLLECTOR="none", ROOT=str(root), POSTEL_INTAKE__ADDRESS=f"127.0.0.1:{free_port()}")
    with reading("docs/wildduck-suite.md", instead=instead) as page:
        (toml,) = page.take("toml")
        assert settings(toml, tmp_path).discovery.wildduck_api_token
        for kind in ("services", "found", "plugins"):
            (block,) = page.take("sh", kind)
            run(block, tmp_path, environment)
        assert (tmp_path / "haraka/plugins/postel").is_dir()
        (start,) = page.take("sh", "start")
        assert "database" in run(start, tmp_path, environment)
        assert (root / "etc/systemd/system/multi-user.target.wants/postel.service").is_symlink()


def test_several_hosts(root: Path, tmp_path: Path) -> None:
    authority = tmp_path / "authority.crt"
    shutil.copy(CERTIFICATES / "authority.pem", authority)
    instead = {
        **SYSTEMD,
        "systemctl restart zone-mta haraka": "true",
        "/opt/postel/bin/postel plugins install": f"postel plugins install --haraka {haraka(tmp_path / 'haraka')}",
        "/etc/postel/authority.crt": str(authority),
        "/etc/postel/gateway": "$ROOT/etc/postel/gateway",
        "/var/lib/postel": str(tmp_path / "data"),
        "chgrp postel": f"chgrp {os.getgid()}",
        # Nothing is started here: it has to say so, and that is what its exit code is.
        "/opt/postel/bin/postel doctor": "postel doctor --config $ROOT/etc/postel/postel.toml || test $? = 1",
    }
    with reading("docs/cluster.md", instead=instead) as page:

        def follow_host(kind: str, parts: set[str]) -> str:
            """What the last block of a host prints."""
            host = make_root(root.with_name(kind))
            environment = variables(POSTEL_COLLECTOR="none", ROOT=str(host))
            (block,), (toml,), (start,) = (
                page.take("sh", kind),
                page.take("toml", kind),
                page.take("sh", f"{kind}-start"),
            )
            run(block, tmp_path, environment)
            # As an editor does: what it writes keeps the file's rights.
            written = host / "etc/postel/postel.toml"
            written.write_text(toml)
            for name in ("tls.key", "tokens") if "gateway" in parts else ():
                (written.parent / "gateway").mkdir(exist_ok=True)
                (written.parent / "gateway" / name).touch(0o600)
            said = run(start, tmp_path, environment)
            assert f"ok    settings: {written}\n" in said, "others may not read it"
            for names in ("*.service", "multi-user.target.wants/*.service"):
                units = {path.name for path in (host / "etc/systemd/system").glob(names)}
                assert units == {f"postel-{part}.service" for part in parts}
            return said

        said = follow_host("data", {"gateway", "sink", "serve"})
        assert "[database] url" in said
        assert "agent: none runs" not in said
        assert stat.S_IMODE((root.with_name("data") / "etc/postel/gateway/tls.key").stat().st_mode) == 0o640
        said = follow_host("mail", {"agent"})
        assert "https://gateway.example.org:4318 takes no OTLP" in said
        assert "agent: none runs" in said
        assert "page: " not in said
        assert (tmp_path / "haraka/plugins/postel").is_dir(), "without it nothing of messages comes"


@pytest.mark.slow
async def test_a_vendor(otlp_receiver: OtlpThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("collector", available=find_collector(), how="`make collector` builds it")
    forget_settings(monkeypatch, keep="POSTEL_COLLECTOR")
    instead = {
        "https://otlp-gateway-prod-eu-west-2.grafana.net/otlp": otlp_receiver.endpoint,
        # Of all that it runs, what sends to a vendor.
        "postel up": "exec postel collector",
    }
    # Nobody is where the sink would be.
    grpc, http, health, sink = (f"127.0.0.1:{port}" for port in free_ports(4))
    environment = variables(
        POSTEL_DATA_DIR=str(tmp_path / "data"),
        POSTEL_SINK__GRPC_ADDRESS=sink,
        POSTEL_OTLP__COLLECTOR_GRPC_ADDRESS=grpc,
        POSTEL_OTLP__COLLECTOR_HTTP_ADDRESS=http,
        POSTEL_OTLP__COLLECTOR_HEALTH_ADDRESS=health,
        POSTEL_COLLECTOR=str(find_collector()),
    )
    with reading("docs/vendor.md", instead=instead) as page:
        (block,), (toml,) = page.take("sh", "beside"), page.take("toml")
        process = started(block, tmp_path / "log", environment)
        try:
            until(lambda: status(f"http://{health}") == 200, 30, (tmp_path / "log").read_text)
            by_collector = sender_of(settings(f'[otlp]\nendpoint = "http://{http}"\n', tmp_path).otlp)
            await by_collector.send(Signal.LOGS, log_request("by the Collector").SerializeToString())
            await by_collector.close()
            until(lambda: otlp_receiver.bodies() == ["by the Collector"], 30, (tmp_path / "log").read_text)
        finally:
            process.terminate()
            process.wait(30)
        alone = sender_of(settings(toml, tmp_path).otlp)
        assert await alone.send(Signal.LOGS, log_request("by an agent").SerializeToString()) == Sent()
        await alone.close()
        assert otlp_receiver.bodies() == ["by the Collector", "by an agent"]
        # What the shell makes of user and token is what the settings have.
        (header,) = re.findall(r'headers = \{authorization = "(.*)"\}', toml)
        made = run("printf 'Basic %s' \"$(printf 123456:the-token | base64 --wrap=0)\"", tmp_path, environment)
        assert header == made


def started(block: str, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            ["bash", "-e", "-c", block], cwd=CHECKOUT, env=environment, stdout=output, stderr=output
        )


@pytest.mark.slow
def test_plain_postgresql_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("postgresql", available=find_postgres())
    forget_settings(monkeypatch, "PG")
    port = free_port()
    server = KillableServer(find_postgres()[0], "-c", f"port={port}", "-c", "listen_addresses=localhost")
    try:
        certificate = server.folder / "server.pem"
        shutil.copy(CERTIFICATES / "gateway.pem", certificate)
        shutil.chown(certificate, server.folder.owner(), server.folder.group())
        certificate.chmod(0o600)
        configuration = server.folder / "data" / "postgresql.conf"
        configuration.write_text(
            f"{configuration.read_text()}\nssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{certificate}'\n"
        )
        # As a cloud has it: nobody comes in without TLS, and with a password.
        (server.folder / "data" / "pg_hba.conf").write_text("local all all trust\nhostssl all all all scram-sha-256\n")
        server.spawn()
        local = conninfo.make_conninfo(server.url, port=str(port))
        until(lambda: can_connect(local), 20, lambda: server.log)
        follow(local, port, tmp_path)
    finally:
        server.remove()


def can_connect(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def follow(local: str, port: int, folder: Path) -> None:
    instead = {
        "db.example.org:5432": f"localhost:{port}",
        "/etc/postel/database-authority.pem": str(CERTIFICATES / "authority.pem"),
    }
    with reading("docs/postgresql.md", instead=instead) as page:
        (sql,), (toml,), (shell,) = page.take("sql"), page.take("toml"), page.take("sh")
        with psycopg.connect(local, autocommit=True) as connection:
            connection.execute("CREATE ROLE administrator LOGIN CREATEDB CREATEROLE")
        with psycopg.connect(conninfo.make_conninfo(local, user="administrator"), autocommit=True) as connection:
            for statement in filter(str.strip, sql.split(";")):
                connection.execute(statement.encode())
        assert settings(toml, folder).database.raw_days == 60
        said = run(shell, folder, variables(POSTEL_DATA_DIR=str(folder), POSTEL_CONFIG=str(folder / "postel.toml")))
        assert "applied: 0001_tables.sql" in said
        assert "(PostgreSQL)\n" in said
        assert "kept: metrics_system, 60 days\n" in said
        url = load_settings(folder / "postel.toml").database.url
        assert url
        with psycopg.connect(url.get_secret_value()) as connection:
            assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
            assert connection.execute("SELECT current_user::text").fetchone() == ("postel",)
        # Another name, and it does not let itself be had.
        wrong = conninfo.make_conninfo(url.get_secret_value(), hostaddr="127.0.0.1", host="db.example.org")
        with pytest.raises(psycopg.OperationalError, match="does not match host name"):
            psycopg.connect(wrong)
