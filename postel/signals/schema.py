"""The shape of a ``metadata.yaml``, as pydantic checks it: keys, types and patterns, each part by itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from postel.signals.model import AttributeValue

# OpenTelemetry's naming: dotted, lowercase, underscores inside a word ("General naming considerations").
_NAME = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)+$"
_IDENTIFIER = r"^[a-z][a-z0-9_]{0,62}$"
_UNIT = r"^(1|%|s|ms|By|By/s|Cel|Hz|[{][a-z_ ]+[}](/s)?)$"

Name = Annotated[str, Field(pattern=_NAME)]
Identifier = Annotated[str, Field(pattern=_IDENTIFIER)]
Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A mapping with no other keys and no values of another type than these."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Attribute(Part):
    """An entry of ``attributes``."""

    description: Text
    type: Literal["string", "int", "double", "boolean", "string[]", "map"]
    enum: list[Text] = []


class Table(Part):
    """An entry of ``tables``."""

    description: Text
    interval: Annotated[int, Field(ge=1)]
    zone: Name | None = None
    labels: dict[Identifier, Name] = {}


class Column(Part):
    """An item of a metric's ``columns``."""

    table: Identifier
    column: Identifier
    type: Literal["bigint", "double precision"]
    when: dict[Name, AttributeValue] = {}


class Gauge(Part):
    """``gauge`` of a metric."""

    value_type: Literal["int", "double"]


class Histogram(Gauge):
    """``histogram`` of a metric; ``bounds``: the upper ones of its buckets, where it is made here."""

    bounds: list[float] = []


class Sum(Gauge):
    """``sum`` of a metric."""

    monotonic: bool
    aggregation_temporality: Literal["cumulative"]


class Metric(Part):
    """An entry of ``metrics``."""

    key: Identifier | None = None
    description: Text
    unit: Annotated[str, Field(pattern=_UNIT)]
    gauge: Gauge | None = None
    sum: Sum | None = None
    histogram: Histogram | None = None
    attributes: list[Name] = []
    columns: list[Column] = []
    source: dict[str, Any]

    @model_validator(mode="after")
    def _one_kind(self) -> Metric:
        if sum(kind is not None for kind in (self.gauge, self.sum, self.histogram)) != 1:
            raise ValueError("needs exactly one of gauge, sum, histogram")
        return self


class EventColumn(Part):
    """An entry of an event table's ``columns``."""

    description: Text
    type: Literal["text", "text[]", "bigint", "double precision", "jsonb"]
    attributes: list[Name] = []
    part: Literal["", "user", "domain", "domains"] = ""
    resource: bool = False


class EventTable(Part):
    """An entry of ``event_tables``."""

    description: Text
    columns: dict[Identifier, EventColumn]


class EventRow(Part):
    """``row`` of an event."""

    table: Identifier
    values: dict[Identifier, Text] = {}


class Event(Part):
    """An entry of ``events``."""

    key: Identifier | None = None
    description: Text
    severity: Literal["info", "warn", "error"]
    attributes: list[Name] = []
    source: dict[str, Any]
    row: EventRow | None = None


class File(Part):
    """The whole file; ``shared``: the attributes may be used by every other one."""

    type: Identifier
    scope: Name
    service: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    description: Text
    shared: bool = False
    attributes: dict[Name, Attribute] = {}
    tables: dict[Identifier, Table] = {}
    event_tables: dict[Identifier, EventTable] = {}
    metrics: dict[Name, Metric] = {}
    events: dict[Name, Event] = {}
