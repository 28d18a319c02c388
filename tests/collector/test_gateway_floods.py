"""A flood at the real gateway: connections that say nothing, half of a handshake or of a head, or nothing after it.

Meanwhile an agent by HTTP and the Collector of a host by gRPC get through.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from grpc import aio

from postel.otlp.signal import Signal
from support.collector import Collector, Sink, log_request
from support.flood import HALF_HELLO, Way, ended, flood
from support.gateway import AUTHORITY, TOKEN, Gateway, send_to
from support.ports import free_port
from support.running_agent import KillableAgent
from support.running_postel import until

MOST = 40
FLOOD = 150
# RFC 9113 section 3.4: with an empty SETTINGS frame after it a connection of HTTP/2 stands, and may be idle.
PREFACE, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0"
HALF_HEAD = b"POST /v1/logs HTTP/1.1\r\nhost: localhost\r\nx-slow: "
# What ready_gate and agent.yaml give.
HANDSHAKE_SECONDS = HEAD_SECONDS = 10
# And what door and agent.yaml give.
CALL_SECONDS = 60


@pytest.fixture
def gateway(program: Path, tmp_path: Path, sink: Sink) -> Iterator[Gateway]:
    """Not started."""
    sink.start()
    gateway = Gateway(program, tmp_path / "gateway", int(sink.address.rpartition(":")[2]))
    yield gateway
    gateway.end()


def _trusting(protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(AUTHORITY))
    context.set_alpn_protocols([protocol])
    return context


def _ways(gateway: Gateway, *, slow: bool) -> list[Way]:
    """The kinds of connection that hold something for nothing; `slow`: none that may stay for minutes."""
    return [
        Way(gateway.grpc_port),
        Way(gateway.grpc_port, HALF_HELLO),
        Way(gateway.grpc_port, PREFACE if slow else PREFACE + SETTINGS, _trusting("h2")),
        Way(gateway.http_port),
        Way(gateway.http_port, HALF_HELLO),
        Way(gateway.http_port, HALF_HEAD, _trusting("http/1.1")),
    ]


def _connections(gateway: Gateway) -> list[int]:
    """How many each of the two ports has."""
    assert gateway.process
    found = [
        each.laddr.port
        for each in psutil.Process(gateway.process.pid).net_connections("tcp")
        if each.status != psutil.CONN_LISTEN
    ]
    return [found.count(port) for port in (gateway.grpc_port, gateway.http_port)]


async def test_of_more_connections_than_are_allowed_the_silent_ones_are_closed(gateway: Gateway) -> None:
    gateway.environment["POSTEL_COLLECTOR_CONNECTIONS"] = str(MOST)
    gateway.start()
    # Each port has half of the ways.
    async with flood(_ways(gateway, slow=False), 2 * FLOOD) as held, asyncio.timeout(HANDSHAKE_SECONDS - 2):
        while ended(held) < 2 * (FLOOD - MOST):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.1)
        # Who is closed hears it before the gateway has closed the file.
        while await asyncio.to_thread(_connections, gateway) != [MOST, MOST]:  # noqa: ASYNC110 - nor for that
            await asyncio.sleep(0.1)
        # It looks four times a second, and none is closed that may stay.
        await asyncio.sleep(0.6)
        assert await asyncio.to_thread(_connections, gateway) == [MOST, MOST]
    assert "Connections were closed, those that were silent longest" in gateway.log()


@pytest.mark.slow
async def test_who_is_slower_than_a_bound_is_cut_off(gateway: Gateway) -> None:
    gateway.start()
    took = await asyncio.gather(*[way.hold() for way in _ways(gateway, slow=True)])
    for seconds in took:
        assert HANDSHAKE_SECONDS - 1 < seconds < HANDSHAKE_SECONDS + 5, took


@pytest.mark.slow
async def test_a_message_that_does_not_come_is_not_waited_for(gateway: Gateway) -> None:
    """Of senders with a token: over gRPC a call without its message, over HTTP a request without its body."""
    gateway.start()
    request = f"POST /v1/logs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n"
    request += "content-type: application/x-protobuf\r\ncontent-length: 100\r\n\r\n"
    for seconds in await asyncio.gather(
        _call_without_message(gateway), Way(gateway.http_port, request.encode(), _trusting("http/1.1")).hold()
    ):
        assert CALL_SECONDS - 1 < seconds < CALL_SECONDS + 10


async def _call_without_message(gateway: Gateway) -> float:
    began = time.monotonic()
    credentials = grpc.ssl_channel_credentials(AUTHORITY.read_bytes())
    async with aio.secure_channel(f"localhost:{gateway.grpc_port}", credentials) as channel:
        call: Any = channel.stream_unary(Signal.LOGS.method)(metadata=(("authorization", f"Bearer {TOKEN}"),))
        with pytest.raises(grpc.RpcError) as caught:
            await call
    assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    return time.monotonic() - began


@pytest.mark.slow
async def test_senders_get_through_a_flood_and_the_gateway_ends_amid_it(
    program: Path, tmp_path: Path, gateway: Gateway, sink: Sink
) -> None:
    gateway.environment["POSTEL_COLLECTOR_CONNECTIONS"] = str(MOST)
    gateway.start()
    host = Collector(program, _made(tmp_path / "host"), free_port())
    agent = KillableAgent(
        _made(tmp_path / "agent"),
        f"https://localhost:{gateway.http_port}",
        code=None,
        OTLP__CERTIFICATE=AUTHORITY,
        OTLP__HEADERS=f'{{"authorization": "Bearer {TOKEN}"}}',
        NODE__ID="agent",
    )
    try:
        async with flood(_ways(gateway, slow=False), 2 * FLOOD, again=True):
            await asyncio.sleep(2)
            await asyncio.to_thread(_send_amid, host, agent, gateway, sink)
            began = time.monotonic()
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.log()
            # It waits for neither those nor those; grpc-go alone would for two minutes.
            assert time.monotonic() - began < HANDSHAKE_SECONDS + HEAD_SECONDS
    finally:
        agent.kill()
        host.end()


def _send_amid(host: Collector, agent: KillableAgent, gateway: Gateway, sink: Sink) -> None:
    host.start(files=send_to(host, gateway))
    agent.spawn()
    for number in range(5):
        assert host.send(log_request(f"{number}")) == httpx.codes.OK
        # It has its turns with connections that were idle for a while, too.
        until(lambda: f"{number}" in sink.bodies(), 15, gateway.log)  # noqa: B023 - used at once
        time.sleep(1)
    until(lambda: "agent" in _nodes(sink), 30, agent.log)


def _nodes(sink: Sink) -> set[str]:
    return {
        attribute.value.string_value
        for request in list(sink.taken)
        for resource in getattr(request, "resource_metrics", ())
        for attribute in resource.resource.attributes
        if attribute.key == "host.id"
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
