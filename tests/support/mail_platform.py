"""A whole mail platform of the testbed's real servers: what goes through it, and what the servers say of it themselves.

Mail comes in at Haraka, is judged by Rspamd and stored by WildDuck, which it reaches by LMTP; Zone-MTA delivers what
goes out, and what WildDuck forwards.
"""

from __future__ import annotations

import re
import smtplib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate
from itertools import count, cycle

from testbed.haraka import Haraka
from testbed.rspamd import GTUBE, Rspamd
from testbed.smtp_sink import Attempt
from testbed.wildduck import WildDuck
from testbed.zone_mta import ZoneMta

from support.running_postel import until

DOMAIN = "example.org"
"""Of WildDuck's users."""
GREYLISTED = "grey@sender.test"
"""A sender whom Rspamd lets come again, no sooner than after `GREYLISTED_S`."""
GREYLISTED_S = 2

# As Rspamd logs a message: the letter is whether it was spam.
_VERDICT = (
    r"id: {}, .*?\(default: \w \((?P<action>[\w ]+)\): \[(?P<score>[-\d.]+)/(?P<required>[\d.]+)\] "
    r"\[(?P<symbols>.*?)\]\), len"
)
_SYMBOL = re.compile(r"(\w+)\(([-\d.]+)\)")


def greylisting(redis: tuple[int, int]) -> dict[str, str]:
    """Settings of `Rspamd`, which keeps in a database of Redis whom it let come again."""
    port, number = redis
    known = f'servers = "127.0.0.1:{port}"; db = "{number}"; timeout = {GREYLISTED_S}s; check_local = true;\n'
    return {
        "greylist.conf": known,
        "multimap.conf": f'GREY {{ type = "from"; map = ["{GREYLISTED}"]; score = 4.5; }}\n',
    }


@dataclass(frozen=True)
class Mail:
    """A message; its name is in its Message-ID."""

    name: str
    sender: str
    recipient: str
    body: str = "A message that nobody could blame."

    @property
    def message_id(self) -> str:
        return f"<{self.name}@paths.test>"

    def text(self) -> bytes:
        """As it is sent now."""
        headers = {
            "Message-ID": self.message_id,
            "From": self.sender,
            "To": self.recipient,
            "Subject": "A message of the platform",
            "Date": formatdate(),
            "X-Judge": "none",
        }
        lines = [*(f"{name}: {value}" for name, value in headers.items()), "", self.body, ""]
        return "\r\n".join(lines).encode()


@dataclass(frozen=True)
class Answer:
    """What a server answered, its code before it where it was told; `at`: seconds since the epoch."""

    text: str
    at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Verdict:
    """What Rspamd logged of a message; it cuts scores off behind two digits."""

    action: str
    score: float
    required: float
    symbols: dict[str, float]


@dataclass
class Platform:
    """The servers, all of them running."""

    haraka: Haraka
    rspamd: Rspamd
    wildduck: WildDuck
    zone_mta: ZoneMta

    def hand_in(self, mail: Mail, server: Haraka | None = None) -> Answer:
        """Send it in; what Haraka answers, of the platform or another one."""
        return _send(mail, (server or self.haraka).port)

    def hand_out(self, mail: Mail) -> Answer:
        """Send it out; what Zone-MTA answers."""
        return _send(mail, self.zone_mta.smtp_port)

    def stored(self, mail: Mail) -> Answer:
        """Wait until WildDuck has it; what it answered to Haraka, at the moment that Haraka logged it."""
        (id_,) = until(lambda: self.wildduck.stored_as(mail.message_id), 20, f"{mail.name} is stored", 0.1)
        return self._logged(rf'delivered .*response="(Message stored as {id_})"')

    def not_stored(self, mail: Mail) -> Answer:
        """Wait until WildDuck has refused its recipient; as `stored`."""
        return self._logged(rf"recipient <{re.escape(mail.recipient)}> rejected: (.*)")

    def attempts(self, recipient: str, count: int = 1) -> Sequence[Attempt]:
        """Wait for so many attempts of Zone-MTA's to deliver to an address; what the servers outside answered."""

        def found() -> list[Attempt]:
            attempts = [attempt for attempt in self.zone_mta.sink.attempts() if attempt.recipient == recipient]
            answered = all(attempt.accepted_at for attempt in attempts if attempt.status == "delivered")
            return attempts if answered and len(attempts) >= count else []

        return until(found, 20, f"{count} attempts for {recipient}", 0.02)

    def verdict(self, mail: Mail, come: int) -> Verdict:
        """Wait until Rspamd has said of it for so many times what it thinks; the last of that."""
        return until(lambda: self._verdicts(mail)[come - 1 :], 5, f"Rspamd logs {mail.name}", 0.02)[0]

    def _verdicts(self, mail: Mail) -> list[Verdict]:
        return [
            Verdict(
                found["action"],
                float(found["score"]),
                float(found["required"]),
                {name: float(score) for name, score in _SYMBOL.findall(re.sub(r"\{.*?\}", "", found["symbols"]))},
            )
            for found in re.finditer(_VERDICT.format(re.escape(mail.message_id)), self.rspamd.program.said())
        ]

    def _logged(self, what: str) -> Answer:
        """The line of Haraka's log that says this of a delivery; waits for it."""
        pattern = re.compile(rf"^(\S+) \[NOTICE\] \[[^]]+\] \[outbound\] +{what}", re.MULTILINE)
        found = until(lambda: pattern.search(self.haraka.program.said()), 20, f"Haraka logs {what}", 0.02)
        assert found
        return Answer(found[2], datetime.fromisoformat(found[1]).timestamp())

    @contextmanager
    def under_traffic(self, per_second: float) -> Iterator[Callable[[], int]]:
        """Other mail of all kinds goes through it until the block ends; tells how many messages were sent so far."""
        over = threading.Event()
        numbers = count(1)
        failed: list[Exception] = []
        sent = 0

        def send() -> None:
            nonlocal sent
            kinds = cycle(self._other_mail())
            while not over.wait(1 / per_second):
                try:
                    next(kinds)(next(numbers))
                except Exception as error:  # noqa: BLE001 - the test's thread raises it
                    failed.append(error)
                    return
                sent += 1

        thread = threading.Thread(target=send, name="traffic")
        thread.start()
        try:
            yield lambda: sent
        finally:
            over.set()
            thread.join(60)
        assert not failed, failed

    def _other_mail(self) -> Sequence[Callable[[int], Answer]]:
        def into(local: str, body: str = "Other mail.") -> Callable[[int], Answer]:
            return lambda number: self.hand_in(
                Mail(f"other-{number}", f"ok+other{number}@sender.test", f"{local}@{DOMAIN}", body)
            )

        def out(kind: str) -> Callable[[int], Answer]:
            return lambda number: self.hand_out(
                Mail(f"other-{number}", "ok+other@sender.test", f"{kind}+other{number}@rcpt.test")
            )

        return (
            into("other"),
            out("ok"),
            into("other", GTUBE),
            out("defer-then-ok"),
            into("nobody-else"),
            out("reject"),
        )


def _send(mail: Mail, port: int) -> Answer:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo("client.test")
        client.mail(mail.sender)
        code, text = client.rcpt(mail.recipient)
        if code == 250:
            code, text = client.data(mail.text())
        return Answer(f"{code} {text.decode()}")
