"""Ten thousand messages of known kinds through real servers under a whole Postel: the rows are the mix, exactly.

Zone-MTA is begun anew, on an empty queue, for each two thousand of them; Haraka runs through.
"""

from __future__ import annotations

import smtplib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import pytest
from aiosmtpd.lmtp import LMTP as LMTP_PROTOCOL
from testbed.fixtures import WatchedHaraka, WatchedZoneMta
from testbed.haraka import LMTP, Haraka
from testbed.rspamd import GTUBE, Rspamd
from testbed.smtp_sink import SmtpSink
from testbed.zone_mta import SENDER, ZoneMta

from postel.collector import find_collector
from support.requirements import require
from support.running_postel import RunningPostel, running, until

MESSAGES = 10_000
CLIENTS = 4
# One connection's worth; a killed agent is killed between such turns, while others are under way.
TURN = 20
KILLS = 3
# What waits, and what a database has held, is bounded: the stand-in for MongoDB looks through all of it every time.
QUEUE = 60
HELD = 2_000

pytestmark = [pytest.mark.soak, pytest.mark.timeout(5400)]


@pytest.fixture(autouse=True)
def collector() -> None:
    require("collector", available=find_collector() is not None)


class Shared(Protocol):
    """A kind of message."""

    @property
    def share(self) -> int:
        """How many of a hundred messages are of this kind."""


K = TypeVar("K", bound=Shared)


@dataclass(frozen=True)
class Sent(Generic[K]):
    """One message of a mix."""

    kind: K
    number: int

    @property
    def message_id(self) -> str:
        return f"<{self.number}@mix.test>"


def mix(kinds: Sequence[K], count: int) -> list[Sent[K]]:
    """So many messages, the kinds spread evenly over them and in the shares that they have."""
    hundred = [kind for kind in kinds for _ in range(kind.share)]
    assert len(hundred) == 100
    # 37 is prime to 100: neighbours are of different kinds, and each hundred holds every one.
    return [Sent(hundred[number * 37 % 100], number) for number in range(count)]


@dataclass(frozen=True)
class Submission:
    """A kind of message that is handed to Zone-MTA, and all that becomes of one.

    Attributes:
        share: see :class:`Shared`.
        recipients: the local parts before the `+`, each chooses the answer of `SmtpSink` or of the judge.
        sender: of the envelope.
        outcomes: of its rows in `email_events`.
        statuses: of its rows in `delivery_events`, for each recipient.
        bounces: how many bounces go back to its sender.
    """

    share: int
    recipients: tuple[str, ...]
    statuses: tuple[tuple[str, ...], ...]
    outcomes: tuple[str, ...] = ("queued",)
    sender: str = SENDER
    bounces: int = 0


DELIVERED, AT_LAST, REJECTED = ("delivered",), ("deferred", "delivered"), ("rejected",)
ZONE_MTA_KINDS = (
    Submission(55, ("ok",), (DELIVERED,)),
    Submission(12, ("defer-then-ok",), (AT_LAST,)),
    Submission(8, ("reject",), (REJECTED,), bounces=1),
    Submission(5, ("full",), (REJECTED,), bounces=1),
    Submission(5, ("ok",), (DELIVERED,), sender=""),
    Submission(3, ("reject",), (REJECTED,), sender=""),
    Submission(4, ("drop",), (), outcomes=("dropped",)),
    Submission(3, ("noqueue",), (), outcomes=("refused",)),
    Submission(5, ("ok", "reject", "defer-then-ok"), (DELIVERED, REJECTED, AT_LAST), bounces=1),
)


def recipients_of(sent: Sent[Submission]) -> list[str]:
    return [f"{local}+{sent.number}@rcpt.test" for local in sent.kind.recipients]


