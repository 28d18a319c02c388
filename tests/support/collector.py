"""The real OpenTelemetry Collector with the shipped agent.yaml, and a sink behind it that can be away."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import psutil
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc

from postel.collector import collector_config
from support.ports import free_port, free_ports
from support.running_postel import until

Request = metrics.ExportMetricsServiceRequest | logs.ExportLogsServiceRequest


def is_healthy(address: str) -> bool:
    """Whether a Collector says so at its health's host:port."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://{address}", timeout=1, trust_env=False).status_code == httpx.codes.OK
    return False


@contextlib.contextmanager
def running_block(
    block: str, environment: Mapping[str, str], log: Path, health_variable: str = "POSTEL_COLLECTOR_HEALTH"
) -> Iterator[Callable[[], str]]:
    """Run a shell's block of a page, whose last command is the Collector, until it is there; gives its log's reader.

    Args:
        block: of the page.
        environment: of the shell.
        log: the file for what it says.
        health_variable: which says to it where it is asked for its health.
    """
    health = f"127.0.0.1:{free_port()}"
    script = block.replace("\npostel-otelcol", "\nexec postel-otelcol")
    with log.open("wb") as file:
        variables = {**environment, health_variable: health}
        process = subprocess.Popen(["bash", "-e", "-c", script], env=variables, stdout=file, stderr=file)
    try:
        until(lambda: process.poll() is not None or is_healthy(health), 30, log.read_text)
        assert process.poll() is None, log.read_text()
        yield log.read_text
    finally:
        process.terminate()
        process.wait(30)


class Sink(metrics_grpc.MetricsServiceServicer, logs_grpc.LogsServiceServicer):
    """Remembers what it took. ``answer`` may refuse a request with a status; what is refused is not remembered.

    With a ``certificate``, a file of PEM with its key, it speaks TLS alone.
    """

    def __init__(self, port: int, certificate: Path | None = None) -> None:
        self.address = f"127.0.0.1:{port}"
        self._certificate = certificate
        self.answer: Callable[[Request], grpc.StatusCode | None] = lambda _request: None
        self.taken: list[Request] = []
        self.authorizations: set[str] = set()
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 16 << 20)])
        metrics_grpc.add_MetricsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        logs_grpc.add_LogsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        if self._certificate:
            shown = self._certificate.read_bytes()
            self._server.add_secure_port(self.address, grpc.ssl_server_credentials([(shown, shown)]))
        else:
            self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        if self._server:
            self._server.stop(grace=None).wait()
            self._server = None

    def Export(self, request: Request, context: grpc.ServicerContext) -> Message:  # noqa: N802 - gRPC's name
        refusal = self.answer(request)
        if refusal:
            context.abort(refusal, "refused by the test")
        with self._lock:
            self.taken.append(request)
            self.authorizations.update(str(v) for k, v in context.invocation_metadata() if k == "authorization")
        if isinstance(request, metrics.ExportMetricsServiceRequest):
            return metrics.ExportMetricsServiceResponse()
        return logs.ExportLogsServiceResponse()

    def bodies(self) -> list[str]:
        """The bodies of all log records, in the order of arrival, what came twice twice."""
        with self._lock:
            return [
                record.body.string_value
                for request in self.taken
                if isinstance(request, logs.ExportLogsServiceRequest)
                for resource in request.resource_logs
                for scope in resource.scope_logs
                for record in scope.log_records
            ]


class Collector:
    """One Collector on free ports whose storage outlives its process."""

    def __init__(self, program: Path, folder: Path, sink_port: int, configuration: Path | None = None) -> None:
        self._program = program
        self._configuration = configuration or collector_config()
        self._log = folder / "collector.log"
        grpc_port, http_port, health_port = free_ports(3)
        self.url = f"http://127.0.0.1:{http_port}"
        self.health = f"http://127.0.0.1:{health_port}"
        self.storage = folder / "storage"
        self.environment = {
            **os.environ,
            "POSTEL_COLLECTOR_GRPC": f"127.0.0.1:{grpc_port}",
            "POSTEL_COLLECTOR_HTTP": f"127.0.0.1:{http_port}",
            "POSTEL_COLLECTOR_HEALTH": f"127.0.0.1:{health_port}",
            "POSTEL_COLLECTOR_STORAGE": str(self.storage),
            "POSTEL_SINK_GRPC": f"127.0.0.1:{sink_port}",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, *overrides: str, files: Sequence[Path] = ()) -> None:
        """Start it, and wait for nothing; ``files`` lie over agent.yaml, an override is YAML such as ``a::b: 1``."""
        command: list[str | Path] = [self._program, "--config", self._configuration]
        for path in files:
            command += ["--config", path]
        for override in overrides:
            command += ["--config", f"yaml:{override}"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def start(self, *overrides: str, files: Sequence[Path] = ()) -> None:
        """As :meth:`spawn`, and wait for its health."""
        self.spawn(*overrides, files=files)
        assert self.process
        deadline = time.monotonic() + 20
        while True:
            assert self.process.poll() is None, self.log()
            try:
                if httpx.get(self.health, timeout=1).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would: kill -9."""
        assert self.process
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def end(self) -> None:
        """End it if it runs."""
        if self.process:
            self.kill()

    def send(self, request: Request) -> int:
        """Send by OTLP/HTTP; returns the status."""
        signal = "metrics" if isinstance(request, metrics.ExportMetricsServiceRequest) else "logs"
        response = httpx.post(
            f"{self.url}/v1/{signal}",
            content=request.SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
            timeout=30,
        )
        return response.status_code

    def listening(self) -> set[tuple[str, int]]:
        """The addresses and ports that its process listens on."""
        assert self.process
        connections = psutil.Process(self.process.pid).net_connections("tcp")
        return {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}

    def log(self) -> str:
        """What it printed, over all its starts."""
        return self._log.read_text("utf-8", "replace")


def log_request(body: str, padding: int = 0) -> logs.ExportLogsServiceRequest:
    """One log record; ``padding`` bytes make it large and do not compress away in the Collector's queue."""
    request = logs.ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="host.id").value.string_value = "node-1"
    scope = resource.scope_logs.add()
    scope.scope.name = "postel.agent"
    record = scope.log_records.add(time_unix_nano=time.time_ns(), event_name="postel.node.registered")
    record.body.string_value = body
    if padding:
        record.attributes.add(key="filler").value.bytes_value = os.urandom(padding)
    return request


def metric_request(value: float) -> metrics.ExportMetricsServiceRequest:
    """One gauge point."""
    request = metrics.ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="host.id").value.string_value = "node-1"
    scope = resource.scope_metrics.add()
    scope.scope.name = "postel.system"
    metric = scope.metrics.add(name="postel.host.cpu.load", unit="%")
    metric.gauge.data_points.add(time_unix_nano=15_000_000_000, as_double=value)
    return request
