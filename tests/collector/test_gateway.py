"""The gateway before the sink: who shows a token over TLS gets in, nobody else, and both sides say why."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import psycopg
import pytest

from postel.collector import collector_config
from postel.otlp.signal import Signal
from support.collector import Collector, Sink, log_request
from support.gateway import AUTHORITY, TOKEN, Gateway, send_to
from support.ports import free_port
from support.running_agent import KillableAgent
from support.running_postel import until
from support.sink import RunningSink, running_sink
from support.tls_listeners import CERTIFICATES

_RENEWED = "POSTEL_GATEWAY_RELOAD"
# What a sender says that is none of these three is no clear line.
_AGENT_SAYS = "the OTLP receiver takes nothing now"
_COLLECTOR_SAYS = {
    "token": "The receiver refuses everything: look at address and token.",
    "tls": "No connection with the receiver comes about: look at TLS and certificates on both sides.",
}


def _port(sink: Sink) -> int:
    return int(sink.address.rpartition(":")[2])


@pytest.fixture
def gateway(program: Path, tmp_path: Path, sink: Sink) -> Iterator[Gateway]:
    """One that sees a renewed certificate within a second; its sink is the one that remembers."""
    sink.start()
    gateway = Gateway(program, tmp_path / "gateway", _port(sink))
    gateway.environment[_RENEWED] = "1s"
    gateway.start()
    yield gateway
    gateway.end()


@contextmanager
def host(program: Path, folder: Path) -> Iterator[Collector]:
    """The Collector of a host, not started yet."""
    folder.mkdir()
    collector = Collector(program, folder, free_port())
    try:
        yield collector
    finally:
        collector.end()


@contextmanager
def agent(folder: Path, endpoint: str, *, token: str = TOKEN, **more: object) -> Iterator[KillableAgent]:
    """An agent that sends straight to a gateway."""
    folder.mkdir()
    started = KillableAgent(
        folder,
        endpoint,
        code=None,
        OTLP__CERTIFICATE=AUTHORITY,
        OTLP__HEADERS=f'{{"authorization": "Bearer {token}"}}',
        NODE__ID=folder.name,
        **more,
    )
    started.spawn()
    try:
        yield started
    finally:
        started.kill()


@contextmanager
def senders(
    program: Path, folder: Path, gateway: Gateway, *, token: str = TOKEN, plain: bool = False
) -> Iterator[tuple[KillableAgent, KillableAgent, Collector]]:
    """An agent by HTTP, one by gRPC, and the Collector of a host that has one log record to send."""
    scheme = "http" if plain else "https"
    with (
        agent(folder / "http", f"{scheme}://localhost:{gateway.http_port}", token=token) as by_http,
        agent(
            folder / "grpc", f"{scheme}://localhost:{gateway.grpc_port}", token=token, OTLP__PROTOCOL="grpc"
        ) as by_grpc,
        host(program, folder / "host") as collector,
    ):
        files = send_to(collector, gateway, token=token)
        without_tls = "exporters::otlp_grpc/sink: {tls: {insecure: true, ca_file: null}, auth: null}"
        collector.start(*([without_tls] if plain else []), files=files)
        assert collector.send(log_request("of the host")) == httpx.codes.OK
        yield by_http, by_grpc, collector


def _nodes(sink: Sink) -> set[str]:
    """The nodes whose data came."""
    found = set()
    for request in list(sink.taken):
        for resource in getattr(request, "resource_metrics", ()) or getattr(request, "resource_logs", ()):
            found |= {a.value.string_value for a in resource.resource.attributes if a.key == "host.id"}
    return found


def _said(log: str, *words: str) -> bool:
    """Whether one line has all of these."""
    return any(all(word in line for word in words) for line in log.splitlines())


def test_a_request_may_be_larger_over_grpc_than_over_http(gateway: Gateway, sink: Sink) -> None:
    """As docs/security.md says it: a host's Collector comes by the one, an agent alone by the other."""
    large = log_request("large", padding=5 << 20).SerializeToString()
    refused = httpx.post(
        f"https://localhost:{gateway.http_port}/v1/logs",
        content=large,
        headers={"content-type": "application/x-protobuf", "authorization": f"Bearer {TOKEN}"},
        verify=ssl.create_default_context(cafile=str(AUTHORITY)),
        timeout=30,
    )
    assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    credentials = grpc.ssl_channel_credentials(AUTHORITY.read_bytes())
    with grpc.secure_channel(f"localhost:{gateway.grpc_port}", credentials) as channel:
        call: Any = channel.unary_unary(Signal.LOGS.method)
        call(large, timeout=30, metadata=(("authorization", f"Bearer {TOKEN}"),))
    until(lambda: sink.bodies() == ["large"], 30, gateway.log)


