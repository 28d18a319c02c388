"""The answers to requests that a receiver did not take, and what its log says of them."""

from __future__ import annotations

from collections import defaultdict

import structlog

from postel.log import Throttle
from postel.otlp.answers import Failure, failure
from postel.otlp.signal import Signal

_log = structlog.get_logger()


class Refusals:
    """The refusals of one server, a line a minute for each kind: a sender with a wrong token tries for ever."""

    def __init__(self) -> None:
        self._throttles: defaultdict[int, Throttle] = defaultdict(Throttle)

    def answer(self, error: Exception, signal: Signal, sender: str) -> Failure:
        """The answer of `postel.otlp.answers`, logged; of what asks for a retry the log is whoever raised it.

        Args:
            error: why it was not taken.
            signal: of the request.
            sender: who sent it, as far as is known.
        """
        answer = failure(error)
        if not answer.foreseen:
            _log.error("an OTLP request failed", signal=signal.value, exc_info=error)
        elif answer.delay is None and (count := self._throttles[answer.http_status]()):
            _log.warning(
                "refused OTLP requests", requests=count, reason=answer.reason, signal=signal.value, sender=sender
            )
        return answer
