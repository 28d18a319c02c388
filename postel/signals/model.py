"""What a source declares: its metrics, events, attributes and the typed tables that they fill.

One :class:`Declaration` is one ``metadata.yaml`` (the shape follows the Collector's mdatagen). Code refers to a metric
or event by its ``key`` and to a data point's origin by its ``source``, so that names stand in the YAML alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

AttributeValue = str | bool | int | float


# The columns of every typed table: its key, and the start of its counters.
STANDARD_COLUMNS = ("time", "node_id", "instance", "zone", "started_at")
# The columns of every event table beside the declared ones; `attributes` has what none of them holds.
# In every event table, before the declared columns, with their types; `attributes` stands behind them.
FIXED_EVENT_COLUMNS: Mapping[str, str] = {
    "time": "timestamptz",
    "event_id": "uuid",
    "node_id": "text",
    "instance": "text",
    "event_name": "text",
}
EVENT_COLUMNS = (*FIXED_EVENT_COLUMNS, "attributes", "xact")


class Kind(StrEnum):
    """The kind of a metric's points: OTLP ``Metric.data``."""

    GAUGE = "gauge"
    SUM = "sum"
    HISTOGRAM = "histogram"


class Severity(StrEnum):
    """The severity of an event: OTLP ``LogRecord.severity_text``."""

    INFO = "info"
    WARN = "warn"
    ERROR = "error"


# OTLP SeverityNumber of each severity (logs data model, "Severity fields").
SEVERITY_NUMBER: Mapping[Severity, int] = {Severity.INFO: 9, Severity.WARN: 13, Severity.ERROR: 17}


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that points or events of a source carry; ``enum`` is empty where any value may stand."""

    name: str
    description: str
    type: str
    enum: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A typed column, fed by the one point of ``metric`` whose attributes, its zone apart, equal ``when``."""

    table: str
    name: str
    type: str
    when: Mapping[str, AttributeValue]
    metric: str
    counter: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A typed wide table with the key (time, node_id, instance, zone).

    Attributes:
        interval: seconds from one row of a key to the next.
        zone: the point attribute that is the key column ``zone``; None: always ''.
        labels: text column -> the resource attribute that feeds it.
    """

    name: str
    description: str
    interval: int
    zone: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventColumn:
    """A column of an event table, fed by the first of ``attributes`` that an event has.

    Attributes:
        type: of PostgreSQL.
        part: of an address: ``user``, ``domain``; of several addresses: ``domain`` where all have one, ``domains``.
            '': the attribute's value itself.
        resource: it is an attribute of the resource.
    """

    name: str
    description: str
    type: str
    attributes: tuple[str, ...]
    part: str = ""
    resource: bool = False


@dataclass(frozen=True, slots=True)
class EventTable:
    """A table of events with the key (event_id, time); what no column holds is in its column ``attributes``."""

    name: str
    description: str
    columns: tuple[EventColumn, ...]


@dataclass(frozen=True, slots=True)
class EventRow:
    """The row that an event becomes: its table, and the columns that are the same for every event of the name."""

    table: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: OTLP ``Metric`` with what is fixed about it.

    Attributes:
        key: how code refers to it within its source.
        unit: UCUM.
        value_type: ``int`` or ``double``.
        monotonic: True for a cumulative counter, False for everything else.
        bounds: the upper bounds of a histogram's buckets, ascending; the last bucket has none. Empty where the values
            come in buckets already.
        source: where the value comes from, read by the source's receiver; its forms are in `postel.signals.sources`.
    """

    name: str
    key: str
    description: str
    unit: str
    kind: Kind
    value_type: str
    monotonic: bool
    attributes: tuple[str, ...]
    columns: tuple[Column, ...]
    source: Mapping[str, Any]
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """An event: a LogRecord with ``event_name``; ``row``: None where it stays a log record."""

    name: str
    key: str
    description: str
    severity: Severity
    attributes: tuple[str, ...]
    source: Mapping[str, Any]
    row: EventRow | None = None


@dataclass(frozen=True)
class Declaration:
    """All that one source declares; ``path`` is its file, for messages and links.

    What is ``shared`` is no source: others use its attributes and tables.
    """

    type: str
    scope: str
    service: str
    description: str
    shared: bool
    attributes: Mapping[str, Attribute]
    tables: Mapping[str, Table]
    event_tables: Mapping[str, EventTable]
    metrics: Mapping[str, Metric]
    events: Mapping[str, Event]
    path: Path

    def metric(self, key: str) -> Metric:
        """The metric with this key; KeyError where none is declared."""
        return self._metrics_by_key[key]

    def event(self, key: str) -> Event:
        """The event with this key; KeyError where none is declared."""
        return self._events_by_key[key]

    @cached_property
    def _metrics_by_key(self) -> dict[str, Metric]:
        return {metric.key: metric for metric in self.metrics.values()}

    @cached_property
    def _events_by_key(self) -> dict[str, Event]:
        return {event.key: event for event in self.events.values()}


@dataclass(frozen=True)
class Declarations:
    """Every source's declaration, and what they say together."""

    sources: Mapping[str, Declaration]

    def __getitem__(self, source: str) -> Declaration:
        """The declaration of one source, by its ``type``."""
        return self.sources[source]

    def __iter__(self) -> Iterator[Declaration]:
        """All declarations, in the order of their types."""
        return iter(self.sources.values())

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric by its name."""
        return {metric.name: metric for source in self for metric in source.metrics.values()}

    @cached_property
    def events(self) -> Mapping[str, Event]:
        """Every event by its name."""
        return {event.name: event for source in self for event in source.events.values()}

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """Every typed table by its name."""
        return {table.name: table for source in self for table in source.tables.values()}

    @cached_property
    def event_tables(self) -> Mapping[str, EventTable]:
        """Every event table by its name."""
        return {table.name: table for source in self for table in source.event_tables.values()}

    def columns_of(self, table: str) -> tuple[Column, ...]:
        """The metric columns of a typed table, in the order in which they are declared."""
        return tuple(c for metric in self.metrics.values() for c in metric.columns if c.table == table)