@pytest.mark.parametrize(
    "files",
    [
        ("gateway.yaml",),
        ("gateway.yaml", "gateway-mtls.yaml"),
        ("gateway.yaml", "vendor.yaml"),
        ("gateway.yaml", "gateway-mtls.yaml", "vendor.yaml"),
        ("to-gateway.yaml",),
        ("to-gateway.yaml", "to-gateway-mtls.yaml"),
        ("vendor.yaml",),
    ],
    ids=" ".join,
)
def test_each_shipped_configuration_validates(program: Path, files: Sequence[str]) -> None:
    # The addresses of others have no default.
    environment = {"POSTEL_GATEWAY": "gateway.example.org:4317", "POSTEL_VENDOR": "https://otlp.example.com"}
    configs = [f"--config={collector_config(name)}" for name in ("agent.yaml", *files)]
    done = subprocess.run(
        [program, "validate", *configs], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_hosts_send_arrives_and_the_gateway_tells_of_itself(
    program: Path, tmp_path: Path, migrated_postgres: str
) -> None:
    """Over TLS on all of the way, and the sink wants to see a certificate."""
    shown, own = str(CERTIFICATES / "gateway.pem"), str(CERTIFICATES / "host.pem")
    tls = {"POSTEL_SINK__TLS_CERTIFICATE": shown, "POSTEL_SINK__TLS_CLIENT_CA": str(AUTHORITY)}
    with running_sink(tmp_path, migrated_postgres, **tls, POSTEL_SINK__TLS_CLIENT_CERTIFICATE=own) as sink:
        sink.start()
        gateway = Gateway(program, tmp_path / "gateway", sink.ports[0])
        gateway.environment |= {
            "POSTEL_SINK_CA": str(AUTHORITY),
            "POSTEL_SINK_CLIENT_CERTIFICATE": own,
            "POSTEL_SINK_CLIENT_KEY": own,
        }
        try:
            gateway.start()
            with senders(program, tmp_path, gateway):
                until(lambda: _rows(sink, "SELECT 1 FROM otel_log WHERE node_id = 'node-1'"), 30, "the Collector's")
                for node in ("http", "grpc"):
                    asked = f"SELECT 1 FROM metrics_system WHERE node_id = '{node}'"
                    until(lambda: _rows(sink, asked), 30, f"the agent's by {node}")  # noqa: B023 - used at once
            # What is on the way arrives; and what the gateway has to say of its last minute it says when it ends.
            time.sleep(2)
            assert gateway.stop() == 0
            accepted = _rows(
                sink,
                "SELECT sum(most) FROM (SELECT max(value_int) AS most FROM otel_metric_point JOIN otel_series USING "
                "(series_id) WHERE node_id = 'gateway-1' AND metric = 'otelcol_receiver_accepted_log_records' "
                "GROUP BY series_id) AS of_series",
            )
            assert accepted == _rows(sink, "SELECT count(*) FROM otel_log WHERE node_id <> 'gateway-1'")
        finally:
            gateway.end()
        assert "refused" not in gateway.log()


def _rows(sink: RunningSink, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(sink.url) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.slow
def test_a_wrong_token_is_refused_until_the_gateway_has_it(
    program: Path, tmp_path: Path, gateway: Gateway, sink: Sink
) -> None:
    with senders(program, tmp_path, gateway, token="another") as (*agents, collector):  # noqa: S106 - a test's
        for each, status in zip(agents, ("HTTP 401", "UNAUTHENTICATED"), strict=True):
            until(lambda: _said(each.log, _AGENT_SAYS, status, "provided authorization"), 30, each.log)  # noqa: B023
        until(lambda: _said(collector.log(), _COLLECTOR_SAYS["token"], "Unauthenticated"), 30, "the Collector's line")
        assert _said(gateway.log(), "A sender is refused", '"from": "127.0.0.1"', "provided authorization")
        assert _nodes(sink) <= {"gateway-1"}

        # Both count from now on, without a restart of anybody.
        gateway.tokens.write_text(f"{TOKEN}\nanother for a while\n")
        until(lambda: sink.bodies() == ["of the host"], 30, "the new token")


@pytest.mark.slow
def test_an_expired_certificate_is_refused_until_it_is_renewed(
    program: Path, tmp_path: Path, gateway: Gateway, sink: Sink
) -> None:
    assert gateway.stop() == 0
    gateway.show("gateway-expired")
    gateway.start()
    with senders(program, tmp_path, gateway) as (*agents, collector):
        for each in agents:
            until(lambda: _said(each.log, _AGENT_SAYS, "certificate has expired"), 30, each.log)  # noqa: B023
        until(
            lambda: _said(collector.log(), _COLLECTOR_SAYS["tls"], "certificate has expired"),
            30,
            "the Collector's line",
        )
        assert _said(gateway.log(), "The certificate that senders are shown has expired", "2020-04-01")
        assert _said(gateway.log(), "A connection is refused: no TLS comes about", "bad certificate")
        assert _nodes(sink) <= {"gateway-1"}

        gateway.show("gateway")
        # Of the agents everything comes again that was sent meanwhile.
        until(lambda: {"http", "grpc", "node-1"} <= _nodes(sink), 30, "the renewed certificate")


@pytest.mark.slow
def test_a_plain_connection_is_refused(program: Path, tmp_path: Path, gateway: Gateway, sink: Sink) -> None:
    with senders(program, tmp_path, gateway, plain=True) as (by_http, by_grpc, collector):
        # The gateway's own word, or where the connection is gone before it is read, the agent's.
        words = "Client sent an HTTP request to an HTTPS server", "does it want https?"
        until(lambda: any(_said(by_http.log, _AGENT_SAYS, word) for word in words), 30, "the agent's line, by HTTP")
        until(lambda: _said(by_grpc.log, _AGENT_SAYS, "Socket closed"), 30, by_grpc.log)
        until(lambda: _said(collector.log(), _COLLECTOR_SAYS["tls"]), 30, "the Collector's line")
        assert _said(gateway.log(), "TLS handshake error", "client sent an HTTP request to an HTTPS server")
        assert _said(gateway.log(), "A connection is refused: no TLS comes about", "does not look like a TLS handshake")
        assert _nodes(sink) <= {"gateway-1"}


def test_who_has_no_token_is_turned_away_before_anything_is_read(gateway: Gateway) -> None:
    """The receiver by itself decodes the message first, and answers what is wrong with that."""

    def answer(body: bytes, token: str) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            call(body, timeout=10, metadata=(("authorization", f"Bearer {token}"),))
        return caught.value.code()

    credentials = grpc.ssl_channel_credentials(AUTHORITY.read_bytes())
    with grpc.secure_channel(f"localhost:{gateway.grpc_port}", credentials) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(Signal.LOGS.method)
        for body, its_fault in (
            (b"\xff is no protobuf", grpc.StatusCode.INTERNAL),
            (bytes(17 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):
            assert answer(body, "another") is grpc.StatusCode.UNAUTHENTICATED
            assert answer(body, TOKEN) is its_fault


@pytest.mark.slow
def test_a_certificate_in_place_of_the_token(program: Path, tmp_path: Path, sink: Sink) -> None:
    """Shown by the Collector of a host, and by an agent over either protocol; none and an expired one are refused."""
    sink.start()
    gateway = Gateway(program, tmp_path / "gateway", _port(sink), mtls=True)
    # Nobody asks for a token.
    gateway.tokens.unlink()
    shown = tmp_path / "shown.pem"
    shutil.copyfile(CERTIFICATES / "host-expired.pem", shown)
    by_http, by_grpc = f"https://localhost:{gateway.http_port}", f"https://localhost:{gateway.grpc_port}"
    try:
        gateway.start()
        with (
            agent(tmp_path / "http", by_http, OTLP__CLIENT_CERTIFICATE=shown) as one,
            agent(tmp_path / "grpc", by_grpc, OTLP__CLIENT_CERTIFICATE=shown, OTLP__PROTOCOL="grpc") as two,
            agent(tmp_path / "none", by_http) as without,
            host(program, tmp_path / "host") as collector,
        ):
            collector.environment["POSTEL_GATEWAY_RELOAD"] = "1s"
            files = send_to(collector, gateway, certificate="host-expired")
            collector.environment |= dict.fromkeys(
                ("POSTEL_GATEWAY_CLIENT_CERTIFICATE", "POSTEL_GATEWAY_CLIENT_KEY"), str(shown)
            )
            collector.start(files=files)
            assert collector.send(log_request("of the host")) == httpx.codes.OK
            for each in (one, two, without):
                until(lambda: _said(each.log, _AGENT_SAYS), 30, each.log)  # noqa: B023 - used at once
            until(lambda: _said(collector.log(), _COLLECTOR_SAYS["tls"]), 30, "the Collector's line")
            until(
                lambda: _said(gateway.log(), "http: TLS handshake error", "has expired"), 30, "the gateway's, by HTTP"
            )
            until(lambda: _said(gateway.log(), "A connection is refused", "has expired"), 30, "the gateway's, by gRPC")
            until(lambda: _said(gateway.log(), "client didn't provide a certificate"), 30, "of who shows none")
            assert _nodes(sink) <= {"gateway-1"}

            # Renewed, and no sender is started anew.
            shutil.copyfile(CERTIFICATES / "host.pem", shown)
            until(lambda: {"http", "grpc", "node-1"} <= _nodes(sink), 60, "the renewed certificate")
            assert "none" not in _nodes(sink)
    finally:
        gateway.end()


def test_nothing_listens_beyond_loopback_unless_asked(gateway: Gateway) -> None:
    listening = gateway.listening()
    assert len(listening) == 3, "gRPC, HTTP, health check"
    assert {address for address, _port in listening} == {"127.0.0.1"}