def test_every_message_through_zone_mta_is_told_as_it_was_sent(
    watched_zone_mta: WatchedZoneMta, tmp_path: Path
) -> None:
    messages = mix(ZONE_MTA_KINDS, MESSAGES)
    with running(tmp_path) as postel:
        until(lambda: postel.query("SELECT 1 FROM node"), 60, "the agent runs")
        began = time.monotonic()
        for at in range(0, len(messages), HELD):
            server = watched_zone_mta(
                f"http://127.0.0.1:{postel.ports['intake']}", bounce_zone="default", zones=("default",), connections=5
            )
            with_kills(postel, turns(messages[at : at + HELD]), partial(hand_over, server))
            server.wait_until_idle(300)
            server.stop()
        taken = time.monotonic() - began
        deliveries = Counter(
            (recipient, status)
            for sent in messages
            for recipient, statuses in zip(recipients_of(sent), sent.kind.statuses, strict=False)
            for status in statuses
        )
        bounces = sum(sent.kind.bounces for sent in messages)
        deliveries[SENDER, "delivered"] += bounces
        fates = Counter((tuple(recipients_of(sent)), outcome) for sent in messages for outcome in sent.kind.outcomes)
        fates[(SENDER,), "queued"] += bounces
        wait_until_told(postel, deliveries.total(), fates.total())
        assert difference(stored_deliveries(postel), deliveries) == {}
        assert difference(stored_fates(postel), fates) == {}
        follow(postel, [sent for sent in messages if sent.kind.statuses], bounces)
        assert postel.command("db", "check").returncode == 0
        print(  # noqa: T201 - the figures of a soak run
            f"Zone-MTA: {len(messages)} messages and {bounces} bounces in {taken:.0f} s; {deliveries.total()} attempts"
            f" and {fates.total()} fates told, none missing, none twice, the agent killed {KILLS} times in each {HELD}"
        )


def turns(messages: Sequence[Sent[K]]) -> list[Sequence[Sent[K]]]:
    return [messages[at : at + TURN] for at in range(0, len(messages), TURN)]


def with_kills(
    postel: RunningPostel, work: Sequence[Sequence[Sent[K]]], send: Callable[[Sequence[Sent[K]]], None]
) -> None:
    """Send all turns by several clients; the agent is killed when each further part of them is through."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        under_way = [clients.submit(send, turn) for turn in work]
        for kill in range(1, KILLS + 1):
            under_way[len(work) * kill // (KILLS + 1)].result()
            killed = postel.kill("agent")
            until(lambda: postel.runs("agent", but=killed), 60, "the agent runs again")  # noqa: B023 - used at once
        for turn in under_way:
            turn.result()


def hand_over(server: ZoneMta, messages: Iterable[Sent[Submission]]) -> None:
    until(lambda: server.queued() <= QUEUE, 300, "the queue is short", pause=0.5)
    with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=120) as client:
        for sent in messages:
            message = EmailMessage()
            message["From"], message["To"] = SENDER, ", ".join(recipients_of(sent))
            message["Subject"], message["Message-ID"] = f"Message {sent.number}", sent.message_id
            message.set_content(f"Body of message {sent.number}.")
            # What the judge refuses is an answer to the final dot, and the connection lives on.
            with suppress(smtplib.SMTPDataError):
                client.send_message(message, sent.kind.sender, recipients_of(sent))


def wait_until_told(postel: RunningPostel, deliveries: int, fates: int) -> None:
    until(lambda: total(postel, "delivery_events") >= deliveries, 300, "every attempt is told")
    until(lambda: total(postel, "email_events") >= fates, 60, "every message is told")
    time.sleep(5)  # what would come twice


T = TypeVar("T")


def difference(stored: Counter[T], sent: Counter[T]) -> dict[T, int]:
    """What is stored more often (above 0) or less often than was sent."""
    return {key: stored[key] - sent[key] for key in stored.keys() | sent.keys() if stored[key] != sent[key]}


def total(postel: RunningPostel, table: str) -> int:
    return sum(n for (n,) in postel.query(f"SELECT count(*) FROM {table}"))


def stored_deliveries(postel: RunningPostel) -> Counter[tuple[str, str]]:
    rows = postel.query("SELECT attributes -> 'email.to.address' ->> 0, status FROM delivery_events")
    return Counter((to, status) for to, status in rows)


def stored_fates(postel: RunningPostel) -> Counter[tuple[tuple[str, ...], str]]:
    rows = postel.query("SELECT attributes -> 'email.to.address', outcome FROM email_events")
    return Counter((tuple(to), outcome) for to, outcome in rows)


def follow(postel: RunningPostel, queued: Sequence[Sent[Submission]], bounces: int) -> None:
    """Each message's way by its ids: from its Message-ID to its queue id, from there to attempts and bounces."""
    ways = postel.query(
        """
        SELECT e.message_id, d.attributes -> 'email.to.address' ->> 0, array_agg(d.status ORDER BY d.time, d.attempt)
        FROM email_events e JOIN delivery_events d USING (queue_id)
        WHERE e.outcome = 'queued' AND d.message_id = e.message_id AND e.message_id LIKE '%%@mix.test>'
        GROUP BY 1, 2
        """
    )
    assert {(message_id, to): tuple(statuses) for message_id, to, statuses in ways} == {
        (sent.message_id, to): statuses
        for sent in queued
        for to, statuses in zip(recipients_of(sent), sent.kind.statuses, strict=True)
    }
    about = postel.query(
        """
        SELECT count(*) FROM email_events bounce JOIN email_events message
        ON message.queue_id = bounce.attributes ->> 'zonemta.bounce.message.id' AND message.outcome = 'queued'
        WHERE bounce.attributes ->> 'zonemta.interface' = 'bounce'
        """
    )
    assert about == [(bounces,)]


