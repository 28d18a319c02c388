"""What those who have shown no token yet hold at once, with a server of a few connections."""

from __future__ import annotations

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from postel import strangers
from postel.entry import Entry, Tokens
from support.listening import served

TOKEN = "may-look"  # noqa: S105 - a test's
# A quarter of them is 2.
CONNECTIONS = 8
FORM = f"token={TOKEN}".encode()
HEAD = b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(FORM)
GUESS = b"GET / HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer nonsense\r\n\r\n"


def guarded() -> ASGIApp:
    async def there(_request: Request) -> Response:
        return PlainTextResponse("there")

    return Entry(Starlette(routes=[Route("/", there)]), tokens=Tokens([TOKEN], []), connections=CONNECTIONS)


async def say(port: int, words: bytes) -> asyncio.Task[bytes]:
    """The first line of the answer to what is said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)

    async def answer() -> bytes:
        try:
            return await reader.readline()
        finally:
            writer.transport.abort()

    answered = asyncio.create_task(answer())
    # So that one comes after the other.
    await asyncio.sleep(0.05)
    return answered


async def test_of_more_forms_the_one_that_comes_for_longest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "FORM_SECONDS", 60.0)
    async with served(guarded(), connections=CONNECTIONS) as port, asyncio.timeout(10):
        slow = [await say(port, HEAD + FORM[:5]) for _ in range(4)]
        for given_up in slow[:2]:
            assert await given_up == b"HTTP/1.1 503 Service Unavailable\r\n"
        assert not any(form.done() for form in slow[2:])
        # A whole one takes the place of another for no longer than it is read.
        assert await (await say(port, HEAD + FORM)) == b"HTTP/1.1 303 See Other\r\n"
        assert sum(form.done() for form in slow) == 3


async def test_a_quarter_of_the_connections_waits_for_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "WRONG_SECONDS", 60.0)
    with capture_logs() as log:
        async with served(guarded(), connections=CONNECTIONS) as port, asyncio.timeout(10):
            guesses = [await say(port, GUESS) for _ in range(5)]
            for guess in guesses[2:]:
                assert await guess == b"HTTP/1.1 401 Unauthorized\r\n"
            assert not any(guess.done() for guess in guesses[:2])
            assert await (await say(port, GUESS.replace(b"nonsense", TOKEN.encode()))) == b"HTTP/1.1 200 OK\r\n"
            for guess in guesses[:2]:
                guess.cancel()
    assert [(line["event"], line["requests"], line["sender"]) for line in log] == [
        ("refused wrong tokens", 1, "127.0.0.1")
    ]
