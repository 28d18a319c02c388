"""A Zone-MTA killed with -9 amid its work: all that is older than a second is told, whoever takes the events."""

from __future__ import annotations

import contextlib
import smtplib
import threading
import time
from collections.abc import Iterator

import pytest
from testbed.fixtures import WatchedZoneMta
from testbed.program import until
from testbed.zone_mta import ZoneMta

from support.otlp_thread import OtlpThread
from support.silent_server import silent_server

LOST_S = 1.0
"""What a killed process may lose."""
LATE_S = 0.5
"""An event is an entry of the log, a moment after the answer that is seen here; a busy machine adds to that."""


@contextlib.contextmanager
def under_load(server: ZoneMta) -> Iterator[dict[str, float]]:
    """Messages without a pause until the server is gone: recipient -> when it was taken, in seconds since the epoch."""
    taken: dict[str, float] = {}

    def send() -> None:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            while True:
                for recipient in server.send(1):
                    taken[recipient] = time.time()

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    yield taken
    sending.join(timeout=30)
    assert not sending.is_alive()


def delivered(server: ZoneMta) -> dict[str, float]:
    """When the sink took what was sent to each recipient."""
    return {each.recipient: each.accepted_at for each in server.sink.attempts() if each.accepted_at}


@contextlib.contextmanager
def receiver_that(state: str, receiver: OtlpThread) -> Iterator[None]:
    """On the port of `receiver`, which is there again afterwards."""
    if state == "takes":
        yield
        return
    receiver.stop()
    with silent_server(receiver.receiver.http_port) if state == "hangs" else contextlib.nullcontext():
        yield
    receiver.start()


@pytest.mark.slow
@pytest.mark.parametrize("state", ["takes", pytest.param("hangs", marks=pytest.mark.soak), "away"])
def test_a_server_that_is_killed_loses_no_event_older_than_a_second(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread, state: str
) -> None:
    server = watched_zone_mta(otlp_receiver.endpoint, zones=("only",), connections=10)
    with receiver_that(state, otlp_receiver):
        with under_load(server) as taken:
            until(lambda: len(taken) > 40 and len(delivered(server)) > 20, 90, "mail flows")
            time.sleep(2)
            killed = set(server.program.pids())
            killed_at = time.time()
            server.kill()
        before = delivered(server)
    must = killed_at - LOST_S - LATE_S
    queued_before = {recipient for recipient, at in taken.items() if at < must}
    delivered_before = {recipient for recipient, at in before.items() if at < must}
    # It was killed amid its work, and had done some.
    assert len(queued_before) > 20
    assert len(delivered_before) > 10
    assert max(taken.values()) > must

    # The next one sends what this one left in files.
    server.start()

    def told(name: str) -> set[str]:
        return {
            event.attributes["email.to.address"][0]
            for event in otlp_receiver.records()
            if event.name == name and event.resource["process.pid"] in killed
        }

    def lost() -> tuple[set[str], set[str]]:
        return queued_before - told("zonemta.message.queued"), delivered_before - told("zonemta.delivery.accepted")

    with contextlib.suppress(AssertionError):
        until(lambda: lost() == (set(), set()), 15, "all is told")
    assert lost() == (set(), set())
