"""`postel collector`: each of Postel's Collectors in the place of the command; that of Kafka is in test_kafka.py."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from postel.collector import Tier, collector_config, find_collector
from postel.collector_process import environment
from postel.errors import SettingsError
from postel.settings import Settings
from support.collector import Sink, is_healthy, log_request
from support.gateway import AUTHORITY, TOKEN
from support.requirements import require
from support.running_postel import RunningPostel, until
from support.tls_listeners import CERTIFICATES


def test_it_becomes_the_collector_with_the_addresses_of_the_settings(tmp_path: Path) -> None:
    require("collector", available=find_collector() is not None)
    postel = RunningPostel(tmp_path)
    health = f"127.0.0.1:{postel.ports['col_health']}"
    with subprocess.Popen([sys.executable, "-m", "postel.cli", "collector"], env=postel.variables) as process:
        try:
            until(lambda: is_healthy(health), 30, "it is well")
            assert "otelcol" in psutil.Process(process.pid).cmdline()[0]
            # Its sink is away, and the queue on disk takes what comes.
            answer = httpx.post(
                f"http://127.0.0.1:{postel.ports['col_http']}/v1/logs",
                json={"resourceLogs": []},
                trust_env=False,
            )
            assert answer.status_code == httpx.codes.OK
            assert list((postel.data / "collector").iterdir())
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_without_one_it_says_so(tmp_path: Path) -> None:
    done = RunningPostel(tmp_path, {"POSTEL_COLLECTOR": "none"}).command("collector")
    assert done.returncode == 2
    assert done.stderr.startswith("postel: POSTEL_COLLECTOR is none: ")


def test_a_gateway_lets_in_who_has_a_token_and_tells_of_itself_as_this_node(
    program: Path, tmp_path: Path, sink: Sink
) -> None:
    sink.start()
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    shown = str(CERTIFICATES / "gateway.pem")
    its_own = {
        "POSTEL_COLLECTOR": str(program),
        "POSTEL_SINK__GRPC_ADDRESS": sink.address,
        "POSTEL_NODE__ID": "mx-gateway",
        "POSTEL_GATEWAY_CERTIFICATE": shown,
        "POSTEL_GATEWAY_KEY": shown,
        "POSTEL_GATEWAY_TOKENS": str(tmp_path / "tokens"),
    }
    postel, log = RunningPostel(tmp_path, its_own), tmp_path / "gateway.log"

    def answer(token: str, *, trust: ssl.SSLContext | bool) -> int:
        headers = {"content-type": "application/x-protobuf", "authorization": f"Bearer {token}"}
        body = log_request("by the gateway").SerializeToString()
        url = f"https://localhost:{postel.ports['col_http']}/v1/logs"
        return httpx.post(url, content=body, headers=headers, verify=trust, trust_env=False).status_code

    command = [sys.executable, "-m", "postel.cli", "collector", "--tier", "gateway"]
    with log.open("wb") as output, subprocess.Popen(command, env=postel.variables, stderr=output) as process:
        try:
            until(lambda: is_healthy(f"127.0.0.1:{postel.ports['col_health']}"), 30, log.read_text)
            trust = ssl.create_default_context(cafile=str(AUTHORITY))
            assert answer(TOKEN, trust=trust) == httpx.codes.OK
            assert answer("another", trust=trust) == httpx.codes.UNAUTHORIZED
            until(lambda: sink.bodies() == ["by the gateway"], 30, log.read_text)
            assert list((postel.data / "gateway").iterdir())
            assert not (postel.data / "collector").exists()
        finally:
            process.terminate()
        assert process.wait(30) == 0
    assert "A sender is refused" in log.read_text()
    # What it has to say of its last minute it says when it ends.
    told = {
        attribute.value.string_value
        for request in sink.taken
        if isinstance(request, ExportMetricsServiceRequest)
        for of_resource in request.resource_metrics
        for attribute in of_resource.resource.attributes
        if attribute.key == "host.id"
    }
    assert told == {"mx-gateway"}


def test_a_gateway_collects_its_garbage_before_it_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("POSTEL_GATEWAY_MEMORY_MIB", raising=False)
    settings = Settings(data_dir=tmp_path)
    limit = yaml.safe_load(collector_config("gateway.yaml").read_text())["processors"]["memory_limiter"]["limit_mib"]
    assert limit == "${env:POSTEL_GATEWAY_MEMORY_MIB:-1024}"
    assert environment(settings, Tier.GATEWAY)["GOMEMLIMIT"] == "819MiB"
    assert environment(settings, Tier.AGENT)["GOMEMLIMIT"] == "204MiB"
    monkeypatch.setenv("POSTEL_GATEWAY_MEMORY_MIB", "2048")
    assert environment(settings, Tier.GATEWAY)["GOMEMLIMIT"] == "1638MiB"
    monkeypatch.setenv("POSTEL_GATEWAY_MEMORY_MIB", "2 GiB")
    with pytest.raises(SettingsError, match="POSTEL_GATEWAY_MEMORY_MIB = '2 GiB' is wrong"):
        environment(settings, Tier.GATEWAY)
