"""docs/security.md: its commands run, its settings are read, and its figures are those of the code."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import psycopg
import yaml

from otel_receivers import intake
from postel import bounded_http, bounded_tls, serving, strangers
from postel.collector import collector_config
from postel.otlp import admission, grpc_server, http_server
from postel.settings import Intake, Serve, Sink, load_settings
from support.markdown import CHECKOUT, blocks, reading
from support.postgres import fresh_database
from support.sink import running_sink
from timescale_sink.api import live
from timescale_sink.store.roles import ROLES

PAGE = (CHECKOUT / "docs" / "security.md").read_text("utf-8")


def test_its_settings_are_read(tmp_path: Path) -> None:
    with reading("docs/security.md", others={"sh": "tests/docs/test_security.py"}) as page:
        (text,) = page.take("toml")
    (tmp_path / "postel.toml").write_text(text)
    settings = load_settings(tmp_path / "postel.toml")
    assert (settings.intake.scheme, settings.intake.tls_ca) == ("https", Path("/etc/postel/authority.crt"))
    assert settings.intake.tls_client_ca == Path("/etc/postel/senders.crt")
    assert settings.sink.uses_tls
    assert settings.sink.tls_client_ca == Path("/etc/postel/senders.crt")
    assert settings.serve.scheme == "https"


def test_its_commands_make_the_roles(postgres: str, tmp_path: Path) -> None:
    with fresh_database(postgres) as url, running_sink(tmp_path, url) as sink:
        try:
            (commands,) = blocks("docs/security.md", "sh")
            for line in commands.text.splitlines():
                done = sink.command(*line.partition("#")[0].split()[1:])
                assert done.returncode == 0, done.stderr
            with psycopg.connect(url) as connection:
                found = connection.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^postel_' ORDER BY 1")
                assert [name for (name,) in found] == sorted(ROLES)
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                for role in ROLES:
                    connection.execute(f"DROP OWNED BY {role}".encode())
                    connection.execute(f"DROP ROLE {role}".encode())


def test_its_figures_are_those_of_the_code() -> None:
    sink, page = Sink(), Serve()
    assert f"{Intake().connections} connections at address and socket each" in PAGE
    assert f" each; {intake.REQUEST_BYTES >> 20} MiB a body; the HTTP bounds" in PAGE
    assert f"{sink.connections} connections each; {sink.request_bytes >> 20} MiB a request after decompress" in PAGE
    in_work = f"{admission.ROOM_BYTES >> 20} and {admission.LARGE_ROOM_BYTES >> 20} MiB in work"
    assert f"{admission.PLACES} requests read at once, {admission._WAITING} wait, {in_work}" in PAGE
    handshake = f"{grpc_server._HANDSHAKE_MS // 1000} s for its handshake"
    assert f"{grpc_server._STREAMS} calls of a gRPC connection, {handshake}" in PAGE
    assert strangers._SHARE == 4
    assert f"{page.connections} connections, of which those who have shown no token hold half at most" in PAGE
    assert f"a form for {strangers.FORM_SECONDS:g} s; {serving._MESSAGE_BYTES >> 20} MiB a body and" in PAGE
    assert f"{live._MOST_LISTENERS} listeners of `/api/v1/live`, {live._MOST_SUBSCRIPTIONS} subscriptions" in PAGE
    assert f"a handshake of TLS within {bounded_tls.HANDSHAKE_SECONDS:g} s" in PAGE
    assert f"a head of {bounded_http.HEAD_BYTES >> 10} KiB within {bounded_http.HEAD_SECONDS:g} s, a body" in PAGE
    assert f"within {bounded_http.BODY_SECONDS:g} s (OTLP: {http_server._READ_SECONDS:g} s)" in PAGE


def row(door: str) -> str:
    """The row of a door in the table."""
    (found,) = [line for line in PAGE.splitlines() if line.startswith(f"| {door}")]
    return found


def configuration(*names: str) -> dict[str, Any]:
    """The Collector's, of shipped files each laid over those before it: maps are merged, all else is replaced."""

    def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        both = {
            key: over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
            for key, value in above.items()
        }
        return {**below, **both}

    read = [yaml.safe_load(collector_config(name).read_text("utf-8")) for name in names]
    return functools.reduce(over, read)


def default(value: str) -> int:
    """That of ``${env:NAME:-default}``."""
    (found,) = re.findall(r"^\$\{env:\w+:-(\d+)\}$", value)
    return int(found)


def test_its_figures_of_the_collector_are_those_of_its_files() -> None:
    config = configuration("agent.yaml")
    grpc, http = (config["receivers"]["otlp"]["protocols"][name] for name in ("grpc", "http"))
    connections = default(config["extensions"]["connection_limit"]["connections"])
    head, body = (http[name].rstrip("s") for name in ("read_header_timeout", "read_timeout"))
    idle = grpc["keepalive"]["server_parameters"]["max_connection_idle"].rstrip("m")
    size = config["extensions"]["body_limit"]["bytes"] >> 20
    assert grpc["max_recv_msg_size_mib"] == size, "one figure is said of both"
    memory = config["processors"]["memory_limiter"]["limit_mib"]
    queue = config["exporters"]["otlp_grpc/sink"]["sending_queue"]["queue_size"] >> 20
    bounds = (
        f"{connections} connections each; {head} s a head, {body} s a body over HTTP; "
        f"{grpc['max_concurrent_streams']} calls of a gRPC connection, 10 s for its handshake, {idle} minutes idle; "
        f"{size} MiB a request; {memory} MiB of memory; a queue of {queue} MiB on disk |"
    )
    assert row("Collector 4317").endswith(bounds)


def test_its_figures_of_the_gateway_are_those_of_its_files() -> None:
    agent, config = configuration("agent.yaml"), configuration("agent.yaml", "gateway.yaml")
    before, after = (each["receivers"]["otlp"]["protocols"] for each in (agent, config))
    for protocol, of_its_own in (
        ("grpc", {"max_recv_msg_size_mib", "tls", "auth", "middlewares"}),
        ("http", {"tls", "auth"}),
    ):
        changed = {key for key, value in after[protocol].items() if before[protocol].get(key) != value}
        assert changed == of_its_own, "the rest is the same, as the row says"
    assert config["exporters"] == agent["exporters"]
    # What is over HTTP refuses what is larger than this, as the Collector's does.
    assert {"id": "body_limit"} in after["http"]["middlewares"]
    assert {"id": "body_limit"} not in after["grpc"]["middlewares"]
    over_http = config["extensions"]["body_limit"]["bytes"] >> 20
    sizes = f"{after['grpc']['max_recv_msg_size_mib']} MiB a request over gRPC, {over_http} MiB over HTTP"
    memory = default(config["processors"]["memory_limiter"]["limit_mib"]) >> 10
    assert row("gateway").endswith(f"{sizes}; {memory} GiB of memory |")
