"""Log records that a declaration gives a table of their own: attributes to columns. Pure.

A value that its column cannot hold stays in ``attributes`` with all that has no column, so that nothing is dropped for
the sake of a type.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from postel.signals import FIXED_EVENT_COLUMNS, Declarations, EventColumn, EventRow
from timescale_sink.ingest import cells
from timescale_sink.ingest.rows import RecordKey
from timescale_sink.ingest.values import canonical, microseconds

# Bytes of a text in a column: some have an index, whose rows are a third of a page at most.
TEXT_BYTES = 2000


@dataclass(frozen=True, slots=True)
class TypedEvent:
    """A row of an event table: the fixed columns, then ``cells`` in the declared order, then ``attributes`` as JSON."""

    time: datetime
    event_id: UUID
    node_id: str
    instance: str
    event_name: str
    cells: tuple[Any, ...]
    attributes: bytes

    @property
    def key(self) -> RecordKey:
        """What tells it apart."""
        return self.event_id.bytes, microseconds(self.time)


_HEAD = struct.Struct(">hiqi")
_HEADS = np.dtype([("fields", ">i2"), ("time_size", ">i4"), ("time", ">i8"), ("id_size", ">i4")])


class RowFormat:
    """The rows of an event table as COPY takes them.

    Args:
        columns: those that are declared.
    """

    def __init__(self, columns: Sequence[EventColumn]) -> None:
        self._types = tuple(column.type for column in columns)
        self._fields = len(FIXED_EVENT_COLUMNS) + len(columns) + 1

    def head(self, time: int) -> bytes:
        """What stands before the bytes of the event's id; the time in microseconds since 1970."""
        return _HEAD.pack(self._fields, 8, time - cells.FROM_2000, 16)

    def heads(self, times: Sequence[int]) -> list[bytes]:
        """The same of several rows."""
        heads = np.zeros(len(times), _HEADS)
        heads["fields"], heads["time_size"], heads["id_size"] = self._fields, 8, 16
        heads["time"] = np.array(times, np.int64) - cells.FROM_2000
        return heads.view(f"V{_HEADS.itemsize}").tolist()

    def encode(self, event: TypedEvent) -> bytes:
        """A row's bytes."""
        event_id, time = event.key
        declared = zip(self._types, event.cells, strict=True)
        return b"".join(
            [
                self.head(time),
                event_id,
                *map(cells.text, (event.node_id, event.instance, event.event_name)),
                *(cells.NULL if cell is None else cells.CODECS[type_].write(cell) for type_, cell in declared),
                cells.json(event.attributes),
            ]
        )

    def decode(self, row: bytes) -> tuple[Any, ...]:
        """The values of all columns again."""
        time, event_id, node, instance, name, *declared, attributes = cells.fields(row)
        return (
            cells.read_timestamp(time or b""),
            UUID(bytes=event_id),
            *((field or b"").decode() for field in (node, instance, name)),
            *(
                None if field is None else cells.CODECS[type_].read(field)
                for type_, field in zip(self._types, declared, strict=True)
            ),
            cells.read_json(attributes or b""),
        )


class EventMapper:
    """Knows which events have a table, and makes their cells."""

    def __init__(self, declarations: Declarations) -> None:
        self._rows: dict[str, EventRow] = {
            event.name: event.row for event in declarations.events.values() if event.row is not None
        }
        self._columns = {name: table.columns for name, table in declarations.event_tables.items()}

        self._formats = {table: RowFormat(columns) for table, columns in self._columns.items()}

    def row(self, event_name: str) -> EventRow | None:
        """What is declared of an event's row; None where it stays a log record."""
        return self._rows.get(event_name)

    def columns(self, event_name: str) -> Sequence[EventColumn]:
        """The declared columns of the table of an event that has one."""
        return self._columns[self._rows[event_name].table]

    def format(self, event_name: str) -> RowFormat:
        """The rows of the table of an event that has one."""
        return self._formats[self._rows[event_name].table]

    def table(self, event_name: str) -> str | None:
        """The table of an event; None where it stays a log record."""
        row = self._rows.get(event_name)
        return row.table if row else None

    def cells(
        self, event_name: str, found: Mapping[str, Any], resource: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], bytes]:
        """The cells of an event that has a table.

        Args:
            event_name: of the record.
            found: its attributes as JSON values.
            resource: the resource's.

        Returns:
            The cells in the order of the table's columns, and what they do not hold as JSON.
        """
        row = self._rows[event_name]
        held: dict[str, set[str]] = {}
        made = tuple(self._cell(column, row, found, resource, held) for column in self._columns[row.table])
        rest = {name: value for name, value in found.items() if not WHOLE.issubset(held.get(name, ()))}
        return made, canonical(rest)

    @staticmethod
    def _cell(
        column: EventColumn,
        row: EventRow,
        found: Mapping[str, Any],
        resource: Mapping[str, Any],
        held: dict[str, set[str]],
    ) -> Any:
        if (fixed := row.values.get(column.name)) is not None:
            return fixed
        values = resource if column.resource else found
        for name in column.attributes:
            if name in values and (cell := cell_of(column, values[name])) is not None:
                if not column.resource:
                    held.setdefault(name, set()).update(held_by(column))
                return cell
        return None


WHOLE = frozenset({"user", "domain"})
"""The parts of an address that are the address: where columns hold both, nothing is left to keep beside them."""


def held_by(column: EventColumn) -> AbstractSet[str]:
    """The parts of an attribute that a column holds."""
    return {column.part} if column.part else WHOLE


def cell_of(column: EventColumn, value: Any) -> Any:
    """What a column holds of an attribute; None where it cannot."""
    if column.part:
        return _part(column.part, value)
    if column.type == "jsonb":
        return canonical(value)
    return value if _FITS[column.type](value) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode()) <= TEXT_BYTES


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# JSON's true is no number, although Python's is.
_FITS: Mapping[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "text[]": _is_texts,
    "bigint": lambda value: type(value) is int,
    "double precision": lambda value: type(value) in (int, float),
}


def _part(part: str, value: Any) -> Any:
    addresses = [value] if isinstance(value, str) else value
    if not _is_texts(addresses):
        return None
    # Domains are compared without regard to case (RFC 5321 section 2.4), local parts may not be.
    domains = sorted({address.rpartition("@")[2].lower() for address in addresses if "@" in address})
    if part == "domains":
        return domains
    if part == "domain":
        found = domains[0] if len(domains) == 1 else None
    else:
        found = addresses[0].rpartition("@")[0] if len(addresses) == 1 and "@" in addresses[0] else None
    return found if _is_text(found) else None
