"""What mapping makes of a request, and the writer stores: rows by table, still apart from any database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from timescale_sink.ingest.point_rows import KeyedRows, PointRows
from timescale_sink.ingest.values import from_microseconds, hour, microseconds

POINTS = "otel_metric_point"
LOGS = "otel_log"


class WideKey(NamedTuple):
    """The key of a typed row, in the order in which rows are written (as the index has them)."""

    node_id: str
    instance: str
    zone: str
    time: datetime


@dataclass(slots=True)
class WideRow:
    """A typed row as far as it is known: ``cells`` are its columns that have a value."""

    key: WideKey
    started_at: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict)
    cells: dict[str, int | float] = field(default_factory=dict)


class SeriesRow(NamedTuple):
    """A row of ``otel_series``; the JSON columns are encoded bytes."""

    series_id: UUID
    node_id: str
    instance: str
    metric: str
    unit: str
    kind: str
    temporality: str
    monotonic: bool
    description: str
    resource: bytes
    scope: bytes
    attributes: bytes


class LogRow(NamedTuple):
    """A row of ``otel_log``; the JSON columns are encoded bytes."""

    event_id: UUID
    time: datetime
    observed_time: datetime | None
    node_id: str
    instance: str
    event_name: str
    severity_number: int
    severity_text: str
    body: bytes | None
    trace_id: bytes | None
    span_id: bytes | None
    flags: int
    resource: bytes
    scope: bytes
    attributes: bytes

    @property
    def key(self) -> RecordKey:
        """What tells it apart."""
        return self.event_id.bytes, microseconds(self.time)


RecordKey = tuple[bytes, int]
"""The event's id and microseconds since 1970: ordered as the index is."""


class DeadLetter(NamedTuple):
    """A row of ``dead_letter``: a record that cannot be stored, and why.

    Attributes:
        resource_id, scope_id, metric_id: the parts above the record (`Rows.parts`); None where the database refused a
            row, whose columns are then the record.
    """

    record_id: UUID
    hour: datetime
    destination: str
    reason: str
    record: bytes
    resource_id: UUID | None = None
    scope_id: UUID | None = None
    metric_id: UUID | None = None


@dataclass(slots=True)
class Sighting:
    """What a batch says of a node."""

    host: str
    first: datetime
    last: datetime
    demo: bool
    sources: list[str] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def tells_more_than(self, other: Sighting | None, every: timedelta) -> bool:
        """Whether the node's row is worth writing after ``other`` was written to it."""
        return (
            other is None
            or self.first < other.first
            or self.last >= other.last + every
            or (self.sources is not None and self.sources != other.sources)
            or (self.host, self.demo) != (other.host, other.demo)
            or not self.versions.items() <= other.versions.items()
            or not self.attributes.items() <= other.attributes.items()
        )

    def join(self, other: Sighting) -> None:
        """Take in a later one of the same node."""
        self.host = other.host or self.host
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        # Everything of a demo node is deleted by a command: it is one only if all that it says is marked.
        self.demo = self.demo and other.demo
        self.sources = other.sources if other.sources is not None else self.sources
        self.versions |= other.versions
        self.attributes |= other.attributes


@dataclass(slots=True)
class Tally:
    """One line of the ledger: records of one hour for one destination.

    Attributes:
        conflicting: of the duplicates, those with another value than the stored one.
    """

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    conflicting: int = 0
    dead_lettered: int = 0

    def add(self, other: Tally) -> None:
        """Count what the other counted."""
        self.received += other.received
        self.stored += other.stored
        self.duplicate += other.duplicate
        self.conflicting += other.conflicting
        self.dead_lettered += other.dead_lettered


@dataclass(slots=True)
class Rows:
    """All that one request, or several together, put into the database.

    Attributes:
        series: by the bytes of their ids.
        points: the bytes of COPY.
        logs: by table; of an event table the bytes of COPY (`events.RowFormat`).
        parts: the rows of ``dead_letter_part``: what stands above dead letters, each once.
    """

    wide: dict[str, dict[WideKey, WideRow]] = field(default_factory=dict)
    series: dict[bytes, SeriesRow] = field(default_factory=dict)
    points: PointRows = field(default_factory=PointRows)
    logs: dict[str, dict[RecordKey, LogRow | bytes]] = field(default_factory=dict)
    dead: dict[UUID, DeadLetter] = field(default_factory=dict)
    parts: dict[UUID, bytes] = field(default_factory=dict)
    nodes: dict[str, Sighting] = field(default_factory=dict)
    ledger: dict[tuple[datetime, str], Tally] = field(default_factory=dict)
    _ordered: dict[str, KeyedRows] | None = None

    def tally(self, hour: datetime, destination: str) -> Tally:
        """The ledger's line, made where it is not there yet."""
        return self.ledger.setdefault((hour, destination), Tally())

    def ordered(self) -> Mapping[str, KeyedRows]:
        """By table the points and log records in the order of their keys.

        Points that are left out, since others of their keys came before, are counted. Nothing is added from then on.
        """
        if self._ordered is None:
            points, repeated = self.points.ordered()
            for time, conflicting in repeated:
                tally = self.tally(hour(from_microseconds(time)), POINTS)
                tally.duplicate += 1
                tally.conflicting += conflicting
            self._ordered = {POINTS: points, **{table: _by_key(self.logs[table]) for table in sorted(self.logs)}}
        return self._ordered

    @property
    def tells_sources(self) -> bool:
        """Whether they say which sources a node has: said twice, what is written last holds."""
        return any(seen.sources is not None for seen in self.nodes.values())

    @property
    def records(self) -> int:
        """Points and log records that came, whatever became of them."""
        return sum(tally.received for tally in self.ledger.values())

    @property
    def tables(self) -> Mapping[str, int]:
        """Destination -> records that came for it."""
        counts: dict[str, int] = {}
        for (_, destination), tally in self.ledger.items():
            counts[destination] = counts.get(destination, 0) + tally.received
        return counts


def _by_key(logs: Mapping[RecordKey, LogRow | bytes]) -> KeyedRows:
    keys = sorted(logs)
    return KeyedRows([time for _, time in keys], [logs[key] for key in keys])
