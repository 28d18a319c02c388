"""Mail of every kind through a Haraka of the testbed, and what each must be told as."""

from __future__ import annotations

import contextlib
import itertools
import smtplib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.haraka import Haraka
from testbed.program import until

from support.otlp_thread import LogRecord, OtlpThread

MESSAGE = "haraka.message."
RECIPIENT = "haraka.recipient.rejected"
DENIED = "haraka.connection.denied"
CLOSED = "haraka.connection.closed"
DELIVERY = "haraka.delivery."
BOUNCE = "haraka.bounce.queued"
MAX_BYTES = 100_000
"""What `send_every_kind` takes for the server's limit."""


def events(receiver: OtlpThread, kind: str = "haraka.") -> list[LogRecord]:
    """What was told, of one kind."""
    return [record for record in receiver.records() if record.name.startswith(kind)]


@dataclass(frozen=True)
class Told:
    """What the event of a transaction must say; `sender` is its key, no two alike but the null sender's."""

    sender: str
    outcome: str
    phase: str
    accepted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    code: int | None = None
    error: str | None = None
    plugin: str | None = None
    hook: str | None = None
    message_id: str | None = None
    size: int | None = None


def told(event: LogRecord) -> Told:
    """The same of an event."""
    said = event.attributes
    accepted = said["haraka.recipient.accepted.count"]
    refused = tuple(said.get("haraka.recipient.refused.address", ()))
    assert said["haraka.recipient.refused.count"] == len(refused)
    recipients = tuple(said.get("email.to.address", ()))
    assert recipients == refused if not accepted else len(recipients) == accepted
    return Told(
        sender=said["email.from.address"],
        outcome=event.name.removeprefix(MESSAGE),
        phase=said["haraka.phase"],
        accepted=recipients if accepted else (),
        refused=refused,
        code=said.get("smtp.response.status_code"),
        error=said.get("error.type"),
        plugin=said.get("haraka.plugin"),
        hook=said.get("haraka.hook"),
        message_id=said.get("email.message_id"),
        size=said.get("haraka.data.size"),
    )


