"""docs/kafka.md, followed from top to bottom: each of its commands runs, with a Kafka of one node."""

from __future__ import annotations

import shutil
import ssl
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from testbed.kafka import KafkaBroker

from postel.collector import find_collector
from support.collector import Sink, log_request, running_block
from support.gateway import AUTHORITY, TOKEN
from support.kafka import GROUP, LOGS, METRICS
from support.markdown import CHECKOUT, reading, run, variables
from support.ports import free_port, free_ports
from support.requirements import require
from support.running_postel import until
from support.services import SYSTEMD, make_root, started_by
from support.tls_listeners import CERTIFICATES


def tell(port: int, body: str) -> None:
    """A record for the gateway."""
    answer = httpx.post(
        f"https://localhost:{port}/v1/logs",
        content=log_request(body).SerializeToString(),
        headers={"content-type": "application/x-protobuf", "authorization": f"Bearer {TOKEN}"},
        verify=ssl.create_default_context(cafile=str(AUTHORITY)),
        timeout=30,
    )
    assert answer.status_code == httpx.codes.OK, answer.text


@pytest.mark.slow
@pytest.mark.timeout(400)  # the first run of all fetches Kafka
def test_the_page_leads_to_members_that_read(tmp_path: Path, kafka_broker: KafkaBroker) -> None:
    program = find_collector()
    require("collector", available=program, how="`make collector` builds it")
    assert program
    folder = tmp_path / "bin"
    kafka_broker.scripts(folder)
    (folder / "postel-otelcol").symlink_to(program)
    etc = tmp_path / "etc"
    shutil.copytree(CHECKOUT / "collector-config", etc / "collector", ignore=shutil.ignore_patterns("extensions"))
    grpc_port, http_port, door = free_ports(3)
    sink = Sink(free_port())
    (tmp_path / "tokens").write_text(TOKEN)
    environment = variables(
        folder,
        POSTEL_SINK_GRPC=sink.address,
        POSTEL_KAFKA_DOOR=f"127.0.0.1:{door}",
        # docs/gateway.md has made these.
        POSTEL_GATEWAY_CERTIFICATE=str(CERTIFICATES / "gateway.pem"),
        POSTEL_GATEWAY_KEY=str(CERTIFICATES / "gateway.pem"),
        POSTEL_GATEWAY_TOKENS=str(tmp_path / "tokens"),
    )
    here = {
        **SYSTEMD,
        "kafka-1.example.org:9092,kafka-2.example.org:9092": kafka_broker.address,
        "kafka-1.example.org:9092": kafka_broker.address,
        "--replication-factor 3": "--replication-factor 1",
        "min.insync.replicas=2": "min.insync.replicas=1",
        "sink-1.example.org:4417": sink.address,
        "/etc/postel": str(etc),
        "/var/lib/postel": str(tmp_path / "var"),
        "0.0.0.0:4317": f"127.0.0.1:{grpc_port}",
        "0.0.0.0:4318": f"127.0.0.1:{http_port}",
    }

    with reading("docs/kafka.md", instead=here) as page:
        run(page.take("sh", "topics")[0], tmp_path, environment, 120)
        sink.start()
        try:
            with (
                running_block(page.take("sh", "gateway")[0], environment, tmp_path / "gateway.log") as gateway,
                running_block(page.take("sh", "member")[0], environment, tmp_path / "member.log") as member,
            ):
                tell(http_port, "by Kafka")
                until(lambda: sink.bodies() == ["by Kafka"], 60, lambda: gateway() + member())
                assert "Bearer the-token" in sink.authorizations, "the member shows the sink's"
                printed = run(page.take("sh", "lag")[0], tmp_path, environment, 120)
            # The same two by their units; `tests/docs/test_gateway.py` follows how a gateway's is set up.
            (toml,), (install,) = page.take("toml", "service-gateway"), page.take("sh", "service-member")
            root = make_root(tmp_path / "root")
            run(install, tmp_path, {**environment, "ROOT": str(root)})
            units = {path.name for path in (root / "etc/systemd/system/multi-user.target.wants").iterdir()}
            assert units == {"postel-kafka-member.service", "postel-sink.service"}
            settings = tmp_path / "postel.toml"
            settings.write_text(f'data_dir = "{tmp_path / "data"}"\n{toml}\n[sink]\ngrpc_address = "{sink.address}"\n')
            install_gateway = f"{SYSTEMD['/opt/postel/bin/postel install']} --part gateway"
            run(install_gateway, tmp_path, {**environment, "ROOT": str(root)})
            with ExitStack() as running:
                for unit, health in (("gateway", "COLLECTOR"), ("kafka-member", "KAFKA_MEMBER")):
                    block = started_by(
                        root / f"etc/systemd/system/postel-{unit}.service", settings, etc / "environment"
                    )
                    variable = f"POSTEL_OTLP__{health}_HEALTH_ADDRESS"
                    running.enter_context(running_block(block, environment, tmp_path / f"{unit}-unit.log", variable))
                tell(http_port, "by units")
                until(lambda: sink.bodies() == ["by Kafka", "by units"], 60, "it is stored")
        finally:
            sink.stop()
    assert {line.split()[1] for line in printed.splitlines() if line.startswith(f"{GROUP} ")} == {LOGS, METRICS}
