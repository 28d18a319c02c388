"""Each server is recognised by what it says; what listens and is something else is named as such."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from otel_receivers import discovery
from otel_receivers.discovery import Finding, look_everywhere, places
from otel_receivers.receiver import Target
from postel.settings import Discovery
from support.ports import free_port, free_ports
from support.wildduck_answers import METRICS
from support.zone_mta_pages import AFTER_TRAFFIC

WILDDUCK = b"HTTP/1.1 404 Not Found\r\nServer: WildDuck API\r\nContent-Length: 2\r\n\r\n{}"
WILDDUCK_METRICS = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(METRICS), METRICS)
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
    Case("wildduck_metrics", "wildduck_metrics_port", WILDDUCK_METRICS, "its Prometheus page", "1.51.1"),
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


SETTINGS = "; see [discovery] zone_mta_port and zone_mta_metrics_path"
PAGES = [
    pytest.param(b"500 Oh", b"", b"oh", "answers GET /stats with HTTP 500", "500", id="500"),
    pytest.param(b"302 Found", b"Location: /login\r\n", b"", "answers GET /stats with HTTP 302", "302", id="302"),
    # Also where it looks like the page: the receiver takes no other status than 200.
    pytest.param(b"404 No", b"", AFTER_TRAFFIC, "answers GET /stats with HTTP 404", "404", id="404"),
    pytest.param(
        b"200 OK",
        b"Content-Type: text/html; charset=utf-8\r\n",
        b"<html></html>",
        "answers GET /stats with another page (text/html)",
        "unrecognised",
        id="html",
    ),
    pytest.param(
        b"200 OK",
        b"",
        b"hi",
        "answers GET /stats with another page (without a content type)",
        "unrecognised",
        id="text",
    ),
]


@pytest.mark.parametrize(("status", "headers", "body", "how", "error_type"), PAGES)
async def test_what_a_zone_mta_answers_instead_of_its_page_is_told_with_the_setting(
    status: bytes, headers: bytes, body: bytes, how: str, error_type: str
) -> None:
    port = free_port()
    says = b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)
    async with server(port, says):
        looked = await look_everywhere(places(Discovery(zone_mta_port=port, zone_mta_metrics_path="/stats")))
    (finding,) = [f for f in looked if f.source == "zone_mta"]
    assert (finding.found, finding.listening) == (False, True)
    assert (finding.how, finding.error_type) == (f"listens, {how}{SETTINGS}", error_type)


@pytest.mark.parametrize("says", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n# HELP"])
async def test_a_zone_mta_whose_page_hangs_is_told_with_the_time_waited(
    says: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "TIMEOUT", 0.2)
    port = free_port()
    async with server(port, says):
        finding = await found("zone_mta", zone_mta_port=port)
    assert finding.how == f"listens, gives no answer within 0.2 s{SETTINGS}"
    assert finding.error_type == "timeout"


async def test_a_server_of_one_connection_at_a_time_is_recognised() -> None:
    waiting = asyncio.Lock()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with waiting:
            if await reader.readline():
                writer.write(ZONE_MTA)
                await writer.drain()
            writer.close()

    port = free_port()
    async with await asyncio.start_server(handle, "127.0.0.1", port):
        finding = await found("zone_mta", zone_mta_port=port)
    assert finding.found, finding.how


async def test_nonsense_is_a_bad_answer() -> None:
    port = free_port()
    async with server(port, b"\x15\x03\x01\x00\x02\x02\x50" * 4):
        finding = await found("zone_mta", zone_mta_port=port)
    assert (finding.found, finding.listening, finding.error_type) == (False, True, "protocol")


async def test_another_server_in_rspamds_place_is_asked_only_where_the_settings_name_it() -> None:
    port = free_port()
    # As if the default were that port.
    guessed = Discovery.model_construct(set(), rspamd_controller_port=port)
    async with server(port, NGINX):
        for settings, asked in ((guessed, False), (Discovery(rspamd_controller_port=port), True)):
            looked = await look_everywhere([each for each in places(settings) if each.source == "rspamd_controller"])
            assert [(finding.listening, finding.found, finding.asked) for finding in looked] == [(True, False, asked)]
            assert looked[0].how == "listens, is another server; see [discovery] rspamd_controller_port"


async def test_wildduck_is_looked_for_at_its_second_port(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = free_ports(2)
    monkeypatch.setattr(discovery, "_WILDDUCK_PORTS", (first, second))
    async with server(second, WILDDUCK):
        finding = await found("wildduck")
    assert (finding.found, finding.target.port) == (True, second)


async def test_both_ports_of_wildduck_are_told_where_neither_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = free_ports(2)
    monkeypatch.setattr(discovery, "_WILDDUCK_PORTS", (first, second))
    finding = await found("wildduck")
    assert (finding.listening, finding.target.port) == (False, first)
    assert finding.how == f"nobody listens; at 127.0.0.1:{second}: nobody listens"
    async with server(second, NGINX):
        finding = await found("wildduck")
    assert (finding.listening, finding.target.port) == (True, second)
    hint = "see [discovery] wildduck_api_port"
    assert finding.how == f"listens, is another server; {hint}; at 127.0.0.1:{first}: nobody listens"


async def test_a_host_that_is_no_name_is_not_found_and_stops_nothing() -> None:
    # Settings refuse such a name; one that only the resolver refuses ends the same way.
    settings = Discovery(zone_mta_port=free_port()).model_copy(update={"zone_mta_host": "a..b"})
    findings = await look_everywhere(places(settings))
    (finding,) = [f for f in findings if f.source == "zone_mta"]
    assert (finding.listening, finding.found, finding.how) == (False, False, "not a host name")
    assert len(findings) == 8


def test_each_zone_mta_is_looked_for_once_under_a_name_of_its_own() -> None:
    instances = ("127.0.0.1:12081", "[::1]:12080", "127.0.0.1:12080", "127.0.0.1:12081")
    named = {place.name: place.targets for place in places(Discovery(zone_mta_instances=instances))}
    assert {name: targets for name, targets in named.items() if name.startswith("zone_mta")} == {
        "zone_mta": (Target("127.0.0.1", 12080),),
        "zone_mta@127.0.0.1:12081": (Target("127.0.0.1", 12081),),
        "zone_mta@[::1]:12080": (Target("::1", 12080),),
    }
    assert len(named) == len(places(Discovery(zone_mta_instances=instances)))
