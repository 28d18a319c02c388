"""The plugin in a real Haraka: its events are what clients, stores and the SMTP sink saw, one by one."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest
from mail_plugins.haraka_mail import (
    CLOSED,
    DENIED,
    MAX_BYTES,
    MESSAGE,
    RECIPIENT,
    Mailer,
    events,
    send_every_kind,
    told,
    wait_until_told,
)
from testbed.fixtures import WatchedHaraka
from testbed.haraka import RELEASES, Haraka
from testbed.program import until

from support.otlp_thread import OtlpThread

HEARTBEAT = "postel.plugin.heartbeat"


@pytest.mark.slow
@pytest.mark.parametrize("version", RELEASES)
def test_every_transaction_is_told_once_as_it_ended(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread, version: str
) -> None:
    server = watched_haraka(otlp_receiver.endpoint, version=version, max_bytes=MAX_BYTES)
    until(lambda: len(events(otlp_receiver, CLOSED)) == 2, 10, "the testbed's own connections are told")
    mail = Mailer(server, known="box", connections=2)
    send_every_kind(mail)
    wait_until_told(mail, otlp_receiver)

    assert Counter(map(told, events(otlp_receiver, MESSAGE))) == Counter(mail.expected)
    assert len(events(otlp_receiver, CLOSED)) == mail.connections
    uids = [record.uid for record in otlp_receiver.records()]
    assert len(set(uids)) == len(uids)
    check_denials(mail, otlp_receiver)
    check_recipients(mail, otlp_receiver)
    check_connections(mail, otlp_receiver)
    check_storage(server, otlp_receiver)
    check_everything(server, otlp_receiver, version)


def check_denials(mail: Mailer, receiver: OtlpThread) -> None:
    """Each denial of a plugin is in one event."""
    denied = [event.attributes for event in events(receiver) if "haraka.plugin" in event.attributes]
    assert Counter((said["haraka.plugin"], said["haraka.hook"]) for said in denied) == Counter(mail.denials)
    first, second = events(receiver, DENIED)
    assert {first.attributes["haraka.denial"], second.attributes["haraka.denial"]} == {"deny", "denydisconnect"}
    assert first.attributes["smtp.response.text"] == "5.7.1 Judged the host"


def check_recipients(mail: Mailer, receiver: OtlpThread) -> None:
    """Each refused recipient has an event, which names its transaction."""
    refused = [address for each in mail.expected for address in each.refused]
    events_of = {event.attributes["email.to.address"][0]: event.attributes for event in events(receiver, RECIPIENT)}
    assert sorted(events_of) == sorted(refused)
    assert len(events(receiver, RECIPIENT)) == len(events_of)
    transactions = {event.attributes["haraka.transaction.id"] for event in events(receiver, MESSAGE)}
    for address, said in events_of.items():
        soft = address.startswith(("defer", "dismiss"))
        assert said["smtp.response.status_code"] == (450 if soft else 550), address
        assert said["smtp.response.enhanced_code"] == ("4.7.1" if soft else "5.7.1")
        assert said["haraka.transaction.id"] in transactions


def check_connections(mail: Mailer, receiver: OtlpThread) -> None:
    """The sums of all connections are those of all transactions, as Haraka counts both."""
    closed = [event.attributes for event in events(receiver, CLOSED)]
    messages = [event.attributes for event in events(receiver, MESSAGE)]
    assert len({said["haraka.connection.id"] for said in closed}) == len(closed)
    assert sum(said["haraka.session.transaction.count"] for said in closed) == len(mail.expected)
    for part, kind in (("accepted", "accepted"), ("refused", "refused")):
        name = f"haraka.recipient.{part}.count"
        assert sum(said[name] for said in closed) == sum(said[name] for said in messages), kind
    for name in ("accepted", "rejected", "deferred"):
        # Haraka counts what it answered after the final dot in the hooks data_post and queue.
        after_dot = [each for each in mail.expected if each.outcome == name and each.phase in ("filter", "queue")]
        assert sum(said[f"haraka.session.{name}.count"] for said in closed) == len(after_dot)
    by_connection = {said["haraka.connection.id"]: said for said in closed}
    for said in messages:
        assert said["haraka.transaction.id"].startswith(said["haraka.connection.id"] + ".")
        connection = by_connection[said["haraka.connection.id"]]
        assert said["haraka.transaction.duration"] <= connection["haraka.session.duration"]


def check_storage(server: Haraka, receiver: OtlpThread) -> None:
    """What WildDuck's stand-in stored is what is told as stored, with its own ids and sizes."""
    stored = {(entry["id"], entry["recipient"]): entry["size"] for entry in server.stored()}
    told_so = {}
    for event in events(receiver, MESSAGE):
        said = event.attributes
        if event.name.endswith("accepted"):
            assert said["haraka.storage.status"] == "stored"
            assert said["haraka.storage.plugin"] == "wildduck"
            assert said["haraka.storage.text"] == "Message processed"
            for address in said["email.to.address"]:
                told_so[said["haraka.storage.id"], address] = said["haraka.data.size"]
        elif said["haraka.phase"] == "queue":
            assert (
                said["haraka.storage.status"]
                == {"rejected": "refused", "deferred": "deferred"}[event.name.removeprefix(MESSAGE)]
            )
        else:
            assert "haraka.storage.status" not in said
    assert told_so.keys() == stored.keys()
    for key, size in told_so.items():
        # What is stored has the Received header and such on top, and the final dot not.
        assert size - 3 < stored[key] < size + 700


def check_everything(server: Haraka, receiver: OtlpThread, version: str) -> None:
    for record in receiver.records():
        assert record.scope == "postel.haraka"
        assert record.resource == {
            "service.name": "haraka",
            "service.version": version,
            "server.port": server.port,
            "process.pid": server.program.pids()[0],
            "postel.plugin.name": "haraka-plugin-postel",
            "postel.plugin.version": "0.1.0",
        }
        assert "@" not in record.body
        assert abs(record.time / 1e9 - time.time()) < 120
    for event in events(receiver):
        assert event.attributes["client.address"] == "127.0.0.1"
        assert event.attributes["tls.established"] is False
    for event in events(receiver, MESSAGE):
        said = event.attributes
        assert said["email.direction"] == "inbound"
        assert said["haraka.transmission.type"] == "ESMTP"
        assert said["haraka.hello.name"] == "client.test"
        phases = [said.get(f"haraka.{name}.duration") for name in ("envelope", "data", "filter", "queue")]
        known = [seconds for seconds in phases if seconds is not None]
        assert all(seconds >= 0 for seconds in known)
        assert sum(known) <= said["haraka.transaction.duration"] + 0.01
        if said["haraka.phase"] == "queue":
            assert len(known) == 4
            assert sum(known) == pytest.approx(said["haraka.transaction.duration"], abs=0.01)
    everything = b"".join(request.SerializeToString() for request in receiver.requests()).lower()
    assert b"secret" not in everything
    assert not re.search(r"Postel|CRIT.*postel", server.program.said())
