"""The agent is stopped while plugins send: what is under way is stored or answered 503, and nothing fails."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_receivers.intake import Intake, serving
from otel_receivers.node import identify
from otel_receivers.privacy import Privacy
from otel_receivers.spool import Spool, SpoolError
from otel_receivers.spool_file import SpoolFile
from otel_receivers.spool_requests import Request
from postel.otlp.signal import Signal
from postel.settings import Intake as IntakeSettings
from postel.settings import Settings
from support.otlp_thread import records
from support.ports import free_port
from support.running_agent import agent, environment, stop, until


def event(number: int) -> dict[str, Any]:
    uid = {"key": "log.record.uid", "value": {"stringValue": f"uid-{number}"}}
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "zone-mta"}}]},
                "scopeLogs": [{"logRecords": [{"attributes": [uid], "body": {"stringValue": "x" * 2000}}]}],
            }
        ]
    }


async def test_a_closed_spool_takes_and_gives_nothing(tmp_path: Path) -> None:
    """It opened its file again, and locked the folder for good."""
    spool = await Spool.open(tmp_path, max_bytes=1 << 20, max_age=60)
    closing = asyncio.create_task(spool.close())
    await asyncio.sleep(0)
    for call in (spool.take([Request(Signal.LOGS, b"", 0)]), spool.peek(Signal.LOGS, 1), spool.append([], {"a": "b"})):
        with pytest.raises(SpoolError, match="closed"):
            await call
    await closing
    with pytest.raises(SpoolError, match="closed"):
        await spool.state()
    await (await Spool.open(tmp_path, max_bytes=1 << 20, max_age=60)).close()


async def test_what_is_still_being_sent_is_told_to_come_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = f"127.0.0.1:{free_port()}"
    spool = await Spool.open(tmp_path, max_bytes=1 << 20, max_age=60)
    intake = Intake(identify(tmp_path, setting="node-1"), spool, Privacy("keep"), request_bytes=1 << 20)
    try:
        async with serving(Settings(data_dir=tmp_path, intake=IntakeSettings(address=address)), intake):
            host, _, port = address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
            writer.write(head.encode())
            await writer.drain()
            await asyncio.sleep(0.2)
        answer = await asyncio.wait_for(reader.read(), 5)
    finally:
        await spool.close()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5\r\n" in answer.lower()
    assert b"stopping" in answer
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.CRITICAL] == []


async def test_the_agent_stopped_under_load_has_what_it_answered(tmp_path: Path) -> None:
    variables = environment(tmp_path, "http://127.0.0.1:1")
    url = f"http://{variables['POSTEL_INTAKE__ADDRESS']}/v1/logs"
    numbers = itertools.count()
    answered: dict[int, int] = {}

    async def send(http: httpx.AsyncClient) -> None:
        while True:
            number = next(numbers)
            try:
                answer = await http.post(url, json=event(number))
            except httpx.HTTPError:
                return
            answered[number] = answer.status_code
            assert answer.status_code in {200, 503}, answer.text
            assert "internal error" not in answer.text

    async with agent(variables) as process, httpx.AsyncClient(trust_env=False, timeout=10) as http:
        assert process.stderr
        while b"the intake listens" not in await process.stderr.readline():
            pass
        senders = [asyncio.create_task(send(http)) for _ in range(20)]
        await until(lambda: len(answered) > 200)
        said = await stop(process)
        await asyncio.wait_for(asyncio.gather(*senders), 10)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "internal error" not in said
    stored = stored_uids(tmp_path / "data" / "spool.db")
    assert {f"uid-{number}" for number, status in answered.items() if status == 200} <= set(stored)
    assert set(stored.values()) == {1}


def stored_uids(path: Path) -> Counter[str]:
    file = SpoolFile(path, 1 << 30, 3600)
    try:
        block = file.peek(Signal.LOGS, 1 << 30)
        assert block
        request = ExportLogsServiceRequest.FromString(block.body)
    finally:
        file.close()
    mail = [logs for logs in request.resource_logs if "zone-mta" in json.dumps(str(logs.resource))]
    return Counter(record.uid for record in records(ExportLogsServiceRequest(resource_logs=mail)))
