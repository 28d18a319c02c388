"""Adds up the whole list of users, and tells of whom a snapshot is due; a list read by half says nothing.

Pure: pages in, sums and snapshots out. The list comes in the order of the users' ids, so that a user is counted at most
once whatever comes and goes meanwhile, a cursor that leads back is noticed at once, and what is remembered of each user
(what was told of it last, and when) lies in arrays that are read along: 36 bytes each, no object for each.
"""

from __future__ import annotations

import heapq
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from otel_receivers.answers import AnswerError
from otel_receivers.points import INT64_MAX
from otel_receivers.wildduck.parse import User, UsersPage

# A reading that came to fewer users than the server counts, by more than comes and goes meanwhile, was cut short.
_MISSING_SHARE = 100
_MISSING_FEW = 2
# A list that does not end: no server counts this many fewer than it lists.
_SURPLUS = 10_000
_NEAR_PERCENT = 90
# Snapshots that one reading tells at most; what is due beyond that is told by the next, the largest users first.
SNAPSHOTS = 2_000
_DAY = 86_400
_ID_BYTES = 12
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Totals:
    """What all users are and hold together; ``without_quota`` of them say nothing of theirs."""

    users: int
    usage: int
    limit: int
    over_quota: int
    near_quota: int
    without_quota: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one user holds; ``allowed`` 0: without a limit. ``reason``: ``daily`` or ``change``."""

    user: User
    reason: str
    time_unix_nano: int


class _Remembered:
    """What was told of each user, in the order of their ids."""

    def __init__(self) -> None:
        self.ids = bytearray()
        self.used = array("q")
        self.allowed = array("q")
        self.at = array("q")


class Memory:
    """What was told of all users so far, from one reading to the next.

    Args:
        since: seconds; a daily snapshot that was due before was told. 0: none ever was.
    """

    def __init__(self, since: int = 0) -> None:
        self.since = since
        self._remembered = _Remembered()

    @property
    def ids(self) -> bytes:
        """The ids of all users of the last whole reading, 12 bytes each, in order."""
        return bytes(self._remembered.ids)

    def reading(self, now: int) -> Reading:
        """Begin to read the list; ``now`` in seconds is when."""
        return Reading(self, self._remembered, now)

    def _keep(self, remembered: _Remembered, since: int) -> None:
        self._remembered, self.since = remembered, since


class Reading:
    """One reading of the whole list, page by page; :meth:`Memory.reading` begins it."""

    def __init__(self, memory: Memory, before: _Remembered, now: int) -> None:
        self.began = now
        self.cursor = ""
        self.whole = False
        self._memory = memory
        self._before = before
        self._place = 0
        self._remembered = _Remembered()
        # The smallest of those due is the first to wait: (used, place, snapshot).
        self._due: list[tuple[int, int, Snapshot]] = []
        self._left_out = False
        self._last = ""
        self._users = self._usage = self._limit = self._over = self._near = self._without = 0

    def add(self, page: UsersPage, time_unix_nano: int) -> None:
        """Add the next page.

        Raises:
            AnswerError: ``cursor_loop``, the list leads back or has no end; ``incomplete``, it ended early.
        """
        for user in page.users:
            if user.id <= self._last:
                raise AnswerError("cursor_loop", "the list of users came back to where it had been")
            self._last = user.id
            self._count(user)
            self._look(user, time_unix_nano)
        if page.next and (not page.users or self._users > 2 * page.total + _SURPLUS):
            raise AnswerError("cursor_loop", f"the list of {page.total} users does not end")
        self.cursor = page.next
        self.whole = not page.next
        if self.whole and page.total - self._users > max(_MISSING_FEW, page.total // _MISSING_SHARE):
            raise AnswerError("incomplete", f"the list ended after {self._users} of {page.total} users")

    def totals(self) -> Totals:
        """The sums of a whole reading.

        Raises:
            AnswerError: ``invalid_value``, they are beyond 64 bits.
        """
        if max(self._usage, self._limit) > INT64_MAX:
            raise AnswerError("invalid_value", "the sum over all users is beyond 64 bits")
        return Totals(self._users, self._usage, self._limit, self._over, self._near, self._without)

    def finish(self) -> Sequence[Snapshot]:
        """The snapshots that are due, of a whole reading; from now on they count as told."""
        remembered = self._remembered
        for _, place, snapshot in self._due:
            remembered.used[place] = snapshot.user.used or 0
            remembered.allowed[place] = snapshot.user.allowed or 0
            remembered.at[place] = self.began
        self._memory._keep(remembered, self._memory.since if self._left_out else self.began)  # noqa: SLF001 - of this module
        return [snapshot for *_, snapshot in sorted(self._due, reverse=True)]

    def _count(self, user: User) -> None:
        self._users += 1
        if user.used is None or user.allowed is None:
            self._without += 1
            return
        self._usage += user.used
        self._limit += user.allowed
        if user.allowed and user.used > user.allowed:
            self._over += 1
        elif user.allowed and user.used * 100 >= user.allowed * _NEAR_PERCENT:
            self._near += 1

    def _look(self, user: User, time_unix_nano: int) -> None:
        remembered, own = self._remembered, bytes.fromhex(user.id)
        used, allowed, at = self._told(own)
        if used == _UNKNOWN and user.used is not None and user.allowed is not None:
            # What is met first is what changes are measured by.
            used, allowed = user.used, user.allowed
        place = len(remembered.at)
        remembered.ids += own
        remembered.used.append(used)
        remembered.allowed.append(allowed)
        remembered.at.append(at)
        if user.used is None or user.allowed is None:
            return
        if _last_due(own, self.began) > at:
            reason = "daily"
        elif _changed(used, user.used, user.allowed) or _changed(allowed, user.allowed, max(allowed, user.allowed)):
            reason = "change"
        else:
            return
        entry = (user.used, place, Snapshot(user, reason, time_unix_nano))
        if len(self._due) < SNAPSHOTS:
            heapq.heappush(self._due, entry)
        else:
            heapq.heappushpop(self._due, entry)
            self._left_out = True

    def _told(self, own: bytes) -> tuple[int, int, int]:
        """What was told of this user: used, allowed, and when; ids of users that are gone are passed by."""
        before, since = self._before, self._memory.since
        while self._place < len(before.at):
            there = before.ids[self._place * _ID_BYTES : (self._place + 1) * _ID_BYTES]
            if there > own:
                break
            self._place += 1
            if there == own:
                at = before.at[self._place - 1]
                # Told at a time that the clock, set back, is far from: as if never.
                at = at if at <= self.began + _DAY else 0
                return before.used[self._place - 1], before.allowed[self._place - 1], at
        return _UNKNOWN, _UNKNOWN, since if since <= self.began + _DAY else 0


def _last_due(own: bytes, now: int) -> int:
    """When this user's daily snapshot was due last: each at a time of the day of its own, so that they are spread."""
    return now - (now - zlib.crc32(own)) % _DAY


def _changed(before: int, now: int, limit: int) -> bool:
    """Whether it is another figure by 1 % of the limit or more; without a limit nothing is a share of it."""
    return limit > 0 and before != now and abs(now - before) * 100 >= limit
