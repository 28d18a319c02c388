"""The inbound half of the platform of :mod:`postel.demo_traffic`: Haraka, Rspamd and WildDuck.

Pure and repeatable, as that is. Every message that comes is scanned; what Rspamd would reject is rejected, what it
would greylist is deferred, all else goes to a mailbox by LMTP.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

from postel.demo_shapes import STEP_SECONDS, hump, poisson

# Rspamd's actions from the score on that its own configuration has (actions.conf).
_ACTIONS = ((15.0, "reject"), (6.0, "add header"), (4.0, "greylist"))
# As Rspamd counts spam itself (controller.c, "spam_count").
SPAM = frozenset({"reject", "soft reject", "rewrite subject", "add header"})
_OUTCOMES: Mapping[str, Literal["accepted", "rejected", "deferred"]] = {"reject": "rejected", "greylist": "deferred"}
_HAM_SYMBOLS = {
    "R_SPF_ALLOW": -0.2,
    "R_DKIM_ALLOW": -0.2,
    "DMARC_POLICY_ALLOW": -0.5,
    "BAYES_HAM": -2.9,
    "MIME_GOOD": -0.1,
}
_SPAM_SYMBOLS = {
    "BAYES_SPAM": 5.1,
    "R_SPF_FAIL": 1.0,
    "DBL_SPAM": 6.5,
    "HTML_SHORT_LINK_IMG_1": 2.0,
    "FORGED_SENDER": 0.3,
}
_SENDERS = {"bigmail.test": 40, "mailbox.test": 25, "office.test": 20, "campus.test": 15}
_SPAMMERS = {"cheap.test": 60, "prize.test": 40}
_SPAM_SHARE = 0.18
_MEAN_SCAN_SECONDS = 0.24
_QUOTA = 2 * 2**30
# User -> what of the quota was taken when the day began.
_TAKEN = {
    "ada": 0.93, "ben": 0.41, "carla": 0.12, "dora": 0.67, "emil": 0.97, "fritz": 0.05, "grete": 0.58, "hugo": 0.33,
    "ida": 0.74, "jonas": 0.21, "karla": 0.49, "leo": 0.86,
}  # fmt: skip


class Received(NamedTuple):
    """A message that came in.

    Attributes:
        size: bytes.
        symbols: what Rspamd found, each with its score.
        scan: seconds that Rspamd took.
    """

    number: int
    sender: str
    user: str
    size: int
    score: float
    action: str
    outcome: Literal["accepted", "rejected", "deferred"]
    symbols: Mapping[str, float]
    scan: float


@dataclass(frozen=True, slots=True)
class InboundMoment:
    """What the inbound servers would say at a moment, and what came in the step before; counters since midnight UTC.

    Attributes:
        messages: outcome -> messages, cumulative.
        actions: Rspamd's action -> messages, cumulative.
        hits: symbol -> messages, cumulative.
        learned: messages that the classifier was taught, cumulative.
        scan: seconds that the last scans took on the average.
        stored: messages handed over by LMTP, cumulative.
        users: user -> bytes that the messages of it take.
        quota: bytes that each user may store.
        all_messages: in all mailboxes.
        unseen: of them.
        imap: open connections.
        pop3: open connections.
        log_ins: (service, result) -> log-ins, cumulative.
        came: the messages of this step.
    """

    messages: Mapping[str, int]
    actions: Mapping[str, int]
    hits: Mapping[str, int]
    learned: int
    scan: float
    stored: int
    users: Mapping[str, int]
    quota: int
    all_messages: int
    unseen: int
    imap: int
    pop3: int
    log_ins: Mapping[tuple[str, str], int]
    came: Sequence[Received]


class Inbound:
    """A day of it, step by step."""

    def __init__(self, day: date) -> None:
        self._chance = random.Random(f"postel demo inbound {day.isoformat()}")  # noqa: S311 - repeatable by design
        self._messages = Counter(dict.fromkeys(("accepted", "rejected", "deferred"), 0))
        self._actions = Counter(dict.fromkeys(("no action", *(action for _, action in _ACTIONS)), 0))
        self._hits: Counter[str] = Counter()
        self._log_ins: Counter[tuple[str, str]] = Counter()
        self._users = {user: round(share * _QUOTA) for user, share in _TAKEN.items()}
        self._scan = _MEAN_SCAN_SECONDS
        self._numbers = 0

    def step(self, step: int) -> InboundMoment:
        """What happens in a step; they are asked for in their order."""
        hour = step * STEP_SECONDS / 3600
        busy = 0.15 + hump(hour, 9.5, 2.5) + 0.8 * hump(hour, 14.5, 3)
        came = [self._message() for _ in range(poisson(self._chance, 4 * busy))]
        for message in came:
            self._count(message)
        for service, mean in (("imap", 3 * busy), ("pop3", 0.4 * busy)):
            for result, share in (("success", 0.96), ("fail", 0.04)):
                self._log_ins[service, result] += poisson(self._chance, mean * share)
        stored = self._messages["accepted"]
        return InboundMoment(
            messages=dict(self._messages),
            actions=dict(self._actions),
            hits=dict(self._hits),
            learned=self._actions["reject"] // 4,
            scan=round(self._scan, 4),
            stored=stored,
            users=dict(self._users),
            quota=_QUOTA,
            all_messages=61_000 + stored,
            unseen=1_900 + stored // 3,
            imap=14 + round(60 * busy),
            pop3=round(4 * busy),
            log_ins=dict(self._log_ins),
            came=came,
        )

    def _message(self) -> Received:
        self._numbers += 1
        spam = self._chance.random() < _SPAM_SHARE
        score = round(self._chance.gauss(13, 5) if spam else self._chance.gauss(-1.5, 2), 2)
        known = _SPAM_SYMBOLS if spam else _HAM_SYMBOLS
        action = next((name for least, name in _ACTIONS if score >= least), "no action")
        senders = _SPAMMERS if spam else _SENDERS
        return Received(
            number=self._numbers,
            sender=self._chance.choices([*senders], [*senders.values()])[0],
            user=self._chance.choice([*_TAKEN]),
            size=round(self._chance.lognormvariate(10, 1)),
            score=score,
            action=action,
            outcome=_OUTCOMES.get(action, "accepted"),
            symbols={name: known[name] for name in sorted(self._chance.sample([*known], 3))},
            scan=round(self._chance.lognormvariate(-1.6, 0.4), 3),
        )

    def _count(self, message: Received) -> None:
        self._messages[message.outcome] += 1
        self._actions[message.action] += 1
        self._hits.update([*message.symbols])
        self._scan += (message.scan - self._scan) / 31
        if message.outcome == "accepted":
            # Those whose mailbox is nearly full delete as much as comes.
            room = round(0.99 * _QUOTA)
            self._users[message.user] = min(self._users[message.user] + message.size, room)
