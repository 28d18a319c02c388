"""Each way of a message through real servers on two hosts: by any of its ids its life is seen, seconds later.

Who waits for a message sees all of it within 5 s of what happened last, as the servers say themselves: the answer that
the client got, the record of the server outside, the time in Haraka's log of what WildDuck answered. Who asks for it
by another id sees it within 5 s of the question, in which the page is loaded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from testbed.backends import Backends, listens
from testbed.fixtures import NewRspamd, NewWildDuck, WatchedHaraka, WatchedZoneMta
from testbed.haraka import LMTP, Haraka
from testbed.rspamd import GTUBE
from testbed.smtp_sink import Attempt

from postel.collector import find_collector
from postel.settings import Intervals
from support.mail_platform import DOMAIN, GREYLISTED, GREYLISTED_S, Answer, Mail, Platform, greylisting
from support.page import chromium_in, complaints, look
from support.ports import free_ports
from support.requirements import require
from support.running_agent import KillableAgent
from support.running_postel import RunningPostel, running, until
from support.trace_viewers import Step, Viewers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WITHIN_S = 5
PER_S = 3
"""Other messages."""
FORWARDED = "ok+forwarded@rcpt.test"
"""Where a user's mail is forwarded to."""
AS_BY_DEFAULT = {f"INTERVALS__{name.upper()}": value for name, value in Intervals().model_dump().items()}
IN, OUT = "inbound", "outbound"
"""The ids of the hosts' nodes."""
CLOSE_S = 0.1
# From the begin of a transaction to its end, the first of Rspamd's scans taking half of a second.
ABOUT_S = 1


@dataclass(frozen=True)
class Expected:
    """A step that must be shown; `at`: when it was, in seconds since the epoch, where a server said it."""

    part: str
    node: str
    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    at: float | None = None


@dataclass
class Sent:
    """A message on its way.

    Attributes:
        ids: what it is found by, beside its Message-ID.
        answers: of servers; each leads to it by a list.
        life: its steps, the first one first.
        fates: what becomes of it for each recipient.
        at: when the last of it happened.
        close: the last two steps, of two nodes, are too close for either of them to be the last for sure.
    """

    mail: Mail
    ids: Sequence[str]
    answers: Sequence[str]
    life: Sequence[Expected]
    fates: Mapping[str, str]
    at: float
    close: bool = False


@dataclass
class World:
    """What paths lead through, and the Haraka beside it whose plugin stores."""

    platform: Platform
    storing: Haraka


def taken_in(world: World, mail: Mail, answer: Answer, come: int = 1) -> list[Expected]:
    """The connection of what Haraka took, and what Rspamd said of it."""
    verdict = world.platform.verdict(mail, come)
    symbols = {name: f"{name} ({score:g})" for name, score in verdict.symbols.items()}
    return [
        Expected(
            "Haraka",
            IN,
            "Connection of 127.0.0.1",
            {"envelope": f"{mail.sender} → {mail.recipient}", "hello": "client.test"},
            answer.at,
        ),
        Expected(
            "Rspamd",
            IN,
            f"Score {verdict.score:g} of {verdict.required:g}: {verdict.action}",
            {"symbols": ", ".join(sorted(symbols.values()))},
            answer.at,
        ),
    ]


def ids_of_transaction(answer: Answer) -> list[str]:
    found = re.search(r"([0-9A-F-]{36})\.1", answer.text)
    assert found, answer
    # As Haraka's log writes a delivery, and what the client was told.
    return [found[1], found[0], f"{found[0]}.1", answer.text]


def queued_for_lmtp(answer: Answer) -> Expected:
    return Expected("Storage", IN, "Queued by queue/lmtp", {"reply": answer.text}, answer.at)


def by_lmtp(mail: Mail, answer: Answer, status: str) -> Expected:
    facts = {"recipient": mail.recipient, "answer": answer.text}
    return Expected("Haraka", IN, f"Attempt 1 by LMTP at 127.0.0.1: {status}", facts, answer.at)


