"""The spool is handed over in order, whatever the receiver does; only what it took is forgotten."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.resources import Resource
from structlog.testing import capture_logs

from otel_receivers import exporter, sender
from otel_receivers.points import Recorder
from otel_receivers.receiver import Tick
from otel_receivers.sender import SpoolSender, backoff
from otel_receivers.spool import Request, Spool
from postel.otlp.answers import Outcome
from postel.otlp.client import create_sender
from postel.otlp.errors import Malformed, Retryable, TooLarge, Unauthenticated, UnsupportedMedia
from postel.otlp.signal import Signal
from postel.signals import load_all
from support.otlp_receiver import Receiver, running_receiver
from support.ports import free_port
from support.raw_http_server import server, sized

AGENT = load_all()["agent"]
RESOURCE = Resource({"service.name": "postel-agent", "host.id": "n"})


def metrics(number: int) -> list[Request]:
    recorder = Recorder(AGENT, RESOURCE, Tick(1_795_600_000_000_000_000 + number))
    recorder.number("postel_spool_size", number)
    return exporter.requests(recorder.batch(), 1 << 20)


def events(number: int) -> list[Request]:
    recorder = Recorder(AGENT, RESOURCE, Tick(1))
    recorder.event("node_booted", str(number))
    return exporter.requests(recorder.batch(), 1 << 20)


def taken(receiver: Receiver) -> list[int]:
    """The numbers of all points that arrived, in order, refused tries included."""
    return [
        number
        for _, request in receiver.taken
        if isinstance(request, ExportMetricsServiceRequest)
        for number in numbers(request)
    ]


def numbers(request: ExportMetricsServiceRequest) -> list[int]:
    return [
        point.as_int
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.gauge.data_points
    ]


class Picky:
    """A proxy that answers 500 to every request with one of these points, and 200 to every other."""

    def __init__(self, *refused: int) -> None:
        self.refused = set(refused)
        self.asked: list[list[int]] = []
        self.taken: list[int] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inflating, body = zlib.decompressobj(zlib.MAX_WBITS | 16), b""
        while not inflating.eof:
            body += inflating.decompress(await reader.read(1 << 16))
        found = numbers(ExportMetricsServiceRequest.FromString(body))
        self.asked.append(found)
        if self.refused.isdisjoint(found):
            self.taken += found
            writer.write(sized(b"", b"HTTP/1.1 200 OK\r\n"))
        else:
            writer.write(sized(b"", b"HTTP/1.1 500 Internal Server Error\r\n"))
        await writer.drain()


def arrived(receiver: Receiver, count: int) -> bool:
    return len(taken_events(receiver)) == count


def taken_events(receiver: Receiver) -> list[int]:
    return [
        int(record.body.string_value)
        for signal, request in receiver.taken
        if signal is Signal.LOGS
        for resource in request.resource_logs  # type: ignore[union-attr]
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def said(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the sender logged; the receiver of these tests runs in the same process and tells what it refuses."""
    return [entry["event"] for entry in logs if entry["event"] != "refused OTLP requests"]


@asynccontextmanager
async def sending(
    spool: Spool, endpoint: str, *, protocol: Any = "http/protobuf", block_bytes: int = 1 << 20, **headers: str
) -> AsyncIterator[None]:
    connection = create_sender(endpoint, protocol, headers=headers, timeout=2)
    task = asyncio.create_task(
        SpoolSender(spool, connection, block_bytes=block_bytes, metrics_interval=0.05, events_interval=0).run()
    )
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    opened = await Spool.open(tmp_path, max_bytes=8 << 20, max_age=3600)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "BACKOFF_FIRST", 0.02)
    monkeypatch.setattr(sender, "BACKOFF_MOST", 0.2)


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while True:
        met = condition()
        if met if isinstance(met, bool) else await met:
            return
        assert time.monotonic() < deadline, "did not come true"
        await asyncio.sleep(0.01)


