"""The real Collector before a sink that refuses for other reasons than the data, or that is away: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest

from support.collector import Collector, Request, Sink, log_request, metric_request
from support.otlp_receiver import running_receiver

# Each try of a refused request takes no longer than this.
_QUICK = "exporters::otlp_grpc/sink::retry_on_failure: {initial_interval: 50ms, max_interval: 100ms}"
_REFUSAL = "The receiver refuses everything"

# All statuses of gRPC but OK, those that OTLP calls retryable, and the two that the sink gives because of the data.
_NOT_ABOUT_THE_DATA = [
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAUTHENTICATED,
]


def _until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)


async def test_a_wrong_token_costs_nothing(program: Path, tmp_path: Path) -> None:
    """Postel's own server; the token is mended by a restart with the right one."""
    log, metric = log_request("kept"), metric_request(12.5)
    async with running_receiver(token="abc") as sink:  # noqa: S106 - a test's
        collector = Collector(program, tmp_path, sink.grpc_port)
        try:
            # The second one holds a character that no header can: grpc-go itself answers that with INTERNAL.
            for wrong in ("wrong", "vertippt-ä"):
                collector.environment["POSTEL_SINK_TOKEN"] = wrong
                await asyncio.to_thread(collector.start, _QUICK)
                if wrong == "wrong":
                    assert await asyncio.to_thread(collector.send, log) == httpx.codes.OK
                    assert await asyncio.to_thread(collector.send, metric) == httpx.codes.OK
                await asyncio.sleep(1)
                assert await asyncio.to_thread(collector.stop) == 0
            assert sink.taken == []

            collector.environment["POSTEL_SINK_TOKEN"] = "abc"  # noqa: S105 - a test's
            await asyncio.to_thread(collector.start, _QUICK)
            await asyncio.to_thread(_until, lambda: len(sink.taken) >= 2)
        finally:
            collector.end()
    taken = [request for _signal, request in sink.taken]
    assert log in taken
    assert metric in taken
    printed = collector.log()
    assert "Permanent error" not in printed
    # For metrics and logs once each, although a request was tried about ten times in the second.
    assert printed.count(_REFUSAL) == 4
    assert "Unauthenticated" in printed
    assert "Internal" in printed


def test_is_tried_until_the_sink_takes_it_whatever_it_answers(collector: Collector, sink: Sink) -> None:
    remaining = list(_NOT_ABOUT_THE_DATA)

    def refuse(_request: Request) -> grpc.StatusCode | None:
        return remaining.pop() if remaining else None

    sink.answer = refuse
    sink.start()
    collector.start(_QUICK)
    assert collector.send(log_request("kept")) == httpx.codes.OK

    _until(lambda: sink.bodies() == ["kept"])
    assert remaining == []
    printed = collector.log()
    assert printed.count(_REFUSAL) == len(_NOT_ABOUT_THE_DATA)
    assert printed.count("refused by the test") == len(_NOT_ABOUT_THE_DATA), "with the sink's own words"


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_what_can_never_be_stored_is_not_tried_again(collector: Collector, sink: Sink, code: grpc.StatusCode) -> None:
    asked: list[str] = []

    def refuse_poison(request: Request) -> grpc.StatusCode | None:
        poison = "poison" in str(request)
        asked.append("poison" if poison else "good")
        return code if poison else None

    sink.answer = refuse_poison
    sink.start()
    collector.start(_QUICK)
    assert collector.send(log_request("poison")) == httpx.codes.OK
    _until(lambda: asked == ["poison"])
    assert collector.send(log_request("good")) == httpx.codes.OK

    _until(lambda: sink.bodies() == ["good"])
    time.sleep(0.5)
    assert asked == ["poison", "good"]
    assert "Permanent error" in collector.log()
    assert _REFUSAL not in collector.log()


@pytest.mark.slow
def test_data_flows_within_seconds_of_the_sinks_return(collector: Collector, sink: Sink) -> None:
    """In ten seconds grpc-go by itself would connect five times, and then pause for five seconds and more."""
    collector.start()
    assert collector.send(log_request("kept")) == httpx.codes.OK
    assert _connections(sink.address, 10.0) >= 8
    sink.start()

    # The pause to the next connection, 1.2 s at most, and the one to the next try of the request, 4.5 s at most.
    _until(lambda: sink.bodies() == ["kept"], 7.0)


def _connections(address: str, seconds: float) -> int:
    """Close every connection that is made within that time; returns how many there were."""
    host, _, port = address.rpartition(":")
    count = 0
    deadline = time.monotonic() + seconds
    with socket.create_server((host, int(port))) as listener:
        while (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            with contextlib.suppress(TimeoutError):
                listener.accept()[0].close()
                count += 1
    return count
