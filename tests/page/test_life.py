"""What a person reads of events: the steps of a message's life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from dashboards.web import life
from postel.signals import load_all
from timescale_sink.api.filters import Event

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)


def event(name: str, attributes: dict[str, Any] | None = None, *, seconds: float = 0, **values: Any) -> Event:
    time = NOW + timedelta(seconds=seconds)
    table = "delivery_events" if "status" in values else "email_events"
    return Event(table, time, UUID(int=1), "n1", "n1:25", name, values, attributes or {})


def told(*events: Event) -> list[tuple[float, str, str, str]]:
    return [((s.time - NOW).total_seconds(), s.part, s.title, s.tone) for s in life.steps(events)]


def test_the_parts_of_a_transaction_stand_where_they_were() -> None:
    taken = event(
        "haraka.message.accepted",
        {"haraka.transaction.duration": 3, "haraka.queue.duration": 1, "haraka.storage.plugin": "queue/lmtp"},
        outcome="accepted", storage_status="stored", client_ip="192.0.2.7", spam_score=7.25, spam_action="add header",
    )  # fmt: skip
    queued = event("zonemta.message.queued", seconds=-0.5, outcome="queued")
    assert told(queued, taken) == [
        (-3, "Haraka", "Connection of 192.0.2.7", ""),
        (-1, "Rspamd", "Score 7.25: add header", "warn"),
        (-0.5, "Zone-MTA", "Taken into the queue", "good"),
        (0, "Storage", "Stored by queue/lmtp", "good"),
    ]


def test_a_recipient_that_is_refused_at_once_stands_behind_the_connection() -> None:
    refused = event("haraka.recipient.rejected", seconds=-0.25, outcome="recipient_rejected")
    rejected = event(
        "haraka.message.rejected", {"haraka.transaction.duration": 0.25}, outcome="rejected", client_ip="192.0.2.7"
    )
    assert [title for _, _, title, _ in told(refused, rejected)] == [
        "Connection of 192.0.2.7",
        "Recipient refused",
        "Rejected",
    ]


@pytest.mark.parametrize(
    ("said", "title", "tone"),
    [
        ({"rspamd.error": "connect ECONNREFUSED"}, "Not scanned, for Rspamd failed", "bad"),
        ({"rspamd.skip.reason": "local_ip"}, "Not scanned", ""),
    ],
)
def test_why_nothing_was_scanned_is_said(said: dict[str, Any], title: str, tone: str) -> None:
    _, scan, end = life.steps([event("haraka.message.accepted", said, outcome="accepted")])
    assert (scan.part, scan.title, scan.tone) == ("Rspamd", title, tone)
    assert [fact for _, fact in scan.facts] == list(said.values())
    assert (end.part, end.title, end.tone) == ("Haraka", "Accepted", "good")


def test_a_transaction_that_never_came_to_a_scan_has_none() -> None:
    rejected = event(
        "haraka.message.rejected",
        {"haraka.plugin": "access", "smtp.response.status_code": 550, "smtp.response.text": "go away"},
        outcome="rejected",
    )
    assert [title for _, _, title, _ in told(rejected)] == ["Connection of a client", "Rejected by access"]
    assert dict(life.headline(rejected).facts)["reply"] == "550 go away"


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({"attempt": 2, "mx": "mx.test", "mx_ip": "192.0.2.1"}, "Attempt 2 at mx.test [192.0.2.1]: deferred"),
        ({"mx": "192.0.2.1", "mx_ip": "192.0.2.1"}, "Attempt at 192.0.2.1: deferred"),
        ({"to_domain": "there.test"}, "Attempt at there.test: deferred"),
        ({}, "Attempt: deferred"),
    ],
)
def test_an_attempt_is_told_as_far_as_it_came(values: dict[str, Any], title: str) -> None:
    assert told(event("haraka.delivery.deferred", status="deferred", **values)) == [(0, "Haraka", title, "warn")]


def test_many_recipients_are_named_as_far_as_they_can_be_read() -> None:
    many = event("zonemta.message.queued", {"email.to.address": [f"r{n}@x.test" for n in range(12)]}, from_domain="x")
    assert life.addresses(many).startswith("@x → r0@x.test, r1@x.test")
    assert life.addresses(many).endswith("r9@x.test and 2 more")


def test_every_declared_event_of_mail_has_words_of_its_own() -> None:
    declared = load_all()
    rows = [(one.name, one.row.values) for one in declared.events.values() if one.row is not None]
    assert len(rows) > 10
    for name, values in rows:
        steps = life.steps([event(name, None, seconds=0, **dict[str, Any](values))])
        assert steps
        assert all(step.title != name and step.part in ("Haraka", "Zone-MTA") for step in steps)
