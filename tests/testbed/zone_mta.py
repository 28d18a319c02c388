"""A real Zone-MTA on free ports of loopback, delivering to an `SmtpSink`.

It keeps its ports and its queue over `stop`, `kill` and `start`, so a restart looks as on a real host. Sources named
here are files of `@zone-eu/zone-mta` 3.11.0; an older release runs the same way.
"""

from __future__ import annotations

import itertools
import json
import smtplib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from testbed.backends import Backends, listens
from testbed.program import Program, until
from testbed.smtp_sink import SmtpSink

from support.node import Node
from support.older import soaked
from support.ports import free_ports

SENDER = "ok@sender.test"
"""Envelope sender of `send`: the sink accepts the bounces that go back to it."""

Statuses = dict[tuple[str, str], int]
"""A number by (zone, status of delivery)."""


@dataclass(frozen=True)
class Release:
    """A version of Zone-MTA: the folder of `tests/testbed/npm` that pins it, and the name of its package."""

    folder: str
    package: str


NEWEST = "3.11.0"
RELEASES = {
    NEWEST: Release("zone-mta-3.11", "@zone-eu/zone-mta"),
    "3.10.3": Release("zone-mta-3.10", "zone-mta"),
}
OLDER_IN_SOAK = soaked(RELEASES, "3.10.3")
"""For a test beside which a quicker one runs on each of them."""


