"""Where mail servers deliver: an SMTP or LMTP server that answers as local parts say and remembers each answer.

One port per sending zone, so that what was seen tells the zone without asking Zone-MTA. Its record is the truth that
counters are compared with.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import threading
import time
import weakref
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session

ANSWERS = {
    "ok": "250 2.1.5 Recipient ok",
    "defer": "451 4.3.0 Try again later",
    "reject": "550 5.1.1 No such user here",
    # Zone-MTA's bounces.txt decides: Gmail's words for a full mailbox are final although they are a 4xx.
    "full": "452 4.2.2 The email account that you tried to reach is over quota",
    "spam": "554 5.7.1 Message refused as spam",
}
DEFER_THEN_OK = "defer-then-ok"
LATE = {"late-reject": "552 5.2.2 Mailbox is full"}
"""Of LMTP: the recipient is accepted, and this is the answer to the message."""
STORED = "250 2.0.0 Ok: stored"


@dataclass
class Attempt:
    """One answer to RCPT; `accepted_at` is set when the final dot was answered 250. Times: seconds since the epoch."""

    zone: str
    sender: str
    recipient: str
    answer: str
    at: float = field(default_factory=time.time)
    accepted_at: float | None = None

    @property
    def status(self) -> str:
        """The value of `zonemta_delivery_status{status}` that Zone-MTA makes of this answer."""
        if self.answer == ANSWERS["full"]:
            return "rejected"
        return {"2": "delivered", "4": "deferred", "5": "rejected"}[self.answer[0]]

    @property
    def is_bounce(self) -> bool:
        """True for what Zone-MTA generated itself: the sender is empty."""
        return not self.sender


def kind_of(recipient: str) -> str:
    """The word that chooses the answer."""
    return recipient.partition("@")[0].partition("+")[0].lower()


class SmtpSink:
    """SMTP servers on free ports of loopback, one per zone, in a thread of their own.

    The local part up to the first `+` chooses the answer: a key of `ANSWERS`, or `defer-then-ok` (a recipient's first
    attempt is deferred, later ones are accepted). Any other is answered 550.
    """

    def __init__(self, zones: Iterable[str], protocol: type[SMTP] = SMTP) -> None:
        self.zones = tuple(zones)
        self.protocol = protocol
        self.ports: dict[str, int] = {}
        #: Seconds that the sink waits before it answers RCPT and again before it answers the final dot.
        self.delay = 0.0
        self._attempts: list[Attempt] = []
        self._servers: list[asyncio.Server] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="smtp-sink", daemon=True)

    def start(self) -> None:
        """Listen; afterwards `ports` is known."""
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        """Stop listening, drop open connections, end the thread. The record stays."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def attempts(self, *, zone: str | None = None) -> list[Attempt]:
        """All answers to RCPT so far, the oldest first, of one zone or of all."""
        with self._lock:
            return [each for each in self._attempts if zone in (None, each.zone)]

    def counts(self) -> dict[tuple[str, str], int]:
        """The number of attempts by (zone, status), comparable with `ZoneMta.delivery_status()`."""
        return dict(collections.Counter((each.zone, each.status) for each in self.attempts()))

    async def _listen(self) -> None:
        for zone in self.zones:
            session = functools.partial(self.protocol, _Handler(self, zone), hostname="sink.test", loop=self._loop)
            server = await self._loop.create_server(session, "127.0.0.1", 0)
            self._servers.append(server)
            self.ports[zone] = server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def _answer(self, zone: str, sender: str, recipient: str) -> Attempt:
        kind = kind_of(recipient)
        with self._lock:
            if kind == DEFER_THEN_OK:
                known = any(each.recipient == recipient and each.zone == zone for each in self._attempts)
                kind = "ok" if known else "defer"
            if kind in LATE and self.protocol is LMTP:
                kind = "ok"
            attempt = Attempt(zone, sender, recipient, ANSWERS.get(kind, ANSWERS["reject"]))
            self._attempts.append(attempt)
        return attempt


class _Handler:
    """The hooks of aiosmtpd for one port."""

    def __init__(self, sink: SmtpSink, zone: str) -> None:
        self._sink = sink
        self._zone = zone
        self._open: weakref.WeakKeyDictionary[Envelope, list[Attempt]] = weakref.WeakKeyDictionary()

    async def handle_RCPT(  # noqa: N802 (the name is aiosmtpd's)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        await asyncio.sleep(self._sink.delay)
        sender = (envelope.mail_from or "").strip("<>")
        attempt = self._sink._answer(self._zone, sender, address)
        if attempt.answer.startswith("2"):
            envelope.rcpt_tos.append(address)
            self._open.setdefault(envelope, []).append(attempt)
        return attempt.answer

    async def handle_DATA(  # noqa: N802 (the name is aiosmtpd's)
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        await asyncio.sleep(self._sink.delay)
        accepted = self._open.pop(envelope, [])
        for attempt in accepted:
            attempt.accepted_at = time.time()
        if self._sink.protocol is not LMTP:
            return STORED
        for attempt in accepted:
            if late := LATE.get(kind_of(attempt.recipient)):
                attempt.answer, attempt.accepted_at = late, None
        # An answer for each recipient (RFC 2033, 4.2).
        return "\r\n".join(STORED if attempt.accepted_at else attempt.answer for attempt in accepted)
