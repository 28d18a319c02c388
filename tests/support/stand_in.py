"""A stand-in for a server that answers in JSON, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from support.raw_http_server import server

_REASONS = {200: "OK", 302: "Found", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error"}


@dataclass(frozen=True)
class Request:
    """What was asked of a stand-in, and when."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: float


class StandIn(Protocol):
    """What stands in: the name that it gives itself, what it was asked, and what it answers."""

    name: str
    requests: list[Request]

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and JSON, or the body's bytes."""


@asynccontextmanager
async def standing_in(stand_in: StandIn) -> AsyncIterator[int]:
    """The stand-in on a port of loopback."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}
            url = urlsplit(first.split(" ")[1])
            query = {name: texts[0] for name, texts in parse_qs(url.query).items()}
            request = Request(url.path, query, headers, time.monotonic())
            stand_in.requests.append(request)
            status, content = stand_in.answer(request)
            body = content if isinstance(content, bytes) else json.dumps(content, indent=2).encode() + b"\n"
            writer.write(
                f"HTTP/1.1 {status} {_REASONS.get(status, 'Other')}\r\nServer: {stand_in.name}\r\n"
                f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()

    async with server(answer, reads=False) as port:
        yield port
