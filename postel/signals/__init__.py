"""The signal declarations: what every source emits, under which names, into which tables."""

from postel.signals.load import load, load_all
from postel.signals.model import (
    EVENT_COLUMNS,
    FIXED_EVENT_COLUMNS,
    SEVERITY_NUMBER,
    STANDARD_COLUMNS,
    Attribute,
    AttributeValue,
    Column,
    Declaration,
    Declarations,
    Event,
    EventColumn,
    EventRow,
    EventTable,
    Kind,
    Metric,
    Severity,
    Table,
)

__all__ = [
    "EVENT_COLUMNS",
    "FIXED_EVENT_COLUMNS",
    "SEVERITY_NUMBER",
    "STANDARD_COLUMNS",
    "Attribute",
    "AttributeValue",
    "Column",
    "Declaration",
    "Declarations",
    "Event",
    "EventColumn",
    "EventRow",
    "EventTable",
    "Kind",
    "Metric",
    "Severity",
    "Table",
    "load",
    "load_all",
]
