"""The plugin over a Haraka's life: workers, ends of all kinds, receivers that are away or silent, TLS."""

from __future__ import annotations

import contextlib
import re
import signal
import smtplib
import socket
import ssl
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from mail_plugins.haraka_mail import CLOSED, MESSAGE, Mailer, events, told, wait_until_told
from testbed.fixtures import WatchedHaraka
from testbed.haraka import DISCARD, RELEASES, Haraka
from testbed.program import until

from support.otlp_thread import OtlpThread

HEARTBEAT = "postel.plugin.heartbeat"


def kinds(receiver: OtlpThread) -> dict[int, str]:
    """The processes that said that they have the plugin: pid -> kind."""
    return {
        record.resource["process.pid"]: record.attributes["postel.plugin.process.kind"]
        for record in receiver.records()
        if record.name == HEARTBEAT
    }


def check_told(mail: Mailer, receiver: OtlpThread) -> None:
    """All that was expected is told, once; what else the receiver took as it went away may come again, the same."""
    assert Counter(map(told, events(receiver, MESSAGE))) == Counter(mail.expected)
    by_id = {record.uid: record for record in receiver.records()}
    assert all(record == by_id[record.uid] for record in receiver.records())


@pytest.mark.slow
def test_every_process_has_the_plugin(watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread) -> None:
    server = watched_haraka(otlp_receiver.endpoint, nodes=2)
    until(lambda: len(kinds(otlp_receiver)) == 3, 15, "all processes have the plugin")
    assert set(kinds(otlp_receiver)) == set(server.program.pids())
    assert Counter(kinds(otlp_receiver).values()) == {"master": 1, "worker": 2}
    mail = Mailer(server, known="box")
    for _ in range(20):
        mail.hand_over()
    wait_until_told(mail, otlp_receiver)
    check_told(mail, otlp_receiver)
    assert len(server.stored()) == 20
    workers = {pid for pid, kind in kinds(otlp_receiver).items() if kind == "worker"}
    assert {event.resource["process.pid"] for event in events(otlp_receiver)} <= workers


