"""Who may ask: only a browser or program that means this server, not a foreign page in the viewer's browser.

Bound to loopback, the server takes requests for loopback names alone: a foreign name that was made to point at
127.0.0.1 (DNS rebinding) is refused. Anywhere, a request that a browser says comes from another origin is refused,
WebSockets included, which browsers let through to any host.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from postel.listening import is_loopback


class Guard:
    """ASGI middleware that answers 400 or 403 to what the module's head says.

    Args:
        loopback_only: the server is bound to loopback.
    """

    def __init__(self, app: ASGIApp, *, loopback_only: bool) -> None:
        self.app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            origin = headers.get("origin")
            if self._loopback_only and not is_loopback(_name(host)):
                refusal = PlainTextResponse("This server answers to localhost and 127.0.0.1 only.\n", 400)
                return await refusal(scope, receive, send)
            if origin is not None and _host(origin) != host.lower():
                refusal = PlainTextResponse("Requests from other origins are refused.\n", 403)
                return await refusal(scope, receive, send)
        return await self.app(scope, receive, send)


def _host(origin: str) -> str | None:
    """The host and port of an Origin header; None where it is no URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _name(host: str) -> str:
    """The host of a Host header without its port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
