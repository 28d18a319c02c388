"""``postel serve``: the API under ``/api/v1`` and the live pages, in one process.

It fetches nothing from the internet: the page's scripts, styles and charts come from installed packages. It answers
while the database is away (the pages say so, the API answers 503) and finds it again by itself.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from structlog import get_logger

from dashboards.web.departures import Departures
from postel import __version__
from postel.entry import Entry, Tokens
from postel.errors import DatabaseError, PostelError
from postel.guard import Guard
from postel.listening import is_loopback, listen, reachable
from postel.otlp.tls_door import door_of
from postel.serving import CONNECTIONS, create_server
from postel.settings import Settings
from postel.signals import load_all
from postel.tasks import end
from timescale_sink.api import routes
from timescale_sink.api.access import Access
from timescale_sink.api.readers import Readers
from timescale_sink.store.database import READ_URL, create_pool, database_url

# An open page holds its connection until it is told; browsers come back by themselves after a restart.
_GRACE_S = 3
# Uvicorn's own.
_IDLE_S = 5
# What a browser or program sends here is a silence, or what was clicked.
_BODY_BYTES = 1 << 20
_RETRY_S = 5

_log = get_logger()


def create_app(
    readers: Readers,
    *,
    loopback_only: bool = True,
    tokens: Tokens | None = None,
    connections: int = CONNECTIONS,
    runbooks: Mapping[str, str] = MappingProxyType({}),
) -> FastAPI:
    """The API and the pages over the same readers; where there are tokens, for who shows one.

    ``connections``: of the server at most. ``runbooks``: rule -> the address of its runbook, where that is not one of
    this server's pages.

    NiceGUI's application is one of the process: pages of a second call take the place of those of the first.
    """
    # A second of imports that the commands beside `serve` need not pay.
    from nicegui import app as nicegui_app  # noqa: PLC0415
    from nicegui import ui  # noqa: PLC0415

    from dashboards.web import pages  # noqa: PLC0415 - imports NiceGUI

    # The interactive documentation of FastAPI would load its scripts from the internet.
    app = FastAPI(
        title="Postel", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json"
    )
    routes.add_to(app, readers)

    @app.get("/healthz", include_in_schema=False)
    async def alive() -> dict[str, str]:
        """That the process answers, whatever the database does."""
        return {"status": "ok"}

    # The last is asked first.
    if tokens:
        app.add_middleware(Entry, tokens=tokens, connections=connections)
    app.add_middleware(Guard, loopback_only=loopback_only)
    pages.add(readers, runbooks)
    # No link is bound between elements, so no loop needs to look for changes; Tailwind's compiler is not used.
    ui.run_with(
        app,
        title="Postel",
        dark=None,
        language="en-GB",
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=10,
        message_history_length=100,
        show_welcome_message=False,
        favicon=Path(__file__).parent / "static" / "favicon.svg",
    )
    # Around those that NiceGUI has added.
    nicegui_app.add_middleware(Departures)
    return app


Beside = Callable[[str], Coroutine[Any, Any, None]]


async def run(settings: Settings, beside: Beside, runbooks: Mapping[str, str]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: where, and which database.
        beside: what else this process does until then, given the database's URL.
        runbooks: rule -> the address of its runbook, where a user's own file of rules gives one.

    Raises:
        AddressInUseError: another program listens on ``[serve] address``.
        PostelError: it is open to others, and there is no token.
    """
    address = settings.serve.address
    loopback_only = is_loopback(address.rpartition(":")[0])
    tokens = Tokens(
        [token.get_secret_value() for token in settings.serve.read_tokens],
        [token.get_secret_value() for token in settings.serve.admin_tokens],
    )
    if not loopback_only and not tokens:
        raise PostelError(
            f"[serve] address {address} is open to other hosts: set [serve] read_tokens or admin_tokens, "
            "or listen on 127.0.0.1"
        )
    tls = door_of("[serve]", settings.serve.tls_certificate, settings.serve.tls_key, settings.serve.tls_client_ca)
    with listen(address, "[serve] address") as listener:
        readers = Readers(load_all(), replica=settings.database.read_url is not None)
        readers.start()
        opening = asyncio.create_task(_begin(settings, readers, beside))
        connections = settings.serve.connections
        app = create_app(
            readers, loopback_only=loopback_only, tokens=tokens, connections=connections, runbooks=runbooks
        )
        server = create_server(
            app,
            grace=_GRACE_S,
            idle=_IDLE_S,
            connections=connections,
            body=_BODY_BYTES,
            lifespan="auto",
            tls=tls,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        # Each WebSocket that opens and closes would be a line; what goes wrong still is.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        _log.info(f"the page is at {settings.serve.scheme}://{reachable(address)}/")
        try:
            with tls.watched() if tls else nullcontext():
                await server.serve([listener])
        finally:
            await end(opening)
            await readers.close()


async def _begin(settings: Settings, readers: Readers, beside: Beside) -> None:
    await _open_replica(settings, readers.access)
    await beside(await _open(settings, readers.primary))


async def _open_replica(settings: Settings, access: Access) -> None:
    """Give the readers the pool of a replica, where there is one."""
    if settings.database.read_url is None:
        return
    try:
        pool = create_pool(settings.database.read_url.get_secret_value(), settings.database.connections, READ_URL)
    except DatabaseError as error:
        # The URL is none, which no waiting mends; alerts are evaluated all the same.
        access.fault = str(error)
        _log.error("the replica cannot be asked", reason=str(error))
        return
    await pool.open()
    access.pool = pool
    _log.info("a replica answers what is read; alerts stay the primary's", setting=READ_URL)


async def _open(settings: Settings, access: Access) -> str:
    """Give the readers their pool as soon as the database is there; an embedded one may take its time to recover."""
    while True:
        try:
            url = await database_url(settings)
            pool = create_pool(url, settings.database.connections)
            await pool.open()
        except DatabaseError as error:
            access.fault = str(error)
            _log.warning("the database cannot be opened; trying again", reason=str(error))
            await asyncio.sleep(_RETRY_S)
        else:
            access.pool = pool
            return url
