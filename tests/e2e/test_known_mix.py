"""Ten thousand messages of known kinds through a real server under a whole Postel: the rows are the mix, exactly."""

from __future__ import annotations

import smtplib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest
from testbed.fixtures import WatchedZoneMta
from testbed.zone_mta import SENDER, ZoneMta

from postel.collector import find_collector
from support.requirements import require
from support.running_postel import RunningPostel, running, until

MESSAGES = 10_000
CLIENTS = 4
# One connection's worth; a killed agent is killed between such turns, while others are under way.
TURN = 50
KILLS = 3

pytestmark = [pytest.mark.soak, pytest.mark.timeout(5400)]


@pytest.fixture(autouse=True)
def collector() -> None:
    require("collector", available=find_collector() is not None)


@dataclass(frozen=True)
class Kind:
    """A kind of message and all that becomes of one.

    Attributes:
        share: how many of a hundred messages are of this kind.
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
    Kind(55, ("ok",), (DELIVERED,)),
    Kind(12, ("defer-then-ok",), (AT_LAST,)),
    Kind(8, ("reject",), (REJECTED,), bounces=1),
    Kind(5, ("full",), (REJECTED,), bounces=1),
    Kind(5, ("ok",), (DELIVERED,), sender=""),
    Kind(3, ("reject",), (REJECTED,), sender=""),
    Kind(4, ("drop",), (), outcomes=("dropped",)),
    Kind(3, ("noqueue",), (), outcomes=("refused",)),
    Kind(5, ("ok", "reject", "defer-then-ok"), (DELIVERED, REJECTED, AT_LAST), bounces=1),
)


@dataclass(frozen=True)
class Sent:
    """One message of a mix."""

    kind: Kind
    number: int

    @property
    def message_id(self) -> str:
        return f"<{self.number}@mix.test>"

    @property
    def recipients(self) -> list[str]:
        return [f"{local}+{self.number}@rcpt.test" for local in self.kind.recipients]


def mix(kinds: Sequence[Kind], count: int) -> list[Sent]:
    """So many messages, the kinds spread evenly over them and in the shares that they have."""
    hundred = [kind for kind in kinds for _ in range(kind.share)]
    assert len(hundred) == 100
    # 37 is prime to 100: neighbours are of different kinds, and each hundred holds every one.
    return [Sent(hundred[number * 37 % 100], number) for number in range(count)]


def test_every_message_through_zone_mta_is_told_as_it_was_sent(
    watched_zone_mta: WatchedZoneMta, tmp_path: Path
) -> None:
    messages = mix(ZONE_MTA_KINDS, MESSAGES)
    with running(tmp_path) as postel:
        until(lambda: postel.query("SELECT 1 FROM node"), 60, "the agent runs")
        server = watched_zone_mta(
            f"http://127.0.0.1:{postel.ports['intake']}",
            bounce_zone="default",
            connections=10,
        )
        began = time.monotonic()
        with_kills(postel, turns(messages), lambda turn: hand_over(server, turn))
        server.wait_until_idle(1800)
        taken = time.monotonic() - began
        deliveries = Counter(
            (recipient, status)
            for sent in messages
            for recipient, statuses in zip(sent.recipients, sent.kind.statuses, strict=False)
            for status in statuses
        )
        bounces = sum(sent.kind.bounces for sent in messages)
        deliveries[SENDER, "delivered"] += bounces
        fates = Counter((tuple(sent.recipients), outcome) for sent in messages for outcome in sent.kind.outcomes)
        fates[(SENDER,), "queued"] += bounces
        until(lambda: total(postel, "delivery_events") >= deliveries.total(), 300, "every attempt is told")
        until(lambda: total(postel, "email_events") >= fates.total(), 60, "every message is told")
        time.sleep(5)  # what would come twice
        assert stored_deliveries(postel) - deliveries == Counter()
        assert deliveries - stored_deliveries(postel) == Counter()
        assert stored_fates(postel) - fates == Counter()
        assert fates - stored_fates(postel) == Counter()
        follow(postel, [sent for sent in messages if sent.kind.statuses], bounces)
        assert postel.command("db", "check").returncode == 0
        print(  # noqa: T201 - the figures of a soak run
            f"Zone-MTA: {len(messages)} messages and {bounces} bounces in {taken:.0f} s; {deliveries.total()} attempts"
            f" and {fates.total()} fates told, none missing, none twice, the agent killed {KILLS} times"
        )


def turns(messages: Sequence[Sent]) -> list[Sequence[Sent]]:
    return [messages[at : at + TURN] for at in range(0, len(messages), TURN)]


def with_kills(postel: RunningPostel, work: Sequence[Sequence[Sent]], send: Callable[[Sequence[Sent]], None]) -> None:
    """Send all turns by several clients; the agent is killed when each further part of them is through."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        under_way = [clients.submit(send, turn) for turn in work]
        for kill in range(1, KILLS + 1):
            under_way[len(work) * kill // (KILLS + 1)].result()
            killed = postel.kill("agent")
            until(lambda: postel.runs("agent", but=killed), 60, "the agent runs again")  # noqa: B023 - used at once
        for turn in under_way:
            turn.result()


def hand_over(server: ZoneMta, messages: Iterable[Sent]) -> None:
    with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=120) as client:
        for sent in messages:
            message = EmailMessage()
            message["From"], message["To"] = SENDER, ", ".join(sent.recipients)
            message["Subject"], message["Message-ID"] = f"Message {sent.number}", sent.message_id
            message.set_content(f"Body of message {sent.number}.")
            # What the judge refuses is an answer to the final dot, and the connection lives on.
            with suppress(smtplib.SMTPDataError):
                client.send_message(message, sent.kind.sender, sent.recipients)


def total(postel: RunningPostel, table: str) -> int:
    return sum(n for (n,) in postel.query(f"SELECT count(*) FROM {table}"))


def stored_deliveries(postel: RunningPostel) -> Counter[tuple[str, str]]:
    rows = postel.query("SELECT attributes -> 'email.to.address' ->> 0, status FROM delivery_events")
    return Counter((to, status) for to, status in rows)


def stored_fates(postel: RunningPostel) -> Counter[tuple[tuple[str, ...], str]]:
    rows = postel.query("SELECT attributes -> 'email.to.address', outcome FROM email_events")
    return Counter((tuple(to), outcome) for to, outcome in rows)


def follow(postel: RunningPostel, queued: Sequence[Sent], bounces: int) -> None:
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
        for to, statuses in zip(sent.recipients, sent.kind.statuses, strict=True)
    }
    about = postel.query(
        """
        SELECT count(*) FROM email_events bounce JOIN email_events message
        ON message.queue_id = bounce.attributes ->> 'zonemta.bounce.message.id' AND message.outcome = 'queued'
        WHERE bounce.attributes ->> 'zonemta.interface' = 'bounce'
        """
    )
    assert about == [(bounces,)]
