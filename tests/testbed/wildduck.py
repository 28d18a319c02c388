"""A real WildDuck on free ports of loopback, and a client of its API that fills it.

It keeps its ports and its users over `stop`, `kill` and `start`. Sources named here are files of `@zone-eu/wildduck`
1.51.1; 1.46.15, which has no Prometheus page, is started and filled in the same way.
"""

from __future__ import annotations

import json
import smtplib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bson
import httpx
import pymongo
from testbed.backends import Backends, listens
from testbed.program import Program
from testbed.zone_mta import lay_over

from support.node import Node
from support.ports import free_ports

TOKEN = "testbed-token"  # noqa: S105 - of servers that live for one test
PAGE = 250
"""Users in one answer at most: the server refuses more."""


class WildDuck:
    """One instance with IMAP, POP3, LMTP and its API."""

    def __init__(
        self,
        folder: Path,
        *,
        node: Node,
        packages: Path,
        backends: Backends,
        token: str | None = TOKEN,
        prometheus: bool = True,
        processes: int = 1,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Write the configuration; nothing starts yet.

        Args:
            folder: where configuration and log lie; made when it is not there.
            node: what it runs on.
            packages: the folder whose `node_modules` hold it.
            backends: its users get a database of their own in there.
            token: its API's master token; None: the API asks for none.
            prometheus: whether its own page is on; versions before 1.49.6 know none.
            processes: workers; with more than one its page is the sum over them.
            settings: laid over the configuration, keys as in `config/default.toml`.
            environment: further variables.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.token = token
        self.api_port, self.metrics_port, self.imap_port, self.pop3_port, self.lmtp_port = free_ports(5)
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        self._database = backends.new_database()
        configuration = _configuration(self, backends, processes, prometheus=prometheus)
        lay_over(configuration, settings or {})
        config_path = folder / "wildduck.json"
        config_path.write_text(json.dumps(configuration, indent=2))
        self._prometheus = prometheus
        headers = {} if token is None else {"X-Access-Token": token}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.api_port}", headers=headers, timeout=30)
        self.program = Program(
            "wildduck",
            [node.path, "server.js"],
            folder / "wildduck.log",
            directory=packages / "node_modules/@zone-eu/wildduck",
            environment={
                "NODE_CONFIG_PATH": str(config_path),
                "NODE_ENV": "production",
                "NODE_COMPILE_CACHE": str(packages / ".compile-cache"),
                **(environment or {}),
            },
        )

    def start(self) -> None:
        """Start it; returns when all its services take connections.

        Raises:
            AssertionError: it is not ready within 60 s; the message ends with its log.
        """
        self.program.start(self._is_ready, 60)

    def stop(self) -> None:
        """SIGTERM; users and messages stay."""
        self.program.stop()

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        self.program.kill()

    def close(self) -> None:
        """Kill it and let go of its API."""
        self.kill()
        self.client.close()

    def _is_ready(self) -> bool:
        return "ready to process some mail" in self.program.said() and listens(self.api_port)

    def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """An answer of its API.

        Raises:
            httpx.HTTPStatusError: it refuses.
        """
        answer = self.client.request(method, path, **options).raise_for_status().json()
        assert answer["success"], answer
        return dict(answer)

    def users(self) -> Iterator[dict[str, Any]]:
        """All users as its API lists them, page by page."""
        query: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self.ask("GET", "/users", params=query)
            yield from page["results"]
            if not page["nextCursor"]:
                return
            query["next"] = page["nextCursor"]

    def mailboxes(self, user: str) -> list[dict[str, Any]]:
        """The mailboxes of a user, with counters and sizes."""
        query = {"counters": "true", "sizes": "true", "showHidden": "true"}
        return list(self.ask("GET", f"/users/{user}/mailboxes", params=query)["results"])

    def add_user(self, name: str, quota: int = 0, *, password: str | None = None) -> str:
        """Add a user by the API.

        Args:
            name: its username; its address is the same at example.org.
            quota: bytes; 0: what the server's settings say.
            password: None: no login.

        Returns:
            The user's id.
        """
        user = {"username": name, "password": password or False, "address": f"{name}@example.org", "quota": quota}
        return str(self.ask("POST", "/users", json=user)["id"])

    def add_message(self, user: str, size: int, mailbox: str = "INBOX", *, seen: bool = False) -> None:
        """Put a message of about `size` bytes into a mailbox, by the API."""
        (found,) = [each["id"] for each in self.mailboxes(user) if each["path"] == mailbox]
        raw = f"From: a@example.org\r\nTo: b@example.org\r\nSubject: {size}\r\n\r\n".encode().ljust(size, b"x")
        headers = {"Content-Type": "message/rfc822"}
        query = {"unseen": str(not seen).lower()}
        self.ask("POST", f"/users/{user}/mailboxes/{found}/messages", content=raw, headers=headers, params=query)

    def deliver(self, recipients: Sequence[str], size: int = 200) -> None:
        """Hand over a message by LMTP, once for each recipient; smtplib's exceptions where one is refused."""
        text = f"From: ok@sender.test\r\nSubject: {size}\r\n\r\n".ljust(size, "x")
        with smtplib.LMTP("127.0.0.1", self.lmtp_port) as client:
            # One at a time: smtplib reads a single answer to DATA, LMTP gives one for each recipient (RFC 2033).
            for recipient in recipients:
                client.sendmail("ok@sender.test", recipient, text)

    def stored_as(self, message_id: str) -> list[str]:
        """What its database calls the messages with this Message-ID, as its LMTP server answers who hands one over."""
        with pymongo.MongoClient[dict[str, Any]](self._database) as client:
            found = client.get_default_database()["messages"].find({"msgid": message_id})
            return [str(message["_id"]) for message in found]

    def add_users_at_once(self, quotas: Sequence[tuple[int, int]]) -> None:
        """Write users into the database, some thousands a second; they have no mailboxes.

        Args:
            quotas: (allowed, used) of each; allowed 0 is what the server's settings say.
        """
        with pymongo.MongoClient[dict[str, Any]](self._database) as client:
            users = client.get_default_database()["users"]
            documents = [
                {
                    "_id": bson.ObjectId(),
                    "username": f"user{number}",
                    "unameview": f"user{number}",
                    "address": f"user{number}@example.org",
                    "name": f"User {number}",
                    "quota": allowed,
                    "storageUsed": used,
                    "activated": True,
                    "disabled": False,
                }
                for number, (allowed, used) in enumerate(quotas)
            ]
            for start in range(0, len(documents), 1000):
                users.insert_many(documents[start : start + 1000], ordered=False)


def _configuration(server: WildDuck, backends: Backends, processes: int, *, prometheus: bool) -> dict[str, Any]:
    host = "127.0.0.1"
    plain = {"enabled": True, "host": host, "secure": False, "disableSTARTTLS": True}
    return {
        "processes": processes,
        "dbs": {
            "mongo": server._database,
            # An empty name: the database of the connection string.
            "sender": "",
            "redis": {"host": host, "port": backends.redis_port, "db": backends.new_redis_number()},
        },
        "emailDomain": "example.org",
        "log": {"level": "verbose"},
        "imap": {**plain, "port": server.imap_port},
        "pop3": {**plain, "port": server.pop3_port},
        "lmtp": {"enabled": True, "host": host, "port": server.lmtp_port},
        "api": {"enabled": True, "host": host, "port": server.api_port, "accessToken": server.token or ""},
        # Without a cache a page tells the queues as they are when it is asked for.
        "metrics": {"enabled": prometheus, "host": host, "port": server.metrics_port, "collectCacheTtl": 0},
        "webhooks": {"enabled": True},
    }
