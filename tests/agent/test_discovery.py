"""Each server is recognised by what it says; what listens and is something else is named as such."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from otel_receivers import discovery
from otel_receivers.discovery import Finding, look_everywhere, places
from postel.settings import Discovery
from support.ports import free_port, free_ports
from support.zone_mta_pages import AFTER_TRAFFIC

WILDDUCK = b"HTTP/1.1 404 Not Found\r\nServer: WildDuck API\r\nContent-Length: 2\r\n\r\n{}"
RSPAMD = b"HTTP/1.1 200 OK\r\nServer: rspamd/3.4\r\nContent-Length: 6\r\n\r\npong\r\n"
ZONE_MTA = b"HTTP/1.1 200 OK\r\nServer: restify\r\nContent-Length: %d\r\n\r\n%b" % (len(AFTER_TRAFFIC), AFTER_TRAFFIC)
NGINX = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22\r\nContent-Length: 2\r\n\r\nok"
HARAKA = b"220 haraka.lab.test ESMTP Haraka/3.3.4 ready (BD82D4)\r\n"
POSTFIX = b"220 mx.example.org ESMTP Postfix\r\n"


@asynccontextmanager
async def server(port: int, says: bytes | None, *, greets: bool = False) -> AsyncIterator[None]:
    """Listens on a port; None: never says anything."""
    tasks: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.append(task)
        try:
            if says is None:
                await asyncio.sleep(60)
            elif greets or await reader.readuntil(b"\r\n\r\n"):
                writer.write(says)
                await writer.drain()
                await reader.read()
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", port)
    try:
        yield
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def found(source: str, **settings: int) -> Finding:
    # Every other place of the test is a port where nobody listens.
    (finding,) = [f for f in await look_everywhere(places(Discovery(**settings))) if f.source == source]
    return finding


@dataclass(frozen=True)
class Case:
    source: str
    setting: str
    says: bytes
    how: str
    version: str = ""
    greets: bool = False


CASES = [
    Case("zone_mta", "zone_mta_port", ZONE_MTA, "its Prometheus page"),
    Case("wildduck", "wildduck_api_port", WILDDUCK, "its header Server: WildDuck API"),
    Case("rspamd", "rspamd_tcp_port", RSPAMD, "its header Server: rspamd/3.4", "3.4"),
    Case("rspamd_controller", "rspamd_controller_port", RSPAMD, "its header Server: rspamd/3.4", "3.4"),
    Case("haraka", "haraka_smtp_port", HARAKA, f"its greeting {HARAKA.decode().strip()!r}", "3.3.4", greets=True),
]
each_source = pytest.mark.parametrize("case", [pytest.param(case, id=case.source) for case in CASES])


@each_source
async def test_a_server_is_recognised(case: Case) -> None:
    port = free_port()
    async with server(port, case.says, greets=case.greets):
        finding = await found(case.source, **{case.setting: port})
    assert (finding.found, finding.listening) == (True, True)
    assert (finding.how, finding.version, finding.target.port) == (case.how, case.version, port)


@each_source
async def test_nobody_listens(case: Case) -> None:
    finding = await found(case.source, **{case.setting: free_port()})
    assert (finding.found, finding.listening, finding.how) == (False, False, "nobody listens")
    assert finding.error_type == "connection"


@each_source
async def test_another_server_is_named_as_such(case: Case) -> None:
    port = free_port()
    async with server(port, POSTFIX if case.greets else NGINX, greets=case.greets):
        finding = await found(case.source, **{case.setting: port})
    assert (finding.found, finding.listening, finding.error_type) == (False, True, "unrecognised")


@each_source
async def test_a_silent_one_does_not_hold_up(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "TIMEOUT", 0.2)
    port = free_port()
    async with server(port, None):
        finding = await found(case.source, **{case.setting: port})
    assert (finding.found, finding.listening, finding.error_type) == (False, True, "timeout")


async def test_nonsense_is_a_bad_answer() -> None:
    port = free_port()
    async with server(port, b"\x15\x03\x01\x00\x02\x02\x50" * 4):
        finding = await found("zone_mta", zone_mta_port=port)
    assert (finding.found, finding.listening, finding.error_type) == (False, True, "protocol")


async def test_wildduck_is_looked_for_at_its_second_port(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = free_ports(2)
    monkeypatch.setattr(discovery, "_WILDDUCK_PORTS", (first, second))
    async with server(second, WILDDUCK):
        finding = await found("wildduck")
    assert (finding.found, finding.target.port) == (True, second)


async def test_a_host_that_is_no_name_is_not_found_and_stops_nothing() -> None:
    findings = await look_everywhere(places(Discovery(zone_mta_host="a..b", zone_mta_port=free_port())))
    (finding,) = [f for f in findings if f.source == "zone_mta"]
    assert (finding.listening, finding.found, finding.how) == (False, False, "not a host name")
    assert len(findings) == 8
