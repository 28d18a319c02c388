"""The signal declarations: what every source emits, under which names, into which tables."""

from postel.signals.load import load, load_all
from postel.signals.model import (
    SEVERITY_NUMBER,
    STANDARD_COLUMNS,
    Attribute,
    AttributeValue,
    Column,
    Declaration,
    Declarations,
    Event,
    Kind,
    Metric,
    Severity,
    Table,
)

__all__ = [
    "SEVERITY_NUMBER",
    "STANDARD_COLUMNS",
    "Attribute",
    "AttributeValue",
    "Column",
    "Declaration",
    "Declarations",
    "Event",
    "Kind",
    "Metric",
    "Severity",
    "Table",
    "load",
    "load_all",
]
