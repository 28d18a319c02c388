"""Finds a message that waits in a Zone-MTA's queue: asked when somebody wants to know, of all instances at once.

Instances with one database all know it; only the one that makes an attempt knows that it does. Whatever is shown of
addresses is what ``[privacy] addresses`` lets out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from otel_receivers.http_page import TIMEOUT
from otel_receivers.privacy import Privacy
from otel_receivers.receiver import ScrapeError, Target
from otel_receivers.zone_mta.message import Message, is_id, message
from otel_receivers.zone_mta.rest import Rest

# Of a message with a thousand recipients and their logs; what is longer would be much in the agent's memory.
ANSWER_BYTES = 4 << 20
# Seconds until who asks has an answer, whatever the servers do and however many ask beside it.
WITHIN = 25.0
_AT_ONCE = 2
_NOT_THERE = "404"


class NoQueueIdError(ValueError):
    """No message can have such an id; nobody was asked."""


class NoZoneMtaError(Exception):
    """No Zone-MTA is known that could be asked."""


class Lookup:
    """Looks messages up.

    Args:
        targets: where the Zone-MTAs are that can be asked now.
        privacy: what may be shown of addresses.
        timeout: seconds for the answer of each of them.
        within: seconds for all of it, with the wait for those who asked before.
    """

    def __init__(
        self,
        targets: Callable[[], Iterable[Target]],
        privacy: Privacy,
        *,
        timeout: float = TIMEOUT,
        within: float = WITHIN,
    ) -> None:
        self._targets = targets
        self._privacy = privacy
        self._timeout = timeout
        self._within = within
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def find(self, queue_id: str) -> dict[str, Any] | None:
        """The message as JSON has it (:meth:`~otel_receivers.zone_mta.message.Message.to_dict`).

        Returns:
            None where it waits in no queue: delivered, rejected, deleted, or never there.

        Raises:
            NoQueueIdError: no message has such an id.
            NoZoneMtaError: nobody to ask is known.
            ScrapeError: one of them gave no whole answer, and no other knows the message; or there was no time for it.
        """
        if not is_id(queue_id):
            raise NoQueueIdError("a queue id is of letters and digits, 64 at most")
        targets = list(self._targets())
        if not targets:
            raise NoZoneMtaError("no Zone-MTA was found on this host; see [discovery] zone_mta_host and zone_mta_port")
        answers = await self._ask_all(targets, queue_id)
        found = [each for each in answers if isinstance(each, Message)]
        if found:
            return found[0].with_deliveries_of(found[1:]).to_dict(self._privacy)
        for each in answers:
            if isinstance(each, ScrapeError) and each.error_type != _NOT_THERE:
                raise each
        return None

    async def _ask_all(self, targets: Iterable[Target], queue_id: str) -> Sequence[Message | ScrapeError]:
        try:
            async with asyncio.timeout(self._within), self._places:
                return await asyncio.gather(*(self._ask(target, queue_id) for target in targets))
        except TimeoutError:
            raise ScrapeError("timeout", f"no answer within {self._within:g} s, as others ask too") from None

    async def _ask(self, target: Target, queue_id: str) -> Message | ScrapeError:
        rest = Rest(target, limit=ANSWER_BYTES)
        try:
            return await rest.ask(partial(message, queue_id=queue_id), "message", queue_id, timeout=self._timeout)
        except ScrapeError as error:
            return error
        finally:
            await rest.close()
