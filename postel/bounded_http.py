"""Uvicorn's HTTP with bounds that it lacks: connections, the size and time of a request's head, the time of a body.

Contract: of more connections than are allowed the one that waits longest without a request is closed, so that somebody
who opens them without end keeps nobody else out; where each has a request under way, the new one hears 503. A head that
is too large hears 431, and so do trailers and extensions of chunks; a body that is too large hears 413. Trailers are of
no use to any route, and are dropped. Who is slower than the times says, or does not read an answer, is cut off. A
WebSocket counts as a connection and is never closed for another.

Source: RFC 6585 section 5 (431); RFC 9110 sections 6.5.1 (trailers), 15.5.14 (413) and 15.6.4 (503).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# A browser's cookies and the page's own addresses are a tenth of it. What comes in one piece, up to 256 KiB, is read
# before it is counted. The same holds for what else is no body: trailers, and what frames chunks.
HEAD_BYTES = 64 << 10
HEAD_SECONDS = 10.0
# The largest body, 16 MiB, at 300 KiB a second. Who takes OTLP asks for it sooner itself, and says so.
BODY_SECONDS = 60.0
UNREAD_SECONDS = 60.0


class Waits(Protocol):
    """A connection without a request under way."""

    def cut(self) -> None:
        """End it at once."""


class Bounds:
    """The connections of one server.

    Args:
        connections: at once at most.
        body: bytes of a request's body at most; None: the application looks after it.
    """

    def __init__(self, connections: int, body: int | None = None) -> None:
        self.connections = connections
        self.body = body
        # Without a request under way, longest first.
        self.waiting: dict[Waits, None] = {}
        # Those of them whose TLS is not there yet, which uvicorn does not know of.
        self.shaking: set[Waits] = set()

    def make_room(self, beside: int) -> bool:
        """Close the one that waits longest, where there are as many as are allowed.

        Args:
            beside: connections that uvicorn knows of, without the new one.

        Returns:
            Whether there is room for the new one.
        """
        if beside + len(self.shaking) < self.connections:
            return True
        if not self.waiting:
            return False
        next(iter(self.waiting)).cut()
        return True


class BoundedHttp(HttpToolsProtocol):
    """A connection of a server; its subclass of :func:`bounded` has the bounds."""

    bounds: Bounds

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._in_head = True
        # Since the head began, or since the last byte of a body; and of the body.
        self._other_bytes = self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Take it, where there is room or one that waits."""
        has_room = self.bounds.make_room(len(self.connections))
        super().connection_made(transport)
        if not has_room:
            self._refuse(b"503 Service Unavailable", b"retry-after: 2\r\n")
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._set(None)
        self._readable(is_read=True)
        self.bounds.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand it on, and see that a head ends some time."""
        self._other_bytes += len(data)
        if self._in_head and self._timer is None:
            self._set(HEAD_SECONDS)
        super().data_received(data)
        if self._other_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep it, where it is of the head: uvicorn would add trailers to the head's, for as long as they come."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request is under way."""
        self._in_head = False
        self._other_bytes = self._body_bytes = 0
        self.bounds.waiting.pop(self, None)
        self._set(BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count it."""
        self._other_bytes = 0
        self._body_bytes += len(body)
        if self.bounds.body is not None and self._body_bytes > self.bounds.body:
            if not self.transport.is_closing():
                self._refuse(b"413 Content Too Large")
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request is there."""
        self._in_head = True
        self._set(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It waits for the next request, unless that is here."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.bounds.waiting[self] = None

    def handle_websocket_upgrade(self) -> None:
        """It is no connection of HTTP any more."""
        self._set(None)
        self._readable(is_read=True)
        self.bounds.waiting.pop(self, None)
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """Much of an answer waits to be read."""
        super().pause_writing()
        self._readable(is_read=False)

    def resume_writing(self) -> None:
        """It was read."""
        super().resume_writing()
        self._readable(is_read=True)

    def _wait(self) -> None:
        self.bounds.waiting[self] = None
        self._set(HEAD_SECONDS)

    def _set(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.cut)

    def _readable(self, *, is_read: bool) -> None:
        if self._unread is not None:
            self._unread.cancel()
        self._unread = None if is_read else self.loop.call_later(UNREAD_SECONDS, self.cut)

    def cut(self) -> None:
        """End it at once."""
        self.bounds.waiting.pop(self, None)
        self._set(None)
        # Not closed: what is still to be written would be waited for.
        self.transport.abort()

    def _refuse(self, status: bytes, headers: bytes = b"") -> None:
        self._set(None)
        # An answer that has begun is not another one's place, nor is a request that has its answer. Before the first
        # request there is no cycle.
        cycle: Any = self.cycle
        if cycle is None or not cycle.response_started or (cycle.response_complete and self._in_head):
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\n" + headers + b"connection: close\r\ncontent-length: 0\r\n\r\n"
            )
        self.transport.close()


def bounded(bounds: Bounds) -> type[BoundedHttp]:
    """The protocol of a server of its own."""
    return type("OfOneServer", (BoundedHttp,), {"bounds": bounds})
