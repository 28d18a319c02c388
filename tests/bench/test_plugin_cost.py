"""What the plugins cost Zone-MTA and Haraka: `make bench`, figures in docs/benchmarks.md.

With a receiver that takes events, one that accepts connections and never answers, and none. Each case takes about ten
minutes.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import smtplib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from testbed.fixtures import NewHaraka, NewZoneMta, WatchedHaraka, WatchedZoneMta
from testbed.haraka import DISCARD, Haraka
from testbed.program import until
from testbed.zone_mta import ZoneMta

from support.node_observer import NodeObserver
from support.otlp_thread import OtlpThread
from support.plugin_cost import HEADER, Subject, compare
from support.ports import free_port
from support.silent_server import silent_server

CLIENTS = 4
MEMORY = 4 << 20
"""`memorySize`, the plugins' default."""
RECEIVERS = ("takes", "hangs", "away")
JUDGE = {"judge": {"enabled": ["receiver", "main"], "ordering": 2}}
"""The testbed's plugin that runs beside Postel's; the server without has it, too."""

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def table() -> Callable[[str], str]:
    """Puts the header before the first line."""
    headers = itertools.chain([f"\n{HEADER}\n"], itertools.repeat("\n"))
    return lambda row: next(headers) + row


@dataclass(frozen=True)
class Case:
    """One receiver of the events.

    Args:
        receiver: what it does, of `RECEIVERS`.
        endpoint: where it listens.
        show: adds a line to the table.
        observer: in the environment of every server that the test starts.
    """

    receiver: str
    endpoint: str
    show: Callable[[str], None]
    observer: NodeObserver

    def check(self, name: str, plain: Subject, watched: Subject, *, messages: int) -> None:
        """Compare them, show the line, hold the bounds."""
        cost = compare(plain, watched, self.observer, messages=messages)
        self.show(cost.row(f"{name}, {self.receiver}"))
        assert cost.cpu.upper <= 0.03
        assert cost.delay.upper <= 2
        # So much may wait in memory; a leak passes it after a turn or two.
        assert cost.growth < MEMORY


@pytest.fixture(params=RECEIVERS)
def case(
    request: pytest.FixtureRequest,
    otlp_receiver: OtlpThread,
    table: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Case]:
    def show(row: str) -> None:
        with capsys.disabled():
            print(table(row))  # noqa: T201 - the figures

    observer = NodeObserver(tmp_path / "observed")
    with contextlib.ExitStack() as ending:
        patch = ending.enter_context(pytest.MonkeyPatch.context())
        for name, value in observer.environment.items():
            patch.setenv(name, value)
        if request.param == "takes":
            endpoint = otlp_receiver.endpoint
        elif request.param == "hangs":
            endpoint = ending.enter_context(silent_server())
        else:
            endpoint = f"http://127.0.0.1:{free_port()}"
        yield Case(request.param, endpoint, show, observer)


def test_zone_mta(new_zone_mta: NewZoneMta, watched_zone_mta: WatchedZoneMta, case: Case) -> None:
    # A sender's idle connection looks for mail once a second only, so there are many, for any domain.
    settings = {"zones": {"only": {"processes": 2}}, "domainConfig": {"default": {"maxConnections": 1000}}}
    options = {"zones": ("only",), "connections": 20}
    plain = new_zone_mta(**options, settings={**settings, "plugins": JUDGE})
    watched = watched_zone_mta(case.endpoint, **options, settings=settings, plugin={"heartbeatInterval": 30})
    case.check(
        "Zone-MTA",
        Subject(plain, functools.partial(through_zone_mta, plain)),
        Subject(watched, functools.partial(through_zone_mta, watched)),
        messages=200,
    )


def through_zone_mta(server: ZoneMta, count: int) -> None:
    """As fast as it delivers, with a short queue: the stand-in for MongoDB looks through all of a long one."""
    before, batch = len(server.sink.attempts()), 5 * CLIENTS

    def wait_for(delivered: int) -> None:
        until(lambda: len(server.sink.attempts()) >= before + delivered, 60, f"{delivered} are delivered")

    with ThreadPoolExecutor(CLIENTS) as clients:
        for sent in range(0, count, batch):
            wait_for(sent - batch)
            list(clients.map(server.send, [5] * CLIENTS))
    wait_for(count)


def test_haraka(new_haraka: NewHaraka, watched_haraka: WatchedHaraka, case: Case) -> None:
    plain = new_haraka(storage=DISCARD)
    watched = watched_haraka(case.endpoint, storage=DISCARD, plugin="heartbeatInterval=30")
    case.check(
        "Haraka",
        Subject(plain, functools.partial(through_haraka, plain)),
        Subject(watched, functools.partial(through_haraka, watched)),
        messages=1000,
    )


def through_haraka(server: Haraka, count: int) -> None:
    """Each message on a connection of its own, as most mail comes from outside."""

    def send(number: int) -> None:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
            client.sendmail(
                "ok@sender.test", [f"someone{number}@here.test"], f"Subject: {number}\r\n\r\n{'Text. ' * 200}\r\n"
            )

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(send, range(count)))
