"""What holds connections, heads, bodies and answers without end at a door of ours, while somebody else gets through."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from postel import bounded_http, bounded_tls
from postel.otlp import grpc_server
from postel.otlp.client import create_sender
from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from postel.otlp.tls_door import TlsDoor
from postel.otlp.tls_files import TlsFiles
from support import listening
from support.eventually import eventually
from support.flood import HALF_HELLO, Way, ended, flood
from support.gateway import AUTHORITY
from support.otlp_receiver import running_receiver
from support.tls_listeners import CERTIFICATES

MOST = 40
FLOOD = 200
GET = b"GET /quick HTTP/1.1\r\nhost: x\r\n"


def door() -> TlsDoor:
    return TlsDoor("[sink]", CERTIFICATES / "gateway.pem")


async def send(endpoint: str, protocol: Any) -> None:
    sender = create_sender(endpoint, protocol, timeout=5, tls=TlsFiles(AUTHORITY))
    try:
        await sender.send(Signal.METRICS, b"")
    finally:
        await sender.close()


@pytest.mark.parametrize("words", [b"", b"POST /v1/metrics HTTP/1.1\r\nx-slow: "], ids=["silent", "slow"])
async def test_a_sender_gets_through_to_http_beside_a_flood(words: bytes) -> None:
    async with running_receiver(connections=MOST) as receiver, flood([Way(receiver.http_port, words)], FLOOD) as held:
        async with asyncio.timeout(3):
            for _ in range(5):
                await send(receiver.http, "http/protobuf")
        assert len(receiver.taken) == 5
        # Of the flood the last ones are there still.
        assert await _ended(held) >= FLOOD - MOST


@pytest.mark.parametrize("words", [b"", HALF_HELLO], ids=["silent", "half"])
async def test_a_sender_gets_through_to_https_beside_a_flood_of_handshakes(words: bytes) -> None:
    async with (
        running_receiver(connections=MOST, tls=door()) as receiver,
        flood([Way(receiver.http_port, words)], FLOOD) as held,
    ):
        async with asyncio.timeout(bounded_tls.HANDSHAKE_SECONDS - 2):
            for _ in range(5):
                await send(f"https://localhost:{receiver.http_port}", "http/protobuf")
            assert len(receiver.taken) == 5
            # Each of the five took the place of one.
            await eventually(lambda: ended(held) >= FLOOD - MOST, 10, "as many are left as are allowed")
            assert await _ended(held) <= FLOOD - MOST + 5


async def test_a_handshake_that_stands_still_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_tls, "HANDSHAKE_SECONDS", 0.3)
    async with flooded(App(), tls=door()) as port:
        for words in (b"", HALF_HELLO):
            began = asyncio.get_running_loop().time()
            assert await ask(port, words) in (b"", b"reset")
            assert 0.2 < asyncio.get_running_loop().time() - began < 2


async def test_a_server_that_stops_waits_for_no_handshake() -> None:
    async with flooded(App(), tls=door()) as port:
        waiting = [asyncio.create_task(ask(port, HALF_HELLO)) for _ in range(3)]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in waiting)
        began = asyncio.get_running_loop().time()
    # uvicorn waits for none of them; they would be there after it.
    assert set(await asyncio.gather(*waiting)) <= {b"", b"reset"}
    assert asyncio.get_running_loop().time() - began < 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_request_may_come_with_the_end_of_the_handshake(version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with flooded(App(), tls=door()) as port, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                break
            writer.write(outgoing.read())
            incoming.write(await reader.read(1 << 16))
        client.write(GET + b"connection: close\r\n\r\n")
        # In TLS 1.3 with this side's last word of the handshake.
        writer.write(outgoing.read())
        # Until the other side closes, which waits for this one's word, and not long.
        incoming.write(await reader.read())
        assert client.read(1 << 16).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_websocket_over_tls_has_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_tls, "HANDSHAKE_SECONDS", 0.3)
    monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.3)
    context = ssl.create_default_context(cafile=AUTHORITY)
    async with (
        flooded(App(), tls=door()) as port,
        connect(f"wss://localhost:{port}/ws", ssl=context) as socket,
    ):
        await asyncio.sleep(0.5)
        await socket.send("still")
        assert await socket.recv() == "still"


async def test_a_sender_gets_through_to_grpc_once_those_who_say_nothing_are_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "_HANDSHAKE_MS", 1500)
    async with running_receiver(connections=MOST) as receiver, flood([Way(receiver.grpc_port)], FLOOD) as held:
        await asyncio.sleep(0.2)
        # More than are allowed were closed at once.
        assert FLOOD - MOST <= await _ended(held) < FLOOD
        with pytest.raises(Retryable):
            await send(receiver.grpc, "grpc")
        async with asyncio.timeout(10):
            while not receiver.taken:
                with contextlib.suppress(Retryable):
                    await send(receiver.grpc, "grpc")
        await eventually(lambda: ended(held) == FLOOD, 10, "all are cut off")


async def _ended(held: list[asyncio.Task[None]]) -> int:
    await asyncio.sleep(0.2)
    return ended(held)


class App:
    """What a server answers: at once, when it is told to, without end, and by a WebSocket."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.routes = [
            Route("/quick", self.quick, methods=["GET", "POST"]),
            Route("/told", self.told, methods=["GET", "POST"]),
            Route("/waits", self.waits),
            Route("/much", self.much),
            WebSocketRoute("/ws", self.listens),
        ]

    async def quick(self, request: Request) -> Response:
        return PlainTextResponse(f"{len(await request.body())}")

    async def told(self, request: Request) -> Response:
        await request.body()
        return PlainTextResponse(",".join(request.headers))

    async def waits(self, _request: Request) -> Response:
        await self.go.wait()
        return PlainTextResponse("done")

    async def much(self, _request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            while not self.go.is_set():
                yield bytes(1 << 20)
                await asyncio.sleep(0)

        return StreamingResponse(parts())

    async def listens(self, socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())


@contextlib.asynccontextmanager
async def flooded(
    app: App, connections: int = MOST, body: int | None = None, tls: TlsDoor | None = None
) -> AsyncIterator[int]:
    routes = Starlette(routes=app.routes)
    async with listening.served(routes, connections=connections, body=body, tls=tls) as port:
        try:
            yield port
        finally:
            app.go.set()


async def ask(port: int, *words: bytes, pause: float = 0.0) -> bytes:
    """All that comes back until the other end closes; an answer that the connection outlives is not waited for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        for each in words:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(pause)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b"reset"
    finally:
        writer.transport.abort()


async def test_who_has_a_request_under_way_is_not_closed_for_another() -> None:
    app = App()
    async with flooded(app, connections=3) as port, connect(f"ws://127.0.0.1:{port}/ws") as socket:
        waiting = [
            asyncio.create_task(ask(port, b"GET /waits HTTP/1.1\r\nconnection: close\r\n\r\n")) for _ in range(2)
        ]
        await asyncio.sleep(0.2)
        assert (await ask(port, GET + b"\r\n")).startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\n")
        await socket.send("still")
        assert await socket.recv() == "still"
        app.go.set()
        assert all(answer.endswith(b"done") for answer in await asyncio.gather(*waiting))


async def test_a_head_without_end_is_refused_and_an_ordinary_large_one_is_not() -> None:
    async with flooded(App()) as port:
        answer = await ask(port, GET + b"x: " + bytes([97]) * 70_000)
        assert answer.startswith(b"HTTP/1.1 431 ")
        large = b"x: " + bytes([97]) * 30_000 + b"\r\nconnection: close\r\n\r\n"
        assert (await ask(port, GET, large)).startswith(b"HTTP/1.1 200 ")


async def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so() -> None:
    async with flooded(App(), body=100_000) as port:
        post = b"POST /quick HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        assert (await ask(port, post + b"content-length: 100000\r\n\r\n" + bytes(100_000))).endswith(b"100000")
        for told in (
            b"content-length: 200000\r\n\r\n" + bytes(200_000),
            b"transfer-encoding: chunked\r\n\r\n" + b"1f4000\r\n" + bytes(200_000),
        ):
            answer = await ask(port, post + told)
            # What was still on its way may cost the answer.
            assert answer == b"reset" or answer.startswith(b"HTTP/1.1 413 ")


CHUNKED = b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
FIELD = b"t: " + bytes([97]) * 10_000 + b"\r\n"
LAST = b"GET /told HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
MANY, LONG, FRAMES = [FIELD] * 60, [b"t: ", *[bytes([97]) * 10_000] * 60], [b"1;x=" + bytes([97]) * 600_000]


@pytest.mark.parametrize("path", [b"/quick", b"/nowhere"], ids=["awaited", "answered"])
@pytest.mark.parametrize("words", [[b"0\r\n", *MANY], [b"0\r\n", *LONG], FRAMES], ids=["many", "long", "frames"])
async def test_trailers_without_end_are_refused(path: bytes, words: list[bytes]) -> None:
    async with flooded(App()) as port:
        answer = await ask(port, b"POST " + path + CHUNKED, *words, pause=0.001)
        # What was still on its way may cost the answer; and a request that has one gets no other.
        if answer != b"reset":
            assert answer.startswith(b"HTTP/1.1 431 " if path == b"/quick" else b"HTTP/1.1 404 ")
            assert answer.count(b"HTTP/1.1 ") == 1


async def test_trailers_are_no_headers() -> None:
    async with flooded(App()) as port:
        answer = await ask(port, b"POST /told" + CHUNKED + b"0\r\nauthorization: Bearer x\r\n\r\n" + LAST)
        assert answer.count(b"HTTP/1.1 200 ") == 2
        assert b"\r\n\r\nhost,transfer-encodingHTTP" in answer
        assert answer.endswith(b"\r\n\r\nhost,connection")


@pytest.mark.parametrize(
    ("words", "time"),
    [
        ((b"",), "HEAD_SECONDS"),
        ((GET, *[b"x: y\r\n"] * 8), "HEAD_SECONDS"),
        ((GET + b"\r\n", GET), "HEAD_SECONDS"),
        ((b"POST /quick HTTP/1.1\r\ncontent-length: 99\r\n\r\n", *[b"x"] * 8), "BODY_SECONDS"),
    ],
    ids=["nothing", "head", "second head", "body"],
)
async def test_who_is_slower_than_a_bound_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, words: tuple[bytes, ...], time: str
) -> None:
    monkeypatch.setattr(bounded_http, time, 0.3)
    async with flooded(App()) as port:
        began = asyncio.get_running_loop().time()
        answer = await ask(port, *words, pause=0.1)
        assert asyncio.get_running_loop().time() - began < 2
        assert answer in (b"", b"reset") or answer.count(b"HTTP/1.1 200") == 1


async def test_who_does_not_read_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "UNREAD_SECONDS", 0.3)
    app = App()
    async with flooded(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        # Nobody reads: once its buffer is full asyncio takes nothing more.
        writer.write(b"GET /much HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(5):
            while not writer.transport.is_closing():
                # A connection that was reset says so to who writes.
                writer.write(b"x")
                await asyncio.sleep(0.05)