async def empty(spool: Spool) -> bool:
    return spool.size == 0


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_all_is_sent_in_order_and_forgotten(spool: Spool, protocol: str) -> None:
    for number in range(20):
        await spool.append(metrics(number) + events(number), {})
    async with running_receiver() as receiver:
        endpoint = receiver.grpc if protocol == "grpc" else receiver.http
        async with sending(spool, endpoint, protocol=protocol):
            await until(lambda: empty(spool))
            # Many stored requests are one request on the wire.
            assert len(receiver.taken) == 2
            await spool.append(metrics(20) + events(20), {})
            await until(lambda: empty(spool))
        assert taken(receiver) == list(range(21))
        assert taken_events(receiver) == list(range(21))


async def test_blocks_stay_below_their_limit(spool: Spool) -> None:
    for number in range(50):
        await spool.append(metrics(number), {})
    async with running_receiver() as receiver, sending(spool, receiver.http, block_bytes=1000):
        await until(lambda: empty(spool))
        assert all(request.ByteSize() <= 1000 for _, request in receiver.taken)
        assert taken(receiver) == list(range(50))


async def test_a_receiver_that_is_away_costs_nothing_and_two_lines(spool: Spool) -> None:
    port = free_port()
    for number in range(3):
        await spool.append(metrics(number), {})
    with capture_logs() as logs:
        async with sending(spool, f"http://127.0.0.1:{port}"):
            await asyncio.sleep(0.5)
            assert spool.size > 0
        async with running_receiver() as receiver, sending(spool, receiver.http):
            receiver.before = [Retryable(0.0, "busy")] * 3
            await until(lambda: empty(spool))
    assert set(taken(receiver)) == {0, 1, 2}
    assert [entry["event"] for entry in logs] == [
        "the OTLP receiver takes nothing now; data waits in the spool",
        "the OTLP receiver takes nothing now; data waits in the spool",
        "the OTLP receiver takes data again",
    ]


async def test_what_a_receiver_asks_to_wait_is_waited(spool: Spool) -> None:
    await spool.append(metrics(1), {})
    async with running_receiver() as receiver:
        receiver.before = [Retryable(1.0, "busy")]
        began = time.monotonic()
        async with sending(spool, receiver.http):
            await until(lambda: empty(spool))
        assert time.monotonic() - began >= 1.0
        assert len(receiver.taken) == 2


@pytest.mark.parametrize("refusal", [Malformed("not this one"), TooLarge("not this one")])
async def test_one_bad_request_costs_no_other(spool: Spool, refusal: Exception) -> None:
    for number in range(5):
        await spool.append(metrics(number), {})
    async with running_receiver() as receiver:
        # The block, then one by one; the third is the bad one.
        receiver.before = [refusal, Outcome(), Outcome(), refusal, Outcome(), Outcome()]
        with capture_logs() as logs:
            async with sending(spool, receiver.http):
                await until(lambda: empty(spool))
                # The spool is empty a moment before the sender, back from the spool's thread, says so.
                await until(lambda: bool(said(logs)))
        assert taken(receiver)[5:] == [0, 1, 2, 3, 4]
    assert spool.dropped == {"refused": 1}
    assert said(logs) == ["the OTLP receiver refused a request for good; it is dropped"]


async def test_a_wrong_token_drops_nothing(spool: Spool) -> None:
    for number in range(5):
        await spool.append(metrics(number), {})
    async with running_receiver(token="right") as receiver:  # noqa: S106 - of a test
        async with sending(spool, receiver.http, authorization="Bearer wrong"):
            await asyncio.sleep(0.6)
        assert receiver.taken == []
        assert spool.dropped == {}
        async with sending(spool, receiver.http, authorization="Bearer right"):
            await until(lambda: empty(spool))
        assert taken(receiver) == [0, 1, 2, 3, 4]


