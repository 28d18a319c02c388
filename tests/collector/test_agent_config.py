"""The real Collector with agent.yaml: what it answered with success reaches the sink, whatever happens between."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest

from postel.collector import collector_config
from support.collector import Collector, Sink, log_request, metric_request

# The Collector looks for the sink once a second, and tries a request again after 4.5 s at most.
_RETRY_SECONDS = 15.0


def _until(condition: Callable[[], bool], seconds: float = _RETRY_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)


def _names(count: int) -> list[str]:
    return [f"event {number}" for number in range(count)]


def test_config_validates_without_any_environment(program: Path) -> None:
    done = subprocess.run(
        [program, "validate", "--config", collector_config()],
        env={},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_metrics_and_logs_pass_unchanged(collector: Collector, sink: Sink) -> None:
    sink.start()
    collector.environment["POSTEL_SINK_TOKEN"] = "secret"  # noqa: S105 - a test's
    collector.start()
    log, metric = log_request("hello"), metric_request(12.5)

    assert collector.send(log) == httpx.codes.OK
    assert collector.send(metric) == httpx.codes.OK

    _until(lambda: len(sink.taken) == 2)
    assert log in sink.taken
    assert metric in sink.taken
    assert sink.authorizations == {"Bearer secret"}


def test_listens_on_three_loopback_ports_and_keeps_its_storage_private(collector: Collector, sink: Sink) -> None:
    sink.start()
    collector.start()
    assert collector.send(log_request("hello")) == httpx.codes.OK
    listening = collector.listening()
    assert len(listening) == 3, "receiver gRPC and HTTP, health check; its own metrics are off"
    assert {address for address, _port in listening} == {"127.0.0.1"}
    assert collector.storage.stat().st_mode & 0o077 == 0


# By `make test` tests/collector/test_patient_client.py waits for one request, tests/e2e/test_no_sample_lost.py for all.
@pytest.mark.soak
def test_all_arrives_once_the_sink_is_back(collector: Collector, sink: Sink) -> None:
    sink.start()
    collector.start()
    assert collector.send(log_request("before")) == httpx.codes.OK
    _until(lambda: sink.bodies() == ["before"])
    sink.stop()
    time.sleep(0.5)

    assert {collector.send(log_request(name)) for name in _names(30)} == {httpx.codes.OK}
    assert collector.send(metric_request(1.0)) == httpx.codes.OK
    time.sleep(3)
    sink.start()

    # Once each: no failure of the Collector itself was in it.
    _until(lambda: len(sink.bodies()) >= 31)
    _until(lambda: metric_request(1.0) in sink.taken)
    assert sorted(sink.bodies()) == sorted(["before", *_names(30)])


def test_all_arrives_after_kill_9(collector: Collector, sink: Sink) -> None:
    collector.start()
    assert {collector.send(log_request(name)) for name in _names(30)} == {httpx.codes.OK}
    # By now some are under way to the sink that is away, the others wait in the queue.
    time.sleep(0.5)
    collector.kill()

    sink.start()
    collector.start()

    _until(lambda: set(sink.bodies()) == set(_names(30)))


def test_kill_9_right_after_the_answer_loses_nothing(collector: Collector, sink: Sink) -> None:
    for name in _names(3):
        collector.start()
        assert collector.send(log_request(name)) == httpx.codes.OK
        collector.kill()

    sink.start()
    collector.start()

    _until(lambda: set(sink.bodies()) == set(_names(3)))


@pytest.mark.slow
def test_kills_amid_starts_lose_nothing_of_what_was_under_way(collector: Collector, sink: Sink) -> None:
    """Without extensions/surestorage/ each of these starts deletes what was under way and then writes it anew."""
    collector.start()
    assert {collector.send(log_request(name)) for name in _names(100)} == {httpx.codes.OK}
    # By now all of them are under way to the sink that is away.
    time.sleep(0.5)
    collector.kill()
    began = time.monotonic()
    collector.start()
    takes = time.monotonic() - began

    for share in range(1, 10):
        collector.kill()
        collector.spawn()
        time.sleep(takes * share / 10)
    collector.kill()
    sink.start()
    collector.start()

    _until(lambda: set(sink.bodies()) == set(_names(100)))


@pytest.mark.slow
def test_restarts_under_a_sender_that_never_pauses_lose_nothing(collector: Collector, sink: Sink) -> None:
    """Without extensions/readygate/ one in about fifty of these restarts lost what was queued, or panicked."""
    answered: list[str] = []
    done = threading.Event()

    def send(sender: str) -> None:
        for number in itertools.count():
            if done.is_set():
                return
            with contextlib.suppress(httpx.TransportError):
                if collector.send(log_request(f"{sender} {number}")) == httpx.codes.OK:
                    answered.append(f"{sender} {number}")

    collector.start()
    with ThreadPoolExecutor(2) as pool:
        senders = [pool.submit(send, name) for name in ("a", "b")]
        for _ in range(30):
            collector.kill()
            collector.start()
            time.sleep(0.05)
        done.set()
        for sender in senders:
            sender.result()
    sink.start()

    assert answered
    _until(lambda: set(sink.bodies()) >= set(answered))
    assert "panic" not in collector.log()


def test_sigterm_with_the_sink_away_stops_soon_and_keeps_all(collector: Collector, sink: Sink) -> None:
    collector.start()
    assert {collector.send(log_request(name)) for name in _names(10)} == {httpx.codes.OK}
    start = time.monotonic()
    assert collector.stop() == 0
    assert time.monotonic() - start < 10

    sink.start()
    collector.start()

    _until(lambda: set(sink.bodies()) == set(_names(10)))


def test_full_queue_refuses_with_a_retryable_answer_and_loses_nothing(collector: Collector, sink: Sink) -> None:
    collector.start("exporters::otlp_grpc/sink::sending_queue::queue_size: 500000")
    answers = {name: collector.send(log_request(name, padding=40_000)) for name in _names(20)}
    taken = {name for name, status in answers.items() if status == httpx.codes.OK}
    assert set(answers.values()) == {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}
    assert len(taken) == 12

    sink.start()

    _until(lambda: set(sink.bodies()) == taken)


def test_what_the_sink_can_take_later_is_retried(collector: Collector, sink: Sink) -> None:
    refusals: list[int] = []

    def refuse_twice(_request: object) -> grpc.StatusCode | None:
        refusals.append(1)
        return grpc.StatusCode.UNAVAILABLE if len(refusals) <= 2 else None

    sink.answer = refuse_twice
    sink.start()
    collector.start()
    assert collector.send(log_request("patience")) == httpx.codes.OK

    _until(lambda: sink.bodies() == ["patience"])
    assert len(refusals) == 3


def test_what_the_sink_can_never_take_does_not_hold_up_the_rest(collector: Collector, sink: Sink) -> None:
    asked: list[str] = []

    def refuse_for_good(request: object) -> grpc.StatusCode | None:
        poison = "poison" in str(request)
        asked.append("poison" if poison else "other")
        return grpc.StatusCode.INVALID_ARGUMENT if poison else None

    sink.answer = refuse_for_good
    sink.start()
    collector.start()
    assert collector.send(log_request("poison")) == httpx.codes.OK
    _until(lambda: asked == ["poison"])
    assert collector.send(log_request("good")) == httpx.codes.OK

    _until(lambda: sink.bodies() == ["good"])
    assert asked == ["poison", "other"]


def test_backlog_goes_in_batches_that_are_little_larger_than_the_largest_request(
    collector: Collector, sink: Sink
) -> None:
    collector.start()
    assert {collector.send(log_request(name, padding=100_000)) for name in _names(50)} == {httpx.codes.OK}
    # As much as the agent sends at once.
    assert collector.send(log_request("large", padding=1_000_000)) == httpx.codes.OK

    sink.start()

    _until(lambda: len(sink.bodies()) == 51)
    assert max(request.ByteSize() for request in sink.taken) <= (1 << 20) + (256 << 10)
    assert len(sink.taken) < 30