def stored(world: World, mail: Mail, come: int = 1) -> Sent:
    answer = world.platform.hand_in(mail)
    told = world.platform.stored(mail)
    life = [*taken_in(world, mail, answer, come), queued_for_lmtp(answer), by_lmtp(mail, told, "delivered")]
    # WildDuck's own id of it alone is a part of its answer.
    answers = [told.text, told.text.rpartition(" ")[2]]
    return Sent(mail, ids_of_transaction(answer), answers, life, {mail.recipient: "delivered"}, told.at)


def forwarded(world: World, mail: Mail) -> Sent:
    into = stored(world, mail)
    (attempt,) = world.platform.attempts(FORWARDED)
    step = delivery(attempt, 1, interface="forwarder")
    # WildDuck answers after it has queued what it forwards: whichever was first.
    lmtp, last = sorted((into.life[-1], step), key=lambda each: each.at or 0)
    assert lmtp.at
    assert last.at
    life, fates = [*into.life[:-1], lmtp, last], {**into.fates, attempt.recipient: "delivered"}
    return Sent(mail, into.ids, into.answers, life, fates, last.at, close=last.at - lmtp.at < CLOSE_S)


def unknown_to_wildduck(world: World, mail: Mail) -> Sent:
    answer = world.platform.hand_in(mail)
    told = world.platform.not_stored(mail)
    (back,) = world.platform.attempts(mail.sender)
    assert back.is_bounce
    life = [
        *taken_in(world, mail, answer),
        queued_for_lmtp(answer),
        by_lmtp(mail, told, "rejected"),
        Expected("Haraka", IN, f"Bounce about {mail.message_id} queued", {"envelope": mail.sender}),
        Expected("Haraka", IN, "Attempt 1 at 127.0.0.1: delivered", {"recipient": mail.sender}, back.accepted_at),
    ]
    fates = {mail.recipient: "rejected", mail.sender: "delivered"}
    return Sent(mail, ids_of_transaction(answer), [told.text], life, fates, back.accepted_at or 0)


def stored_by_plugin(world: World, mail: Mail) -> Sent:
    answer = world.platform.hand_in(mail, world.storing)
    assert answer.text.startswith("250"), answer
    step = Expected("Storage", IN, "Stored by wildduck", {"reply": answer.text}, answer.at)
    life = [*taken_in(world, mail, answer), step]
    return Sent(mail, ids_of_transaction(answer), ["Message processed"], life, {mail.recipient: "stored"}, answer.at)


def spam(world: World, mail: Mail) -> Sent:
    answer = world.platform.hand_in(mail)
    step = Expected("Haraka", IN, "Rejected by rspamd", {"reply": answer.text}, answer.at)
    return Sent(
        mail, [], [answer.text], [*taken_in(world, mail, answer), step], {mail.recipient: "rejected"}, answer.at
    )


def greylisted(world: World, mail: Mail) -> Sent:
    first = world.platform.hand_in(mail)
    assert first.text.startswith("451"), first
    step = Expected("Haraka", IN, "Deferred by rspamd", {"reply": first.text}, first.at)
    time.sleep(GREYLISTED_S + 0.2)
    later = stored(world, mail, come=2)
    life = [*taken_in(world, mail, first), step, *later.life]
    return Sent(mail, later.ids, [first.text, *later.answers], life, later.fates, later.at)


def refused_recipient(world: World, mail: Mail) -> Sent:
    answer = world.platform.hand_in(mail)
    facts = {"envelope": f"{mail.sender} → {mail.recipient}", "refused": mail.recipient}
    life = [
        Expected("Haraka", IN, "Connection of 127.0.0.1", facts, answer.at),
        Expected("Haraka", IN, "Recipient refused", {"plugin": "judge", "reply": answer.text}, answer.at),
        Expected("Haraka", IN, "Rejected", {"why": "recipients_refused"}, answer.at),
    ]
    return Sent(mail, [], [answer.text], life, {mail.recipient: "rejected"}, answer.at)


def queued(mail: Mail, answer: Answer) -> tuple[str, Expected]:
    queue_id = answer.text.rpartition(" ")[2]
    facts = {"envelope": f"{mail.sender} → {mail.recipient}", "interface": "feeder", "queue id": queue_id}
    return queue_id, Expected("Zone-MTA", OUT, "Taken into the queue", facts, answer.at)


