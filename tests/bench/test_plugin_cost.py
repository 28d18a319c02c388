"""What the plugins cost Zone-MTA and Haraka: `make bench`, figures in docs/benchmarks.md.

With a receiver that takes events, one that accepts connections and never answers, and none. A case takes ten to
thirty minutes and wants a machine with nothing else to do.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import itertools
import smtplib
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testbed.backends import Backends
from testbed.fixtures import NewHaraka, NewZoneMta, WatchedHaraka, WatchedZoneMta
from testbed.haraka import DISCARD, LMTP, Haraka
from testbed.program import until
from testbed.zone_mta import ZoneMta

from support.node_observer import NodeObserver
from support.plugin_cost import HEADER, Pair, Subject, compare
from support.ports import free_port
from support.silent_server import silent_server
from support.takers import taking_lmtp, taking_receiver

CLIENTS = 4
MEMORY = 4 << 20
"""`memorySize`, the plugins' default."""
RECEIVERS = ("takes", "hangs", "away")
JUDGE = {"judge": {"enabled": ["receiver", "main"], "ordering": 2}}
"""The testbed's plugin that runs beside Postel's; the server without has it, too."""

pytestmark = [pytest.mark.bench, pytest.mark.timeout(5400)]


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

    def check(self, name: str, start: Callable[[], Pair], *, bound: float = 0.03, **options: int) -> None:
        """Compare them with these options, show the line, hold the bounds."""
        cost = compare(start, self.observer, **options)
        self.show(cost.row(f"{name}, {self.receiver}"))
        assert cost.cpu.upper <= bound
        assert cost.delay.upper <= 2
        # So much may wait in memory.
        assert cost.growth < MEMORY


@pytest.fixture(params=RECEIVERS)
def case(
    request: pytest.FixtureRequest,
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
            endpoint = ending.enter_context(taking_receiver())
        elif request.param == "hangs":
            endpoint = ending.enter_context(silent_server())
        else:
            endpoint = f"http://127.0.0.1:{free_port()}"
        yield Case(request.param, endpoint, show, observer)


@pytest.fixture
def new_backends(tmp_path: Path) -> Iterator[Callable[[], Backends]]:
    """What starts new ones and ends those before: MongoDB's stand-in slows down with each server that it has held."""
    with contextlib.ExitStack() as ending:
        numbers = itertools.count()

        def new() -> Backends:
            ending.close()
            folder = tmp_path / f"backends-{next(numbers)}"
            folder.mkdir()
            backends = Backends(folder)
            ending.callback(backends.stop)
            backends.start()
            return backends

        yield new


def test_zone_mta(
    new_zone_mta: NewZoneMta,
    watched_zone_mta: WatchedZoneMta,
    new_backends: Callable[[], Backends],
    case: Case,
    tmp_path: Path,
) -> None:
    # A sender's idle connection looks for mail once a second only, so there are many, for any domain.
    settings = {"zones": {"only": {"processes": 2}}, "domainConfig": {"default": {"maxConnections": 1000}}}
    options = {"zones": ("only",), "connections": 20}
    # A server would send what an earlier one of the same folder could not.
    numbers = itertools.count()

    def start() -> Pair:
        backends = new_backends()
        plain = new_zone_mta(**options, backends=backends, settings={**settings, "plugins": JUDGE})
        watched = watched_zone_mta(
            case.endpoint,
            **options,
            backends=backends,
            settings=settings,
            plugin={"heartbeatInterval": 30, "bufferDirectory": str(tmp_path / f"buffer-{next(numbers)}")},
        )
        return (
            Subject(plain, functools.partial(through_zone_mta, plain)),
            Subject(watched, functools.partial(through_zone_mta, watched)),
        )

    # One pair at a time: also while they carry nothing, they ask their database for mail.
    case.check("Zone-MTA", start, pairs=40, messages=10, abreast=1)


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


PLATFORM = ["tls", "helo.checks", "bounce", "headers", "dkim"]
"""What Haraka brings and a platform lets look at mail from outside, as far as it asks no other server."""
PLATFORM_MESSAGE = (
    "From: Someone <ok@sender.test>\r\nTo: <{recipient}>\r\nDate: {date}\r\nMessage-ID: <{number}@sender.test>\r\n"
    "Subject: {number}\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    + ("<p>Text.</p>\r\n" * 2000)
)
BARE_MESSAGE = "Subject: {number}\r\n\r\n" + "Text. " * 200 + "\r\n"


@pytest.fixture
def haraka_pairs(
    new_haraka: NewHaraka, watched_haraka: WatchedHaraka, case: Case, tmp_path: Path
) -> Callable[..., Callable[[], Pair]]:
    """`haraka_pairs(carry, **options of new_haraka)`: what starts a pair."""
    numbers = itertools.count()

    def pairs(carry: Callable[[Haraka, int], None], **options: Any) -> Callable[[], Pair]:
        def start() -> Pair:
            plain = new_haraka(**options)
            # It would send what an earlier one of the same folder could not.
            settings = f"heartbeatInterval=30\nbufferDirectory={tmp_path / f'buffer-{next(numbers)}'}"
            watched = watched_haraka(case.endpoint, plugin=settings, **options)
            return Subject(plain, functools.partial(carry, plain)), Subject(watched, functools.partial(carry, watched))

        return start

    return pairs


def test_haraka(
    haraka_pairs: Callable[..., Callable[[], Pair]], haraka_certificate: dict[str, str], case: Case
) -> None:
    """As a platform has it: a client from outside begins TLS, says who it is and hands over 26 KB, stored by LMTP."""
    carry = functools.partial(through_haraka, PLATFORM_MESSAGE, tls=True)
    with taking_lmtp() as port:
        start = haraka_pairs(carry, storage=LMTP, lmtp_port=port, plugins=PLATFORM, config=haraka_certificate)
        case.check("Haraka", start, pairs=40, messages=20, abreast=4)


def test_discarding_haraka(
    haraka_pairs: Callable[..., Callable[[], Pair]], haraka_certificate: dict[str, str], case: Case
) -> None:
    """The same where the message is stored nowhere."""
    carry = functools.partial(through_haraka, PLATFORM_MESSAGE, tls=True)
    start = haraka_pairs(carry, storage=DISCARD, plugins=PLATFORM, config=haraka_certificate)
    case.check("discarding Haraka", start, pairs=40, messages=30, abreast=4, bound=0.05)


def test_bare_haraka(haraka_pairs: Callable[..., Callable[[], Pair]], case: Case) -> None:
    """The least that a message can cost Haraka: 1.2 KB in clear, no plugin looks at it."""
    start = haraka_pairs(functools.partial(through_haraka, BARE_MESSAGE, tls=False), storage=DISCARD)
    case.check("bare Haraka", start, pairs=40, messages=100, abreast=4, bound=0.10)


def through_haraka(message: str, server: Haraka, count: int, *, tls: bool) -> None:
    """Each message on a connection of its own, as most mail comes from outside."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    date = email.utils.formatdate()

    def send(number: int) -> None:
        recipient = f"someone{number}@here.test"
        with smtplib.SMTP("127.0.0.1", server.port, local_hostname="mail.sender.test", timeout=30) as client:
            if tls:
                client.starttls(context=context)
            text = message.format(number=number, recipient=recipient, date=date)
            client.sendmail("ok@sender.test", [recipient], text)

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(send, range(count)))
    until(lambda: not server.queued(), 60, "all is delivered", pause=0.01)