async def test_an_address_where_no_otlp_is_spoken_drops_nothing_and_is_not_pestered(spool: Spool) -> None:
    for number in range(3):
        await spool.append(metrics(number), {})
    asked: list[bytes] = []

    async def not_found(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(b"")
        writer.write(sized(b"no such page\n", b"HTTP/1.1 404 Not Found\r\n"))
        await writer.drain()

    async with server(not_found) as port, sending(spool, f"http://127.0.0.1:{port}"):
        await asyncio.sleep(0.6)
    # The block and its three requests, every 0.2 s.
    assert 4 <= len(asked) <= 20
    assert spool.dropped == {}
    async with running_receiver() as receiver, sending(spool, receiver.http):
        await until(lambda: empty(spool))
    assert taken(receiver) == [0, 1, 2]


async def test_a_captive_portal_drops_nothing(spool: Spool) -> None:
    for number in range(3):
        await spool.append(metrics(number), {})
    portal = sized(b"<html>hi</html>", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n")
    with capture_logs() as logs:
        async with server(portal) as port, sending(spool, f"http://127.0.0.1:{port}"):
            await until(lambda: bool(logs))
    assert logs[0]["reason"] == "HTTP 200, but the answer is not OTLP's: <html>hi</html>"
    async with running_receiver() as receiver, sending(spool, receiver.http):
        await until(lambda: empty(spool))
        assert taken(receiver) == [0, 1, 2]
    assert spool.dropped == {}


@pytest.mark.parametrize(
    ("statuses", "dropped"),
    [
        # The block, its three requests, and the refused one once more.
        ([404, 200, 404, 200, 404], {"refused": 1}),
        ([404, 200, 404, 200], {}),
    ],
)
async def test_a_request_refused_twice_while_its_neighbours_are_taken_is_dropped(
    spool: Spool, statuses: list[int], dropped: dict[str, int]
) -> None:
    for number in range(3):
        await spool.append(metrics(number), {})

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = statuses.pop(0) if statuses else 200
        writer.write(sized(b"", b"HTTP/1.1 %d As listed\r\n" % status))
        await writer.drain()

    async with server(answer) as port, sending(spool, f"http://127.0.0.1:{port}"):
        await until(lambda: empty(spool))
    assert spool.dropped == dropped


@pytest.mark.parametrize(
    ("bad", "block_bytes"),
    [
        ([0], 1),
        # The pieces of one page, each a block of its own.
        ([0, 1, 2, 3, 4, 5, 6], 1),
        ([3], 1),
        # A block of two, both of them bad.
        ([0, 1], 300),
    ],
)
async def test_a_block_that_is_refused_whole_costs_nothing_after_it(
    spool: Spool, bad: list[int], block_bytes: int
) -> None:
    for number in range(9):
        await spool.append(metrics(number), {})
    proxy = Picky(*bad)
    with capture_logs() as logs:
        async with server(proxy) as port, sending(spool, f"http://127.0.0.1:{port}", block_bytes=block_bytes):
            await until(lambda: empty(spool))
    assert sorted(proxy.taken) == [number for number in range(9) if number not in bad]
    # Each was refused twice alone, the second time after a neighbour was taken.
    assert {number: proxy.asked.count([number]) for number in bad} == dict.fromkeys(bad, 2)
    assert spool.dropped == {"refused": len(bad)}
    assert said(logs) == ["the OTLP receiver refused a request for good; it is dropped"] * len(bad)


async def test_a_block_that_is_refused_with_all_after_it_stays(spool: Spool) -> None:
    for number in range(20):
        await spool.append(metrics(number), {})
    proxy = Picky(*range(20))
    async with server(proxy) as port, sending(spool, f"http://127.0.0.1:{port}", block_bytes=1):
        await until(lambda: len(proxy.asked) > 24)
        assert spool.dropped == {}
        # Not the whole spool, and after a pause the same again.
        assert proxy.asked[:16] == [[number] for number in range(8)] * 2
        proxy.refused.clear()
        await until(lambda: empty(spool))
    assert sorted(proxy.taken) == list(range(20))
    assert spool.dropped == {}


async def test_a_block_that_is_refused_with_nothing_after_it_waits_for_what_comes(spool: Spool) -> None:
    await spool.append(metrics(0), {})
    proxy = Picky(0)
    async with server(proxy) as port, sending(spool, f"http://127.0.0.1:{port}", block_bytes=1):
        await until(lambda: len(proxy.asked) > 3)
        assert spool.dropped == {}
        await spool.append(metrics(1), {})
        await until(lambda: empty(spool))
    assert proxy.taken == [1]
    assert spool.dropped == {"refused": 1}


async def test_a_neighbour_that_is_taken_drops_nothing_for_a_settings_sake(spool: Spool) -> None:
    for number in range(3):
        await spool.append(metrics(number), {})
    async with running_receiver() as receiver:
        receiver.before = [Unauthenticated("not this one"), Outcome(), Unauthenticated("not this one")]
        async with sending(spool, receiver.http, block_bytes=1):
            await until(lambda: empty(spool))
        assert taken(receiver) == [0, 1, 0, 0, 2]
    assert spool.dropped == {}


@pytest.mark.parametrize("refusal", [Unauthenticated("rotated"), UnsupportedMedia("reloaded")])
async def test_a_refusal_that_passes_costs_nothing(spool: Spool, refusal: Exception) -> None:
    for number in range(3):
        await spool.append(metrics(number), {})
    async with running_receiver() as receiver:
        # The block, two of its three requests, and then all is well.
        receiver.before = [refusal] * 3
        async with sending(spool, receiver.http):
            await until(lambda: empty(spool))
        assert taken(receiver)[5:] == [2, 0, 1]
    assert spool.dropped == {}


@pytest.mark.parametrize("refusal", [Unauthenticated("one of two proxies"), UnsupportedMedia("one of two proxies")])
async def test_what_is_about_the_settings_is_never_dropped(spool: Spool, refusal: Exception) -> None:
    for number in range(3):
        await spool.append(metrics(number), {})
    async with running_receiver() as receiver:
        receiver.before = [refusal, Outcome(), refusal, Outcome(), refusal, refusal, refusal]
        async with sending(spool, receiver.http):
            await until(lambda: empty(spool))
        assert taken(receiver)[3:] == [0, 1, 2, 1, 1, 1, 1]
    assert spool.dropped == {}


async def test_a_spool_that_cannot_be_read_is_not_called_a_receiver_that_is_away(spool: Spool) -> None:
    await spool.append(metrics(1), {})
    await spool._call(lambda store: store.on_file(lambda file: file._db.execute("DROP TABLE request").fetchall()))
    with capture_logs() as logs:
        async with running_receiver() as receiver, sending(spool, receiver.http):
            await until(lambda: "the spool gives nothing now; data waits in the spool" in [e["event"] for e in logs])
    assert not [entry for entry in logs if "receiver" in entry["event"]]


async def test_a_receiver_that_leaves_while_a_bad_request_is_sought_loses_nothing(spool: Spool) -> None:
    for number in range(4):
        await spool.append(metrics(number), {})
    async with running_receiver() as receiver:
        receiver.before = [Malformed("a"), Outcome(), Malformed("b"), Retryable(0.0, "away"), Malformed("c")]
        receiver.before += [Malformed("b"), Outcome(), Outcome()]
        async with sending(spool, receiver.http):
            await until(lambda: empty(spool))
        assert set(taken(receiver)) == {0, 1, 2, 3}
    assert spool.dropped == {"refused": 1}


async def test_a_partial_success_is_said_and_not_sent_again(spool: Spool) -> None:
    await spool.append(metrics(1), {})
    async with running_receiver() as receiver:
        receiver.answer = Outcome(1, "no such thing")
        with capture_logs() as logs:
            async with sending(spool, receiver.http):
                await until(lambda: empty(spool))
        assert len(receiver.taken) == 1
    assert (logs[0]["rejected"], logs[0]["of"], logs[0]["reason"]) == (1, 1, "no such thing")


async def test_events_do_not_wait_for_the_metrics_interval(spool: Spool) -> None:
    async with running_receiver() as receiver:
        connection = create_sender(receiver.http, timeout=2)
        slow = SpoolSender(spool, connection, block_bytes=1 << 20, metrics_interval=3600, events_interval=0)
        task = asyncio.create_task(slow.run())
        await asyncio.sleep(0.1)
        for number in range(3):
            began = time.monotonic()
            await spool.append(events(number), {})
            await until(partial(arrived, receiver, number + 1))
            assert time.monotonic() - began < 0.5
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()


def test_backoff_grows_with_jitter_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "BACKOFF_FIRST", 1.0)
    monkeypatch.setattr(sender, "BACKOFF_MOST", 60.0)
    for failures, whole in [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (100_000, 60)]:
        waits = {backoff(failures) for _ in range(50)}
        assert len(waits) > 10
        assert all(whole / 2 <= wait <= whole for wait in waits)
