"""A real Rspamd, asked: the points are its `/stat`, and the increase is what was scanned, over restarts and kills."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from testbed.backends import Backends
from testbed.fixtures import NewRspamd
from testbed.program import until
from testbed.rspamd import GTUBE, PASSWORD, Rspamd, message

from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import ScrapeError, Target, Tick
from otel_receivers.rspamd.receiver import RspamdReceiver
from postel.signals import load_all
from support.batches import Increase, values

SECOND = 1_000_000_000
pytestmark = pytest.mark.slow

BARE = "From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n"
# A rule of its own name that sets another's symbol as well, of which /counters says the rule's hits.
RULE = """
local id = rspamd_config:register_symbol({
  name = 'TESTBED_RULE', type = 'normal', score = 0.1,
  callback = function(task)
    if task:get_header('X-Testbed') then
      task:insert_result('TESTBED_RULE', 1.0)
    end
  end
})
rspamd_config:register_symbol({ name = 'TESTBED_VIRTUAL', type = 'virtual', parent = id, score = 0.1 })
"""


class Asking:
    """Asks as the agent does, at ticks of a second, and keeps the increase of what was scanned."""

    def __init__(self, server: Rspamd, folder: Path, password: str | None = None) -> None:
        self.increase = Increase("rspamd.scanned.messages")
        self.receiver = RspamdReceiver(
            load_all()["rspamd"],
            identify(folder, setting="node-1"),
            Epochs(),
            interval=60,
            target=Target("127.0.0.1", server.controller_port),
            password=password,
        )
        self._last = 0

    async def ask(self) -> dict[tuple[str, str], Any]:
        """The values, by metric and attributes; problems are none."""
        while (tick := time.time_ns() // SECOND * SECOND) <= self._last:
            time.sleep(0.02)  # noqa: ASYNC251 - nothing else runs in this loop
        self._last = tick
        batch = await self.receiver.collect(Tick(tick))
        assert batch.problems == ()
        self.increase.add(batch)
        return values(batch)


@asynccontextmanager
async def asking(server: Rspamd, folder: Path, password: str | None = None) -> AsyncIterator[Asking]:
    made = Asking(server, folder, password)
    try:
        yield made
    finally:
        await made.receiver.close()


async def test_the_points_are_what_it_says_of_real_mail(
    new_rspamd: NewRspamd, backends: Backends, tmp_path: Path
) -> None:
    server = new_rspamd(redis=(backends.redis_port, backends.new_redis_number()))
    for kind, count in ((message("hello"), 4), (message(GTUBE), 3), (BARE, 2)):
        for _ in range(count):
            server.scan(kind, IP="192.0.2.1", From="a@example.org")
    words = " ".join(f"word{number}" for number in range(40))
    for text in ("spam", "scam"):
        server.learn(message(f"{words} {text}"), spam=True)
    server.learn(message(f"{words} ham"), spam=False)
    async with asking(server, tmp_path) as rspamd:
        found = await rspamd.ask()
        said = server.ask("/stat")
        assert {attribute: value for (name, attribute), value in found.items() if name == "rspamd.messages"} == said[
            "actions"
        ]
        assert (said["actions"]["no action"], said["actions"]["reject"], said["actions"]["greylist"]) == (4, 3, 2)
        assert found["rspamd.scanned.messages", ""] == said["scanned"] == 9
        assert found["rspamd.learned.messages", ""] == said["learned"] == 3
        assert found["rspamd.accepted.connections", ""] == said["connections"]
        times = [each for each in said["scan_times"] if each is not None]
        assert found["rspamd.scan.duration", ""] == pytest.approx(sum(times) / len(times))
        assert found["rspamd.memory.usage", ""] > 1 << 20
        assert 0 <= said["uptime"] - found["rspamd.uptime", ""] <= 2


async def test_each_class_shows_what_it_has_learned_when_rspamd_has_asked_redis(
    new_rspamd: NewRspamd, backends: Backends, tmp_path: Path
) -> None:
    redis = (backends.redis_port, backends.new_redis_number())
    server = new_rspamd(redis=redis)
    words = " ".join(f"word{number}" for number in range(40))
    for text in ("spam", "scam"):
        server.learn(message(f"{words} {text}"), spam=True)
    server.learn(message(f"{words} ham"), spam=False)
    # It asks at its start, and then every 30 to 60 s.
    server.stop()
    server.start()
    until(lambda: any(each["revision"] for each in server.ask("/stat")["statfiles"]), 70, "Redis was asked", pause=0.5)
    async with asking(server, tmp_path) as rspamd:
        found = await rspamd.ask()
    assert found["rspamd.statfile.message.count", "BAYES_SPAM redis"] == 2
    assert found["rspamd.statfile.message.count", "BAYES_HAM redis"] == 1
    assert found["rspamd.statfile.user.count", "BAYES_SPAM redis"] == 1


async def test_hits_are_those_of_the_messages_and_never_another_rules(new_rspamd: NewRspamd, tmp_path: Path) -> None:
    server = new_rspamd(settings={"../rspamd.local.lua": RULE})
    marked = message("hello").replace("From:", "X-Testbed: yes\r\nFrom:")
    # One rule alone in five, two together in three of which one is in two more.
    mail = [marked] * 5 + [BARE] * 3 + [message("hello").replace("Message-ID", "X-Message-ID")] * 2
    async with asking(server, tmp_path) as rspamd:
        assert not any(name == "rspamd.symbol.hits" for name, _ in await rspamd.ask())
        judged = [server.scan(each, IP="192.0.2.1")["symbols"] for each in mail]
        truth = Counter(symbol for symbols in judged for symbol in symbols)
        shown: dict[str, int] = {}

        def counted() -> bool:
            shown.update((each["symbol"], each["hits"]) for each in server.ask("/counters"))
            return (shown["TESTBED_RULE"], shown["MISSING_TO"], shown["MISSING_MID"]) == (5, 3, 5)

        until(counted, 20, "the hits are added up", pause=0.2)
        server.scan(marked)
        truth["TESTBED_RULE"] += 1
        until(lambda: [c["hits"] for c in server.ask("/counters") if c["symbol"] == "TESTBED_RULE"] == [6], 20, "again")
        hits = {symbol: value for (name, symbol), value in (await rspamd.ask()).items() if name == "rspamd.symbol.hits"}
    assert hits == {symbol: truth[symbol] for symbol in hits}
    assert {"MISSING_TO": 3, "MISSING_MID": 5}.items() <= hits.items()
    # This one is shown with the hits of the rule that may set it; neither can be told from the other.
    assert (shown["TESTBED_VIRTUAL"], truth["TESTBED_VIRTUAL"]) == (5, 0)
    assert hits.keys().isdisjoint({"TESTBED_VIRTUAL", "TESTBED_RULE"})


async def test_over_orderly_restarts_nothing_is_lost_or_counted_twice(new_rspamd: NewRspamd, tmp_path: Path) -> None:
    server = new_rspamd()
    async with asking(server, tmp_path) as rspamd:
        await rspamd.ask()
        for _ in range(2):
            for _ in range(5):
                server.scan(message("hello"))
            server.scan(message(GTUBE))
            assert (await rspamd.ask())["rspamd.scanned.messages", ""] == server.ask("/stat")["scanned"]
            # Scanned after the last answer of this life, and stored at its end.
            server.scan(message("hello"))
            server.stop()
            with pytest.raises(ScrapeError):
                await rspamd.ask()
            server.start()
        server.scan(message("hello"))
        assert (await rspamd.ask())["rspamd.messages", "reject"] == 2
        assert rspamd.increase.total == server.ask("/stat")["scanned"] == 15


async def test_killed_or_set_back_it_is_never_more_than_was_scanned(new_rspamd: NewRspamd, tmp_path: Path) -> None:
    server = new_rspamd()
    for _ in range(20):
        server.scan(message("hello"))
    server.stop()
    server.start()
    async with asking(server, tmp_path) as rspamd:
        await rspamd.ask()
        for _ in range(10):
            server.scan(message("hello"))
        await rspamd.ask()
        assert rspamd.increase.total == 10
        # It forgets the ten, and counts on from the 20 that it had stored.
        server.kill()
        server.start()
        for _ in range(3):
            server.scan(message("hello"))
        assert (await rspamd.ask())["rspamd.scanned.messages", ""] == 23
        assert rspamd.increase.total == 10
        server.scan(message("hello"))
        await rspamd.ask()
        assert rspamd.increase.total == 11
        server.ask("/statreset")
        server.scan(message("hello"))
        assert (await rspamd.ask())["rspamd.scanned.messages", ""] == 1
        for _ in range(2):
            server.scan(message("hello"))
        await rspamd.ask()
        assert rspamd.increase.total == 13


async def test_a_controller_that_trusts_nobody_wants_the_password(new_rspamd: NewRspamd, tmp_path: Path) -> None:
    server = new_rspamd(trusts_loopback=False)
    for password in (None, "wrong-password"):
        async with asking(server, tmp_path, password) as rspamd:
            with pytest.raises(ScrapeError, match=r"\[discovery\] rspamd_password") as caught:
                await rspamd.ask()
            assert caught.value.error_type == "401"
    async with asking(server, tmp_path, PASSWORD) as rspamd:
        assert (await rspamd.ask())["rspamd.scanned.messages", ""] == 0


async def test_its_scanners_port_is_no_controller(rspamd: Rspamd, tmp_path: Path) -> None:
    rspamd.controller_port = rspamd.port
    async with asking(rspamd, tmp_path) as asked:
        with pytest.raises(ScrapeError) as caught:
            await asked.ask()
    assert caught.value.error_type == "500"