def delivery(attempt: Attempt, number: int, interface: str = "feeder") -> Expected:
    facts = {"recipient": attempt.recipient, "interface": interface, "zone": attempt.zone}
    answer = "250 2.0.0 Ok: stored" if attempt.accepted_at else attempt.answer
    title = f"Attempt {number} at 127.0.0.1: {attempt.status}"
    return Expected("Zone-MTA", OUT, title, {**facts, "answer": answer}, attempt.accepted_at or attempt.at)


def out(count: int) -> Callable[[World, Mail], Sent]:
    """Handed to Zone-MTA, which needs so many attempts."""

    def path(world: World, mail: Mail) -> Sent:
        answer = world.platform.hand_out(mail)
        queue_id, step = queued(mail, answer)
        attempts = world.platform.attempts(mail.recipient, count)
        life = [step, *(delivery(attempt, number) for number, attempt in enumerate(attempts, 1))]
        ids, said = [queue_id, f"{queue_id}.001", answer.text], [str(each.facts["answer"]) for each in life[1:]]
        return Sent(mail, ids, said, life, {mail.recipient: attempts[-1].status}, life[-1].at or 0)

    return path


def bounced(world: World, mail: Mail) -> Sent:
    sent = out(1)(world, mail)
    (back,) = world.platform.attempts(mail.sender)
    assert back.is_bounce
    about = Expected("Zone-MTA", OUT, f"Bounce about {sent.ids[0]} queued", {"interface": "bounce"})
    step = delivery(back, 1, "bounce")
    return Sent(
        mail, sent.ids, sent.answers, [*sent.life, about, step], {**sent.fates, mail.sender: "delivered"}, step.at or 0
    )


def turned_away(title: str, fate: str) -> Callable[[World, Mail], Sent]:
    """Never in Zone-MTA's queue."""

    def path(world: World, mail: Mail) -> Sent:
        answer = world.platform.hand_out(mail)
        step = Expected("Zone-MTA", OUT, title, {"reply": answer.text, "reason": "judged"}, answer.at)
        return Sent(mail, [], [answer.text], [step], {mail.recipient: fate}, answer.at)

    return path


@dataclass(frozen=True)
class Way:
    """A message and the way that it goes."""

    mail: Mail
    follow: Callable[[World, Mail], Sent]
    # Where no event of it has the Message-ID: its server is not told it, or refuses before.
    has_message_id: bool = True


def way(
    name: str,
    follow: Callable[[World, Mail], Sent],
    recipient: str,
    *,
    sender: str = "",
    body: str = "",
    known: bool = True,
) -> Way:
    mail = Mail(name, sender or f"ok+{name}@sender.test", recipient, **({"body": body} if body else {}))
    return Way(mail, follow, has_message_id=known)


WAYS = (
    way("forwarded", forwarded, f"dave@{DOMAIN}"),
    way("spam", spam, f"bob@{DOMAIN}", body=GTUBE),
    way("deferred", out(2), "defer-then-ok+deferred@rcpt.test"),
    way("bounced", bounced, "reject+bounced@rcpt.test"),
    # The judge lets `ok` pass by itself, before the plugin that stores is asked.
    way("plugin", stored_by_plugin, "box+plugin@here.test", sender="from+plugin@sender.test"),
    way("stored", stored, f"alice@{DOMAIN}"),
    way("greylisted", greylisted, f"carol@{DOMAIN}", sender=GREYLISTED),
    way("unknown", unknown_to_wildduck, f"nobody@{DOMAIN}"),
    way("refused-recipient", refused_recipient, f"reject@{DOMAIN}", known=False),
    way("delivered", out(1), "ok+delivered@rcpt.test"),
    way("refused", turned_away("Refused before the queue", "refused"), "noqueue@rcpt.test", known=False),
    way("dropped", turned_away("Thrown away", "dropped"), "drop@rcpt.test", known=False),
)
SHORT = 5
"""So many of them are for `make test`: every server is on one of these ways, and each takes seconds of a browser."""
# Two see it come, one asks for it then.
TABS, ASKING = 3, 2


@dataclass
class Makers:
    """What starts the servers."""

    watched_haraka: WatchedHaraka
    watched_zone_mta: WatchedZoneMta
    new_rspamd: NewRspamd
    new_wildduck: NewWildDuck
    backends: Backends