class ZoneMta:
    """One instance: a main process, a receiver, and one sender process per zone of the sink."""

    def __init__(
        self,
        folder: Path,
        *,
        node: Node,
        packages: Path,
        backends: Backends,
        sink: SmtpSink,
        connections: int = 3,
        defer_times_s: Iterable[float] = (1, 1, 2, 600),
        bounce_zone: str | None = None,
        settings: Mapping[str, Any] | None = None,
        version: str = NEWEST,
    ) -> None:
        """Write the configuration; nothing starts yet.

        Args:
            folder: where configuration and log lie; made when it is not there.
            node: what it runs on.
            packages: the folder whose `node_modules` hold it.
            backends: its queue gets a database of its own in there.
            sink: its zones become the sending zones; the first is the default one.
            connections: parallel deliveries of each zone.
            defer_times_s: seconds from each deferral of a recipient to its next attempt; one more is final.
            bounce_zone: the zone that delivers bounces; None: no bounce is sent.
            settings: laid over the configuration, keys as in `config/default.js`.
            version: of `RELEASES`, the one that `packages` holds.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.sink = sink
        self.package = RELEASES[version].package
        self.api_port, self.smtp_port, self.queue_port = free_ports(3)
        self.api = f"http://127.0.0.1:{self.api_port}"
        self.metrics_url = f"{self.api}/metrics"
        self.database = backends.new_database()
        self._serial = itertools.count(1)
        configuration = _configuration(self, backends, connections, defer_times_s, bounce_zone)
        lay_over(configuration, settings or {})
        self.config_path = folder / "zone-mta.json"
        self.config_path.write_text(json.dumps(configuration, indent=2))
        self.program = Program(
            "zone-mta",
            [node.path, "app.js"],
            folder / "zone-mta.log",
            # Its plugins' paths are relative to the working directory; without them it runs, and ignores them silently.
            directory=packages / "node_modules" / self.package,
            environment={
                "NODE_CONFIG_PATH": str(self.config_path),
                "NODE_ENV": "production",
                "NODE_COMPILE_CACHE": str(packages / ".compile-cache"),
            },
        )

    def start(self) -> None:
        """Start it; returns when the API answers, every sender is connected and mail is taken.

        Raises:
            AssertionError: it is not ready within 30 s; the message ends with its log.
        """
        self.program.start(self._is_ready)

    def stop(self) -> None:
        """SIGTERM: deliveries in hand are finished and counted, the queue stays; its own limit is 10 s."""
        self.program.stop()

    def kill(self) -> None:
        """SIGKILL to all its processes; what was in flight is delivered once more after the next start."""
        self.program.kill()

    def metrics_page(self) -> bytes:
        """The body of `GET /metrics`."""
        return httpx.get(self.metrics_url, timeout=10).raise_for_status().content

    def delivery_status(self) -> Statuses:
        """`zonemta_delivery_status` of the page; a series appears with its first attempt."""
        return {
            (sample.labels["zone"], sample.labels["status"]): int(sample.value)
            for family in text_string_to_metric_families(self.metrics_page().decode())
            if family.name == "zonemta_delivery_status"
            for sample in family.samples
        }

    def send(self, count: int, kind: str = "ok", zone: str | None = None, *, domain: str = "rcpt.test") -> list[str]:
        """Hand over `count` messages by SMTP, one recipient each, on one connection.

        Args:
            count: how many messages.
            kind: the local part that chooses the sink's answer: ok, defer, defer-then-ok, reject, full, spam.
            zone: the sending zone; None: Zone-MTA's default, the first of the sink.
            domain: the recipients' domain.

        Returns:
            The recipients, no two alike: `<kind>+<number>@<domain>`.
        """
        recipients = []
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=30) as client:
            for number in itertools.islice(self._serial, count):
                message = EmailMessage()
                message["From"] = SENDER
                message["To"] = recipient = f"{kind}+{number}@{domain}"
                message["Subject"] = f"Message {number}"
                if zone is not None:
                    message["X-Sending-Zone"] = zone
                message.set_content(f"Body of message {number}.")
                client.send_message(message, SENDER, [recipient])
                recipients.append(recipient)
        return recipients

    def queued(self) -> int:
        """Recipients in the queue, deferred ones included, asked of the database by its API at this moment."""
        counters = httpx.get(f"{self.api}/counter/zone/", timeout=10).raise_for_status().json()
        return int(counters["active"]["rows"]) + int(counters["deferred"]["rows"])

    def wait_until_idle(self, seconds: float = 30) -> None:
        """Wait until nothing is queued any more: all is delivered or rejected, bounces included.

        Raises:
            AssertionError: something still is after `seconds`.
        """

        def idle() -> bool:
            if self.queued():
                return False
            # A rejected recipient leaves the queue some 50 ms before its bounce enters it (lib/sender.js).
            time.sleep(0.5)
            return not self.queued()

        until(idle, seconds, "the queue of zone-mta is empty", pause=0.2)

    def _is_ready(self) -> bool:
        # The main process loads its plugins when the last sender has reported that it is up (app.js).
        return "Plugins loaded" in self.program.said() and listens(self.api_port) and self._greets()

    def _greets(self) -> bool:
        try:
            with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=2) as client:
                return client.noop()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False


def _configuration(
    server: ZoneMta, backends: Backends, connections: int, defer_times_s: Iterable[float], bounce_zone: str | None
) -> dict[str, Any]:
    host = "127.0.0.1"
    default_zone = server.sink.zones[0]
    zones: dict[str, Any] = {"default": {"disabled": True}, "bounces": {"disabled": True}}
    for zone, port in server.sink.ports.items():
        zones[zone] = {
            "disabled": False,
            "host": host,
            "port": port,
            "ignoreIPv6": True,
            "processes": 1,
            "connections": connections,
            "pool": "default",
        }
    return {
        "shutdownTimeout": 10_000,
        "dbs": {
            "mongo": server.database,
            # An empty name: the database of the connection string.
            "sender": "",
            "redis": {"host": host, "port": backends.redis_port, "db": 3},
        },
        "queue": {"defaultZone": default_zone, "deferTimes": [round(each * 1000) for each in defer_times_s]},
        "pluginsPath": str(Path(__file__).parent / "plugins"),
        "plugins": {
            "prompt": {"enabled": "main"},
            "core/default-headers": {"allowRoutingHeaders": ["api", "bounce", "feeder"]},
            "core/email-bounce": {"enabled": "main" if bounce_zone else False, "sendingZone": bounce_zone},
        },
        "smtpInterfaces": {"feeder": {"enabled": True, "host": host, "port": server.smtp_port, "processes": 1}},
        "dns": {"caching": False, "blockLocalAddresses": False},
        "mtaSts": {"enabled": False},
        "api": {"host": host, "hostname": host, "port": server.api_port},
        "queueServer": {"host": host, "hostname": host, "port": server.queue_port},
        # "Plugins loaded" and the single steps of a delivery are said at this level.
        "log": {"level": "verbose"},
        # With a name no reverse lookup goes out.
        "pools": {"default": [{"address": host, "name": "mta.test"}]},
        "zones": zones,
        "domainConfig": {"default": {"maxConnections": connections}},
    }


def lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Put a configuration over another, key by key."""
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            lay_over(below[key], value)
        else:
            below[key] = value
