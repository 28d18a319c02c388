"""Who may come in where ``[serve]`` names tokens: nobody without one, to no route, page or WebSocket.

A program sends its token (RFC 6750, section 2.1); a person gives it once to the form that stands in the place of each
page, and has a cookie then that no script reads. It says what its owner may do and until when, signed with a key that
is made of the tokens: it holds over restarts and in every process with the same tokens, and none of before is taken
once one of them is changed. Who shows none yet holds little of the server (`postel.strangers`).
"""

from __future__ import annotations

import hashlib
import hmac
import html
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Literal
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from postel.otlp import token as bearer
from postel.strangers import Forms, TooSlowError, WrongTokens

Access = Literal["read", "admin"]
COOKIE = "postel_session"
_SESSION_S = 7 * 86400
_LOGIN, _LOGOUT = "/login", "/logout"
_READING = ("GET", "HEAD", "OPTIONS")
# Where pages hear of their own elements, which are made by what their viewer may do.
_OF_PAGES = "/_nicegui"
# Who is slow has a connection no longer.
_LATER = {"Retry-After": "2", "Connection": "close"}
_SAYS = "send the header 'Authorization: Bearer <token>' with one of [serve]'s tokens"


class Tokens:
    """The tokens of a server.

    Args:
        read: of who may look.
        admin: of who may also change something, such as silence an alert.
        clock: seconds since 1970.
    """

    def __init__(self, read: Sequence[str], admin: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._by_access: dict[Access, Sequence[str]] = {"admin": admin, "read": read}
        self._key = hashlib.sha256("\0".join(["postel session", *read, "", *admin]).encode()).digest()
        self._clock = clock

    def __bool__(self) -> bool:
        return any(self._by_access.values())

    def access(self, token: str) -> Access | None:
        """What its owner may do; None for none of the tokens. How much of one is right cannot be told by the time."""
        found: Access | None = None
        for access, tokens in self._by_access.items():
            for known in tokens:
                if bearer.same(token, known):
                    found = found or access
        return found

    def session(self, access: Access) -> str:
        """The value of a cookie."""
        said = f"{access}.{int(self._clock()) + _SESSION_S}"
        return f"{said}.{self._signed(said)}"

    def access_of_session(self, session: str) -> Access | None:
        """What the owner of a cookie may do; None where it is over, or was not made here."""
        said, _, signature = session.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "surrogateescape"), self._signed(said).encode()):
            return None
        access, _, until = said.partition(".")
        if int(until) <= self._clock():
            return None
        return "admin" if access == "admin" else "read"

    def _signed(self, said: str) -> str:
        return hmac.new(self._key, said.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


class Entry:
    """ASGI middleware that answers 401 to who shows no token, and 403 to who may not change what they would.

    What the viewer may do is ``request.state.access`` for all behind it.

    Args:
        tokens: that are taken.
        connections: of the server at most.
    """

    def __init__(self, app: ASGIApp, *, tokens: Tokens, connections: int) -> None:
        self.app = app
        self._tokens = tokens
        self._forms = Forms(connections)
        self._wrong = WrongTokens(connections)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if scope["type"] == "http" and scope["path"] in (_LOGIN, _LOGOUT):
            answer = await self._come_or_go(Request(scope, receive))
            return await answer(scope, receive, send)
        asked = HTTPConnection(scope)
        access = await self._access(asked)
        if access is None:
            return await _refuse(asked)(scope, receive, send)
        reads = scope["type"] == "websocket" or scope["method"] in _READING or scope["path"].startswith(_OF_PAGES)
        if access == "read" and not reads:
            return await JSONResponse({"detail": "this token may only read"}, 403)(scope, receive, send)
        scope.setdefault("state", {})["access"] = access
        return await self.app(scope, receive, send)

    async def _access(self, asked: HTTPConnection) -> Access | None:
        if authorization := asked.headers.get("authorization"):
            token = bearer.shown(authorization)
            return None if token is None else await self._access_of(token, asked)
        return self._tokens.access_of_session(asked.cookies.get(COOKIE, ""))

    async def _access_of(self, token: str, asked: HTTPConnection) -> Access | None:
        access = self._tokens.access(token)
        if access is None:
            await self._wrong.pause(asked)
        return access

    async def _come_or_go(self, request: Request) -> Response:
        if request.url.path == _LOGOUT:
            answer: Response = RedirectResponse("/", 303)
            answer.delete_cookie(COOKIE)
            return answer
        if request.method != "POST":
            return RedirectResponse("/", 303)
        try:
            form = parse_qs(await self._forms.read(request), keep_blank_values=True)
        except TooSlowError:
            return JSONResponse({"detail": "the form did not come in time"}, 503, headers=_LATER)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        token, wanted = form.get("token", [""])[0], form.get("next", ["/"])[0]
        # An address of this server alone: who follows a foreign link must not be sent on to a foreign page.
        target = wanted if wanted.startswith("/") and wanted[1:2] not in ("/", "\\") else "/"
        access = await self._access_of(token, request)
        if access is None:
            return _form(target, wrong=True)
        answer = RedirectResponse(target, 303)
        answer.set_cookie(
            COOKIE,
            self._tokens.session(access),
            max_age=_SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer


def _refuse(asked: HTTPConnection) -> Response:
    is_page = asked.scope["type"] == "http" and not asked.url.path.startswith("/api/")
    if is_page and "text/html" in asked.headers.get("accept", ""):
        return _form(asked.url.path + (f"?{asked.url.query}" if asked.url.query else ""))
    detail = f"this server asks for a token: {_SAYS}"
    return JSONResponse({"detail": detail}, 401, headers={"WWW-Authenticate": 'Bearer realm="postel"'})


def _form(target: str, *, wrong: bool = False) -> HTMLResponse:
    page = (files(__package__) / "login.html").read_text("utf-8")
    page = page.replace("{next}", html.escape(target)).replace("{wrong}", "" if wrong else "hidden")
    headers = {"WWW-Authenticate": 'Bearer realm="postel"', "Cache-Control": "no-store"}
    return HTMLResponse(page, 401, headers=headers)
