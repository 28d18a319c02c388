"""The plugin in a real Zone-MTA: its events are what the SMTP sink and the clients saw, one by one."""

from __future__ import annotations

import smtplib
import socket
import time
from collections import Counter
from email.message import EmailMessage
from pathlib import Path

import httpx
import psutil
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from testbed.backends import Backends
from testbed.fixtures import WatchedZoneMta
from testbed.program import until
from testbed.smtp_sink import ANSWERS
from testbed.zone_mta import RELEASES, SENDER, ZoneMta

from postel.otlp import json_mapping
from support.otlp_thread import LogRecord, OtlpThread, records
from support.ports import free_port

HEARTBEAT = "postel.plugin.heartbeat"
STATUS = {"accepted": "delivered", "deferred": "deferred", "rejected": "rejected"}


def events(receiver: OtlpThread, kind: str = "zonemta.") -> list[LogRecord]:
    return [record for record in receiver.records() if record.name.startswith(kind)]


def deliveries(receiver: OtlpThread) -> Counter[tuple[str, str, str, str]]:
    """What the events say of the attempts: zone, sender, recipient, status."""
    return Counter(
        (
            event.attributes["zonemta.zone"],
            event.attributes["email.from.address"],
            *event.attributes["email.to.address"],
            STATUS[event.name.rpartition(".")[2]],
        )
        for event in events(receiver, "zonemta.delivery.")
    )


def seen(server: ZoneMta) -> Counter[tuple[str, str, str, str]]:
    """What the sink saw of them."""
    return Counter((each.zone, each.sender, each.recipient, each.status) for each in server.sink.attempts())


def wait_until_told(server: ZoneMta, receiver: OtlpThread, seconds: float = 20) -> None:
    """All attempts, and that their messages were queued: each process tells its own, and tries at times of its own."""

    def ids(kind: str) -> set[str]:
        return {event.attributes["zonemta.message.id"] for event in events(receiver, kind)}

    until(
        lambda: (
            sum(deliveries(receiver).values()) >= len(server.sink.attempts())
            and ids("zonemta.delivery.") <= ids("zonemta.message.queued")
        ),
        seconds,
        "all attempts and their messages are told",
    )
    # What would come twice, and what goes out last: 0.75 s until events are made, as much until they are sent.
    time.sleep(2.5)


def post(server: ZoneMta, path: str, **fields: object) -> httpx.Response:
    return httpx.post(server.api + path, json=fields, timeout=10).raise_for_status()


def hand_over(port: int, sender: str, recipients: list[str], login: tuple[str, str] | None = None) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "someone@sender.test", recipients[0], "A secret subject"
    message.set_content("A secret body.")
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        if login:
            client.login(*login)
        client.send_message(message, sender, recipients)


@pytest.mark.slow
@pytest.mark.parametrize("version", RELEASES)
def test_mail_of_every_kind_is_told_once_as_it_happened(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread, version: str
) -> None:
    submission = free_port()
    server = watched_zone_mta(
        otlp_receiver.endpoint,
        version=version,
        bounce_zone="default",
        settings={
            "smtpInterfaces": {
                "submission": {
                    "enabled": True,
                    "host": "127.0.0.1",
                    "port": submission,
                    "processes": 1,
                    "authentication": True,
                    "allowInsecureAuth": True,
                }
            }
        },
    )
    until(lambda: len(kinds(otlp_receiver)) == 5, 15, "all processes have the plugin")
    server.send(5)
    server.send(3, "defer-then-ok", "bulk")
    server.send(2, "reject", "bulk")
    server.send(2, "spam")
    server.send(1, "full", "bulk")
    deleted = server.send(1, "defer", "bulk")
    hand_over(server.smtp_port, "", ["ok+null@rcpt.test"])
    # The sink knows no kind of mail that begins with a quote, so it rejects the third one, too.
    hand_over(server.smtp_port, SENDER, ["ok+a@one.test", "reject+b@two.test", '"ok+c,d"@three.test'])
    with pytest.raises(smtplib.SMTPDataError, match="Refused by the judge"):
        hand_over(server.smtp_port, SENDER, ["noqueue@rcpt.test"])
    hand_over(server.smtp_port, SENDER, ["drop@rcpt.test"])
    hand_over(submission, SENDER, ["ok+auth@rcpt.test"], ("a-user", "a-secret-password"))
    post(
        server, "/send", **{"from": SENDER, "to": "ok+api@rcpt.test", "subject": "A secret subject", "text": "Secret."}
    )
    post(server, "/suppressionlist", address="ok+suppressed@rcpt.test")
    hand_over(server.smtp_port, SENDER, ["ok+suppressed@rcpt.test"])

    def waits() -> list[LogRecord]:
        return [
            e
            for e in events(otlp_receiver)
            if e.name.endswith("deferred") and e.attributes["email.to.address"] == deleted
        ]

    # The third deferral waits for 600 s; then it is deleted.
    until(lambda: len(waits()) == 3, 20, "the deferred recipient waits")
    last = waits()[-1].attributes
    path = f"/message/{last['zonemta.message.id']}/{last['zonemta.message.seq']}"
    httpx.delete(server.api + path, timeout=10).raise_for_status()
    server.wait_until_idle()
    wait_until_told(server, otlp_receiver)

    assert deliveries(otlp_receiver) == seen(server)
    assert sum(seen(server).values()) == 5 + 6 + 2 + 2 + 1 + 3 + 1 + 3 + 1 + 1 + bounces(server)
    uids = [record.uid for record in otlp_receiver.records()]
    assert len(set(uids)) == len(uids)
    check_attempts(server, otlp_receiver)
    check_messages(otlp_receiver)
    check_resources(server, otlp_receiver, version)
    everything = b"".join(request.SerializeToString() for request in otlp_receiver.requests()).lower()
    for secret in (b"secret", b"body of message", b"message 1"):
        assert secret not in everything


