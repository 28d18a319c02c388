"""Log records to rows: of the table that their event is declared to have, or of ``otel_log``. Pure.

Most events go by their bytes (`plain_events`); what is said here of one record by itself is the definition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from postel.signals import Declarations
from timescale_sink.ingest import wire
from timescale_sink.ingest.events import EventMapper, TypedEvent
from timescale_sink.ingest.letters import Part, bury
from timescale_sink.ingest.plain_events import UID, Made, PlainEvents, Plan
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


@dataclass(frozen=True)
class _Page:
    """The events of one name in a scope.

    Attributes:
        numbers: of the records.
        rows: of each; None where it is not plain.
    """

    table: str
    numbers: Sequence[int]
    rows: Sequence[Made | None]

    @cached_property
    def times(self) -> list[int]:
        """Of those that are plain, microseconds since 1970."""
        return [made[0][1] for made in self.rows if made]

    def made(self) -> Iterator[tuple[int, Made]]:
        """The rows of those that are plain, by the numbers of the records."""
        for number, made in zip(self.numbers, self.rows, strict=True):
            if made:
                yield number, made


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
        pages = self._pages(above.origin, wired, microseconds(now + AHEAD))
        seen = [from_microseconds(max(page.times)) for page in pages if page.times]
        for page in pages:
            for at, count in by_hour(page.times):
                rows.tally(at, page.table).received += count
        if sum(len(page.times) for page in pages) < len(wired) or not _add_all(pages, rows):
            # One by one, as they came: of a key that comes again the first counts.
            plain = {number: (page.table, made) for page in pages for number, made in page.made()}
            for number in range(len(wired)):
                if number in plain:
                    table, (key, row) = plain[number]
                    _add(key, row, table, rows)
                elif taken := self._take_record(above, by_objects[number], now, rows, reasons):
                    seen.append(taken)
        return max(seen, default=None)

    def _pages(self, origin: Origin, wired: Any, last: int) -> list[_Page]:
        """The plain events of a scope, by their names; ``last`` in microseconds since 1970."""
        times = [record.time_unix_nano // _NANOSECONDS for record in wired]
        by_name: dict[str, list[int]] = {}
        for number, record in enumerate(wired):
            if 0 < times[number] <= last:
                by_name.setdefault(record.event_name, []).append(number)
        pages = []
        for name, numbers in by_name.items():
            if (plan := self._plan(name)) is not None:
                attributes = [wired[number].attributes[:] for number in numbers]
                rows = plan.rows(plan.template(origin), [times[number] for number in numbers], attributes)
                pages.append(_Page(plan.table, numbers, rows))
        return pages

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


def _add_all(pages: Sequence[_Page], rows: Rows) -> bool:
    """Add events that are all plain; False, and nothing is added, where a key comes again."""
    found: dict[str, dict[RecordKey, LogRow | bytes]] = {}
    count = 0
    for page in pages:
        found.setdefault(page.table, {}).update(filter(None, page.rows))
        count += len(page.rows)
    if sum(map(len, found.values())) < count:
        return False
    if not all(rows.logs.get(table, {}).keys().isdisjoint(fresh) for table, fresh in found.items()):
        return False
    for table, fresh in found.items():
        rows.logs.setdefault(table, {}).update(fresh)
    return True


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
