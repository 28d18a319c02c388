"""``postel sink``: OTLP over gRPC and HTTP in, committed rows out.

The servers listen before the database is there; until it is, and whenever it is away, the answer is "retry".
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator

import psycopg
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from postel.errors import DatabaseAwayError, DatabaseError
from postel.listening import listen
from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable
from postel.otlp.grpc_server import create_server
from postel.otlp.http_server import routes
from postel.otlp.signal import ExportRequest, Signal
from postel.serving import IDLE_SECONDS, Server
from postel.settings import Settings
from postel.signals import Declarations, load_all
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
from timescale_sink.store.housekeeping import keep_house
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
            queue = IngestQueue(Mapper(declarations), writer, self.telemetry)
            worker = asyncio.create_task(queue.run())
            helpers = [
                asyncio.create_task(self._keep_database(stop)),
                asyncio.create_task(self._probe(queue, writer)),
                asyncio.create_task(_keep_house(url, declarations)),
            ]
            self._queue = queue
            try:
                await stop.wait()
            finally:
                queue.close()
                for helper in helpers:
                    helper.cancel()
                with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                    await asyncio.wait_for(worker, _STOP_SECONDS)
                await asyncio.gather(*helpers, return_exceptions=True)

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
            elif not self._answers:
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


async def _keep_house(url: str, declarations: Declarations) -> None:
    """Keep house now and then; what becomes of that is nothing that ingest could notice."""
    await asyncio.sleep(_FIRST_HOUSE_SECONDS)
    while True:
        try:
            await keep_house(url, declarations)
        except (psycopg.Error, DatabaseError) as error:
            _log.warning("the housekeeping did not end", reason=str(error).strip().partition("\n")[0])
        except Exception:  # noqa: BLE001 - whatever it is, it is said, and ends nothing
            _log.exception("the housekeeping failed")
        await asyncio.sleep(_HOUSE_SECONDS)


async def run(settings: Settings) -> None:
    """Run the sink until SIGINT or SIGTERM.

    Raises:
        AddressInUseError: a listening address is taken.
        DatabaseError: the database cannot be used.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = Service(settings)
    async with _servers(settings, service):
        work = asyncio.create_task(service.run(stop))
        reports = asyncio.create_task(reporter.run(settings, service.telemetry, service.state, service.name))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        reports.cancel()
        await work
        await stopped
        await asyncio.gather(reports, return_exceptions=True)


@contextlib.asynccontextmanager
async def _servers(settings: Settings, service: Service) -> AsyncIterator[None]:
    token = settings.sink.token.get_secret_value() if settings.sink.token else None
    limit = settings.sink.request_bytes
    grpc_server, _ = create_server(service, address=settings.sink.grpc_address, limit=limit, token=token)
    listener = listen(settings.sink.http_address, "[sink] http_address")
    application = Starlette(routes=[*routes(service, limit=limit, token=token), *_health(service)])
    http_server = Server(
        uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=int(_ANSWER_SECONDS),
        )
    )
    await grpc_server.start()
    http = asyncio.create_task(http_server.serve(sockets=[listener]))
    _log.info("the sink listens", grpc=settings.sink.grpc_address, http=settings.sink.http_address)
    try:
        yield
    finally:
        http_server.stop()
        await grpc_server.stop(_ANSWER_SECONDS)
        await http
        listener.close()


def _health(service: Service) -> list[Route]:
    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        if service.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "the database does not answer yet"}, status_code=503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
