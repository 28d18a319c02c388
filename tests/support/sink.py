"""The sink for tests: its queue over a real database, or the whole program as a process on free ports."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from postel.otlp.tls_door import pinned
from postel.signals import load_all
from support.environment import without_settings
from support.ports import free_ports
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.queue import IngestQueue
from timescale_sink.ingest.telemetry import Telemetry
from timescale_sink.ingest.writer import Writer
from timescale_sink.store.check import Difference, differences
from timescale_sink.store.database import connect, create_pool


@asynccontextmanager
async def ingesting(
    url: str, sink: str = "test", connections: int = 2, telemetry: Telemetry | None = None
) -> AsyncIterator[IngestQueue]:
    """The sink's queue over a migrated database; ``telemetry`` is told what it does."""
    async with create_pool(url, connections) as pool:
        queue = IngestQueue(
            Mapper(load_all()), Writer(pool, load_all(), sink, telemetry), telemetry, connections=connections
        )
        worker = asyncio.create_task(queue.run())
        try:
            yield queue
        finally:
            queue.close()
            await worker


async def recount(url: str) -> list[Difference]:
    """What `postel db check` finds."""
    connection = await connect(url)
    try:
        return await differences(connection, load_all())
    finally:
        await connection.close()


@dataclass
class RunningSink:
    """`postel sink` as a child of the test.

    Attributes:
        more: variables beside its own; with TLS where they name a certificate.
        code: the project's folder whose code runs; None: the one that is installed.
    """

    folder: Path
    url: str
    more: Mapping[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    process: subprocess.Popen[bytes] | None = None
    code: Path | None = None

    @property
    def grpc(self) -> str:
        """Where it listens for OTLP/gRPC."""
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def http(self) -> str:
        """Where it listens for OTLP/HTTP."""
        scheme = "https" if "POSTEL_SINK__TLS_CERTIFICATE" in self.more else "http"
        return f"{scheme}://127.0.0.1:{self.ports[1]}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every command on the same settings."""
        kept = without_settings()
        return {
            **kept,
            "POSTEL_DATA_DIR": str(self.folder / "data"),
            # The data of the tests is of any time.
            "POSTEL_DATABASE__RAW_DAYS": "0",
            "POSTEL_DATABASE__ROLLUP_DAYS": "0",
            "POSTEL_SINK__GRPC_ADDRESS": self.grpc,
            "POSTEL_SINK__HTTP_ADDRESS": f"127.0.0.1:{self.ports[1]}",
            **({"POSTEL_DATABASE__URL": self.url} if self.url else {}),
            **({"PYTHONPATH": str(self.code)} if self.code else {}),
            **self.more,
        }

    @property
    def log(self) -> str:
        """Everything it has said."""
        return (self.folder / "sink.log").read_text("utf-8", "replace")

    def spawn(self) -> None:
        """Start it, and wait for nothing."""
        with (self.folder / "sink.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "postel.cli", "sink"],
                cwd=self.folder,
                env=self.variables,
                stdout=log,
                stderr=log,
            )

    def start(self, *, ready: bool = True, seconds: float = 30) -> None:
        """Start it and wait until it is ready, or only until it listens."""
        self.spawn()
        assert self.process
        deadline = time.monotonic() + seconds
        while self.state(ready=ready) != 200:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def state(self, *, ready: bool = True) -> int:
        """The HTTP status of /readyz or /healthz; 0 where nobody listens."""
        with contextlib.suppress(httpx.TransportError):
            page = f"{self.http}/{'readyz' if ready else 'healthz'}"
            return httpx.get(page, timeout=2, verify=self._trusting()).status_code
        return 0

    def _trusting(self) -> ssl.SSLContext | bool:
        if "POSTEL_SINK__TLS_CERTIFICATE" not in self.more:
            return True
        shown = self.more.get("POSTEL_SINK__TLS_CLIENT_CERTIFICATE")
        return pinned("[sink]", Path(self.more["POSTEL_SINK__TLS_CERTIFICATE"]), Path(shown) if shown else None)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(20)

    def kill(self) -> None:
        """End it as a crash would: kill -9."""
        self.end(signal.SIGKILL)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `postel` command on the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "postel.cli", *arguments],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@contextlib.contextmanager
def running_sink(folder: Path, url: str, **more: str) -> Iterator[RunningSink]:
    """A sink of the test's own, not started yet; ended with the block."""
    sink = RunningSink(folder, url, more)
    try:
        yield sink
    finally:
        if sink.process and sink.process.poll() is None:
            sink.process.kill()
            sink.process.wait(10)
