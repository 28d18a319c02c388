"""The Kafka tier for tests: a gateway that writes into Kafka, and members of the group that read there for a sink."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from postel.collector import collector_config
from support.collector import Collector
from support.gateway import AUTHORITY, Gateway
from support.ports import free_port

LOGS, METRICS, GROUP = "postel-logs", "postel-metrics", "postel"
"""The topics and the group, as the shipped files name them."""


class KafkaGateway(Gateway):
    """A gateway in front of Kafka.

    Args:
        program: the Collector.
        folder: for all that it keeps; made.
        broker: host:port of Kafka's.
        sink_port: of a sink's gRPC on loopback, which it tells of itself.
    """

    def __init__(self, program: Path, folder: Path, broker: str, sink_port: int) -> None:
        super().__init__(program, folder, sink_port)
        self.files.append(collector_config("to-kafka.yaml"))
        self.environment |= {"POSTEL_KAFKA_BROKERS": broker, "POSTEL_KAFKA_DOOR": f"127.0.0.1:{free_port()}"}


class Member(Collector):
    """A Collector that reads from Kafka.

    Args:
        program: the Collector.
        folder: for its log; made.
        broker: host:port of Kafka's.
        sink_port: of the sink's gRPC on loopback.
    """

    def __init__(self, program: Path, folder: Path, broker: str, sink_port: int) -> None:
        folder.mkdir()
        super().__init__(program, folder, sink_port)
        self.environment["POSTEL_KAFKA_BROKERS"] = broker

    def secure(self, user: str, password: str) -> None:
        """Let it speak TLS with Kafka, of the gateway's authority, and give this password."""
        self.environment |= {
            "POSTEL_KAFKA_INSECURE": "false",
            "POSTEL_KAFKA_CA": str(AUTHORITY),
            "POSTEL_KAFKA_AUTH": f'{{sasl: {{mechanism: PLAIN, username: {user}, password: "{password}"}}}}',
        }

    def spawn(self, *overrides: str, files: Sequence[Path] = ()) -> None:
        """As :meth:`Collector.spawn`, with its own file before ``files``."""
        super().spawn(*overrides, files=[collector_config("kafka.yaml"), *files])
