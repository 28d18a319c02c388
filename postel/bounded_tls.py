"""TLS in front of `postel.bounded_http`, with bounds that a server of asyncio's lacks: a handshake counts, and ends.

Contract: a connection counts from its first moment. While its handshake is under way it waits, as one without a request
does, and is closed for another one where there are as many as are allowed; after ten seconds it is cut off. One that is
closed waits two seconds for the other side's word of it. Why a handshake failed is the context's to say.

asyncio makes a protocol's connection when its TLS is there, gives the handshake 60 s and the end 30 s, and tells nobody
of it before. So the connection is taken plain here, and TLS is begun on it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sized

from postel.bounded_http import Bounds

HANDSHAKE_SECONDS = 10.0
# RFC 8446 section 6.1: close_notify. Many never say it.
_END_SECONDS = 2.0


class BoundedTls(asyncio.Protocol):
    """A connection until its TLS is there; then it is `make`'s.

    Args:
        context: of the server.
        bounds: of it, too.
        beside: the connections that uvicorn knows of.
        make: makes a connection of HTTP.
    """

    def __init__(
        self, context: ssl.SSLContext, bounds: Bounds, beside: Sized, make: Callable[[], asyncio.Protocol]
    ) -> None:
        self._context, self._bounds, self._beside, self._make = context, bounds, beside, make
        self._early: list[bytes] = []
        self._is_lost = False
        self._http: asyncio.Protocol | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # of a server of TCP
        """Take it, where there is room or one that waits."""
        self._transport = transport
        if not self._bounds.make_room(len(self._beside)):
            # Without TLS there is nothing to say it by.
            transport.abort()
            return
        # What it says is the handshake's.
        transport.pause_reading()
        self._bounds.shaking.add(self)
        self._bounds.waiting[self] = None
        self._task = asyncio.get_running_loop().create_task(self._shake())

    def data_received(self, data: bytes) -> None:
        """Keep it: with the end of the handshake the beginning of a request may come."""
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whose it is by now."""
        self._is_lost = True
        if self._http:
            self._http.connection_lost(exc)

    def cut(self) -> None:
        """End it at once."""
        self._forget()
        self._transport.abort()

    async def _shake(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_END_SECONDS,
            )
        except OSError:  # as all that ssl raises is
            self._transport.abort()
            return
        finally:
            self._forget()
        # None: it was lost amid the handshake.
        if transport is None or self._is_lost:
            return
        self._http = self._make()
        transport.set_protocol(self._http)
        self._http.connection_made(transport)
        if self._early:
            self._http.data_received(b"".join(self._early))

    def _forget(self) -> None:
        self._bounds.shaking.discard(self)
        self._bounds.waiting.pop(self, None)
