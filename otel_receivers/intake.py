"""The agent's own door: OTLP/HTTP logs of the mail servers' plugins on this host, answered once the spool has them.

What comes is stamped with this node's identity, where the sender names none of its own, and goes through ``[privacy]``
before it is stored. What the disk does not take now is not taken: the plugins keep it, in files of their own. What the
declarations derive from events is counted with them (:mod:`otel_receivers.derived`). Metrics and traces are "not here".

Source: OTLP specification 1.x, "OTLP/HTTP"; the table of answers in :mod:`postel.otlp.answers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator

import structlog
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_receivers import exporter
from otel_receivers.building import Door, Entry
from otel_receivers.derived import Derivation, Occurrence
from otel_receivers.heartbeats import KEY as HEARTBEATS
from otel_receivers.heartbeats import Heartbeats
from otel_receivers.node import Node
from otel_receivers.points import encode_attributes
from otel_receivers.privacy import Privacy
from otel_receivers.receiver import Target
from otel_receivers.spool import Request, Spool, SpoolError
from postel import unix_socket
from postel.errors import PostelError
from postel.listening import is_loopback, listen
from postel.otlp.answers import Outcome
from postel.otlp.errors import Retryable, TooLarge
from postel.otlp.signal import ExportRequest, Signal
from postel.otlp.tls_door import TlsDoor, door_of
from postel.settings import Intake as IntakeSettings
from postel.settings import Settings
from postel.signals import load_all

# A plugin's batch is smaller; what is larger was not made by one.
REQUEST_BYTES = 4 << 20
# Resources in a request, each of which is stamped; a plugin's has one.
_RESOURCES = 1000
# A request that is stored in parts repeats resource and scope in each: a plugin's have 1 KiB. With a quarter of a part
# they make it twice as large at most.
_REPEATED_BYTES = 64 << 10
_REPEATED_SHARE = 4
_RETRY_SECONDS = 5.0
_ASIDE = 64 << 10
_ANSWER_SECONDS = 2
_log = structlog.get_logger()


class Intake:
    """Takes log records into the spool; a :class:`postel.otlp.answers.Ingest`.

    Args:
        node: this node.
        spool: of the agent.
        privacy: what of addresses may be stored.
        request_bytes: of a request in the spool at most.
        heartbeats: where those of plugins are remembered, also in the spool's state.
    """

    def __init__(
        self,
        node: Node,
        spool: Spool,
        privacy: Privacy,
        *,
        request_bytes: int,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._node = node
        self._spool = spool
        self._privacy = privacy
        self._derivation = Derivation(load_all())
        self._request_bytes = request_bytes
        self._heartbeats = heartbeats
        self._identity = dict(node.resource("").attributes)
        for name in ("service.name", "service.instance.id", "service.version"):
            self._identity.pop(name)

    async def __call__(self, signal: Signal, request: ExportRequest, _encoded: bytes | None = None, /) -> Outcome:
        """Store a request's records.

        Raises:
            Retryable: the disk takes nothing now.
            TooLarge: what is said of all records together is too much to be repeated with each.
        """
        assert isinstance(request, ExportLogsServiceRequest), signal  # noqa: S101 - the only route
        # A plugin's batch takes less than a thread costs; a backlog's would hold up the scrapes.
        small = request.ByteSize() < _ASIDE
        prepared, occurrences = await asyncio.to_thread(self._prepare, request) if not small else self._prepare(request)
        try:
            await self._spool.take(prepared, occurrences)
        except SpoolError as error:
            raise Retryable(_RETRY_SECONDS, str(error)) from None
        await self._remember(request)
        return Outcome()

    async def _remember(self, request: ExportLogsServiceRequest) -> None:
        if self._heartbeats and self._heartbeats.note(request.resource_logs, time.time()):
            # It is taken, whatever becomes of this.
            with contextlib.suppress(SpoolError):
                await self._spool.append((), {HEARTBEATS: self._heartbeats.text()})

    def _prepare(self, request: ExportLogsServiceRequest) -> tuple[list[Request], list[Occurrence]]:
        if len(request.resource_logs) > _RESOURCES:
            raise TooLarge(f"the request has {len(request.resource_logs)} resources, the limit is {_RESOURCES}")
        for resource_logs in request.resource_logs:
            self._stamp(resource_logs.resource)
            self._privacy.apply(resource_logs)
        self._check_parts(request)
        return exporter.log_requests(request, self._request_bytes), self._derivation.occurrences(request)

    def _check_parts(self, request: ExportLogsServiceRequest) -> None:
        if request.ByteSize() <= self._request_bytes:
            return  # it is stored as it is
        repeated = exporter.repeated_bytes(request)
        limit = min(_REPEATED_BYTES, self._request_bytes // _REPEATED_SHARE)
        if repeated > limit:
            raise TooLarge(f"a resource and its scope have {repeated} bytes, the limit in a large request is {limit}")

    def _stamp(self, resource: Resource) -> None:
        """Say on which node, and which instance of its program, the sender runs; what it says itself stays."""
        said = {attribute.key: attribute.value for attribute in resource.attributes}
        if "host.id" in said:
            return  # it is on another node, of which this one knows nothing
        port = said["server.port"].int_value if "server.port" in said else 0
        instance = self._node.instance(Target("127.0.0.1", port) if port else None)
        own = {**self._identity, "service.instance.id": instance}
        resource.attributes.extend(encode_attributes({name: own[name] for name in own if name not in said}))


@contextlib.asynccontextmanager
async def serving(settings: Settings, intake: Intake, doors: Iterable[Door] = ()) -> AsyncIterator[None]:
    """Listen at ``[intake] address`` and ``socket`` while the body runs; ``doors`` are what is answered beside OTLP.

    Raises:
        AddressInUseError: another program listens there.
        SettingsError: the files of its TLS cannot be used.
        PostelError: it is open to others and asks for neither a token nor a certificate, or cannot be listened on.
    """
    # What only prints what it found pays neither the memory nor the time.
    from starlette.applications import Starlette  # noqa: PLC0415

    from postel.otlp.http_server import routes  # noqa: PLC0415
    from postel.serving import create_server  # noqa: PLC0415

    own = settings.intake
    tls = door_of("[intake]", own.tls_certificate, own.tls_key, own.tls_client_ca)
    if not (own.token or (tls and tls.wants_certificates) or is_loopback(own.address.rpartition(":")[0])):
        raise PostelError(
            f"[intake] address {own.address} is open to other hosts: set [intake] token, or tls_client_ca for "
            "certificates of senders, or an address of loopback"
        )
    entry = Entry(own.token.get_secret_value() if own.token else None, loopback_only=not (own.token or tls))
    otlp = routes(intake, limit=REQUEST_BYTES, token=entry.token, signals=(Signal.LOGS,))
    app = Starlette(routes=[*otlp, *(route for door in doors for route in door(entry))])
    with _listeners(own, tls) as listeners:
        servers = [
            (create_server(app, grace=_ANSWER_SECONDS, connections=own.connections, tls=shown), listener)
            for listener, shown in listeners
        ]
        tasks = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in servers]
        path = {"socket": str(own.socket)} if own.socket else {}
        _log.info("the intake listens", address=own.address, tls=tls is not None, **path)
        try:
            with tls.watched() if tls else contextlib.nullcontext():
                yield
        finally:
            for server, _ in servers:
                server.stop()
            await asyncio.gather(*tasks)


@contextlib.contextmanager
def _listeners(settings: IntakeSettings, tls: TlsDoor | None) -> Iterator[list[tuple[socket.socket, TlsDoor | None]]]:
    """Each with what it shows."""
    with contextlib.ExitStack() as stack:
        listeners = [(stack.enter_context(listen(settings.address, "[intake] address")), tls)]
        if settings.socket:
            mode = int(settings.socket_mode, 8)
            # Nothing of it leaves this host, and its rights say who may come.
            at_socket = stack.enter_context(unix_socket.listening(settings.socket, mode, "[intake] socket"))
            listeners.append((at_socket, None))
        yield listeners
