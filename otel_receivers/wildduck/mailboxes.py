"""Asks a WildDuck for the mailboxes of one user after the other; what to make of the answers stands in ``turns``.

The first turn goes as fast as :class:`~otel_receivers.wildduck.api.Pace` lets it, later ones are spread over an hour.
While the list of users is read, and for as long as each answer took, WildDuck is left alone.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping

from otel_receivers.answers import AnswerError
from otel_receivers.http_page import StatusError
from otel_receivers.node import Node
from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, ScrapeError, Target, Tick
from otel_receivers.wildduck import parse
from otel_receivers.wildduck.api import PASSING, Api
from otel_receivers.wildduck.roster import Roster
from otel_receivers.wildduck.turns import Turn
from postel.signals import Declaration

TURN_SECONDS = 3600
# Of the interval; the agent gives up a tick after nine tenths.
_WORK_SHARE = 0.8
_QUERY = "counters=true&sizes=true&showHidden=true"
_SHOWN = "/users/:user/mailboxes"
_GONE = "UserNotFound"
# Adding up a very large mailbox may take too long each time; asking again would have WildDuck do it all once more.
_RETRIED = PASSING - {"timeout"}
# Users in a row whose mailboxes cannot be had, whatever the reason: then it is not the users.
_FAULTS = 5
_ID_BYTES = 12
_BEING_READ_SECONDS = 0.5


class MailboxesReceiver:
    """The mailboxes of one WildDuck's users; a :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declaration: of ``wildduck``.
        node: who asks.
        interval: seconds.
        target: where its API listens.
        api: the way to ask it.
        roster: who the users are.
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
        state: Mapping[str, str] | None = None,
    ) -> None:
        self.name = f"{declaration.type}_mailboxes"
        self.interval = interval
        self.target: Target | None = target
        self._declaration = declaration
        self._resource = node.resource(declaration.service, target=target)
        self._api = api
        self._roster = roster
        self._key = f"{self.name}/{target}/turn"
        self._stored = (state or {}).get(self._key, "")
        self._turn = Turn(self._stored)
        self._faults = 0

    async def collect(self, tick: Tick) -> Batch:
        """Go on; see :class:`~otel_receivers.receiver.Receiver`."""
        ids = self._roster.before(tick)
        if ids is None:
            # The users come first; nobody was asked, so there is nothing to say.
            return Batch()
        self._api.be_patient()
        recorder = Recorder(self._declaration, self._resource, tick)
        await self._go_on(ids, time.monotonic() + self.interval * _WORK_SHARE, recorder)
        if (figures := self._turn.figures(int(time.time()))) is not None:
            recorder.number("wildduck_mailbox_count", figures.mailboxes)
            recorder.number("wildduck_mailbox_message_count", figures.messages)
            recorder.number("wildduck_mailbox_unseen_count", figures.unseen)
            recorder.number("wildduck_mailbox_size", figures.size)
        batch = recorder.batch()
        stored = self._turn.stored()
        state = {} if stored == self._stored else {self._key: stored}
        self._stored = stored
        return Batch(batch.metrics, batch.events, batch.problems, state)

    async def close(self) -> None:
        """Close the connection."""
        await self._api.close()

    async def _go_on(self, ids: bytes, deadline: float, recorder: Recorder) -> None:
        share = math.ceil(len(ids) / _ID_BYTES * self.interval / TURN_SECONDS)
        asked = 0
        while time.monotonic() < deadline:
            if self._roster.being_read:
                await asyncio.sleep(_BEING_READ_SECONDS)
                continue
            user = self._turn.next(ids, int(time.time()))
            if user is None or (asked >= share and self._turn.whole):
                return
            await self._ask(user, recorder)
            asked += 1
            await asyncio.sleep(self._api.took)

    async def _ask(self, user: str, recorder: Recorder) -> None:
        """Ask for one user's mailboxes.

        Raises:
            ScrapeError: it is not this user alone whose mailboxes cannot be had.
        """
        try:
            body = await self._api.get(f"/users/{user}/mailboxes", _QUERY, shown=_SHOWN, retried=_RETRIED)
            mailboxes = parse.mailboxes(body)
        except StatusError as error:
            if parse.error_code(error.body) == _GONE:
                self._turn.gone(int(time.time()))
                return
            self._left_out(error, recorder)
        except ScrapeError as error:
            self._left_out(error, recorder)
        except AnswerError as error:
            self._left_out(ScrapeError(error.error_type, f"http://{self.target}{_SHOWN}: {error}"), recorder)
        else:
            self._faults = 0
            self._turn.add(mailboxes, int(time.time()))

    def _left_out(self, error: ScrapeError, recorder: Recorder) -> None:
        """Go on with the next user.

        Raises:
            ScrapeError: that one, where nobody can be asked at all (the same user is asked again at the next tick), or
                where too many in a row failed, so that it is hardly the users.
        """
        if error.error_type in ("connection", "401", "403"):
            raise error
        self._turn.leave_out(int(time.time()))
        self._faults += 1
        if self._faults >= _FAULTS:
            raise error
        recorder.problem(error.error_type, str(error))
