"""The agent's intake: what plugins send is in the spool when they are answered, under this node's name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from pydantic import SecretStr

from otel_receivers.intake import REQUEST_BYTES, Intake, serving
from otel_receivers.node import identify
from otel_receivers.privacy import Privacy
from otel_receivers.spool import Spool
from otel_receivers.totals import Histogram
from postel.errors import AddressInUseError, PostelError
from postel.otlp.signal import Signal
from postel.settings import Intake as IntakeSettings
from postel.settings import Settings
from support.otlp_thread import records
from support.ports import free_port

EVENT = {
    "timeUnixNano": "1768471201234567000",
    "eventName": "zonemta.message.queued",
    "attributes": [
        {"key": "log.record.uid", "value": {"stringValue": "019bc132-7c00-7000-8000-000000000001"}},
        {"key": "email.from.address", "value": {"stringValue": "Ann@example.com"}},
    ],
}


def request(*events: dict[str, Any], resource: dict[str, Any] | None = None) -> dict[str, Any]:
    said = {"service.name": {"stringValue": "zone-mta"}, "server.port": {"intValue": "12080"}, **(resource or {})}
    attributes = [{"key": name, "value": value} for name, value in said.items()]
    return {"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": list(events)}]}]}


class Running:
    """An intake that serves, and the spool behind it."""

    def __init__(self, spool: Spool, http: httpx.AsyncClient) -> None:
        self.spool = spool
        self.http = http

    async def post(self, content: dict[str, Any], path: str = "/v1/logs") -> httpx.Response:
        return await self.http.post(path, json=content)

    async def stored(self) -> list[Any]:
        found: list[Any] = []
        while (block := await self.spool.peek(Signal.LOGS, 1 << 20)) is not None:
            found += records(ExportLogsServiceRequest.FromString(block.body))
            await self.spool.remove(block.ids)
        return found


@asynccontextmanager
async def running(
    tmp_path: Path, *, token: str | None = None, address: str | None = None, request_bytes: int = 1 << 20
) -> AsyncIterator[Running]:
    settings = Settings(
        data_dir=tmp_path,
        intake=IntakeSettings(
            address=address or f"127.0.0.1:{free_port()}", token=None if token is None else SecretStr(token)
        ),
    )
    spool = await Spool.open(tmp_path, max_bytes=64 << 20, max_age=3600)
    intake = Intake(identify(tmp_path, setting="node-1"), spool, Privacy("keep"), request_bytes=request_bytes)
    try:
        async with (
            serving(settings, intake),
            httpx.AsyncClient(base_url=f"http://{settings.intake.address}", trust_env=False) as http,
        ):
            yield Running(spool, http)
    finally:
        await spool.close()


async def test_what_is_answered_is_in_the_spool_under_this_nodes_name(tmp_path: Path) -> None:
    async with running(tmp_path) as door:
        answer = await door.post(request(EVENT))
        assert (answer.status_code, answer.json()) == (200, {})
        (record,) = await door.stored()
    assert record.resource["host.id"] == "node-1"
    assert record.resource["service.instance.id"] == "node-1:12080"
    assert record.resource["service.name"] == "zone-mta"
    assert "service.version" not in record.resource
    assert record.resource["host.name"]
    assert (record.name, record.time) == ("zonemta.message.queued", 1768471201234567000)
    assert record.attributes == {"email.from.address": "Ann@example.com"}


async def test_a_sender_of_another_node_keeps_its_own_name(tmp_path: Path) -> None:
    own = {"host.id": {"stringValue": "node-2"}, "service.instance.id": {"stringValue": "mta-7"}}
    async with running(tmp_path) as door:
        await door.post(request(EVENT, resource=own))
        (record,) = await door.stored()
    assert record.resource["host.id"] == "node-2"
    assert record.resource["service.instance.id"] == "mta-7"
    assert "host.name" not in record.resource


async def test_what_is_no_otlp_is_refused_and_the_connection_lives_on(tmp_path: Path) -> None:
    async with running(tmp_path) as door:
        for content, status in ((b"{", 400), (b'{"resourceLogs": 3}', 400)):
            answer = await door.http.post("/v1/logs", content=content, headers={"content-type": "application/json"})
            assert answer.status_code == status
            assert answer.json()["message"]
        assert (
            await door.http.post("/v1/logs", content=b"x", headers={"content-type": "text/plain"})
        ).status_code == 415
        assert (await door.post({"resourceMetrics": []}, "/v1/metrics")).status_code == 404
        assert (await door.post({"resourceSpans": []}, "/v1/traces")).status_code == 404
        assert (await door.post(request({"body": {"stringValue": "x" * REQUEST_BYTES}}))).status_code == 413
        assert (await door.post(request(EVENT))).status_code == 200
        assert len(await door.stored()) == 1


async def test_a_large_batch_is_spooled_in_requests_that_the_receiver_takes(tmp_path: Path) -> None:
    events = [{**EVENT, "body": {"stringValue": f"{number} " + "x" * 2000}} for number in range(200)]
    async with running(tmp_path, request_bytes=100_000) as door:
        assert (await door.post(request(*events))).status_code == 200
        assert (await door.post({"resourceLogs": []})).status_code == 200
        block = await door.spool.peek(Signal.LOGS, 1)
        assert block is not None
        assert len(block.body) <= 100_000
        assert [int(record.body.split()[0]) for record in await door.stored()] == list(range(200))


@pytest.mark.parametrize("where", ["resource", "scope", "unknown field"])
async def test_what_each_part_would_repeat_is_bounded(tmp_path: Path, where: str) -> None:
    """A resource of 2 MB with 100,000 empty records became 200 GB in the spool."""
    logs = ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord()] * 100_000)])
    large = "x" * 2_000_000
    if where == "resource":
        logs.resource.attributes.add(key="k").value.string_value = large
    elif where == "scope":
        logs.scope_logs[0].scope.name = large
    body = ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()
    if where == "unknown field":
        body += b"\x7a" + b"\x80\x89\x7a" + large.encode()  # field 15, a text of 2,000,000 bytes
    async with running(tmp_path) as door:
        answer = await door.http.post("/v1/logs", content=body, headers={"content-type": "application/x-protobuf"})
        assert answer.status_code == 413
        assert b"a resource and its scope have 20" in answer.content
        assert (await door.post(request(EVENT))).status_code == 200
        assert len(await door.stored()) == 1


async def test_what_the_agent_adds_counts_too(tmp_path: Path) -> None:
    """Before it is stamped this request is stored as it is; its resource alone is larger than a part afterwards."""
    async with running(tmp_path) as door:
        answer = await door.post(request(*[{}] * 20, resource={"k": {"stringValue": "x" * ((1 << 20) - 200)}}))
        assert answer.status_code == 413
        assert await door.stored() == []


async def test_the_spool_takes_little_more_than_what_was_sent(tmp_path: Path) -> None:
    """The most that the bound lets through: parts of 16 KiB with a resource of 4 KiB, and a thousand resources."""
    event = {**EVENT, "body": {"stringValue": "x" * 500}}
    own = {"k": {"stringValue": "x" * 3500}}
    many = {"resourceLogs": request({})["resourceLogs"] * 1000}
    async with running(tmp_path, request_bytes=16 << 10) as door:
        content = request(*[event] * 1000, resource=own)
        assert (await door.post(content)).status_code == 200
        assert door.spool.size < 3 * len(json.dumps(content))
        assert len(await door.stored()) == 1000
        assert (await door.post(many)).status_code == 200
        assert door.spool.size < 1_000_000
        many["resourceLogs"].append({})
        assert (await door.post(many)).status_code == 413


async def test_a_disk_that_takes_nothing_is_answered_with_retry_and_nothing_is_lost(tmp_path: Path) -> None:
    """SQLite's own bound on pages makes the real error of a full disk."""
    large = {**EVENT, "body": {"stringValue": "x" * 100_000}}
    async with running(tmp_path) as door:
        await door.spool._call(lambda store: store.on_file(lambda file: file._db.execute("PRAGMA max_page_count = 20")))
        answer = await door.post(request(large))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "full" in answer.json()["message"]
        assert await door.stored() == []
        await door.spool._call(lambda store: store.on_file(lambda f: f._db.execute("PRAGMA max_page_count = 1000000")))
        assert (await door.post(request(large))).status_code == 200
        assert len(await door.stored()) == 1


