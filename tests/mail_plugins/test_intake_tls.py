"""The plugins in real servers and the agent, joined over TLS: wrong certificates are renewed, and nobody restarts.

The certificates are described in `support.gateway`.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mail_plugins.haraka_mail import MESSAGE, Mailer, events, told, wait_until_told
from testbed.fixtures import WatchedHaraka, WatchedZoneMta
from testbed.program import Program, until

from support.gateway import AUTHORITY
from support.otlp_thread import OtlpThread
from support.running_agent import environment
from support.tls_listeners import CERTIFICATES

pytestmark = pytest.mark.slow

NOT_ACCEPTED = "events are kept, {} does not take them: its certificate is not accepted: certificate has expired"
TAKEN = "events are taken by {} again"


@dataclass(frozen=True)
class Door:
    """An agent whose intake wants certificates, and the two files that this test exchanges."""

    agent: Program
    endpoint: str
    shown: Path
    plugins: Path

    def renew(self, file: Path, certificate: str) -> None:
        """Put that certificate in place, as those who renew one do."""
        new = file.with_suffix(".new")
        shutil.copyfile(CERTIFICATES / f"{certificate}.pem", new)
        new.replace(file)

    def until_both_are_right(self) -> None:
        """The agent shows an expired certificate, then the plugin does, then nobody."""
        self.renew(self.shown, "gateway")
        until(lambda: "a new certificate is shown" in self.agent.said(), 60, "the agent shows the new certificate")
        until(lambda: "refused connections" in self.agent.said(), 60, "the agent refuses the plugin's certificate")
        assert "reason='[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired'" in (
            self.agent.said()
        )
        self.renew(self.plugins, "host")


@pytest.fixture
def door(otlp_receiver: OtlpThread, tmp_path: Path) -> Iterator[Door]:
    shown, plugins = tmp_path / "shown.pem", tmp_path / "plugins.pem"
    variables = environment(
        tmp_path, otlp_receiver.endpoint, INTAKE__TLS_CERTIFICATE=shown, INTAKE__TLS_CLIENT_CA=AUTHORITY
    )
    command = [sys.executable, "-m", "postel.cli", "agent"]
    agent = Program("agent", command, tmp_path / "agent.log", environment=variables)
    made = Door(agent, f"https://{variables['POSTEL_INTAKE__ADDRESS']}", shown, plugins)
    made.renew(shown, "gateway-expired")
    made.renew(plugins, "host-expired")
    with contextlib.ExitStack() as stack:
        stack.callback(agent.kill)
        agent.start(lambda: "the intake listens" in agent.said())
        yield made


def test_zone_mta(watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread, door: Door) -> None:
    plugin = {"tlsCa": str(AUTHORITY), "tlsClientCertificate": str(door.plugins)}
    server = watched_zone_mta(door.endpoint, plugin=plugin, zones=("default",))
    server.send(5)
    server.wait_until_idle()
    # A main process, a receiver and a sender, each of which tells its own, and says it once.
    until(lambda: server.program.said().count(NOT_ACCEPTED.format(door.endpoint)) == 3, 20, "all say why")
    assert not [record for record in otlp_receiver.records() if record.name.startswith("zonemta.")]

    door.until_both_are_right()
    server.send(5, "reject")
    server.wait_until_idle()
    until(lambda: server.program.said().count(TAKEN.format(door.endpoint)) == 3, 90, "all are taken again")
    expected = Counter(attempt.recipient for attempt in server.sink.attempts() if not attempt.is_bounce)
    assert sum(expected.values()) == 10

    def recipients() -> Counter[str]:
        return Counter(
            record.attributes["email.to.address"][0]
            for record in otlp_receiver.records()
            if record.name.startswith("zonemta.delivery.") and record.resource["host.id"] == "node-1"
        )

    until(lambda: recipients() == expected, 30, "every attempt is told, once")
    assert server.program.said().count(NOT_ACCEPTED.format(door.endpoint)) == 3
    # Kept connections do not hold up its end.
    door.agent.stop(10)
    assert "Traceback" not in door.agent.said()


def test_haraka(watched_haraka: WatchedHaraka, otlp_receiver: OtlpThread, door: Door) -> None:
    plugin = f"tlsCa={AUTHORITY}\ntlsClientCertificate={door.plugins}\ntlsClientKey={door.plugins}"
    server = watched_haraka(door.endpoint, plugin=plugin)
    mail = Mailer(server, known="box")
    for _ in range(5):
        assert mail.hand_over()[0] == 250
    assert len(server.stored()) == 5
    until(lambda: NOT_ACCEPTED.format(door.endpoint) in server.program.said(), 20, "it says why")
    assert not events(otlp_receiver)

    door.until_both_are_right()
    mail.hand_over()
    wait_until_told(mail, otlp_receiver, 90)
    assert Counter(map(told, events(otlp_receiver, MESSAGE))) == Counter(mail.expected)
    said = server.program.said()
    assert said.count(NOT_ACCEPTED.format(door.endpoint)) == said.count(TAKEN.format(door.endpoint)) == 1


def test_a_key_without_a_certificate_is_named_and_mail_goes_on(
    watched_haraka: WatchedHaraka, watched_zone_mta: WatchedZoneMta, door: Door
) -> None:
    fault = "the setting tlsClientKey is of no tlsClientCertificate; set that too"
    haraka = watched_haraka(door.endpoint, plugin=f"tlsClientKey={door.plugins}")
    assert Mailer(haraka, known="box").hand_over()[0] == 250
    assert f"nothing is told to Postel: {fault}" in haraka.program.said()
    zone_mta = watched_zone_mta(door.endpoint, plugin={"tlsClientKey": str(door.plugins)}, zones=("default",))
    zone_mta.send(3)
    zone_mta.wait_until_idle()
    assert len(zone_mta.sink.attempts()) == 3
    assert fault in zone_mta.program.said()
