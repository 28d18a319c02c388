"""What those who have shown no token yet may hold of a server: forms that are read, and waits for a "no".

Contract: either is a quarter of the server's connections at most, because one with a request under way is closed for
nobody, and half of them stay for who is known. Of more forms than that the one that comes for longest is given up, so
who sends one at once is always heard. A wrong token costs its sender a second, unless so many wait for theirs already,
and is in the log with the sender's address, a line a minute.
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.requests import HTTPConnection, Request

from postel.log import Throttle

# A form of a browser is a tenth of it, and comes in one piece or two.
_LARGEST_FORM = 4096
FORM_SECONDS = 5.0
WRONG_SECONDS = 1.0
_SHARE = 4
_log = structlog.get_logger()


class TooSlowError(Exception):
    """A form did not come in time, or not while there was room for it."""


class Forms:
    """The forms that are read.

    Args:
        connections: of the server at most.
    """

    def __init__(self, connections: int) -> None:
        self._most = max(1, connections // _SHARE)
        # Longest first.
        self._reading: dict[asyncio.Timeout, None] = {}

    async def read(self, request: Request) -> str:
        """The form that a request brings; empty where it is too large for one.

        Raises:
            TooSlowError: it did not come.
            ClientDisconnect: nor will it.
        """
        if len(self._reading) >= self._most:
            longest = next(iter(self._reading))
            del self._reading[longest]
            if not longest.expired():
                longest.reschedule(asyncio.get_running_loop().time())
        read = b""
        timeout = asyncio.timeout(FORM_SECONDS)
        self._reading[timeout] = None
        try:
            async with timeout:
                async for part in request.stream():
                    read += part
                    if len(read) > _LARGEST_FORM:
                        return ""
        except TimeoutError:
            raise TooSlowError from None
        finally:
            self._reading.pop(timeout, None)
        return read.decode("utf-8", "replace")


class WrongTokens:
    """The wrong tokens that were shown.

    Args:
        connections: of the server at most.
    """

    def __init__(self, connections: int) -> None:
        self._most = max(1, connections // _SHARE)
        self._waiting = 0
        self._throttle = Throttle()

    async def pause(self, asked: HTTPConnection) -> None:
        """Tell of one, and wait before it is answered."""
        if count := self._throttle():
            sender = asked.client.host if asked.client else ""
            _log.warning("refused wrong tokens", requests=count, sender=sender, at="[serve]")
        if self._waiting >= self._most:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(WRONG_SECONDS)
        finally:
            self._waiting -= 1
