"""A uvicorn server that leaves signals to the program that it runs in, as every program of Postel needs it."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from postel.bounded_http import Bounds, bounded
from postel.bounded_tls import BoundedTls
from postel.otlp.tls_door import TlsDoor

# As long as a connection of OTLP may stay idle. A sender that begins a request while it is closed gets no answer; so
# it is longer than senders keep one (the Collector, and whatever uses Go's HTTP client: 90 s).
IDLE_SECONDS = 120
CONNECTIONS = 1000
_MESSAGE_BYTES = 1 << 20
# What a program has open beside connections.
_OTHER_FILES = 512


class Server(uvicorn.Server):
    """Uvicorn's own handlers would end the process, by the signal again, before its program has done its last work.

    Args:
        config: uvicorn's.
        bounds: of its connections.
        context: of TLS; None: it speaks none.
    """

    def __init__(self, config: uvicorn.Config, bounds: Bounds, context: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._bounds, self._context = bounds, context

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with bounds of handshakes."""
        if self._context is None:
            await super().startup(sockets)
            return
        # All but the sockets.
        await super().startup([])
        context, loop = self._context, asyncio.get_running_loop()

        def take() -> asyncio.Protocol:
            return BoundedTls(context, self._bounds, self.server_state.connections, self._make)

        for each in sockets or ():
            self.servers.append(await loop.create_server(take, sock=each, backlog=self.config.backlog))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which knows nothing of handshakes."""
        for each in list(self._bounds.shaking):
            each.cut()
        await super().shutdown(sockets)

    def _make(self) -> asyncio.Protocol:
        # As uvicorn's own startup makes it.
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    def stop(self) -> None:
        """Stop gracefully; called again, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing with signals."""
        yield


def create_server(
    app: ASGIApp,
    *,
    grace: int,
    idle: int = IDLE_SECONDS,
    connections: int = CONNECTIONS,
    body: int | None = None,
    lifespan: Literal["auto", "off"] = "off",
    tls: TlsDoor | None = None,
) -> Server:
    """A server of the sockets that its `serve` is given.

    Args:
        app: answers.
        grace: seconds that answers on the way have when it stops.
        idle: seconds that a connection may stay without a request after one.
        connections: at once at most.
        body: bytes of a request's body at most; None: the application looks after it.
        lifespan: whether the application is told that the server starts and stops.
        tls: what it shows; None: no TLS.
    """
    _allow_files(connections)
    bounds = Bounds(connections, body)
    return Server(
        uvicorn.Config(
            app,
            http=bounded(bounds),
            # A listener's requests are small; NiceGUI's own bound is the same.
            ws_max_size=_MESSAGE_BYTES,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan=lifespan,
            timeout_keep_alive=idle,
            timeout_graceful_shutdown=grace,
        ),
        bounds,
        tls.context() if tls else None,
    )


def _allow_files(connections: int) -> None:
    """Let the process open as many files as two such servers need: systemd and shells give 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