def bounces(server: ZoneMta) -> int:
    sent_back = sum(each.is_bounce and each.recipient == SENDER for each in server.sink.attempts())
    assert sent_back == 2 + 2 + 1 + 2, "one for each recipient that was rejected"
    return sent_back


def kinds(receiver: OtlpThread) -> dict[int, str]:
    """The processes that said that they have the plugin: pid -> kind."""
    return {
        record.resource["process.pid"]: record.attributes["postel.plugin.process.kind"]
        for record in receiver.records()
        if record.name == HEARTBEAT
    }


def check_attempts(server: ZoneMta, receiver: OtlpThread) -> None:
    """Every attribute of the attempts against the sink's record."""
    sink = {(each.zone, each.recipient, each.status): each for each in server.sink.attempts()}
    numbers: Counter[tuple[str, str]] = Counter()
    for event in events(receiver, "zonemta.delivery."):
        said = event.attributes
        (recipient,) = said["email.to.address"]
        status = STATUS[event.name.rpartition(".")[2]]
        attempt = sink[said["zonemta.zone"], recipient, status]
        answer = "250 2.0.0 Ok: stored" if status == "delivered" else attempt.answer
        code, enhanced, _ = answer.split(maxsplit=2)
        assert said["smtp.response.text"] == answer
        assert (said["smtp.response.status_code"], said["smtp.response.enhanced_code"]) == (int(code), enhanced)
        numbers[said["zonemta.message.id"], recipient] += 1
        assert said["zonemta.attempt.number"] == numbers[said["zonemta.message.id"], recipient]
        assert 0 <= said["zonemta.attempt.duration"] < 30
        assert said["server.address"] == said["network.peer.address"] == "127.0.0.1"
        assert said["network.local.address"] == "127.0.0.1"
        assert said["network.protocol.name"] == "smtp"
        assert said["email.direction"] == "outbound"
        assert said["email.message_id"].startswith("<")
        assert "@" not in event.body
        assert abs(event.time / 1e9 - time.time()) < 120
        if status == "deferred":
            assert said["zonemta.next_attempt.time"] > time.strftime("%Y-%m-%dT%H:%M", time.gmtime(event.time / 1e9))
            assert "zonemta.queue.duration" not in said
        else:
            assert 0 <= said["zonemta.queue.duration"] < 60
        if status == "delivered":
            assert said["zonemta.message.size"] > 100
            assert "error.type" not in said
        else:
            assert said["error.type"] == code
            assert said["zonemta.category"]
    full = next(e for e in events(receiver) if e.attributes.get("smtp.response.text") == ANSWERS["full"])
    assert full.name == "zonemta.delivery.rejected", "a category can reject a 4xx"