@pytest.fixture
def makers(
    watched_haraka: WatchedHaraka,
    watched_zone_mta: WatchedZoneMta,
    new_rspamd: NewRspamd,
    new_wildduck: NewWildDuck,
    backends: Backends,
) -> Makers:
    return Makers(watched_haraka, watched_zone_mta, new_rspamd, new_wildduck, backends)


@pytest.mark.parametrize(
    "ways", [pytest.param(WAYS[:SHORT], id="some"), pytest.param(WAYS, id="all", marks=pytest.mark.soak)]
)
def test_who_looks_for_a_message_sees_its_life_within_seconds_whichever_way_it_goes(
    ways: Sequence[Way], makers: Makers, tmp_path: Path
) -> None:
    require("collector", available=find_collector() is not None)
    took: dict[str, dict[str, float]] = {}
    with ExitStack() as ending:
        postel = ending.enter_context(running(tmp_path))
        chrome = ending.enter_context(chromium_in(tmp_path / "chromium"))
        look(chrome)
        world = begin(makers, postel, tmp_path, ending)
        viewers = Viewers(chrome, postel.page, TABS)
        with world.platform.under_traffic(PER_S) as others:
            for each in ways:
                took[each.mail.name] = see(world, viewers, each)
            assert others() > len(ways)
        wrong = complaints(chrome)
        viewers.leave()
    for name, times in took.items():
        print(f"{name}: " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in times.items()))  # noqa: T201
    assert wrong == []
    late = {name: times for name, times in took.items() if max(times.values()) >= WITHIN_S}
    assert late == {}


def begin(makers: Makers, postel: RunningPostel, folder: Path, ending: ExitStack) -> World:
    """Start the servers of both hosts, and their agents before what tells them of mail."""
    intakes = dict(zip((IN, OUT), free_ports(2), strict=True))
    redis = (makers.backends.redis_port, makers.backends.new_redis_number())
    rspamd = makers.new_rspamd(settings=greylisting(redis))
    zone_mta = makers.watched_zone_mta(
        f"http://127.0.0.1:{intakes[OUT]}", bounce_zone="default", zones=("default",), begin=False
    )
    # What it forwards it writes into Zone-MTA's queue.
    wildduck = makers.new_wildduck(settings={"dbs": {"sender": zone_mta.database}})
    users = {name: wildduck.add_user(name) for name in ("alice", "bob", "carol", "dave", "other")}
    wildduck.ask("PUT", f"/users/{users['dave']}", json={"targets": [FORWARDED]})
    discovered: dict[str, dict[str, object]] = {
        IN: {
            "RSPAMD_TCP_PORT": rspamd.port,
            "RSPAMD_CONTROLLER_PORT": rspamd.controller_port,
            "WILDDUCK_API_PORT": wildduck.api_port,
            "WILDDUCK_API_TOKEN": wildduck.token,
            "WILDDUCK_METRICS_PORT": wildduck.metrics_port,
        },
        OUT: {"ZONE_MTA_PORT": zone_mta.api_port},
    }
    until(lambda: postel.query("SELECT 1 FROM node"), 90, "Postel runs")
    for host, ports in discovered.items():
        (folder / host).mkdir()
        settings = {**AS_BY_DEFAULT, **{f"DISCOVERY__{name}": value for name, value in ports.items()}}
        agent = KillableAgent(
            folder / host,
            f"http://127.0.0.1:{postel.ports['col_http']}",
            NODE__ID=host,
            INTAKE__ADDRESS=f"127.0.0.1:{intakes[host]}",
            **settings,
        )
        agent.spawn()
        ending.callback(agent.kill)
    until(lambda: all(map(listens, intakes.values())), 60, "both agents run")
    zone_mta.start()
    intake, common = f"http://127.0.0.1:{intakes[IN]}", {"rspamd": rspamd, "relay_port": zone_mta.sink.ports["default"]}
    config = {"host_list": f"{DOMAIN}\n"}
    haraka = makers.watched_haraka(intake, **common, storage=LMTP, lmtp_port=wildduck.lmtp_port, config=config)
    return World(Platform(haraka, rspamd, wildduck, zone_mta), makers.watched_haraka(intake, **common))


