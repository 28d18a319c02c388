"""Finds a message that waits in a Zone-MTA's queue: asked when somebody wants to know, of one instance after the other.

Instances with one database all know it; only the one that makes an attempt knows that it does. Whatever is shown of
addresses is what ``[privacy] addresses`` lets out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from otel_receivers.http_page import TIMEOUT
from otel_receivers.receiver import ScrapeError, Target
from otel_receivers.zone_mta.message import Message, is_id, message
from otel_receivers.zone_mta.rest import Rest

# Of a message with a thousand recipients and their logs; what is longer would be much in the agent's memory.
ANSWER_BYTES = 4 << 20
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
        text: what may be shown of a text with addresses in it.
        timeout: seconds for the answer of one of them.
    """

    def __init__(
        self, targets: Callable[[], Iterable[Target]], text: Callable[[str], str], *, timeout: float = TIMEOUT
    ) -> None:
        self._targets = targets
        self._text = text
        self._timeout = timeout
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def find(self, queue_id: str) -> dict[str, Any] | None:
        """The message as JSON has it (:meth:`~otel_receivers.zone_mta.message.Message.to_dict`).

        Returns:
            None where it waits in no queue: delivered, rejected, deleted, or never there.

        Raises:
            NoQueueIdError: no message has such an id.
            NoZoneMtaError: nobody to ask is known.
            ScrapeError: one of them gave no whole answer, and no other knows the message.
        """
        if not is_id(queue_id):
            raise NoQueueIdError("a queue id is of letters and digits, 64 at most")
        targets = list(self._targets())
        if not targets:
            raise NoZoneMtaError("no Zone-MTA was found on this host; see [discovery] zone_mta_host and zone_mta_port")
        failure: ScrapeError | None = None
        async with self._places:
            for target in targets:
                try:
                    found = await self._ask(target, queue_id)
                except ScrapeError as error:
                    if error.error_type != _NOT_THERE:
                        failure = error
                else:
                    return found.to_dict(self._text)
        if failure is not None:
            raise failure
        return None

    async def _ask(self, target: Target, queue_id: str) -> Message:
        rest = Rest(target, limit=ANSWER_BYTES)
        try:
            return await rest.ask(partial(message, queue_id=queue_id), "message", queue_id, timeout=self._timeout)
        finally:
            await rest.close()