def check_messages(receiver: OtlpThread) -> None:
    queued = events(receiver, "zonemta.message.queued")
    by_interface = Counter(event.attributes["zonemta.interface"] for event in queued)
    assert by_interface == {"feeder": 14 + 1 + 1 + 1, "submission": 1, "api": 1, "bounce": 7}
    ids = {event.attributes["zonemta.message.id"] for event in queued}
    assert len(ids) == len(queued), "one for each message"

    (several,) = (event for event in queued if len(event.attributes["email.to.address"]) > 1)
    assert several.attributes["email.to.address"] == ["ok+a@one.test", "reject+b@two.test", '"ok+c,d"@three.test']
    assert several.attributes["zonemta.recipient.count"] == 3
    (null,) = (event for event in queued if event.attributes["email.to.address"] == ["ok+null@rcpt.test"])
    assert null.attributes["email.from.address"] == ""
    assert null.attributes["client.address"] == "127.0.0.1"
    (authenticated,) = (event for event in queued if event.attributes["zonemta.interface"] == "submission")
    assert authenticated.attributes["user.name"] == "a-user"
    assert authenticated.attributes["zonemta.transmission.type"] == "ESMTPA"

    rejected = Counter(
        (event.attributes["zonemta.message.id"], event.attributes["zonemta.message.seq"])
        for event in events(receiver, "zonemta.delivery.rejected")
    )
    about = Counter(
        (event.attributes["zonemta.bounce.message.id"], event.attributes["zonemta.bounce.message.seq"])
        for event in queued
        if event.attributes["zonemta.interface"] == "bounce"
    )
    assert about == rejected, "each bounce names the recipient that it is about"

    (refused,) = events(receiver, "zonemta.message.refused")
    assert refused.attributes["email.to.address"] == ["noqueue@rcpt.test"]
    assert refused.attributes["smtp.response.text"] == "550 5.7.1 Refused by the judge"
    assert refused.attributes["zonemta.reason"] == "judged"
    dropped = {event.attributes["email.to.address"][0]: event for event in events(receiver, "zonemta.message.dropped")}
    assert set(dropped) == {"drop@rcpt.test", "ok+suppressed@rcpt.test"}
    assert len(events(receiver, "zonemta.message.dropped")) == 2
    (deleted,) = events(receiver, "zonemta.message.deleted")
    assert deleted.attributes["zonemta.reason"] == "Deletion requested from API"
    assert deleted.attributes["zonemta.message.id"] in ids


def check_resources(server: ZoneMta, receiver: OtlpThread, version: str) -> None:
    assert set(kinds(receiver)) == set(server.program.pids())
    assert Counter(kinds(receiver).values()) == {"main": 1, "receiver": 2, "sender": 2}
    for record in receiver.records():
        assert record.scope == "postel.zone_mta"
        assert record.resource == {
            "service.name": "zone-mta",
            "service.version": version,
            "server.port": server.api_port,
            "process.pid": record.resource["process.pid"],
            "postel.plugin.name": "postel-zone-mta",
            "postel.plugin.version": "0.1.0",
        }


