"""Goes round all users to ask for their mailboxes, one after the other for hours, and adds up what was last said.

Pure: ids in, whom to ask next out; answers in, sums out. Users lie in 256 buckets, by the last byte of their id. A
bucket's sums are replaced as a whole when all of its users were asked, so that each user is counted once, with what
its mailboxes held at most a turn ago, and a turn under way never reads as a fall. Users that are gone leave with the
next reading of their bucket.
"""

from __future__ import annotations

import orjson

from otel_receivers.wildduck.parse import Mailboxes

BUCKETS = 256
# What was said longer ago than this is no figure of today.
KEPT_SECONDS = 2 * 86_400
_ID_BYTES = 12


class Turn:
    """The way round the users.

    Args:
        stored: what :meth:`stored` gave before a restart of the agent; '' or unreadable: nobody was asked yet.
    """

    def __init__(self, stored: str = "") -> None:
        self._sums = _decode(stored)
        self._bucket = _eldest(self._sums)
        self._waiting: list[bytes] = []
        self._sum = Mailboxes()
        self._spoiled = False

    def next(self, ids: bytes, now: int) -> str | None:
        """Whom to ask; the same user until :meth:`add`, :meth:`gone` or :meth:`leave_out` says what came of it.

        Args:
            ids: of all users there are, 12 bytes each.
            now: seconds.

        Returns:
            The id; None where there is no user.
        """
        for _ in range(BUCKETS):
            if self._waiting:
                return self._waiting[-1].hex()
            self._waiting = _members(ids, self._bucket)
            if not self._waiting:
                self._close(now)
        return self._waiting[-1].hex() if self._waiting else None

    def add(self, mailboxes: Mailboxes, now: int) -> None:
        """The user that :meth:`next` named has these mailboxes."""
        before = self._sum
        self._sum = Mailboxes(
            before.mailboxes + mailboxes.mailboxes,
            before.messages + mailboxes.messages,
            before.unseen + mailboxes.unseen,
            before.size + mailboxes.size,
        )
        self._done(now)

    def gone(self, now: int) -> None:
        """The user that :meth:`next` named does not exist any more."""
        self._done(now)

    def leave_out(self, now: int) -> None:
        """What the user that :meth:`next` named has cannot be known: the bucket stays as it was."""
        self._spoiled = True
        self._done(now)

    def figures(self, now: int) -> Mailboxes | None:
        """What all users have; None unless each was asked within the last two days."""
        if not self.whole or any(abs(now - at) > KEPT_SECONDS for at, _ in self._sums.values()):
            return None
        parts = [sums for _, sums in self._sums.values()]
        return Mailboxes(
            sum(part.mailboxes for part in parts),
            sum(part.messages for part in parts),
            sum(part.unseen for part in parts),
            sum(part.size for part in parts),
        )

    @property
    def whole(self) -> bool:
        """Whether every bucket was read at least once."""
        return len(self._sums) == BUCKETS

    def stored(self) -> str:
        """What to keep over a restart: all buckets that were read."""
        return orjson.dumps(
            {
                str(bucket): [at, sums.mailboxes, sums.messages, sums.unseen, sums.size]
                for bucket, (at, sums) in self._sums.items()
            }
        ).decode()

    def _done(self, now: int) -> None:
        self._waiting.pop()
        if not self._waiting:
            self._close(now)

    def _close(self, now: int) -> None:
        if not self._spoiled:
            self._sums[self._bucket] = (now, self._sum)
        self._bucket = (self._bucket + 1) % BUCKETS
        self._sum, self._spoiled = Mailboxes(), False


def _members(ids: bytes, bucket: int) -> list[bytes]:
    """The ids whose last byte is the bucket's number; found without a loop over all."""
    last, wanted = ids[_ID_BYTES - 1 :: _ID_BYTES], bytes([bucket])
    found, place = [], last.find(wanted)
    while place >= 0:
        found.append(ids[place * _ID_BYTES : (place + 1) * _ID_BYTES])
        place = last.find(wanted, place + 1)
    return found


def _eldest(sums: dict[int, tuple[int, Mailboxes]]) -> int:
    """Where to go on: the first bucket that was not read, else the one that was read first."""
    missing = (bucket for bucket in range(BUCKETS) if bucket not in sums)
    return next(missing, min(sums, key=lambda bucket: sums[bucket][0], default=0))


def _decode(text: str) -> dict[int, tuple[int, Mailboxes]]:
    try:
        found = {
            int(bucket): (int(at), Mailboxes(*map(int, figures)))
            for bucket, (at, *figures) in orjson.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
    return {bucket: read for bucket, read in found.items() if 0 <= bucket < BUCKETS}
