"""The plugin in a real Haraka: its events are what clients, stores and the SMTP sink saw, one by one."""

from __future__ import annotations

import contextlib
import re
import smtplib
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiosmtpd.lmtp import LMTP as LMTP_PROTOCOL
from mail_plugins.haraka_mail import (
    BOUNCE,
    CLOSED,
    DELIVERY,
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
from testbed.haraka import LMTP, OLDER_IN_SOAK, RELEASES, Haraka
from testbed.program import until
from testbed.rspamd import GTUBE, Rspamd
from testbed.smtp_sink import ANSWERS, LATE, Attempt, SmtpSink, kind_of

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


@pytest.mark.slow
@pytest.mark.parametrize("version", OLDER_IN_SOAK)
def test_deliveries_are_told_as_the_servers_behind_saw_them(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread, version: str
) -> None:
    with running(SmtpSink(("lmtp",), LMTP_PROTOCOL)) as store, running(SmtpSink(("outside",))) as outside:
        server = watched_haraka(
            otlp_receiver.endpoint,
            version=version,
            storage=LMTP,
            lmtp_port=store.ports["lmtp"],
            relay_port=outside.ports["outside"],
        )
        mail = Mailer(server, known="ok", connections=2)

        def local(*kinds: str) -> list[str]:
            return [mail.recipient(kind) for kind in kinds]

        mail.hand_over(sender=mail.sender("ok"))
        mail.hand_over(sender=mail.sender("ok"), recipients=local("ok", "defer-then-ok", "spam", "ok"))
        mail.hand_over(sender=mail.sender("ok"), recipients=local("defer-then-ok"))
        mail.hand_over(sender=mail.sender("ok"), recipients=local("full"))
        mail.hand_over(sender=mail.sender("ok"), recipients=local("late-reject"))
        # Haraka takes no recipient whom no plugin knows.
        mail.hand_over(sender=mail.sender("ok"), recipients=[*local("ok"), "nobody@elsewhere.test"])
        mail.hand_over(sender="")
        # Relayed, to two hosts: two deliveries of one message.
        mail.hand_over(sender="ok@relay.test", recipients=["ok+91@one.test", "ok+92@two.test", "spam+93@two.test"])
        wait_until_told(mail, otlp_receiver)
        until(lambda: not server.queued(), 40, "all is delivered or given up")
        time.sleep(1.2)

        assert Counter(map(told, events(otlp_receiver, MESSAGE))) == Counter(mail.expected)
        check_deliveries(otlp_receiver, {"lmtp": store.attempts(), "smtp": outside.attempts()})
        assert check_bounces(otlp_receiver, outside.attempts()) >= 4
    (refused,) = events(otlp_receiver, RECIPIENT)
    assert refused.attributes["email.to.address"] == ["nobody@elsewhere.test"]
    assert refused.attributes["smtp.response.status_code"] == 550
    assert "haraka.plugin" not in refused.attributes
    for event in events(otlp_receiver, MESSAGE):
        said = event.attributes
        relayed = said["email.from.address"] == "ok@relay.test"
        assert said["haraka.storage.status"] == "queued"
        assert said.get("haraka.storage.plugin") == (None if relayed else "queue/lmtp")
        assert said["email.direction"] == ("outbound" if relayed else "inbound")
        assert said["haraka.relaying"] is relayed


def check_deliveries(receiver: OtlpThread, seen: dict[str, list[Attempt]]) -> None:
    """Each attempt is in one event, with the server's answer; each leads back to its message."""
    messages = {event.attributes["haraka.transaction.id"]: event.attributes for event in events(receiver, MESSAGE)}
    found, numbers = Counter[tuple[str, str, str, str]](), Counter[str]()
    for event in events(receiver, DELIVERY):
        said = event.attributes
        (recipient,) = said["email.to.address"]
        kind = event.name.removeprefix(DELIVERY)
        found[said["network.protocol.name"], said["email.from.address"], recipient, kind] += 1
        numbers[recipient] += 1
        assert said["haraka.attempt.number"] == numbers[recipient], event
        assert 0 <= said["haraka.attempt.duration"] < 2
        assert said["haraka.attempt.duration"] <= said["haraka.delivery.duration"] < 30
        assert said["haraka.delivery.id"].startswith(said["haraka.transaction.id"] + ".")
        assert said["server.address"] == said["network.peer.address"] == "127.0.0.1"
        if kind == "accepted":
            assert said["tls.established"] is False
            assert "Ok: stored" in said["smtp.response.text"]
        else:
            answer = {**ANSWERS, **LATE}[kind_of(recipient).replace("-then-ok", "")]
            assert said["smtp.response.text"] == answer
            assert said["error.type"] == answer[:3]
            assert said["smtp.response.enhanced_code"] == answer.split()[1]
        message = messages.get(said["haraka.transaction.id"])
        if message is None:
            # The bounces, which Haraka writes itself.
            assert (said["email.from.address"], said["email.direction"]) == ("", "outbound")
        else:
            assert recipient in message["email.to.address"]
            assert said["email.message_id"] == message["email.message_id"]
            assert said["email.direction"] == message["email.direction"]
        if kind == "deferred":
            assert said["haraka.next_attempt.time"] > datetime.fromtimestamp(event.time / 1e9, UTC).isoformat()
    assert found == Counter(
        (protocol, attempt.sender, attempt.recipient, kind)
        for protocol, attempts in seen.items()
        for attempt, kind in zip(attempts, fates(attempts), strict=True)
    )


def check_bounces(receiver: OtlpThread, seen: list[Attempt]) -> int:
    """Each bounce is told when it is queued, and leads to its deliveries and to its message; how many there were."""
    about = {event.attributes["email.message_id"]: event.attributes for event in events(receiver, MESSAGE)}
    deliveries = [event.attributes for event in events(receiver, DELIVERY)]
    bounces = [event.attributes for event in events(receiver, BOUNCE)]
    for bounce in bounces:
        message = about[bounce["haraka.bounce.message_id"]]
        assert (bounce["email.from.address"], bounce["email.direction"]) == ("", "outbound")
        assert bounce["email.to.address"] == [message["email.from.address"]]
        (last, *_) = [said for said in deliveries if said["haraka.transaction.id"] == bounce["haraka.transaction.id"]]
        assert (last["email.message_id"], last["email.to.address"]) == (
            bounce["email.message_id"],
            bounce["email.to.address"],
        )
        assert any(
            said["haraka.transaction.id"] == message["haraka.transaction.id"] and "error.type" in said
            for said in deliveries
        )
    assert len({bounce["email.message_id"] for bounce in bounces}) == len(bounces)
    assert Counter(bounce["email.to.address"][0] for bounce in bounces) == Counter(
        attempt.recipient for attempt in seen if attempt.is_bounce
    )
    return len(bounces)


def fates(attempts: list[Attempt]) -> list[str]:
    """What each attempt must be told as: what is deferred for the third time is given up."""
    numbers, kinds = Counter[str](), []
    for attempt in attempts:
        numbers[attempt.recipient] += 1
        kind = {"2": "accepted", "4": "deferred", "5": "rejected"}[attempt.answer[0]]
        kinds.append("rejected" if kind == "deferred" and numbers[attempt.recipient] == 3 else kind)
    return kinds


@contextlib.contextmanager
def running(sink: SmtpSink) -> Iterator[SmtpSink]:
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()


def test_what_rspamd_said_is_told(watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread, rspamd: Rspamd) -> None:
    server = watched_haraka(otlp_receiver.endpoint, rspamd=rspamd)
    mail = Mailer(server, known="box", connections=2)
    mail.hand_over(body="A message that nobody could blame.")
    rejected: dict[str, Any] = {"outcome": "rejected", "phase": "filter", "error": "550"}
    reply = mail.hand_over(body=GTUBE, **rejected, plugin="rspamd", hook="data_post")
    assert reply == (550, b"Gtube pattern")
    # The sender's own words count for nothing where Rspamd is asked.
    mail.hand_over(headers=["X-Spam-Score: -100", "X-Spam-Action: reject"])
    rspamd.stop()
    mail.hand_over(headers=["X-Spam-Score: -100"])
    wait_until_told(mail, otlp_receiver)

    assert Counter(map(told, events(otlp_receiver, MESSAGE))) == Counter(mail.expected)
    ham, spam, bold, unasked = [event.attributes for event in events(otlp_receiver, MESSAGE)]
    assert spam["rspamd.action"] == "reject"
    assert spam["rspamd.symbols"] == {"GTUBE": 0.0}
    assert spam["rspamd.score"] == 0 or spam["rspamd.score"] >= spam["rspamd.required_score"]
    for said in (ham, bold):
        scanned = rspamd_symbols(said)
        assert scanned
        assert said["rspamd.score"] == pytest.approx(sum(scanned.values()), abs=0.01)
        assert said["rspamd.action"] != "reject"
        assert said["rspamd.score"] > -10
    for said in (ham, spam, bold):
        assert said["rspamd.origin"] == "result"
        assert 0 <= said["rspamd.scan.time"] <= said["haraka.filter.duration"] + 0.01
        assert "rspamd.error" not in said
    assert "ECONNREFUSED" in unasked["rspamd.error"]
    assert not {"rspamd.score", "rspamd.action", "rspamd.symbols", "rspamd.origin"} & unasked.keys()


def rspamd_symbols(said: dict[str, Any]) -> dict[str, float]:
    symbols: dict[str, float] = said["rspamd.symbols"]
    assert all(isinstance(score, float) for score in symbols.values())
    return symbols


def test_where_rspamd_is_not_asked_the_reason_is_told(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread, rspamd: Rspamd
) -> None:
    # As haraka-plugin-rspamd is by default: loopback is not asked about.
    settings = {"rspamd.ini": f"host=127.0.0.1\nport={rspamd.port}\n"}
    server = watched_haraka(otlp_receiver.endpoint, rspamd=rspamd, config=settings)
    mail = Mailer(server, known="box", connections=2)
    mail.hand_over(body=GTUBE)
    wait_until_told(mail, otlp_receiver)
    (message,) = events(otlp_receiver, MESSAGE)
    assert told(message) == mail.expected[0]
    assert message.attributes["rspamd.skip.reason"] == "local_ip, private_ip"
    assert "rspamd.score" not in message.attributes


def test_where_only_headers_are_there_these_are_read_under_their_names(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread
) -> None:
    report = "X-Spam-Report: MISSING_DATE(1.00) R_BAD(-0.5)\r\n ONE.MORE-42(7)"
    cases: list[tuple[list[str], dict[str, Any]]] = [
        (
            ["X-Rspamd-Score: 4.2", "X-Rspamd-Report: A(4.2)", "X-Rspamd-Action: add header"],
            {"score": 4.2, "symbols": {"A": 4.2}, "action": "add header", "origin": "header"},
        ),
        (
            ["X-Spam-Score: 7.5", report],
            {"score": 7.5, "symbols": {"MISSING_DATE": 1, "R_BAD": -0.5, "ONE.MORE-42": 7}, "origin": "header"},
        ),
        (
            ["X-Spamd-Result: default: False [-0.10 / 15.00];\r\n MIME_GOOD(-0.10)[text/plain];\r\n ARC_NA(0.00)[]"],
            {"score": -0.1, "symbols": {"MIME_GOOD": -0.1, "ARC_NA": 0}, "origin": "header"},
        ),
        # Named in rspamd.ini; that comes first.
        (["X-Own-Score: 3", "X-Rspamd-Score: 9"], {"score": 3, "origin": "header"}),
        (["X-Spam-Score: none"], {}),
        ([], {}),
    ]
    server = watched_haraka(otlp_receiver.endpoint, config={"rspamd.ini": "[header]\nscore=X-Own-Score\n"})
    mail = Mailer(server, known="box", connections=2)
    for headers, _ in cases:
        mail.hand_over(headers=headers)
    wait_until_told(mail, otlp_receiver)
    found = [
        {name[7:]: value for name, value in event.attributes.items() if name.startswith("rspamd.")}
        for event in events(otlp_receiver, MESSAGE)
    ]
    assert found == [expected for _, expected in cases]


def test_what_the_plugin_for_wildduck_answers_is_told(watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread) -> None:
    server = watched_haraka(otlp_receiver.endpoint)
    mail = Mailer(server, known="box", connections=2)
    mail.hand_over(recipients=[mail.recipient(), mail.recipient("full"), mail.recipient("nobody")])
    mail.denials += [("wildduck", "rcpt")] * 2
    denied: dict[str, Any] = {"phase": "queue", "plugin": "wildduck", "hook": "queue"}
    mail.hand_over(recipients=[mail.recipient("broken")], **denied, outcome="deferred", error="450")
    mail.hand_over(recipients=[mail.recipient("nested")], **denied, outcome="rejected", error="550")
    wait_until_told(mail, otlp_receiver)

    assert Counter(map(told, events(otlp_receiver, MESSAGE))) == Counter(mail.expected)
    kept, broken, nested = [event.attributes for event in events(otlp_receiver, MESSAGE)]
    assert [(kept["haraka.storage.id"], *kept["email.to.address"])] == [
        (entry["id"], entry["recipient"]) for entry in server.stored()
    ]
    assert (kept["haraka.storage.status"], kept["haraka.storage.text"]) == ("stored", "Message processed")
    assert (broken["haraka.storage.status"], broken["haraka.storage.plugin"]) == ("deferred", "wildduck")
    assert broken["haraka.storage.text"] == "Failed to queue message [ERRQ05]"
    assert (nested["haraka.storage.status"], nested["haraka.storage.plugin"]) == ("refused", "wildduck")
    full, nobody = [event.attributes for event in events(otlp_receiver, RECIPIENT)]
    # A DSN's own code counts.
    assert (full["smtp.response.status_code"], full["smtp.response.enhanced_code"]) == (554, "5.2.2")
    assert (nobody["smtp.response.status_code"], nobody["smtp.response.enhanced_code"]) == (550, "5.1.1")


def test_what_haraka_refuses_for_itself_is_told(watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread) -> None:
    server = watched_haraka(otlp_receiver.endpoint, inactivity_s=1)
    mail = Mailer(server, known="box", connections=2)
    # A mail loop: more Received headers than [headers] max_received.
    trace = [f"Received: from a.test by b.test with SMTP id {number};" for number in range(101)]
    looped = mail.hand_over(headers=trace, outcome="rejected", phase="data", error="550")
    assert looped == (550, b"Too many received headers - possible mail loop")

    def silent(client: smtplib.SMTP, _sender: str) -> None:
        assert client.getreply() == (421, b"timeout")

    sender, recipients = mail.in_transaction(silent)
    mail.expect(sender, outcome="abandoned", phase="rcpt", accepted=tuple(recipients), error="timeout")

    def silent_in_data(client: smtplib.SMTP, _sender: str) -> None:
        assert client.docmd("DATA")[0] == 354
        assert client.getreply() == (421, b"timeout")

    sender, recipients = mail.in_transaction(silent_in_data)
    mail.expect(sender, outcome="abandoned", phase="data", accepted=tuple(recipients), error="timeout", size=0)
    wait_until_told(mail, otlp_receiver)
    assert Counter(map(told, events(otlp_receiver, MESSAGE))) == Counter(mail.expected)


def test_a_message_without_an_id_is_told_with_the_one_that_haraka_gives_it(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread
) -> None:
    with running(SmtpSink(("lmtp",), LMTP_PROTOCOL)) as store:
        server = watched_haraka(otlp_receiver.endpoint, storage=LMTP, lmtp_port=store.ports["lmtp"])
        with server.client() as client:
            client.sendmail("a@sender.test", ["ok+1@here.test"], "Subject: without\r\n\r\nText.\r\n")
        until(lambda: events(otlp_receiver, DELIVERY), 10, "it is delivered")
    (message,), (delivery,) = events(otlp_receiver, MESSAGE), events(otlp_receiver, DELIVERY)
    assert message.attributes["email.message_id"].startswith("<")
    assert delivery.attributes["email.message_id"] == message.attributes["email.message_id"]
    assert delivery.attributes["haraka.transaction.id"] == message.attributes["haraka.transaction.id"]


def test_a_store_that_refuses_some_recipients_after_the_message(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread
) -> None:
    with running(SmtpSink(("lmtp",), LMTP_PROTOCOL)) as store, running(SmtpSink(("outside",))) as outside:
        server = watched_haraka(
            otlp_receiver.endpoint,
            storage=LMTP,
            lmtp_port=store.ports["lmtp"],
            relay_port=outside.ports["outside"],
            # Without it Haraka itself takes one recipient for the other.
            config={"outbound.ini": "always_split=true\nenable_tls=false\n"},
        )
        mail = Mailer(server, known="ok", connections=2)
        kinds = ("ok", "late-reject", "ok")
        mail.hand_over(sender=mail.sender("ok"), recipients=[mail.recipient(kind) for kind in kinds])
        wait_until_told(mail, otlp_receiver)
        until(lambda: not server.queued(), 10, "all is delivered or given up")
        time.sleep(1.2)
        check_deliveries(otlp_receiver, {"lmtp": store.attempts(), "smtp": outside.attempts()})