@dataclass(frozen=True)
class Transaction:
    """A kind of transaction with Haraka, and all that becomes of one.

    Attributes:
        share: see :class:`Shared`.
        outcome: of its row in `email_events`.
        recipients: the local parts before the `+`, each chooses the answer of the judge or of the LMTP server.
        statuses: of the rows in `delivery_events`, for each recipient of an accepted message.
        null_sender: whether its sender is empty.
        end: how it ends: with a whole message, in RSET or a lost connection, or with a final dot after a bare LF.
        body: of the message.
        judge: the value of X-Judge: the hook in which the judge denies it, and how.
        refused: whether all recipients are refused.
        bounces: how many bounces go back to its sender.
    """

    share: int
    outcome: str
    recipients: tuple[str, ...] = ("box",)
    statuses: tuple[tuple[str, ...], ...] = ()
    null_sender: bool = False
    end: Literal["message", "rset", "gone", "bare_lf"] = "message"
    body: str = "A message that nobody could blame."
    judge: str = "none"
    refused: bool = False
    bounces: int = 0


HARAKA_KINDS = (
    Transaction(40, "accepted", ("ok",), (DELIVERED,)),
    Transaction(8, "accepted", ("defer-then-ok",), (AT_LAST,)),
    Transaction(5, "accepted", ("spam",), (REJECTED,), bounces=1),
    Transaction(5, "accepted", ("ok", "spam", "defer-then-ok"), (DELIVERED, REJECTED, AT_LAST), bounces=1),
    Transaction(6, "accepted", ("ok",), (DELIVERED,), null_sender=True),
    Transaction(6, "abandoned", end="rset"),
    Transaction(5, "abandoned", end="gone"),
    Transaction(5, "deferred", end="bare_lf"),
    Transaction(6, "rejected", ("reject", "reject"), refused=True),
    Transaction(6, "rejected", body=GTUBE),
    Transaction(4, "rejected", judge="data_post reject"),
    Transaction(4, "deferred", judge="queue defer"),
)


def sender_of(sent: Sent[Transaction]) -> str:
    return "" if sent.kind.null_sender else f"ok+{sent.number}@sender.test"


def addresses(sent: Sent[Transaction]) -> list[str]:
    return [f"{local}+{sent.number}-{at}@here.test" for at, local in enumerate(sent.kind.recipients)]