# Of the same emitter under Haraka, and beside a Zone-MTA that is killed meanwhile, `make test` shows it:
# tests/mail_plugins/test_haraka_life.py and test_killed.py.
@pytest.mark.soak
def test_nothing_is_missing_after_the_receiver_was_away(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    server = watched_zone_mta(otlp_receiver.endpoint)
    server.send(10)
    until(lambda: sum(deliveries(otlp_receiver).values()) == 10, 15, "the receiver is there")
    otlp_receiver.stop()
    server.send(40)
    server.send(10, "defer-then-ok", "bulk")
    server.wait_until_idle()
    until(lambda: list((tmp_path / "buffer").rglob("*.jsonl")), 5, "events wait in files")
    otlp_receiver.start()
    server.send(5)
    server.wait_until_idle()
    # A heartbeat comes every two seconds; the longest pause before a try is 36 s.
    wait_until_told(server, otlp_receiver, 60)

    assert deliveries(otlp_receiver) == seen(server)
    assert len(events(otlp_receiver, "zonemta.message.queued")) == 65
    assert len({record.uid for record in otlp_receiver.records()}) == len(otlp_receiver.records())
    assert not list((tmp_path / "buffer").rglob("*.jsonl"))
    log = server.program.said()
    assert log.count("events are kept,") <= len(server.program.pids())
    assert log.count("events are kept,") == log.count("again, after") > 0


# Of one that is killed amid its work it is shown by `make test`: tests/mail_plugins/test_killed.py.
@pytest.mark.soak
def test_events_of_a_killed_server_are_sent_by_the_next_one(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread
) -> None:
    server = watched_zone_mta(otlp_receiver.endpoint)
    otlp_receiver.stop()
    server.send(20)
    server.wait_until_idle()
    time.sleep(1)  # what is younger than that may be lost
    killed = set(server.program.pids())
    server.kill()
    otlp_receiver.start()
    server.start()
    wait_until_told(server, otlp_receiver)
    assert deliveries(otlp_receiver) == seen(server)
    assert len(events(otlp_receiver, "zonemta.message.queued")) == 20
    assert {event.resource["process.pid"] for event in events(otlp_receiver)} <= killed


@pytest.mark.slow
def test_a_server_that_stops_in_order_loses_no_event(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread
) -> None:
    server = watched_zone_mta(otlp_receiver.endpoint)
    otlp_receiver.stop()
    server.send(20)
    until(lambda: len(server.sink.attempts()) == 20, 15, "all are delivered", pause=0.01)
    server.stop()
    otlp_receiver.start()
    server.start()
    wait_until_told(server, otlp_receiver)
    assert deliveries(otlp_receiver) == seen(server)
    assert len(events(otlp_receiver, "zonemta.message.queued")) == 20


def test_live_listeners_have_the_events_by_the_servers_own_redis(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread, backends: Backends
) -> None:
    server = watched_zone_mta(otlp_receiver.endpoint, zones=("only",), plugin={"redisChannel": "postel-live"})
    with (
        socket.create_connection(("127.0.0.1", backends.redis_port), timeout=10) as listener,
        listener.makefile() as said,
    ):
        listener.sendall(b"SUBSCRIBE postel-live\r\n")
        assert [said.readline().strip() for _ in range(6)][-1] == ":1"
        (recipient,) = server.send(1)
        names: set[str] = set()
        # Two processes tell them, so that either may be the first.
        while len(names) < 2:
            line = said.readline()
            if line.startswith('{"resourceLogs"'):
                request = ExportLogsServiceRequest()
                json_mapping.decode(line.encode(), request)
                names |= {r.name for r in records(request) if r.attributes.get("email.to.address") == [recipient]}
    assert names == {"zonemta.message.queued", "zonemta.delivery.accepted"}


@pytest.mark.soak
def test_a_receiver_that_never_answers_costs_mail_neither_time_nor_memory(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    # Nobody accepts: the kernel completes the handshakes, and takes a request's first bytes.
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        hanging = watched_zone_mta(f"http://127.0.0.1:{silent.getsockname()[1]}", plugin={"timeout": 1})
        answered = watched_zone_mta(otlp_receiver.endpoint)
        free, held = seconds_of(answered, 30), seconds_of(hanging, 30)
        before = memory(hanging)
        for _ in range(2):  # in turns, for the machine may have other work
            free += seconds_of(answered, 60)
            held += seconds_of(hanging, 60)
        after = memory(hanging)
        assert held < 1.5 * free + 2, f"{held:.1f} s with a hanging otlp_receiver, {free:.1f} s with one that answers"
        assert max(after[pid] - before[pid] for pid in before) < 40 << 20

        # What nobody took is all there.
        lines = [line for file in (tmp_path / "buffer").rglob("*.jsonl") for line in file.read_text().splitlines()]
        assert sum('"zonemta.delivery.accepted"' in line for line in lines) == 150
        assert sum('"zonemta.message.queued"' in line for line in lines) == 150
        assert hanging.program.said().count("events are kept,") <= len(before)


def seconds_of(server: ZoneMta, count: int) -> float:
    """How long these messages take from the first one's hand-over to the last one's delivery."""
    done = len(server.sink.attempts()) + count
    begun = time.monotonic()
    server.send(count)
    until(lambda: len(server.sink.attempts()) >= done, 60, f"{count} messages are delivered", pause=0.01)
    taken = time.monotonic() - begun
    time.sleep(1)  # what is younger than that is in no file yet
    return taken


def memory(server: ZoneMta) -> dict[int, int]:
    """Bytes of main memory by process."""
    return {pid: psutil.Process(pid).memory_info().rss for pid in server.program.pids()}
