"""What pages show beside commands of a host: settings, SQL, samples and code, each taken by what reads it for real."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from testbed.mail_plugins import WORKSPACE, link_workspace
from testbed.zone_mta import ZoneMta

from postel.collector import find_collector
from postel.otlp.signal import Signal
from postel.settings import Settings, load_settings
from support.environment import forget_settings
from support.markdown import CHECKOUT, Reading, reading, variables
from support.node import Node
from support.otlp_thread import OtlpThread
from support.page import status
from support.ports import free_port
from support.requirements import require
from support.running_postel import until
from support.sink import ingesting


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_settings(monkeypatch)


def loaded(page: Reading, folder: Path) -> Settings:
    """The settings that the page's TOML makes."""
    (text,) = page.take("toml")
    (folder / "postel.toml").write_text(text)
    return load_settings(folder / "postel.toml")


@pytest.mark.usefixtures("no_settings")
def test_the_settings_reference_is_a_file_of_all_defaults(tmp_path: Path) -> None:
    with reading("docs/reference/settings.md") as page:
        assert loaded(page, tmp_path) == Settings()


async def test_the_largest_users(migrated_postgres: str) -> None:
    with reading(
        "otel_receivers/wildduck/README.md", others={"sh": "tests/agent/test_wildduck_webhook_real.py"}
    ) as page:
        (query,) = page.take("sql")
        async with ingesting(migrated_postgres) as ingest:
            # Of each user the newest counts.
            for minutes_ago, used in ((3, [7, 50, 20]), (1, [70, 5, 30])):
                await ingest(Signal.LOGS, snapshots(time.time_ns() - minutes_ago * 60 * 10**9, used))
        with psycopg.connect(migrated_postgres) as connection:
            users = connection.execute(query.encode()).fetchall()
        assert users == [("user-0", 70), ("user-2", 30), ("user-1", 5)]


def snapshots(at: int, used: Sequence[int]) -> ExportLogsServiceRequest:
    """The quotas of some users, as the agent tells them at a time in nanoseconds since the epoch."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="node-1"))
    records = resource.scope_logs.add().log_records
    for number, count in enumerate(used):
        record = records.add(time_unix_nano=at, event_name="wildduck.quota.snapshot")
        for name in ("id", "name"):
            record.attributes.add(key=f"user.{name}", value=AnyValue(string_value=f"user-{number}"))
        record.attributes.add(key="wildduck.quota.used", value=AnyValue(int_value=count))
    return request


def test_the_emitter_tells_as_its_page_shows(node: Node, otlp_receiver: OtlpThread, tmp_path: Path) -> None:
    with reading("mail_plugins/lib/README.md", instead={"http://127.0.0.1:4319": otlp_receiver.endpoint}) as page:
        (code,) = page.take("js")
        # What a plugin has around it: ids and times of its events, and the server's own `app`.
        around = "const id = 'an-id', time = 1700000000000, tell = () => {}, app = { addHook: () => {} };\n"
        link_workspace(node)
        subprocess.run(
            [node.path, "-e", f"{around}{code}\nsetTimeout(() => {{}}, 1500);"],
            cwd=WORKSPACE / "zone-mta",
            check=True,
            timeout=30,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        told = [record for record in otlp_receiver.records() if record.name == "zonemta.delivery.accepted"]
        assert [record.attributes["zonemta.message.id"] for record in told] == ["an-id", "an-id"]
        assert 1_700_000_000_000_000_000 in {record.time for record in told}


@pytest.mark.slow
def test_the_testbeds_example_passes(zone_mta: ZoneMta) -> None:
    with reading("tests/testbed/README.md") as page:
        (code,) = page.take("python")
        names: dict[str, Any] = {}
        exec(compile(code, "tests/testbed/README.md", "exec"), names)  # noqa: S102 - the page's example
        names["test_mail"](zone_mta)


@pytest.mark.slow
def test_the_collector_starts_by_hand(tmp_path: Path) -> None:
    program = find_collector()
    require("collector", available=program, how="`make collector` builds it")
    assert program
    (tmp_path / "postel-otelcol").symlink_to(program)
    ports = {f"POSTEL_COLLECTOR_{name}": f"127.0.0.1:{free_port()}" for name in ("GRPC", "HTTP", "HEALTH")}
    with reading(
        "collector-config/README.md",
        instead={"/var/lib/postel": str(tmp_path)},
        others={"yaml": "tests/collector/test_database_receivers.py"},
    ) as page:
        (block,) = page.take("sh")
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-e", "-c", block.replace("\npostel-otelcol", "\nexec postel-otelcol")],
                cwd=CHECKOUT,
                env=variables(tmp_path, **ports),
                stdout=log,
                stderr=log,
            )
        try:
            address = f"http://{ports['POSTEL_COLLECTOR_HEALTH']}"
            until(lambda: status(address) == httpx.codes.OK, 30, (tmp_path / "log").read_text)
            assert (tmp_path / "collector").is_dir()
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait(10)
