"""Viewers who leave while their page is made: nothing to tell in the log, and nothing to answer."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send


class Departures:
    """ASGI middleware around those of Starlette's `BaseHTTPMiddleware`, which NiceGUI has.

    Two of them around each other take a viewer's leaving for an application that did not answer, and raise: a
    traceback of a hundred lines for each who clicks on before a script of the page was there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; of one whose sender is gone, nothing is missed."""
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:
            unanswered = str(error) == "No response returned."
            if not (unanswered and scope["type"] == "http" and await Request(scope, receive).is_disconnected()):
                raise