@dataclass
class Mailer:
    """Sends mail of every kind, and keeps what must be told of it.

    `domain` is that of the recipients whom the server knows.
    """

    server: Haraka
    known: str
    domain: str = "here.test"
    expected: list[Told] = field(default_factory=list)
    connections: int = 0
    denials: list[tuple[str, str]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def client(self, hello: str = "client.test") -> smtplib.SMTP:
        """A connection, counted."""
        self.connections += 1
        return self.server.client(hello)

    def sender(self, kind: str = "from") -> str:
        """An envelope sender that nobody had yet."""
        return f"{kind}+{next(self.numbers)}@sender.test"

    def recipient(self, kind: str | None = None) -> str:
        """A recipient that nobody had yet; None: one whom the server knows."""
        return f"{kind or self.known}+{next(self.numbers)}@{self.domain}"

    def text(self, headers: Sequence[str] = (), body: str = "A secret body.") -> tuple[str, bytes]:
        """A message with these headers more; its Message-ID first."""
        message_id = f"<m{next(self.numbers)}@sender.test>"
        own = [f"Message-ID: {message_id}", "From: someone@sender.test", "Subject: A secret subject"]
        return message_id, "\r\n".join([*own, *headers, "", body, ""]).encode()

    def hand_over(
        self,
        *,
        judge: str | None = None,
        headers: Sequence[str] = (),
        sender: str | None = None,
        recipients: list[str] | None = None,
        body: str = "A secret body.",
        quit_after: bool = True,
        **expected: Any,
    ) -> tuple[int, bytes]:
        """A message up to the final dot; the reply to it. What must be told is `expected`, laid over an acceptance."""
        sender = self.sender() if sender is None else sender
        recipients = [self.recipient()] if recipients is None else recipients
        message_id, text = self.text([*headers, *([f"X-Judge: {judge}"] if judge else [])], body)
        client = self.client()
        client.mail(sender)
        accepted = [recipient for recipient in recipients if client.rcpt(recipient)[0] == 250]
        reply = client.data(text)
        if quit_after:
            with contextlib.suppress(smtplib.SMTPServerDisconnected):
                client.quit()
        client.close()
        self.expect(
            sender,
            **{
                "outcome": "accepted",
                "phase": "queue",
                "accepted": tuple(accepted),
                "refused": tuple(recipient for recipient in recipients if recipient not in accepted),
                "code": reply[0],
                "message_id": message_id,
                "size": len(text) + len(".\r\n"),
                **expected,
            },
        )
        return reply

    def expect(self, sender: str, **expected: Any) -> None:
        """This must be told of the transaction with that sender."""
        if expected.get("plugin"):
            self.denials.append((expected["plugin"], expected["hook"]))
        self.expected.append(Told(sender, **expected))

    def in_transaction(self, end: Callable[[smtplib.SMTP, str], None], recipients: int = 1) -> tuple[str, list[str]]:
        """A transaction with some recipients that `end` ends, given the connection and its sender."""
        sender, addresses = self.sender(), [self.recipient() for _ in range(recipients)]
        client = self.client()
        client.mail(sender)
        for address in addresses:
            assert client.rcpt(address)[0] == 250
        end(client, sender)
        client.close()
        return sender, addresses


def send_every_kind(mail: Mailer) -> None:
    """Each way in which a transaction can end, through any server of the testbed."""
    # Accepted: one and several recipients, some of them refused, the null sender.
    mail.hand_over()
    mail.hand_over(recipients=[mail.recipient(), mail.recipient()])
    mail.hand_over(recipients=[mail.recipient(), mail.recipient("reject"), mail.recipient("defer"), mail.recipient()])
    mail.denials += [("judge", "rcpt")] * 2
    mail.hand_over(sender="")
    # The client goes while another plugin is still at work on the end of the transaction.
    mail.hand_over(judge="reset_transaction slow", quit_after=False)
    # Denied in each hook, for good and for now, with the connection and without.
    for word, outcome, code in (("reject", "rejected", 550), ("defer", "deferred", 450)):
        for hook in ("data_post", "queue"):
            phase = "filter" if hook == "data_post" else "queue"
            told_as: dict[str, Any] = {"outcome": outcome, "phase": phase, "error": str(code)}
            assert mail.hand_over(judge=f"{hook} {word}", **told_as, plugin="judge", hook=hook)[0] == code
    for word, outcome, code in (("expel", "rejected", 550), ("dismiss", "deferred", 450)):
        told_as = {"outcome": outcome, "phase": "filter", "error": str(code)}
        assert mail.hand_over(judge=f"data_post {word}", **told_as, plugin="judge", hook="data_post")[0] == code
    _deny_sender(mail)
    _deny_data(mail)
    _refuse_all(mail)
    _expel_by_recipient(mail)
    # What Haraka refuses by itself.
    _bare_line_feeds(mail)
    _too_big(mail)
    # Left by the client.
    _leave(mail)
    # A denied connection.
    with contextlib.closing(mail.client("reject.client.test")) as client:
        client.quit()
    mail.denials.append(("judge", "ehlo"))
    with contextlib.closing(mail.client("expel.client.test")):
        mail.denials.append(("judge", "ehlo"))


def _deny_sender(mail: Mailer) -> None:
    for word, outcome, code in (("reject", "rejected", 550), ("defer", "deferred", 450)):
        sender = mail.sender(word)
        client = mail.client()
        assert client.mail(sender)[0] == code
        # The connection goes on: its next transaction is another event.
        after = mail.sender()
        assert client.mail(after)[0] == 250
        client.quit()
        mail.expect(sender, outcome=outcome, phase="mail", code=code, error=str(code), plugin="judge", hook="mail")
        mail.expect(after, outcome="abandoned", phase="mail", error="quit")


def _deny_data(mail: Mailer) -> None:
    for word, outcome, code in (("reject", "rejected", 554), ("defer", "deferred", 451)):
        sender, recipient = mail.sender(f"data-{word}"), mail.recipient()
        client = mail.client()
        client.mail(sender)
        client.rcpt(recipient)
        assert client.docmd("DATA")[0] == code
        client.quit()
        mail.expect(
            sender,
            outcome=outcome,
            phase="data",
            accepted=(recipient,),
            code=code,
            error=str(code),
            plugin="judge",
            hook="data",
        )


def _refuse_all(mail: Mailer) -> None:
    for kinds, outcome in ((("reject", "reject"), "rejected"), (("reject", "defer"), "deferred")):
        sender, recipients = mail.sender(), [mail.recipient(kind) for kind in kinds]
        client = mail.client()
        client.mail(sender)
        for recipient in recipients:
            assert client.rcpt(recipient)[0] in (450, 550)
        client.quit()
        mail.denials += [("judge", "rcpt")] * 2
        mail.expect(sender, outcome=outcome, phase="rcpt", refused=tuple(recipients), error="recipients_refused")


def _expel_by_recipient(mail: Mailer) -> None:
    for word, outcome, code in (("expel", "rejected", 550), ("dismiss", "deferred", 450)):
        sender, good, bad = mail.sender(), mail.recipient(), mail.recipient(word)
        client = mail.client()
        client.mail(sender)
        client.rcpt(good)
        assert client.rcpt(bad)[0] == code
        client.close()
        mail.denials.append(("judge", "rcpt"))
        mail.expect(sender, outcome=outcome, phase="rcpt", accepted=(good,), refused=(bad,), code=code, error=str(code))


def _bare_line_feeds(mail: Mailer) -> None:
    """In the final dot's line, and inside of the message, which Haraka refuses since 3.3."""
    for ending in (b"\r\nA line\r\n.\n", b"\r\nA line\nwithout CR\r\n.\r\n"):
        message_id, _ = mail.text()
        text = f"Message-ID: {message_id}\r\n".encode() + ending
        replies: list[int] = []

        def end(client: smtplib.SMTP, _sender: str, text: bytes = text, replies: list[int] = replies) -> None:
            assert client.docmd("DATA")[0] == 354
            client.send(text)
            replies.append(client.getreply()[0])

        sender, recipients = mail.in_transaction(end)
        common: dict[str, Any] = {"accepted": tuple(recipients), "message_id": message_id}
        if replies == [250]:
            assert mail.server.version == "3.1.7"
            mail.expect(sender, **common, outcome="accepted", phase="queue", code=250, size=len(text))
        else:
            assert replies == [451]
            # It counts up to the line that it refuses.
            size = text.find(b"without") if b"without" in text else len(text)
            mail.expect(sender, **common, outcome="deferred", phase="data", code=451, error="bare_lf", size=size)


def _too_big(mail: Mailer) -> None:
    body = "\r\n".join(["x" * 900] * (MAX_BYTES // 900 + 1))
    assert mail.hand_over(body=body, outcome="rejected", phase="data", error="550")[0] == 550


def _leave(mail: Mailer) -> None:
    def rset(client: smtplib.SMTP, _sender: str) -> None:
        client.rset()
        client.quit()

    def said_quit(client: smtplib.SMTP, _sender: str) -> None:
        client.quit()

    def gone(client: smtplib.SMTP, _sender: str) -> None:
        client.close()

    def said_ehlo(client: smtplib.SMTP, _sender: str) -> None:
        client.ehlo("client.test")
        client.quit()

    def begun_another(client: smtplib.SMTP, _sender: str) -> None:
        client.mail(another := mail.sender())
        client.quit()
        mail.expect(another, outcome="abandoned", phase="mail", error="quit")

    for end, error in (
        (rset, "rset"),
        (said_quit, "quit"),
        (gone, "disconnect"),
        (said_ehlo, "new_session"),
        (begun_another, "new_transaction"),
    ):
        sender, recipients = mail.in_transaction(end)
        mail.expect(sender, outcome="abandoned", phase="rcpt", accepted=tuple(recipients), error=error)
    _leave_in_data(mail)
    _leave_before_reply(mail)


def _leave_in_data(mail: Mailer) -> None:
    half = b"Subject: A secret subject\r\n\r\nHalf a"

    def end(client: smtplib.SMTP, _sender: str) -> None:
        assert client.docmd("DATA")[0] == 354
        client.send(half)
        time.sleep(0.2)

    sender, recipients = mail.in_transaction(end)
    # Haraka counts whole lines.
    size = half.rindex(b"\n") + 1
    mail.expect(sender, outcome="abandoned", phase="data", accepted=tuple(recipients), error="disconnect", size=size)


def _leave_before_reply(mail: Mailer) -> None:
    message_id, text = mail.text(["X-Judge: data_post slow"])

    def end(client: smtplib.SMTP, _sender: str) -> None:
        assert client.docmd("DATA")[0] == 354
        client.send(text + b".\r\n")
        time.sleep(0.2)
        # At once, as from a host that went down.
        assert client.sock
        client.sock.shutdown(socket.SHUT_RDWR)

    sender, recipients = mail.in_transaction(end)
    mail.expect(
        sender,
        outcome="abandoned",
        phase="filter",
        accepted=tuple(recipients),
        error="disconnect",
        message_id=message_id,
        size=len(text) + 3,
    )


def wait_until_told(mail: Mailer, receiver: OtlpThread, seconds: float = 20) -> None:
    """All transactions and connections are; then what would come twice has had its time."""
    until(
        lambda: (
            len(events(receiver, MESSAGE)) >= len(mail.expected) and len(events(receiver, CLOSED)) >= mail.connections
        ),
        seconds,
        "all transactions and connections are told",
    )
    time.sleep(1.2)
