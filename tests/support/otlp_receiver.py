"""A real OTLP receiver on two free ports, gRPC and HTTP, that keeps what it takes and answers what a test asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette

from postel.otlp.answers import Outcome
from postel.otlp.codec import DEFAULT_LIMIT
from postel.otlp.grpc_server import create_server
from postel.otlp.http_server import routes
from postel.otlp.signal import ExportRequest, Signal
from postel.otlp.tls_door import TlsDoor
from support.listening import served


@dataclass
class Receiver:
    """An `Ingest` with both servers in front of it.

    Args:
        answer: what the next requests get: an Outcome, or an exception that is raised.
        before: what the next ones get before that, one each.
        taken: every request that reached `ingest`, in order.
    """

    answer: Outcome | Exception = field(default_factory=Outcome)
    before: list[Outcome | Exception] = field(default_factory=list)
    taken: list[tuple[Signal, ExportRequest]] = field(default_factory=list)
    grpc_port: int = 0
    http_port: int = 0

    async def __call__(self, signal: Signal, request: ExportRequest, _encoded: bytes | None = None, /) -> Outcome:
        self.taken.append((signal, request))
        answer = self.before.pop(0) if self.before else self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def grpc(self) -> str:
        return f"http://127.0.0.1:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"


@asynccontextmanager
async def running_receiver(
    receiver: Receiver | None = None,
    *,
    http_address: str = "127.0.0.1:0",
    limit: int = DEFAULT_LIMIT,
    token: str | None = None,
    tls: TlsDoor | None = None,
    connections: int = 1000,
) -> AsyncIterator[Receiver]:
    """Serve a `Receiver`, a new one or one that was served before, until the block ends."""
    receiver = receiver or Receiver()
    grpc_server, receiver.grpc_port = create_server(
        receiver, address="127.0.0.1:0", limit=limit, token=token, tls=tls, connections=connections
    )
    app = Starlette(routes=routes(receiver, limit=limit, token=token))
    async with served(app, http_address, connections=connections, tls=tls) as receiver.http_port:
        await grpc_server.start()
        try:
            yield receiver
        finally:
            await grpc_server.stop(0)