def see(world: World, viewers: Viewers, way: Way) -> dict[str, float]:
    """Send the message of a way, and look for it by all that it is found by; how long each took, in seconds."""
    mail = way.mail
    # These look for it before it is there, and see it come.
    waiting = [*([mail.message_id] if way.has_message_id else []), mail.recipient]
    for tab, what in enumerate(waiting):
        viewers.look_for(tab, what)
    sent = way.follow(world, mail)
    took: dict[str, float] = {}

    def all_found() -> bool:
        for tab, what in enumerate(waiting):
            if what not in took and is_found(viewers, tab, what, sent):
                took[what] = time.time() - sent.at
        return len(took) == len(waiting)

    await_all(all_found, viewers, sent)
    # One after the other, as it takes a browser to load a page.
    for what in (*sent.ids, *sent.answers):
        asked = time.time()
        viewers.look_for(ASKING, what)
        await_all(lambda: is_found(viewers, ASKING, what, sent), viewers, sent)  # noqa: B023 - used at once
        took[what] = time.time() - asked
        follow(viewers, ASKING, sent)
    for tab in range(len(waiting)):
        follow(viewers, tab, sent)
    return took


def await_all(true: Callable[[], bool], viewers: Viewers, sent: Sent) -> None:
    """Wait until it is so; what the tabs show instead is told."""
    try:
        until(true, 20, f"{sent.mail.name} is shown", 0.1)
    except AssertionError as error:
        seen = [(said(viewers.steps(tab)), viewers.listed(tab)) for tab in range(TABS)]
        raise AssertionError(f"{error}\nexpected: {said(sent.life)}\nshown in each tab: {seen}") from None


def is_found(viewers: Viewers, tab: int, what: str, sent: Sent) -> bool:
    """Whether a tab shows the life of the message, or lists an event of it that says what was asked for."""
    if what in (sent.mail.recipient, *sent.answers):
        return bool(lines(viewers, tab, sent))
    return shows(viewers.steps(tab), sent)


def lines(viewers: Viewers, tab: int, sent: Sent) -> list[int]:
    """Which lines of a list are of the message."""
    return [number for number, line in enumerate(viewers.listed(tab)) if sent.mail.recipient in line]


def follow(viewers: Viewers, tab: int, sent: Sent) -> None:
    """What a tab shows is so; where it lists events, what their last one leads to."""
    if mine := lines(viewers, tab, sent):
        viewers.follow(tab, mine[0])
    await_all(lambda: shows(viewers.steps(tab), sent), viewers, sent)
    check(viewers, tab, sent)


def shows(steps: Sequence[Step], sent: Sent) -> bool:
    """Whether these are the steps of the message, in order."""
    shown = said(steps)
    return shown == said(sent.life) or (sent.close and shown == said([*sent.life[:-2], sent.life[-1], sent.life[-2]]))


def said(steps: Sequence[Step | Expected]) -> list[tuple[str, str, str]]:
    """Who did what where; Rspamd's score has its own check."""
    return [
        (step.part, step.node.rpartition("(")[2].rstrip(")"), re.sub(r"^Score [-\d.]+", "Score", step.title))
        for step in steps
    ]


def check(viewers: Viewers, tab: int, sent: Sent) -> None:
    """What a tab shows is so, to its facts and times."""
    steps = viewers.steps(tab)
    assert viewers.fates(tab) == sent.fates
    times = [step.at for step in steps]
    assert times == sorted(times)
    if said(steps) != said(sent.life):
        steps[-2:] = reversed(steps[-2:])
    for step, expected in zip(steps, sent.life, strict=True):
        facts = dict(step.facts)
        if expected.part == "Rspamd":
            facts["symbols"] = ", ".join(sorted(facts["symbols"].split(", ")))
            shown, logged = (float(title.split()[1]) for title in (step.title, expected.title))
            assert shown == pytest.approx(logged, abs=0.011)
        assert {name: facts.get(name) for name in expected.facts} == dict(expected.facts), step
        if expected.at is not None:
            assert step.at.timestamp() == pytest.approx(expected.at, abs=ABOUT_S), step