def test_every_message_through_haraka_rspamd_and_lmtp_is_told_as_it_was_sent(
    watched_haraka: WatchedHaraka, rspamd: Rspamd, tmp_path: Path
) -> None:
    messages = mix(HARAKA_KINDS, MESSAGES)
    with running(tmp_path) as postel, listening(("lmtp",), LMTP_PROTOCOL) as store, listening(("smtp",)) as outside:
        until(lambda: postel.query("SELECT 1 FROM node"), 60, "the agent runs")
        server = watched_haraka(
            f"http://127.0.0.1:{postel.ports['intake']}",
            storage=LMTP,
            lmtp_port=store.ports["lmtp"],
            relay_port=outside.ports["smtp"],
            rspamd=rspamd,
        )
        began = time.monotonic()
        with_kills(postel, turns(messages), lambda turn: transact(server, turn))
        until(lambda: not server.queued(), 900, "all is delivered or given up")
        taken = time.monotonic() - began
        deliveries = Counter(
            (recipient, status)
            for sent in messages
            for recipient, statuses in zip(addresses(sent), sent.kind.statuses, strict=False)
            for status in statuses
        )
        deliveries.update((sender_of(sent), "delivered") for sent in messages for _ in range(sent.kind.bounces))
        fates = Counter((sent.kind.outcome, sender_of(sent), tuple(addresses(sent))) for sent in messages)
        fates.update(
            ("recipient_rejected", sender_of(sent), (recipient,))
            for sent in messages
            if sent.kind.refused
            for recipient in addresses(sent)
        )
        wait_until_told(postel, deliveries.total(), fates.total())
        assert difference(stored_deliveries(postel), deliveries) == {}
        rows = postel.query(
            "SELECT outcome, concat_ws('@', nullif(from_user, ''), from_domain), attributes -> 'email.to.address'"
            " FROM email_events"
        )
        assert difference(Counter((outcome, sender, tuple(to)) for outcome, sender, to in rows), fates) == {}
        follow_to_the_store(postel, messages)
        judged_by_rspamd(postel, messages)
        assert postel.command("db", "check").returncode == 0
        print(  # noqa: T201 - the figures of a soak run
            f"Haraka: {len(messages)} transactions in {taken:.0f} s; {deliveries.total()} attempts and {fates.total()}"
            f" fates told, none missing, none twice, the agent killed {KILLS} times"
        )


@contextmanager
def listening(zones: tuple[str, ...], *protocol: type[LMTP_PROTOCOL]) -> Iterator[SmtpSink]:
    sink = SmtpSink(zones, *protocol)
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()


def transact(server: Haraka, messages: Iterable[Sent[Transaction]]) -> None:
    client = server.client()
    for sent in messages:
        if client.sock is None:
            client = server.client()
        client.mail(sender_of(sent))
        for recipient in addresses(sent):
            client.rcpt(recipient)
        end(client, sent)
    client.quit()


def end(client: smtplib.SMTP, sent: Sent[Transaction]) -> None:
    headers = (
        f"Message-ID: {sent.message_id}\r\nX-Judge: {sent.kind.judge}\r\nFrom: someone@sender.test\r\n"
        f"To: {', '.join(addresses(sent))}\r\nSubject: Message {sent.number}\r\nDate: {formatdate()}\r\n\r\n"
    )
    if sent.kind.refused or sent.kind.end == "rset":
        client.rset()
    elif sent.kind.end == "message":
        client.data(f"{headers}{sent.kind.body}\r\n".encode())
    else:
        assert client.docmd("DATA")[0] == 354
        client.send(headers.encode())
        if sent.kind.end == "bare_lf":
            client.send(b"A line\r\n.\n")
            assert client.getreply()[0] == 451
        client.close()


def follow_to_the_store(postel: RunningPostel, messages: Sequence[Sent[Transaction]]) -> None:
    """Each accepted message's way by its ids: from its Message-ID to its transaction, from there to its deliveries."""
    ways = postel.query(
        """
        SELECT e.message_id, d.attributes -> 'email.to.address' ->> 0, array_agg(d.status ORDER BY d.time, d.attempt)
        FROM email_events e JOIN delivery_events d USING (queue_id)
        WHERE e.outcome = 'accepted' AND d.message_id = e.message_id
        GROUP BY 1, 2
        """
    )
    assert {(message_id, to): tuple(statuses) for message_id, to, statuses in ways} == {
        (sent.message_id, to): statuses
        for sent in messages
        if sent.kind.statuses
        for to, statuses in zip(addresses(sent), sent.kind.statuses, strict=True)
    }


def judged_by_rspamd(postel: RunningPostel, messages: Sequence[Sent[Transaction]]) -> None:
    """Every whole message has Rspamd's verdict, unless the judge came first, and GTUBE its own."""
    whole = {
        sent.message_id: sent.kind.body
        for sent in messages
        if sent.kind.end == "message" and not sent.kind.refused and not sent.kind.judge.startswith("data_post")
    }
    rows = postel.query("SELECT message_id, spam_action, symbols FROM email_events WHERE spam_action IS NOT NULL")
    assert {message_id for message_id, _, _ in rows} == whole.keys()
    for message_id, action, symbols in rows:
        assert (action == "reject", "GTUBE" in symbols) == (whole[message_id] == GTUBE,) * 2
