"""``postel sink``: OTLP over gRPC and HTTP in, committed rows out.

The servers listen before the database is there; until it is, and whenever it is away, the answer is "retry".
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator

import psycopg
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from postel import serving
from postel.errors import DatabaseAwayError, DatabaseError
from postel.listening import is_loopback, listen
from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.grpc_server import create_server
from postel.otlp.http_server import routes
from postel.otlp.signal import ExportRequest, Signal
from postel.otlp.tls_door import door_of
from postel.settings import Settings, Sink
from postel.signals import load_all
from postel.tasks import end
from timescale_sink.ingest import reporter
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.queue import IngestQueue
from timescale_sink.ingest.telemetry import State, Telemetry
from timescale_sink.ingest.writer import Writer
from timescale_sink.store import retention
from timescale_sink.store.database import (
    Connection,
    Pool,
    ask_server,
    check_rights,
    connect,
    create_pool,
    database_url,
)
from timescale_sink.store.housekeeping import keep_house_again
from timescale_sink.store.migrate import migrate
from timescale_sink.store.retention import Changes

# How soon a database that is away is asked again, however long it is away already.
_AGAIN_SECONDS = 1.0
# For what is being written at a stop, and then for the answers. Together with the end of an embedded server this is
# less than the supervisor's patience; what is left is not answered, and comes again.
_STOP_SECONDS = 5.0
_ANSWER_SECONDS = 3.0
# Of the housekeeping, after a start and then. What is too old becomes so once a day; what comes too late, at any time.
_FIRST_HOUSE_SECONDS = 60.0
_HOUSE_SECONDS = 3600.0
# Objects that Python's garbage collector lets come before it walks the young ones. The rows of one transaction are tens
# of thousands, none of them in a cycle: walked each 700, as by default, an event costs a third more to map.
_COLLECT_AT = 20_000
# Seconds that a thread which maps may keep the interpreter while the event loop wants it. The loop hands COPY's bytes
# to the database, a socket buffer at a time: with Python's 5 ms the database waits for a third of the time.
_SWITCH_SECONDS = 0.001
# Of malloc.h. Two threads work on rows at a time, the event loop's and the one that maps.
_M_ARENA_MAX, _ARENAS = -8, 2
_log = structlog.get_logger()


class Service:
    """The ingest behind both servers: "retry" until the database is ready, then its queue.

    Attributes:
        name: of this sink, in the ledger and in its own report.
        telemetry: what it counts.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue: IngestQueue | None = None
        # Since the last commit failed: whether the database has taken a probe, and nothing has failed after that.
        self._answers = False
        self._pool: Pool | None = None
        self.name = f"{socket.gethostname()} {settings.sink.grpc_address}"
        self.telemetry = Telemetry()

    async def __call__(self, signal_: Signal, request: ExportRequest, encoded: bytes | None = None, /) -> Outcome:
        """See :class:`postel.otlp.answers.Ingest`."""
        try:
            outcome = await self._take(signal_, request, encoded)
        except Exception:
            # Whatever it is, the sender hears "retry".
            self.telemetry.answers["retry"] += 1
            raise
        self.telemetry.answers["committed"] += 1
        return outcome

    async def _take(self, signal_: Signal, request: ExportRequest, encoded: bytes | None) -> Outcome:
        if self._queue is None:
            raise Retryable(1.0, "the sink is not ready: its database does not answer yet")
        try:
            return await self._queue(signal_, request, encoded)
        except Retryable:
            self._answers = False
            raise

    @property
    def ready(self) -> bool:
        """Whether the schema is there, and the last commit went well or the database takes writes again since.

        A balancer sends nothing until this is true, so it must not take a commit to become true.
        """
        return self._queue is not None and (self._answers or not self._queue.failing)

    def state(self) -> State:
        """How it is now, for its report."""
        if self._queue is None or self._pool is None:
            return State()
        waiting, writing = self._queue.requests
        connections = self._pool.get_stats()
        idle = connections["pool_available"]
        return State(self._queue.bytes, waiting, writing, self.ready, connections["pool_size"] - idle, idle)

    async def run(self, stop: asyncio.Event) -> None:
        """Open the database, however long that takes, and write until ``stop``.

        Raises:
            DatabaseError: the database is there but cannot be used.
        """
        url = await self._open(stop)
        if url is None:
            return
        declarations = load_all()
        pool = create_pool(url, self._settings.database.connections)
        async with pool:
            self._pool = pool
            writer = Writer(pool, declarations, self.name, self.telemetry)
            connections = self._settings.database.connections
            queue = IngestQueue(Mapper(declarations), writer, self.telemetry, connections=connections)
            worker = asyncio.create_task(queue.run())
            helpers = [
                asyncio.create_task(self._keep_database(stop)),
                asyncio.create_task(self._probe(queue, writer)),
                asyncio.create_task(keep_house_again(url, declarations, _FIRST_HOUSE_SECONDS, _HOUSE_SECONDS)),
            ]
            self._queue = queue
            try:
                await stop.wait()
            finally:
                queue.close()
                helped = asyncio.create_task(end(*helpers))
                with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                    await asyncio.wait_for(worker, _STOP_SECONDS)
                await helped

    async def _open(self, stop: asyncio.Event) -> str | None:
        """The database's URL, once the schema is there; None: stopped before."""
        opening = asyncio.create_task(self._prepared(stop))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([opening, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if opening.done():
            return opening.result()
        # Another program's migration, say, may take long; a transaction of this one's is undone.
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError, DatabaseError):
            await opening
        return None

    async def _prepared(self, stop: asyncio.Event) -> str:
        said = False
        while True:
            try:
                url = await database_url(self._settings, stopping=stop.is_set)
                await self._prepare(url)
            except DatabaseAwayError as error:
                if not said:
                    _log.warning("waiting for the database", reason=str(error))
                    said = True
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return url

    async def _prepare(self, url: str) -> None:
        connection = await connect(url)
        try:
            done = await migrate(connection)
            server = await ask_server(connection)
            await check_rights(connection)
            kept = await self._apply_retention(connection)
        except psycopg.OperationalError as error:
            raise DatabaseAwayError(f"the database cannot be reached: {error}") from None
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise DatabaseAwayError(f"the database takes no writes now: {error}") from None
        finally:
            await connection.close()
        _log.info("the database is ready", server=server.tier.value, version=server.version, migrations=done or "none")
        if kept and kept.changed:
            _log.info("things are kept for another time than before", relations=len(kept.changed))

    async def _apply_retention(self, connection: Connection) -> Changes | None:
        try:
            return await retention.apply(connection, self._settings.database, load_all())
        except psycopg.errors.InsufficientPrivilege as error:
            # No reason to take no data; what is kept for how long stays as it was.
            _log.warning(
                "the database role may not set how long things are kept; run `postel db migrate` as the tables' owner",
                reason=error.diag.message_primary,
            )
        except DatabaseError as error:
            _log.warning("how long things are kept stays as it was", reason=str(error))
        return None

    async def _probe(self, queue: IngestQueue, writer: Writer) -> None:
        """Ask the database, while commits fail, whether it takes writes again."""
        said = False
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            if not queue.failing:
                self._answers = said = False
            elif queue.away and not self._answers:
                with contextlib.suppress(psycopg.Error, TimeoutError):
                    await writer.probe()
                    self._answers = True
                    if not said:
                        _log.info("the database answers again")
                        said = True

    async def _keep_database(self, stop: asyncio.Event) -> None:
        """Start the embedded server again when it has died; a server by URL is its owner's to look after."""
        while self._settings.database.url is None and not stop.is_set():
            await asyncio.sleep(5)
            with contextlib.suppress(DatabaseError):
                await database_url(self._settings, stopping=stop.is_set)


async def run(settings: Settings) -> None:
    """Run the sink until SIGINT or SIGTERM.

    Raises:
        AddressInUseError: a listening address is taken.
        DatabaseError: the database cannot be used.
    """
    _tune_allocator()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = Service(settings)
    async with _servers(settings, service):
        _tune_interpreter()
        work = asyncio.create_task(service.run(stop))
        reports = asyncio.create_task(reporter.run(settings, service.telemetry, service.state, service.name))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        reports.cancel()
        await work
        await stopped
        await end(reports)


def _tune_allocator() -> None:
    """Let threads share their heaps: glibc gives each one of its own, and keeps in it what the largest batch took.

    Source: mallopt(3), M_ARENA_MAX. It holds for threads that come later; other C libraries have no such heaps.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def _tune_interpreter() -> None:
    """Let the garbage collector walk little, and nothing of what is there now; and let threads change places soon."""
    load_all()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AT, *gc.get_threshold()[1:])
    sys.setswitchinterval(_SWITCH_SECONDS)


@contextlib.asynccontextmanager
async def _servers(settings: Settings, service: Service) -> AsyncIterator[None]:
    sink = settings.sink
    token = sink.token.get_secret_value() if sink.token else None
    limit = sink.request_bytes
    tls = door_of("[sink]", sink.tls_certificate, sink.tls_key, sink.tls_client_ca)
    if not (token or (tls and tls.wants_certificates)):
        _warn_of_strangers(sink)
    grpc_server, _ = create_server(
        service, address=sink.grpc_address, limit=limit, token=token, tls=tls, connections=sink.connections
    )
    listener = listen(sink.http_address, "[sink] http_address")
    application = Starlette(routes=[*routes(service, limit=limit, token=token), *_health(service)])
    http_server = serving.create_server(application, grace=int(_ANSWER_SECONDS), connections=sink.connections, tls=tls)
    await grpc_server.start()
    http = asyncio.create_task(http_server.serve(sockets=[listener]))
    _log.info("the sink listens", grpc=sink.grpc_address, http=sink.http_address, tls=tls is not None)
    try:
        with tls.watched() if tls else contextlib.nullcontext():
            yield
    finally:
        http_server.stop()
        await grpc_server.stop(_ANSWER_SECONDS)
        await http
        listener.close()


def _warn_of_strangers(sink: Sink) -> None:
    for address in (sink.grpc_address, sink.http_address):
        if not is_loopback(address.rpartition(":")[0]):
            _log.warning(
                "whoever reaches the sink can write: set [sink] token, or tls_client_ca for certificates of senders",
                address=address,
            )


def _health(service: Service) -> list[Route]:
    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        if service.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "the database does not answer yet"}, status_code=503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
