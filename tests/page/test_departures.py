"""Viewers who leave before their page is there."""

from __future__ import annotations

import re
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dashboards.web.departures import Departures
from support.page import answers


@pytest.mark.slow
def test_who_leaves_while_pages_load_is_nothing_to_say(page: str) -> None:
    where = urlsplit(page)
    script = re.search(r'"(/_nicegui/[^"]*\.js)"', httpx.get(page, trust_env=False).text)
    assert script
    asking = f"GET {script[1]} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode()
    for waited in range(40):
        with socket.create_connection((where.hostname, where.port)) as viewer:
            viewer.sendall(asking)
            time.sleep(waited / 4000)
    # What it said is looked at as it ends.
    assert answers(page)


async def test_an_answer_that_is_missed_is_said() -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    app = Starlette(middleware=[Middleware(Departures), Middleware(Passing)])
    app.router.default = silent
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(RuntimeError, match="No response returned"):
            await client.get("/")
