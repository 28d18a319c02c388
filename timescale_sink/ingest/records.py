"""Log records to rows: of the table that their event is declared to have, or of ``otel_log``. Pure.

Most events go by their bytes (`plain_events`); what is said here of one record by itself is the definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from postel.signals import Declarations
from timescale_sink.ingest import wire
from timescale_sink.ingest.events import EventMapper, TypedEvent
from timescale_sink.ingest.letters import Part, bury
from timescale_sink.ingest.plain_events import UID, PlainEvents, Plan
from timescale_sink.ingest.plain_events import Row as PlainRow
from timescale_sink.ingest.rows import LOGS, LogRow, RecordKey, Rows
from timescale_sink.ingest.series import Origin, encode_scope, origin_of
from timescale_sink.ingest.sightings import see
from timescale_sink.ingest.values import (
    AHEAD,
    UnstorableError,
    attributes,
    by_hour,
    canonical,
    fingerprint,
    from_microseconds,
    hour,
    hour_of_letter,
    key_text,
    microseconds,
    moment,
    optional_instant,
    plain,
    severity,
    text,
)

_NANOSECONDS = 1000


@dataclass(frozen=True, slots=True)
class _Above:
    """What stands above records."""

    origin: Origin
    scope: bytes
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class _Page:
    """The plain events of one name in a scope.

    Attributes:
        template: what their rows share.
        times: of those that were taken, microseconds since 1970.
    """

    plan: Plan
    template: PlainRow
    times: list[int] = field(default_factory=list)


class RecordMapper:
    """Maps requests of log records by one set of declarations."""

    def __init__(self, declarations: Declarations) -> None:
        self._events = EventMapper(declarations)
        self._plain = PlainEvents(self._events)
        agent = declarations["agent"]
        self._sources = next(name for name in agent.attributes if name.endswith(".node.sources"))
        # The whole list of a node's sources, wherever it is told: when the node starts, and when one comes or goes.
        self._tell_sources = {event.name for event in agent.events.values() if self._sources in event.attributes}

    def map(self, request: Any, now: datetime, rows: Rows, encoded: bytes | None) -> list[str]:
        """As `mapping.Mapper.map`."""
        reasons: list[str] = []
        wired: Any = None
        for place, resource_logs in enumerate(request.resource_logs):
            origin = origin_of(resource_logs.resource)
            resource_part = Part(resource_logs)
            seen: datetime | None = None
            for scope_place, scope_logs in enumerate(resource_logs.scope_logs):
                above = _Above(origin, encode_scope(scope_logs.scope), (resource_part, Part(scope_logs)))
                if self._is_plain(above, scope_logs):
                    if wired is None:
                        wired = wire.Logs.FromString(encoded or request.SerializeToString())
                    records = wired.resource_logs[place].scope_logs[scope_place].log_records
                    at = self._take_plain(above, (scope_logs.log_records, records), now, rows, reasons)
                else:
                    at = self._take_records(above, scope_logs.log_records, now, rows, reasons)
                if at:
                    seen = max(seen or at, at)
            if seen:
                see(rows, origin, seen)
        return reasons

    def _is_plain(self, above: _Above, scope_logs: Any) -> bool:
        """Whether it is worth while to look for plain events: of a scope that has one, most are."""
        return not above.origin.fault and any(
            self._plan(record.event_name) is not None for record in scope_logs.log_records[:1]
        )

    def _plan(self, event_name: str) -> Plan | None:
        return None if event_name in self._tell_sources else self._plain.plan(event_name)

    def _take_records(
        self, above: _Above, records: Any, now: datetime, rows: Rows, reasons: list[str]
    ) -> datetime | None:
        """Map a scope's records; the latest time of those that a table can hold."""
        times = [at for record in records if (at := self._take_record(above, record, now, rows, reasons))]
        return max(times, default=None)

    def _take_plain(
        self, above: _Above, records: tuple[Any, Any], now: datetime, rows: Rows, reasons: list[str]
    ) -> datetime | None:
        """As `_take_records`, of the records in both forms; what is plain goes by its bytes."""
        by_objects, wired = records
        last = microseconds(now + AHEAD)
        known: dict[str, _Page | None] = {}
        seen: list[datetime] = []
        for number, record in enumerate(wired):
            name, time = record.event_name, record.time_unix_nano // _NANOSECONDS
            if name not in known:
                plan = self._plan(name)
                known[name] = None if plan is None else _Page(plan, plan.template(above.origin))
            page = known[name]
            made = page.plan.row(page.template, time, record.attributes[:]) if page and 0 < time <= last else None
            if page and made:
                page.times.append(time)
                _add(*made, page.plan.table, rows)
            elif at := self._take_record(above, by_objects[number], now, rows, reasons):
                seen.append(at)
        for page in filter(None, known.values()):
            for at, count in by_hour(page.times):
                rows.tally(at, page.plan.table).received += count
            if page.times:
                seen.append(from_microseconds(max(page.times)))
        return max(seen, default=None)

    def _take_record(
        self, above: _Above, record: LogRecord, now: datetime, rows: Rows, reasons: list[str]
    ) -> datetime | None:
        """The record's time; None where it became a dead letter."""
        origin = above.origin
        table = self._events.table(record.event_name)
        try:
            origin.check()
            row = self._event_row(above, record, now) if table else _log_row(above, record, now)
        except UnstorableError as error:
            at = hour_of_letter(record.time_unix_nano, now)
            bury(rows, record, above.parts, destination=table or LOGS, reason=str(error), at=at)
            reasons.append(str(error))
            return None
        content = self._events.format(record.event_name).encode(row) if isinstance(row, TypedEvent) else row
        rows.tally(hour(row.time), table or LOGS).received += 1
        _add(row.key, content, table or LOGS, rows)
        if record.event_name in self._tell_sources:
            sources = attributes(record.attributes).get(self._sources)
            see(rows, origin, row.time, sources=sources if isinstance(sources, list) else None)
        return row.time

    def _event_row(self, above: _Above, record: LogRecord, now: datetime) -> TypedEvent:
        at = _time_of(record, now)
        found = attributes(record.attributes)
        event_id = _event_id(above, record, found.get(UID))
        if found.get(UID) == str(event_id):
            # Any other id is not to be told from the row's, and is what its sender looks for.
            del found[UID]
        cells, rest = self._events.cells(record.event_name, found, above.origin.resource)
        return TypedEvent(
            at,
            event_id,
            above.origin.node_id,
            above.origin.instance,
            record.event_name,
            cells,
            rest,
        )


