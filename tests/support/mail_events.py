"""Events as mail servers' plugins send them, built from the declarations' names."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_receivers.points import encode_attributes

ZONE_MTA = {
    "service.name": "zone-mta",
    "service.instance.id": "node-1:12080",
    "host.id": "node-1",
    "host.name": "mx1.example.org",
    "process.pid": 4711,
}
HARAKA = {**ZONE_MTA, "service.name": "haraka", "service.instance.id": "node-1:25"}


def uid(number: int) -> str:
    """The id of an event, the same for the same number."""
    return str(uuid.UUID(int=number))


def event(
    name: str, attributes: Mapping[str, Any], *, uid: str | None = None, time_unix_nano: int = 1768471200000000000
) -> LogRecord:
    """A record; ``uid``: None where it has no id."""
    own = {} if uid is None else {"log.record.uid": uid}
    return LogRecord(
        event_name=name, time_unix_nano=time_unix_nano, attributes=encode_attributes({**own, **attributes})
    )


def attempt(number: int, *, zone: str = "default", duration: float = 0.2, outcome: str = "accepted") -> LogRecord:
    """A delivery attempt of Zone-MTA's."""
    attributes: dict[str, Any] = {"zonemta.zone": zone, "zonemta.attempt.duration": duration}
    if outcome != "deferred":
        attributes["zonemta.queue.duration"] = duration * 10
    return event(f"zonemta.delivery.{outcome}", attributes, uid=uid(number))


def request(
    *records: LogRecord, resource: Mapping[str, Any] = ZONE_MTA, scope: str = "postel.zone_mta"
) -> ExportLogsServiceRequest:
    """A request of one sender."""
    return requests([(resource, scope, records)])


def requests(parts: Sequence[tuple[Mapping[str, Any], str, Sequence[LogRecord]]]) -> ExportLogsServiceRequest:
    """A request of several senders."""
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=Resource(attributes=encode_attributes(resource)),
                scope_logs=[ScopeLogs(scope=InstrumentationScope(name=scope), log_records=records)],
            )
            for resource, scope, records in parts
        ]
    )
