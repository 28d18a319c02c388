"""A Kafka of one node, which is broker and controller (KRaft), on loopback.

Its data and its ports stay over stop, kill and start. It makes no topic by itself. It listens without TLS, as its tools
use it, and with TLS and a password (SASL/PLAIN).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from testbed.program import Program

from support.ports import free_ports
from tools.bootstrap.programs import Java

TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-storage.sh": "kafka.tools.StorageTool",
}
"""Kafka's command-line tools, by the names that its archive gives them."""

USER, PASSWORD = "postel", "a: secret"
"""Who gets in where it asks."""

_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{broker},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_{user}="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={certificate}
log.dirs={data}
auto.create.topics.enable=false
# Of a single node.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
# A group begins with its first member.
group.initial.rebalance.delay.ms=0
"""
# ApiVersions of version 0 without a client's id: what a broker answers as soon as it answers at all.
_HELLO = struct.pack(">ihhih", 10, 18, 0, 1, -1)


class KafkaBroker:
    """One, not started yet.

    Args:
        folder: for its data and its log; made.
        java: what runs it.
        jars: its jars.
        certificate: what it shows, a file of PEM with its key.
        heap_mib: of its memory, without what the page cache holds.
    """

    def __init__(self, folder: Path, *, java: Java, jars: Path, certificate: Path, heap_mib: int = 256) -> None:
        self._folder, self._java, self._jars = folder, java, jars
        folder.mkdir()
        broker, secure, controller = free_ports(3)
        self.address = f"127.0.0.1:{broker}"
        self.secure_address = f"127.0.0.1:{secure}"
        self._port = broker
        self._data = folder / "data"
        self._settings = folder / "server.properties"
        ports = {"broker": broker, "secure": secure, "controller": controller}
        self._settings.write_text(
            _SETTINGS.format(
                **ports,
                data=self._data,
                certificate=_for_java(certificate, folder / "certificate.pem"),
                user=USER,
                password=PASSWORD,
            )
        )
        self.program = Program(
            "kafka",
            [*self._command(heap_mib), "kafka.Kafka", self._settings],
            folder / "kafka.log",
        )

    def start(self) -> None:
        """Start it and wait until it answers; the first time it makes its data."""
        if not self._data.exists():
            cluster = "AAAAAAAAAAAAAAAAAAAAAQ"
            self.tool("kafka-storage.sh", "format", f"--cluster-id={cluster}", f"--config={self._settings}")
        self.program.start(self._answers, 120)

    def stop(self) -> None:
        """SIGTERM."""
        self.program.stop(60)

    def kill(self) -> None:
        """SIGKILL."""
        self.program.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def tool(self, name: str, *arguments: str, text: str | None = None) -> str:
        """Run one of Kafka's command-line tools; what it prints.

        Args:
            name: of :data:`TOOLS`.
            arguments: those without the broker's address.
            text: its standard input.

        Raises:
            AssertionError: it failed.
        """
        server = [] if name == "kafka-storage.sh" else [f"--bootstrap-server={self.address}"]
        done = subprocess.run(
            [*self._command(128), TOOLS[name], *server, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def make_topic(self, name: str, partitions: int, **settings: object) -> None:
        """Make a topic; `__` in a setting's name stands for a dot."""
        configs = [f"--config={key.replace('__', '.')}={value}" for key, value in settings.items()]
        self.tool("kafka-topics.sh", "--create", f"--topic={name}", f"--partitions={partitions}", *configs)

    def lag(self, group: str) -> dict[tuple[str, int], int | None]:
        """(topic, partition) -> messages that a group has not marked; None: it has marked none there yet."""
        return {(row[1], int(row[2])): None if row[5] == "-" else int(row[5]) for row in self._described(group)}

    def members(self, group: str, topic: str) -> int:
        """How many of a group have partitions of a topic."""
        return len({row[6] for row in self._described(group) if row[1] == topic} - {"-"})

    def scripts(self, folder: Path) -> None:
        """Put the tools into a folder under the names of Kafka's archive, as who follows a page has them."""
        folder.mkdir(exist_ok=True)
        command = " ".join(f"'{part}'" for part in self._command(128))
        for name, main in TOOLS.items():
            script = folder / name
            script.write_text(f'#!/bin/sh\nexec {command} {main} "$@"\n')
            script.chmod(0o755)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.program.pids():
            os.kill(pid, number)

    def _described(self, group: str) -> list[list[str]]:
        # GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID
        printed = self.tool("kafka-consumer-groups.sh", "--describe", f"--group={group}")
        return [line.split() for line in printed.splitlines() if line.startswith(f"{group} ")]

    def _command(self, heap_mib: int) -> list[str]:
        # The quick compiler alone, but for the broker: a tool is over before the other one is worth it.
        quick = ["-XX:TieredStopAtLevel=1"] if heap_mib <= 128 else []
        say = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        return [str(self._java.program), f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", *quick, *say, "-cp", f"{self._jars}/*"]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=2) as connection:
            connection.sendall(_HELLO)
            return len(connection.recv(8)) > 0
        return False


def _for_java(certificate: Path, copy: Path) -> Path:
    """A copy with its key as PKCS 8, which is all that Kafka reads."""
    key = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", certificate], capture_output=True, text=True, check=True
    ).stdout
    chain = certificate.read_text()
    copy.write_text(key + chain[chain.index("-----BEGIN CERTIFICATE-----") :])
    return copy


@contextlib.contextmanager
def running(broker: KafkaBroker) -> Iterator[KafkaBroker]:
    """Start one, and end it with the block."""
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
