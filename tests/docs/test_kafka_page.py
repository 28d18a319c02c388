"""docs/kafka.md, followed from top to bottom: each of its commands runs, with a Kafka of one node."""

from __future__ import annotations

import shutil
import ssl
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
from support.tls_listeners import CERTIFICATES


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
                answer = httpx.post(
                    f"https://localhost:{http_port}/v1/logs",
                    content=log_request("by Kafka").SerializeToString(),
                    headers={"content-type": "application/x-protobuf", "authorization": f"Bearer {TOKEN}"},
                    verify=ssl.create_default_context(cafile=str(AUTHORITY)),
                    timeout=30,
                )
                assert answer.status_code == httpx.codes.OK, answer.text
                until(lambda: sink.bodies() == ["by Kafka"], 60, lambda: gateway() + member())
                printed = run(page.take("sh", "lag")[0], tmp_path, environment, 120)
        finally:
            sink.stop()
    assert {line.split()[1] for line in printed.splitlines() if line.startswith(f"{GROUP} ")} == {LOGS, METRICS}
