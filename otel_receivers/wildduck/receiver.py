"""Asks a WildDuck for all its users: HTTP in :mod:`otel_receivers.wildduck.api`, meaning in ``parse`` and ``passes``.

The figures are of one whole reading of the list or there are none. A reading that a tick has no time for goes on at the
next; its figures carry the time of the tick at which it ended, so that they were read around that time, and the ticks
before say nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlencode

from otel_receivers.answers import AnswerError
from otel_receivers.building import Context
from otel_receivers.node import Node
from otel_receivers.points import Attributes, Recorder
from otel_receivers.receiver import Batch, Receiver, ScrapeError, Target, Tick
from otel_receivers.wildduck import parse
from otel_receivers.wildduck.api import Api, Pace
from otel_receivers.wildduck.mailboxes import MailboxesReceiver
from otel_receivers.wildduck.passes import Memory, Reading, Snapshot
from otel_receivers.wildduck.roster import Roster
from postel.signals import Declaration

# Users in one answer; WildDuck refuses more (400).
PAGE_USERS = 250
# Of the interval; what is left of eight tenths is the mailboxes', also where the list takes longer than a tick.
WORK_SHARE = 0.6
# A list that takes longer than this is not of one time.
_READING_SECONDS = 3600
_NANOS = 1_000_000_000


def build(context: Context, target: Target) -> Sequence[Receiver]:
    """The receivers of a WildDuck's API: its users, and their mailboxes."""
    declaration = context.declarations["wildduck"]
    settings = context.settings
    token = settings.discovery.wildduck_api_token
    interval = settings.intervals.wildduck_api_query
    pace, roster = Pace(), Roster()
    apis = [Api(target, token.get_secret_value() if token else None, pace, interval=interval) for _ in range(2)]
    users = WildDuckReceiver(
        declaration,
        context.node,
        interval=interval,
        target=target,
        api=apis[0],
        roster=roster,
        names=settings.privacy.addresses == "keep",
        state=context.state,
    )
    mailboxes = MailboxesReceiver(
        declaration, context.node, interval=interval, target=target, api=apis[1], roster=roster, state=context.state
    )
    return users, mailboxes


class WildDuckReceiver:
    """The users of one WildDuck; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declaration: of ``wildduck``.
        node: who asks.
        interval: seconds.
        target: where its API listens.
        api: the way to ask it.
        roster: where the users that there are, are told to others.
        names: whether events hold usernames.
        state: of the agent, as stored.
    """

    def __init__(
        self,
        declaration: Declaration,
        node: Node,
        *,
        interval: int,
        target: Target,
        api: Api,
        roster: Roster,
        names: bool = True,
        state: Mapping[str, str] | None = None,
    ) -> None:
        self.name = declaration.type
        self.interval = interval
        self.target: Target | None = target
        self._declaration = declaration
        self._resource = node.resource(declaration.service, target=target)
        self._api = api
        self._roster = roster
        self._names = names
        self._key = f"{self.name}/{target}/told"
        self._memory = Memory(_seconds((state or {}).get(self._key, "")))
        self._reading: Reading | None = None

    async def collect(self, tick: Tick) -> Batch:
        """Read the list on; see :class:`~otel_receivers.receiver.Receiver`."""
        deadline = time.monotonic() + self.interval * WORK_SHARE
        self._api.be_patient()
        self._roster.being_read = True
        try:
            reading = await self._read_on(deadline)
            if not reading.whole:
                return Batch()
            return await asyncio.to_thread(partial(self._finish, reading, tick))
        except AnswerError as error:
            self._reading = None
            raise ScrapeError(error.error_type, f"http://{self.target}/users: {error}") from None
        except ScrapeError:
            self._reading = None
            raise
        finally:
            self._roster.being_read = False

    async def close(self) -> None:
        """Close the connection."""
        await self._api.close()

    async def _read_on(self, deadline: float) -> Reading:
        now = int(time.time())
        if self._reading is None:
            self._reading = self._memory.reading(now)
        reading = self._reading
        if abs(now - reading.began) > _READING_SECONDS:
            raise AnswerError("timeout", f"the list was not read within {_READING_SECONDS} s")
        while not reading.whole and time.monotonic() < deadline:
            query = {"limit": str(PAGE_USERS), **({"next": reading.cursor} if reading.cursor else {})}
            body = await self._api.get("/users", urlencode(query))
            reading.add(parse.users_page(body), time.time_ns())
        return reading

    def _finish(self, reading: Reading, tick: Tick) -> Batch:
        self._reading = None
        totals = reading.totals()
        recorder = Recorder(self._declaration, self._resource, tick)
        recorder.number("wildduck_user_count", totals.users)
        if totals.without_quota:
            # Sums without them would read as if storage had been freed.
            recorder.problem("missing_quota", "WildDuck says no quota of some users; storage is left out")
        else:
            recorder.number("wildduck_storage_usage", totals.usage)
            recorder.number("wildduck_storage_limit", totals.limit)
            recorder.number("wildduck_storage_over_quota_count", totals.over_quota)
            recorder.number("wildduck_storage_near_quota_count", totals.near_quota)
        for snapshot in reading.finish():
            self._tell(snapshot, recorder)
        self._roster.fill(self._memory.ids, tick)
        batch = recorder.batch()
        return Batch(batch.metrics, batch.events, batch.problems, {self._key: str(self._memory.since)})

    def _tell(self, snapshot: Snapshot, recorder: Recorder) -> None:
        user = snapshot.user
        used, allowed = user.used or 0, user.allowed or 0
        attributes: dict[str, str | int] = {
            "user.id": user.id,
            "wildduck.quota.used": used,
            "wildduck.quota.reason": snapshot.reason,
        }
        if self._names and user.name:
            attributes["user.name"] = user.name
        if allowed:
            attributes["wildduck.quota.allowed"] = allowed
        told: Attributes = attributes
        whom = user.name if self._names and user.name else f"User {user.id}"
        body = f"{whom} holds {used} bytes" + (f" of {allowed} ({used * 100 // allowed} %)." if allowed else ".")
        recorder.event("wildduck_quota_snapshot", body, told, time_unix_nano=snapshot.time_unix_nano)


def _seconds(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else 0  # noqa: PLR2004 - of this age