def _add(key: RecordKey, row: LogRow | bytes, table: str, rows: Rows) -> None:
    there = rows.logs.get(table)
    if there is None:
        there = rows.logs[table] = {}
    first = there.setdefault(key, row)
    if first is not row:
        tally = rows.tally(hour(from_microseconds(key[1])), table)
        tally.duplicate += 1
        tally.conflicting += first != row


def _time_of(record: LogRecord, now: datetime) -> datetime:
    # The data model lets a source leave out the time of the occurrence; when it was observed is then the best there is.
    return moment(record.time_unix_nano or record.observed_time_unix_nano, now)


def _log_row(above: _Above, record: LogRecord, now: datetime) -> LogRow:
    at = _time_of(record, now)
    found = attributes(record.attributes)
    body = plain(record.body)
    return LogRow(
        _event_id(above, record, found.get(UID)),
        at,
        optional_instant(record.observed_time_unix_nano),
        above.origin.node_id,
        above.origin.instance,
        key_text(record.event_name, "the event's name"),
        severity(record.severity_number),
        text(record.severity_text),
        None if body is None else canonical(body),
        record.trace_id or None,
        record.span_id or None,
        record.flags,
        above.origin.encoded,
        above.scope,
        canonical(found),
    )


def _event_id(above: _Above, record: LogRecord, uid: object) -> UUID:
    """The record's own id; a hash of an id that is no UUID; a hash of all that it says where it has none."""
    if isinstance(uid, str) and uid:
        try:
            return UUID(uid)
        except ValueError:
            return fingerprint(UID.encode(), uid.encode())
    return fingerprint(above.origin.encoded, above.scope, record.SerializeToString(deterministic=True))
