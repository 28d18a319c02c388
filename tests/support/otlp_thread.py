"""A real OTLP receiver beside a test that blocks: it runs in a thread, and can go away and come back on its port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from support.otlp_receiver import Receiver, running_receiver


@dataclass(frozen=True)
class LogRecord:
    """A log record as Python values; `time` in nanoseconds since the epoch."""

    name: str
    uid: str
    time: int
    severity: str
    body: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str


class OtlpThread:
    """A `Receiver` that blocking code starts and stops; what it took stays over both.

    Args:
        token: that requests must bring; None: none.
    """

    def __init__(self, token: str | None = None) -> None:
        self._token = token
        self.receiver = Receiver()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="otlp-receiver", daemon=True)
        self._thread.start()
        self._running: AsyncExitStack | None = None

    @property
    def endpoint(self) -> str:
        """Where it listens, or did."""
        return self.receiver.http

    def start(self) -> None:
        """Listen, on the port of the last time."""
        self._do(self._start())

    def stop(self) -> None:
        """Go away: connections are closed, nobody listens."""
        self._do(self._stop())

    def close(self) -> None:
        """Stop, and end the thread."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def requests(self) -> list[ExportLogsServiceRequest]:
        """Every request of logs that was taken."""
        return [request for _, request in list(self.receiver.taken) if isinstance(request, ExportLogsServiceRequest)]

    def bodies(self) -> list[str]:
        """The bodies of every log record that was taken, in order, also of those without an id, as others make them."""
        return [
            record.body.string_value
            for request in self.requests()
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def records(self) -> list[LogRecord]:
        """Every log record that was taken, in order."""
        return [record for request in self.requests() for record in records(request)]

    async def _start(self) -> None:
        self._running = AsyncExitStack()
        await self._running.enter_async_context(
            running_receiver(self.receiver, http_address=f"127.0.0.1:{self.receiver.http_port}", token=self._token)
        )

    async def _stop(self) -> None:
        if self._running:
            await self._running.aclose()
            self._running = None

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=15)


def records(request: ExportLogsServiceRequest) -> list[LogRecord]:
    """The log records of a request."""
    found = []
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                attributes = _plain(record.attributes)
                found.append(
                    LogRecord(
                        name=record.event_name,
                        uid=attributes.pop("log.record.uid"),
                        time=record.time_unix_nano,
                        severity=record.severity_text,
                        body=record.body.string_value,
                        attributes=attributes,
                        resource=_plain(resource.resource.attributes),
                        scope=scope.scope.name,
                    )
                )
    return found


def _plain(attributes: Any) -> dict[str, Any]:
    entries: list[KeyValue] = list(attributes)
    assert len({entry.key for entry in entries}) == len(entries), "an attribute is there twice"
    return {entry.key: _value(entry.value) for entry in entries}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind, "an attribute without a value"
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, kind)