@pytest.mark.slow
def test_nothing_is_missing_after_the_receiver_was_away(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    server = watched_haraka(otlp_receiver.endpoint)
    mail = Mailer(server, known="box")
    mail.hand_over()
    wait_until_told(mail, otlp_receiver)
    otlp_receiver.stop()
    for _ in range(30):
        mail.hand_over()
    until(lambda: list((tmp_path / "buffer").rglob("*.jsonl")), 5, "events wait in files")
    otlp_receiver.start()
    mail.hand_over()
    wait_until_told(mail, otlp_receiver, 60)
    check_told(mail, otlp_receiver)
    assert not list((tmp_path / "buffer").rglob("*.jsonl"))
    log = server.program.said()
    assert log.count("events are kept,") == log.count("again, after") == 1


@pytest.mark.slow
def test_events_of_a_killed_server_are_sent_by_the_next_one(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread
) -> None:
    server = watched_haraka(otlp_receiver.endpoint)
    otlp_receiver.stop()
    mail = Mailer(server, known="box")
    for _ in range(20):
        mail.hand_over()
    time.sleep(1)  # what is younger than that may be lost
    server.kill()
    otlp_receiver.start()
    server.start()
    wait_until_told(mail, otlp_receiver)
    check_told(mail, otlp_receiver)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_stops_loses_no_event(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread, how: signal.Signals
) -> None:
    server = watched_haraka(otlp_receiver.endpoint)
    otlp_receiver.stop()
    mail = Mailer(server, known="box")
    for _ in range(20):
        mail.hand_over()
    server.program.stop(how=how)
    otlp_receiver.start()
    server.start()
    wait_until_told(mail, otlp_receiver)
    check_told(mail, otlp_receiver)


def test_a_hangup_flushes_the_queue_and_ends_nothing(watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread) -> None:
    server = watched_haraka(otlp_receiver.endpoint)
    (pid,) = server.program.pids()
    psutil.Process(pid).send_signal(signal.SIGHUP)
    until(lambda: "Flushing the temp fail queue" in server.program.said(), 5, "it heard the signal")
    mail = Mailer(server, known="box")
    mail.hand_over()
    wait_until_told(mail, otlp_receiver)
    check_told(mail, otlp_receiver)
    assert server.program.pids() == [pid]


def test_a_wrong_setting_is_named_and_mail_goes_on(watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread) -> None:
    server = watched_haraka(otlp_receiver.endpoint, plugin="timeout=soon")
    mail = Mailer(server, known="box")
    assert mail.hand_over()[0] == 250
    assert "nothing is told to Postel: the setting timeout must be a number" in server.program.said()
    assert not otlp_receiver.records()


@pytest.mark.parametrize("version", RELEASES)
def test_a_token_that_looks_like_a_number_is_sent_as_it_is_written(watched_haraka: WatchedHaraka, version: str) -> None:
    written = "0012345"
    with contextlib.closing(OtlpThread(token=written)) as receiver:
        receiver.start()
        server = watched_haraka(receiver.endpoint, version=version, plugin=f"token={written}")
        mail = Mailer(server, known="box")
        mail.hand_over()
        until(lambda: events(receiver, MESSAGE), 10, "the message is told to who asks for the token")


@pytest.mark.slow
def test_a_receiver_that_never_answers_costs_mail_no_time(
    watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    # Nobody accepts: the kernel completes the handshakes, and takes a request's first bytes.
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        hanging = watched_haraka(f"http://127.0.0.1:{silent.getsockname()[1]}", plugin="timeout=1")
        answered = watched_haraka(otlp_receiver.endpoint)
        free, held = seconds_of(answered), seconds_of(hanging)
        for _ in range(2):  # in turns, for the machine may have other work
            free += seconds_of(answered)
            held += seconds_of(hanging)
        assert held < 1.5 * free + 1, f"{held:.1f} s with a hanging receiver, {free:.1f} s with one that answers"
        time.sleep(1)  # what is younger than that is in no file yet
        lines = [line for file in (tmp_path / "buffer").rglob("*.jsonl") for line in file.read_text().splitlines()]
        # What nobody took is all there.
        assert sum('"haraka.message.accepted"' in line for line in lines) == 90


def seconds_of(server: Haraka) -> float:
    """How long 30 messages take, each on a connection of its own."""
    mail = Mailer(server, known="box")
    begun = time.monotonic()
    for _ in range(30):
        mail.hand_over()
    return time.monotonic() - begun


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_tls_and_who_authenticated_are_told_and_no_password(
    watched_haraka: WatchedHaraka,
    otlp_receiver: OtlpThread,
    haraka_certificate: dict[str, str],
    version: ssl.TLSVersion,
) -> None:
    server = watched_haraka(
        otlp_receiver.endpoint,
        storage=DISCARD,
        plugins=["tls", "auth/flat_file"],
        config={
            **haraka_certificate,
            "auth_flat_file.ini": "[core]\nmethods=PLAIN\n[users]\na-user=a-secret-password\n",
        },
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    mail = Mailer(server, known="ok", connections=2)
    message_id, text = mail.text()
    with mail.client() as client:
        client.starttls(context=context)
        client.ehlo("client.test")
        client.login("a-user", "a-secret-password")
        client.mail("a@sender.test")
        client.rcpt("somebody@elsewhere.test")
        assert client.data(text)[0] == 250
        assert isinstance(client.sock, ssl.SSLSocket)
        cipher, *_ = client.sock.cipher() or ("",)
    with mail.client() as client:
        client.starttls(context=context)
        client.ehlo("client.test")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("a-user", "another-secret-password")
    mail.expect(
        "a@sender.test",
        outcome="accepted",
        phase="queue",
        accepted=("somebody@elsewhere.test",),
        code=250,
        message_id=message_id,
        size=len(text) + 3,
    )
    wait_until_told(mail, otlp_receiver)
    check_told(mail, otlp_receiver)
    (message,) = events(otlp_receiver, MESSAGE)
    said = message.attributes
    assert said["tls.established"] is True
    assert said["tls.protocol.version"] == {"TLSv1_3": "1.3", "TLSv1_2": "1.2"}[version.name]
    # Haraka says the standard's name where it knows it: TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384.
    assert re.sub(r"^TLS_|WITH_|[_-]", "", said["tls.cipher"]) == re.sub(r"^TLS_|[_-]", "", cipher)
    assert said["haraka.transmission.type"] == "ESMTPSA"
    assert said["user.name"] == "a-user"
    assert (said["email.direction"], said["haraka.relaying"]) == ("outbound", True)
    assert (said["haraka.storage.status"], said["haraka.storage.plugin"]) == ("discarded", "queue/discard")
    closed = [event.attributes for event in events(otlp_receiver, CLOSED)][2:]
    assert [(each.get("user.name"), each["tls.established"]) for each in closed] == [("a-user", True), (None, True)]
    everything = b"".join(request.SerializeToString() for request in otlp_receiver.requests())
    assert b"secret" not in everything
