from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from postel.errors import SettingsError
from postel.otlp.answers import Outcome
from postel.otlp.client import create_sender
from postel.otlp.errors import Malformed, Refused, Retryable, TooLarge, Unauthenticated
from postel.otlp.grpc_server import create_server
from postel.otlp.sender import Sender, Sent
from postel.otlp.signal import ExportRequest, Signal
from postel.otlp.tls_files import TlsFiles
from support.otlp_receiver import Receiver, running_receiver
from support.tls_listeners import CERTIFICATES

Protocol = Literal["grpc", "http/protobuf"]
Compression = Literal["gzip", "none"]
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http/protobuf")
COMPRESSIONS: tuple[Compression, ...] = ("gzip", "none")

METRICS = ExportMetricsServiceRequest()
METRICS.resource_metrics.add().scope_metrics.add().metrics.add(name="postel.host.cpu.load")
LOGS = ExportLogsServiceRequest()
LOGS.resource_logs.add().scope_logs.add().log_records.add(event_name="postel.node.booted")


@asynccontextmanager
async def sender_to(
    receiver: Receiver, protocol: Protocol, *, compression: Compression = "gzip", token: str | None = None
) -> AsyncIterator[Sender]:
    endpoint = receiver.grpc if protocol == "grpc" else receiver.http
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    sender = create_sender(endpoint, protocol, headers=headers, compression=compression, timeout=10)
    try:
        yield sender
    finally:
        await sender.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_what_is_sent_arrives_as_it_was(protocol: Protocol, compression: Compression) -> None:
    async with running_receiver() as receiver, sender_to(receiver, protocol, compression=compression) as sender:
        assert await sender.send(Signal.METRICS, METRICS.SerializeToString()) == Sent()
        assert await sender.send(Signal.LOGS, LOGS.SerializeToString()) == Sent()
        assert receiver.taken == [(Signal.METRICS, METRICS), (Signal.LOGS, LOGS)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("signal", list(Signal))
async def test_partial_success_is_read(protocol: Protocol, signal: Signal) -> None:
    async with running_receiver() as receiver, sender_to(receiver, protocol) as sender:
        receiver.answer = Outcome(7, "too old")
        assert await sender.send(signal, b"") == Sent(7, "too old")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_delay_of_a_receiver_is_read(protocol: Protocol) -> None:
    async with running_receiver() as receiver, sender_to(receiver, protocol) as sender:
        receiver.answer = Retryable(4, "busy")
        with pytest.raises(Retryable, match="busy") as caught:
            await sender.send(Signal.LOGS, b"")
        assert caught.value.delay == 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_is_refused_keeps_its_kind(protocol: Protocol) -> None:
    async with (
        running_receiver(limit=1000, token="right") as receiver,  # noqa: S106 - of this test only
        sender_to(receiver, protocol, token="right") as sender,  # noqa: S106
        sender_to(receiver, protocol, token="wrong") as stranger,  # noqa: S106
    ):
        with pytest.raises(Malformed, match="no protobuf"):
            await sender.send(Signal.LOGS, b"\xff")
        with pytest.raises(TooLarge):
            await sender.send(Signal.LOGS, bytes(1001))
        with pytest.raises(Unauthenticated, match="Bearer"):
            await stranger.send(Signal.LOGS, b"")
        assert await sender.send(Signal.LOGS, b"") == Sent()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_receiver_that_is_away_is_retryable(protocol: Protocol) -> None:
    async with running_receiver() as receiver:
        pass
    async with sender_to(receiver, protocol) as sender:
        with pytest.raises(Retryable) as caught:
            await sender.send(Signal.LOGS, b"")
    assert caught.value.delay is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_proxy_is_not_the_way_to_this_host(
    protocol: Protocol, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    async with speaking(refuse) as proxy, running_receiver() as receiver:
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        port = receiver.grpc_port if protocol == "grpc" else receiver.http.rpartition(":")[2]
        sender = create_sender(f"http://{host}:{port}", protocol, timeout=10)
        assert await sender.send(Signal.LOGS, b"") == Sent()
        await sender.close()
        assert asked == []
        elsewhere = create_sender("http://collector.invalid:4317", protocol, timeout=5)
        with pytest.raises((Retryable, Refused)):
            await elsewhere.send(Signal.LOGS, b"")
        await elsewhere.close()
    assert b"collector.invalid:4317" in asked[0]


async def test_a_receiver_that_comes_back_is_found_soon() -> None:
    # A gRPC channel backs off by itself; its default would hold the spool for up to two minutes.
    async with running_receiver() as receiver:
        pass
    async with sender_to(receiver, "grpc") as sender:
        for _ in range(20):
            with pytest.raises(Retryable):
                await sender.send(Signal.LOGS, b"")
        server, _ = create_server(receiver, address=f"127.0.0.1:{receiver.grpc_port}")
        await server.start()
        async with asyncio.timeout(6):
            while not receiver.taken:
                with contextlib.suppress(Retryable):
                    await sender.send(Signal.LOGS, b"")
                await asyncio.sleep(0.05)
        await server.stop(0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_receiver_that_hangs_is_retryable(protocol: Protocol) -> None:
    # It accepts the connection and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = create_sender(f"http://127.0.0.1:{silent.getsockname()[1]}", protocol, timeout=0.3)
        with pytest.raises(Retryable):
            await asyncio.wait_for(sender.send(Signal.LOGS, b""), 5)
        await sender.close()


@asynccontextmanager
async def speaking(
    speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]],
) -> AsyncIterator[str]:
    """A server that says what `speak` writes; gives its endpoint."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        try:
            with contextlib.suppress(ConnectionError):
                await speak(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def test_a_receiver_that_trickles_is_retryable_within_the_timeout() -> None:
    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with speaking(trickle) as endpoint:
        sender = create_sender(endpoint, timeout=0.5)
        with pytest.raises(Retryable, match=r"no answer within 0\.5 s"):
            await asyncio.wait_for(sender.send(Signal.LOGS, b""), 5)
        await sender.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"SSH-2.0-OpenSSH\r\n"])
async def test_a_receiver_that_breaks_off_is_retryable(answer: bytes) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with speaking(break_off) as endpoint:
        sender = create_sender(endpoint)
        with pytest.raises(Retryable):
            await sender.send(Signal.LOGS, b"")
        await sender.close()


async def test_an_endless_or_wrongly_packed_answer_does_no_harm() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwrong\r\n0\r\n\r\n"
        )
        await writer.drain()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\n\r\n")
        while True:
            writer.write(b"page " * 1000)
            await writer.drain()

    async with speaking(page) as endpoint:
        sender = create_sender(endpoint)
        with pytest.raises(Refused, match="HTTP 200, but the answer is not OTLP's"):
            await sender.send(Signal.LOGS, b"")
        await sender.close()
    async with speaking(endless) as endpoint:
        sender = create_sender(endpoint)
        with pytest.raises(Refused, match="HTTP 404: page page") as caught:
            await sender.send(Signal.LOGS, b"")
        assert len(str(caught.value)) < 300
        await sender.close()


async def test_a_server_that_stops_meanwhile_is_retryable() -> None:
    started = asyncio.Event()

    async def hang(_signal: Signal, _request: ExportRequest, _encoded: bytes | None = None, /) -> Outcome:
        started.set()
        await asyncio.sleep(60)
        return Outcome()

    server, port = create_server(hang, address="127.0.0.1:0")
    await server.start()
    sender = create_sender(f"http://127.0.0.1:{port}", "grpc")
    sending = asyncio.create_task(sender.send(Signal.LOGS, b""))
    await started.wait()
    await server.stop(0)
    with pytest.raises(Retryable):
        await sending
    await sender.close()


async def test_the_body_on_the_wire_is_gzip_with_the_headers_of_the_settings() -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        seen.put_nowait(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with speaking(record) as endpoint:
        sender = create_sender(f"{endpoint}/prefix/", headers={"x-tenant": "a b"})
        assert await sender.send(Signal.METRICS, METRICS.SerializeToString()) == Sent()
        await sender.close()
    head, _, body = (await seen.get()).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /prefix/v1/metrics HTTP/1.1")
    assert b"x-tenant: a b" in head
    assert b"content-type: application/x-protobuf" in head
    assert gzip.decompress(body) == METRICS.SerializeToString()


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "127.0.0.1:4317",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x:y",
        "http://[::1",
        "http://x:0",
        "http://x?y",
        "http://x#y",
    ],
)
def test_a_wrong_endpoint_is_named(endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"\[otlp\] endpoint"):
        create_sender(endpoint)


@pytest.mark.parametrize("header", [("a b", "c"), ("a", "b\r\nc: d"), ("a", "ü"), ("a", " b"), ("", "x")])
def test_a_wrong_header_is_named_without_its_value(header: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"\[otlp\] headers") as caught:
        create_sender("http://x", headers=dict([header]))
    assert header[1] not in str(caught.value) or len(header[1]) < 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_missing_certificate_is_named(protocol: Protocol, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[otlp\] certificate: .*none\.pem"):
        create_sender("https://x", protocol, tls=TlsFiles(tmp_path / "none.pem"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_no_certificate_to_show_is_named(protocol: Protocol, tmp_path: Path) -> None:
    none, empty = tmp_path / "none.pem", tmp_path / "empty.pem"
    empty.write_text("")
    for certificate in (none, empty, CERTIFICATES / "authority.pem"):  # the last has no key
        with pytest.raises(SettingsError, match=r"\[otlp\] client_certificate: .* cannot be used"):
            create_sender("https://x", protocol, tls=TlsFiles(certificate=certificate))
    with pytest.raises(SettingsError, match=r"\[otlp\] client_key: .* is of no client_certificate"):
        create_sender("https://x", protocol, tls=TlsFiles(key=CERTIFICATES / "host.pem"))


@pytest.mark.parametrize(("protocol", "absent"), [("grpc", "httpx"), ("http/protobuf", "grpc")])
def test_only_the_protocol_in_use_is_loaded(protocol: Protocol, absent: str) -> None:
    code = (
        "import sys; from postel.otlp.client import create_sender; "
        f"create_sender('http://127.0.0.1:1', {protocol!r}); sys.exit({absent!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
