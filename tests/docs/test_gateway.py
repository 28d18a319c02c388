"""docs/gateway.md, followed from top to bottom: each of its commands runs, on loopback and in folders of the test's."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

from postel.collector import collector_config, find_collector
from postel.otlp.client import sender_of
from postel.otlp.sender import Sent
from postel.otlp.signal import Signal
from postel.settings import load_settings
from support.collector import Sink, log_request, running_block
from support.environment import forget_settings
from support.markdown import CHECKOUT, Reading, reading, run, variables
from support.otlp_thread import OtlpThread
from support.ports import free_port, free_ports
from support.requirements import require
from support.running_postel import until
from support.services import SYSTEMD, make_root, started_by


@dataclass
class Following:
    """Who follows the page.

    Attributes:
        folder: in which ``/etc/postel`` and ``/var/lib/postel`` are.
        ports: of the gateway's gRPC and HTTP.
        variables: of every command.
    """

    folder: Path
    vendor: str
    variables: dict[str, str]
    ports: list[int] = field(default_factory=lambda: free_ports(2))

    def here(self, text: str) -> str:
        """The text with this machine's names in the place of the page's."""
        names = {
            "/etc/postel": str(self.folder / "etc"),
            "/var/lib/postel": str(self.folder / "var"),
            "0.0.0.0:4317": f"127.0.0.1:{self.ports[0]}",
            "0.0.0.0:4318": f"127.0.0.1:{self.ports[1]}",
            "gateway.example.org:4317": f"localhost:{self.ports[0]}",
            "gateway.example.org:4318": f"localhost:{self.ports[1]}",
            "gateway.example.org": "localhost",
            "https://otlp.example.com": self.vendor,
        }
        for name, mine in names.items():
            text = text.replace(name, mine)
        return text

    def run(self, block: str) -> str:
        """Run a block that ends; what it prints."""
        return run(self.here(block), CHECKOUT, self.variables)

    def service(self, toml: str, block: str, unit: str) -> str:
        """Follow how a service is set up; what systemd then starts, as a block."""
        root = make_root(self.folder / unit)
        for name, mine in SYSTEMD.items():
            block = block.replace(name, mine)
        # The user of that name is in that root alone.
        block = block.replace("chgrp postel", f"chgrp {os.getgid()}")
        run(self.here(block), CHECKOUT, {**self.variables, "ROOT": str(root)})
        assert (root / "etc/systemd/system/multi-user.target.wants" / unit).is_symlink()
        settings = self.folder / f"{unit}.toml"
        settings.write_text(self.here(toml))
        return started_by(root / "etc/systemd/system" / unit, settings, self.folder / "etc" / "environment")

    def running(
        self, block: str, name: str, after: str = "", **variables: str
    ) -> AbstractContextManager[Callable[[], str]]:
        """As `running_block`, with this machine's names.

        What the block ``after`` which it comes exports is known to it, as in one shell.
        """
        known = re.findall(r"^export .*", after, re.MULTILINE)
        script = self.here("\n".join([*known, block]))
        by_settings = "postel.cli" in block
        health = "POSTEL_OTLP__COLLECTOR_HEALTH_ADDRESS" if by_settings else "POSTEL_COLLECTOR_HEALTH"
        return running_block(script, {**self.variables, **variables}, self.folder / f"{name}.log", health)


def tell(collector: str, body: str) -> None:
    """A record for a host's Collector."""
    answer = httpx.post(
        f"http://{collector}/v1/logs",
        content=log_request(body).SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
        timeout=30,
    )
    assert answer.status_code == httpx.codes.OK


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink(free_port())
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture
def following(tmp_path: Path, sink: Sink, otlp_receiver: OtlpThread) -> Following:
    program = find_collector()
    require("collector", available=program, how="`make collector` builds it")
    require("openssl", available=shutil.which("openssl"))
    require("curl", available=shutil.which("curl"))
    assert program
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "postel-otelcol").symlink_to(program)
    sinks = {"POSTEL_SINK_GRPC": sink.address, "POSTEL_SINK__GRPC_ADDRESS": sink.address}
    return Following(tmp_path, otlp_receiver.endpoint, variables(tmp_path / "bin", **sinks))


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_page_leads_to_a_gateway(
    following: Following, sink: Sink, otlp_receiver: OtlpThread, migrated_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading("docs/gateway.md") as page:
        await follow(page, following, sink, otlp_receiver, monkeypatch)
        # Of a sink that no gateway has told of itself yet it finds nothing.
        (query,) = page.take("sql")
        with psycopg.connect(migrated_postgres) as connection:
            assert connection.execute(query.encode()).fetchall() == []


async def follow(
    page: Reading, following: Following, sink: Sink, otlp_receiver: OtlpThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    *preparing, starting = page.take("sh", "gateway")
    for block in preparing:
        following.run(block)
    etc = following.folder / "etc"
    for path in (etc / "collector").glob("*.yaml"):
        path.write_text(following.here(path.read_text()))
    mine, its = (f"127.0.0.1:{port}" for port in free_ports(2))
    on_host = {
        "POSTEL_COLLECTOR_GRPC": mine,
        "POSTEL_COLLECTOR_HTTP": its,
        "POSTEL_COLLECTOR_STORAGE": str(following.folder / "host"),
    }

    with following.running(starting, "gateway") as log:
        (check,) = page.take("sh", "check")
        assert following.run(check) == '{"partialSuccess":{}}401'
        assert "A sender is refused" in log()
        (host,) = page.take("sh", "host")
        with following.running(host, "host", **on_host) as host_log:
            # The agent's service reads the one; the other is root's, who brought it.
            assert [oct(stat.S_IMODE((etc / name).stat().st_mode)) for name in ("authority.crt", "gateway-token")] == [
                "0o644",
                "0o600",
            ]
            tell(its, "by a token")
            until(lambda: "by a token" in sink.bodies(), 30, host_log)
        (toml,) = page.take("toml")
        token = (etc / "gateway-token").read_text().strip()
        settings = following.folder / "postel.toml"
        settings.write_text(following.here(toml).replace("the-token", token))
        forget_settings(monkeypatch)
        sender = sender_of(load_settings(settings).otlp)
        assert await sender.send(Signal.LOGS, log_request("by an agent").SerializeToString()) == Sent()
        await sender.close()
        until(lambda: "by an agent" in sink.bodies(), 30, log)

    (toml,), (block,) = page.take("toml", "service-gateway"), page.take("sh", "service-gateway")
    service = following.service(toml, block, "postel-gateway.service")
    (toml,), (block,) = page.take("toml", "service-host"), page.take("sh", "service-host")
    of_host = following.service(toml, block, "postel-collector.service")
    files = {
        name: following.here(path)
        for shipped in collector_config().parent.glob("*.yaml")
        for name, path in re.findall(r"\$\{env:(\w+):-(/etc/postel/[^}]*)\}", shipped.read_text())
    }
    addresses = {"POSTEL_OTLP__COLLECTOR_GRPC_ADDRESS": mine, "POSTEL_OTLP__COLLECTOR_HTTP_ADDRESS": its}
    with (
        following.running(service, "gateway-service", **files) as log,
        following.running(of_host, "host-service", **files, **addresses) as host_log,
    ):
        tell(its, "by services")
        until(lambda: "by services" in sink.bodies(), 30, lambda: log() + host_log())
        assert {path.name for path in (following.folder / "var").iterdir()} == {"gateway", "collector"}

    (block,) = page.take("sh", "vendor")
    with following.running(block, "vendor", starting) as log, following.running(host, "host-again", **on_host):
        tell(its, "for both")
        until(lambda: "for both" in sink.bodies() and len(otlp_receiver.requests()) > 0, 30, log)

    (gateway,), (of_host,) = page.take("sh", "mtls-gateway"), page.take("sh", "mtls-host")
    with (
        following.running(gateway, "mtls-gateway", starting) as log,
        following.running(of_host, "mtls-host", host, **on_host) as host_log,
    ):
        tell(its, "by a certificate")
        until(lambda: "by a certificate" in sink.bodies(), 30, lambda: log() + host_log())