async def test_a_token_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    async with running(tmp_path, token="secret-of-the-test") as door:  # noqa: S106 - of this test alone
        assert (await door.post(request(EVENT))).status_code == 401
        door.http.headers["authorization"] = "Bearer secret-of-the-test"
        assert (await door.post(request(EVENT))).status_code == 200


async def test_a_door_that_is_open_to_others_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(
        PostelError, match=r"\[intake\] address 0\.0\.0\.0:\d+ is open to other hosts: set \[intake\] token"
    ):
        async with running(tmp_path, address=f"0.0.0.0:{free_port()}"):
            pass


async def test_an_address_in_use_is_named_with_its_setting(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "other").mkdir()
    async with running(tmp_path, address=address):
        with pytest.raises(AddressInUseError, match=r"\[intake\] address"):
            async with running(tmp_path / "other", address=address):
                pass


async def test_many_senders_at_once_lose_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as door:
        answers = await asyncio.gather(
            *(door.post(request({**EVENT, "body": {"stringValue": str(number)}})) for number in range(200))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(int(record.body) for record in await door.stored()) == list(range(200))


async def test_what_comes_again_after_a_lost_answer_is_counted_once(tmp_path: Path) -> None:
    attributes = [
        *EVENT["attributes"],
        {"key": "zonemta.attempt.duration", "value": {"doubleValue": 0.5}},
        {"key": "zonemta.zone", "value": {"stringValue": "default"}},
    ]
    delivered = {**EVENT, "eventName": "zonemta.delivery.accepted", "attributes": attributes}
    async with running(tmp_path) as door:
        for _ in range(3):
            assert (await door.post(request(delivered))).status_code == 200
        (told,) = await door.spool.told()
    assert (told.instance.host_id, told.instance.id) == ("node-1", "node-1:12080")
    ((series, total),) = told.totals.items()
    assert isinstance(total, Histogram)
    assert (series.metric, sum(total.counts)) == ("zonemta.delivery.duration", 1)
