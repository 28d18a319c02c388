"""What servers answer on the platform of :mod:`postel.demo_traffic`, in the words that such servers use. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from postel.demo_traffic import HERE, LARGE, Attempt


@dataclass(frozen=True, slots=True)
class Answer:
    """A mail exchanger's; ``category``: what Zone-MTA makes of it (bounces.txt), '' of a good one."""

    mx: str
    address: str
    code: int
    enhanced_code: str
    text: str
    category: str


# Outcome -> code, enhanced code, text, category; which of them is the message's matter.
_ANSWERS = {
    "delivered": [(250, "2.0.0", "250 2.0.0 OK: queued", "")],
    "deferred": [
        (451, "4.7.1", "451 4.7.1 Greylisted, please try again in 300 seconds", "greylist"),
        (452, "4.2.2", "452 4.2.2 The recipient's mailbox is full", "capacity"),
    ],
    "rejected": [
        (550, "5.1.1", "550 5.1.1 No such user here", "recipient"),
        (550, "5.1.1", "550 5.1.1 No such user here", "recipient"),
        (554, "5.7.1", "554 5.7.1 Message refused as spam", "spam"),
    ],
}
_LARGE_DEFERS = (421, "4.7.0", "421 4.7.0 Too many messages from your address, try again later", "rate")
# Outcome of what came in -> code, enhanced code, text that the client was given.
INBOUND: Mapping[str, tuple[int, str, str]] = {
    "accepted": (250, "2.0.0", "250 Message Queued"),
    "rejected": (550, "5.7.1", "550 Denied by policy: spam"),
    "deferred": (451, "4.7.1", "451 Try again later"),
}
_ADDRESSES = ("192.0.2.10", "192.0.2.11")


def of(attempt: Attempt) -> Answer:
    """The answer to an attempt, the same whenever it is asked for."""
    domain, number = attempt.recipient.domain, attempt.recipient.number
    which = number % 2
    mx = f"mx{which + 1}.{domain}" if domain != HERE else f"mail.{HERE}"
    if attempt.outcome == "deferred" and domain == LARGE:
        return Answer(mx, _ADDRESSES[which], *_LARGE_DEFERS)
    choices = _ANSWERS[attempt.outcome]
    return Answer(mx, _ADDRESSES[which], *choices[number % len(choices)])
