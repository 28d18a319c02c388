"""The last heartbeat of each process that has a plugin of Postel's loaded: ``postel doctor`` reads it. Pure.

It is kept in the spool's state under `KEY`, as one text. Times are the agent's own, in seconds since 1970: the clock of
a mail server on another host may be another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from otel_receivers.answers import count

KEY = "plugins"
# Anybody who may send events may claim any process: this many are kept, and each of them for a day.
_MOST = 256
_KEPT_SECONDS = 86400.0
_MAX_TEXT = 200
_COUNTS = "postel.plugin.events."


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a process with a plugin said of itself last.

    Attributes:
        service: ``service.name`` of the mail server, such as ``zone-mta``.
        instance: its ``service.instance.id``.
        port: where it listens; 0 where the plugin does not know it.
        plugin: the plugin's name.
        version: the plugin's.
        kind: what the process is for, in the server's own words.
        pid: its id.
        interval: seconds to the next one.
        first: when this process was heard first.
        last: when it was heard last.
        counts: events by what became of them (emitted, delivered, dropped, ...), since the process began.
    """

    service: str
    instance: str
    port: int
    plugin: str
    version: str
    kind: str
    pid: int
    interval: float
    first: float
    last: float
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def process(self) -> tuple[str, str, str, int]:
        """What tells processes apart."""
        return self.instance, self.plugin, self.kind, self.pid


class Heartbeats:
    """The last ones of all processes.

    Args:
        name: of the event, as it is declared.
        text: what :meth:`text` gave when the agent last ran; what cannot be read counts as nothing.
    """

    def __init__(self, name: str, text: str = "") -> None:
        self._name = name
        self._last = {each.process: each for each in read(text)}

    def note(self, resources: Iterable[ResourceLogs], now: float) -> bool:
        """Remember the heartbeats among records; whether there is one.

        Args:
            resources: of a request, after the intake has said whose they are.
            now: seconds since 1970.
        """
        heard = [
            _heartbeat(logs, record, now)
            for logs in resources
            for scope in logs.scope_logs
            for record in scope.log_records
            if record.event_name == self._name
        ]
        for each in heard:
            before = self._last.pop(each.process, None)
            # Where it has emitted less, it is another process with the same id.
            if before and before.counts.get("emitted", 0) <= each.counts.get("emitted", 0):
                each = replace(each, first=before.first)  # noqa: PLW2901 - the same one, known for longer
            self._last[each.process] = each
        if heard:
            self._forget(now)
        return bool(heard)

    def text(self) -> str:
        """All of them, for :func:`read`."""
        return orjson.dumps([asdict(each) for each in self._last.values()]).decode()

    def _forget(self, now: float) -> None:
        kept = [each for each in self._last.values() if each.last > now - _KEPT_SECONDS]
        # They are in the order in which they were heard.
        self._last = {each.process: each for each in kept[-_MOST:]}


def read(text: str) -> list[Heartbeat]:
    """The heartbeats in a text; what cannot be read counts as nothing."""
    try:
        return [Heartbeat(**each) for each in orjson.loads(text)] if text else []
    except (orjson.JSONDecodeError, TypeError):
        return []


def _heartbeat(logs: ResourceLogs, record: LogRecord, now: float) -> Heartbeat:
    resource, said = dict(_plain(logs.resource.attributes)), dict(_plain(record.attributes))
    return Heartbeat(
        service=_text(resource.get("service.name")),
        instance=_text(resource.get("service.instance.id")),
        port=_count(resource.get("server.port")),
        plugin=_text(resource.get("postel.plugin.name")),
        version=_text(resource.get("postel.plugin.version")),
        kind=_text(said.get("postel.plugin.process.kind")),
        pid=_count(resource.get("process.pid")),
        interval=min(float(_count(said.get("postel.plugin.heartbeat.interval"))), _KEPT_SECONDS),
        first=now,
        last=now,
        counts={name.removeprefix(_COUNTS): _count(value) for name, value in said.items() if name in _COUNTED},
    )


def _plain(attributes: Iterable[KeyValue]) -> Iterator[tuple[str, Any]]:
    for attribute in attributes:
        value: AnyValue = attribute.value
        yield attribute.key, getattr(value, value.WhichOneof("value") or "string_value")


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _count(value: object) -> int:
    return count(value) or 0


_COUNTED = frozenset(
    _COUNTS + name for name in ("emitted", "adopted", "delivered", "dropped", "refused", "damaged", "failed", "waiting")
)
