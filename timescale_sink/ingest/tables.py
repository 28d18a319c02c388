"""How rows of each table go into the database: COPY first, and where a key is there already, through a staging table.

Every writer here stores a list of rows of one table inside the caller's transaction and says what became of each in
the :class:`Fates`. COPY is optimistic: rows that are new cost one statement; a unique violation undoes it and the same
rows go through a temporary table with ON CONFLICT. Rows are in key order, so that two sinks lock them in the same
order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

import psycopg
from psycopg import AsyncCopy, sql
from psycopg.types.json import Jsonb

from postel.signals import FIXED_EVENT_COLUMNS, Declarations
from timescale_sink.ingest import cells, numbers
from timescale_sink.ingest.events import RowFormat
from timescale_sink.ingest.rows import LOGS, POINTS, DeadLetter, Tally, WideKey, WideRow
from timescale_sink.ingest.values import HOUR, canonical, fingerprint, from_microseconds, hour
from timescale_sink.store.database import Connection

Row_contra = TypeVar("Row_contra", contravariant=True)
_KEY = ("node_id", "instance", "zone", "time")


@dataclass(slots=True)
class Fates:
    """What became of the rows of one transaction: (hour, destination) -> counts of points and records."""

    ledger: dict[tuple[datetime, str], Tally] = field(default_factory=dict)

    def tally(self, at: datetime, destination: str) -> Tally:
        """The line of a record's time."""
        return self.ledger.setdefault((hour(at), destination), Tally())


class TableWriter(Protocol[Row_contra]):
    """Stores rows of one table."""

    @property
    def table(self) -> str:
        """The table's name, which is the ledger's destination."""

    async def copy(self, connection: Connection, rows: Sequence[Row_contra], fates: Fates) -> None:
        """Store rows that are all new.

        Raises:
            psycopg.errors.UniqueViolation: one is not.
        """

    async def merge(self, connection: Connection, rows: Sequence[Row_contra], fates: Fates) -> None:
        """Store rows of which some may be there."""

    def letters(self, row: Row_contra, reason: str) -> list[DeadLetter]:
        """The dead letters of a row that the database refuses: one for each point or record in it."""


async def store(
    connection: Connection, writer: TableWriter[Row_contra], rows: Sequence[Row_contra], fates: Fates
) -> list[DeadLetter]:
    """Store rows; what the database refuses is found by halving.

    Returns:
        The dead letters of refused rows; they are not stored yet.
    """
    if not rows:
        return []
    try:
        attempt = Fates()
        try:
            async with connection.transaction():
                await writer.copy(connection, rows, attempt)
        except psycopg.errors.UniqueViolation:
            attempt = Fates()
            async with connection.transaction():
                await writer.merge(connection, rows, attempt)
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded) as error:
        if len(rows) == 1:
            return writer.letters(rows[0], str(error).splitlines()[0])
        middle = len(rows) // 2
        refused = await store(connection, writer, rows[:middle], fates)
        return refused + await store(connection, writer, rows[middle:], fates)
    for key, tally in attempt.ledger.items():
        fates.ledger.setdefault(key, Tally()).add(tally)
    return []


@asynccontextmanager
async def _copying(connection: Connection, table: str, columns: Iterable[str]) -> AsyncIterator[AsyncCopy]:
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        yield copy


async def _copy(connection: Connection, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> None:
    async with _copying(connection, table, columns) as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            await copy.write_row(row)


async def _stage(connection: Connection, table: str) -> str:
    """The name of an empty temporary twin of a table, made once a connection."""
    stage = f"stage_{table}"
    await connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS").format(
            sql.Identifier(stage), sql.Identifier(table)
        )
    )
    await connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(stage)))
    return stage


def _letter(table: str, at: datetime, reason: str, content: Mapping[str, Any]) -> DeadLetter:
    encoded = canonical(content)
    return DeadLetter(fingerprint(table.encode(), encoded), hour(at), table, reason, encoded)


def _shown(value: Any) -> Any:
    """A field as a JSON value for a human; the JSON columns hold encoded bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").replace("\0", "\ufffd")
    return value if value is None or isinstance(value, (str, int)) else str(value)


Keyed = tuple[tuple[bytes, int], Any]
"""A row behind its key, which ends with microseconds since 1970: its values in the order of the table's columns, or the
bytes of COPY."""


class KeyedTable:
    """A table whose rows are points or records, each stored whole or not at all; the first of a key stays.

    Args:
        table: its name.
        columns: column -> type, in the order of the row's fields.
        key: the columns that tell rows apart.
        restored: the values of a row that is the bytes of COPY.
    """

    def __init__(
        self,
        table: str,
        columns: Mapping[str, str],
        key: Sequence[str],
        restored: Callable[[bytes], Iterable[Any]] | None = None,
    ) -> None:
        self.table = table
        self._restored = restored
        self._columns = columns
        # These fields are encoded already: psycopg must not encode them again.
        self._json = [position for position, type_ in enumerate(columns.values()) if type_ == "jsonb"]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        parts = {
            "table": sql.Identifier(table),
            "stage": sql.Identifier(f"stage_{table}"),
            "columns": names,
            "key": sql.SQL(", ").join(map(sql.Identifier, key)),
            "stored": sql.SQL(", ").join(sql.SQL("stored.{}").format(sql.Identifier(c)) for c in columns),
            "staged": sql.SQL(", ").join(sql.SQL("staged.{}").format(sql.Identifier(c)) for c in columns),
        }
        # Before the insert: what differs from a row that is there. After it, only lost races would be missed.
        self._conflicting = sql.SQL(
            "SELECT date_trunc('hour', staged.time, 'UTC'), count(*)"
            " FROM {stage} AS staged JOIN {table} AS stored USING ({key})"
            " WHERE ({staged}) IS DISTINCT FROM ({stored}) GROUP BY 1"
        ).format(**parts)
        self._insert = sql.SQL(
            "WITH fresh AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} ORDER BY {key}"
            " ON CONFLICT DO NOTHING RETURNING time)"
            " SELECT date_trunc('hour', time, 'UTC'), count(*) FROM fresh GROUP BY 1"
        ).format(**parts)

    async def copy(self, connection: Connection, rows: Sequence[Keyed], fates: Fates) -> None:
        """See :class:`TableWriter`."""
        await self._copy(connection, self.table, rows)
        for at, count in self._hours(rows):
            fates.tally(at, self.table).stored += count

    async def merge(self, connection: Connection, rows: Sequence[Keyed], fates: Fates) -> None:
        """See :class:`TableWriter`."""
        await self._copy(connection, await _stage(connection, self.table), rows)
        conflicting = await (await connection.execute(self._conflicting)).fetchall()
        stored = await (await connection.execute(self._insert)).fetchall()
        for at, count in self._hours(rows):
            fates.tally(at, self.table).duplicate += count
        for at, count in stored:
            tally = fates.tally(at, self.table)
            tally.stored += count
            tally.duplicate -= count
        for at, count in conflicting:
            fates.tally(at, self.table).conflicting += count

    def letters(self, row: Keyed, reason: str) -> list[DeadLetter]:
        """See :class:`TableWriter`."""
        (_, time), values = row
        if self._restored and type(values) is bytes:
            values = self._restored(values)
        content = dict(zip(self._columns, map(_shown, values), strict=True))
        return [_letter(self.table, from_microseconds(time), reason, content)]

    async def _copy(self, connection: Connection, table: str, rows: Sequence[Keyed]) -> None:
        if encoded := [row for _, row in rows if type(row) is bytes]:
            async with _copying(connection, table, self._columns) as copy:
                await copy.write(b"".join([cells.BEGIN, *encoded, cells.END]))
        if others := [row for _, row in rows if type(row) is not bytes]:
            await _copy(connection, table, self._columns, self._encode(others))

    def _hours(self, rows: Sequence[Keyed]) -> Iterable[tuple[datetime, int]]:
        """A moment of each hour, and how many rows are of it."""
        counts = Counter([time // HOUR for (_, time), _ in rows])
        return ((from_microseconds(number * HOUR), count) for number, count in counts.items())

    def _encode(self, rows: Iterable[Iterable[Any]]) -> Iterator[Sequence[Any]]:
        for row in rows:
            fields: list[Any] = list(row)
            for position in self._json:
                if fields[position] is not None:
                    fields[position] = Jsonb(fields[position], dumps=bytes)
            yield fields


_POINT_COLUMNS: Mapping[str, str] = {
    "series_id": "uuid",
    "time": "timestamptz",
    "started_at": "timestamptz",
    "flags": "int8",
    "value": "float8",
    "value_int": "int8",
    "count": "numeric",
    "sum": "float8",
    "min": "float8",
    "max": "float8",
    "bounds": "float8[]",
    "bucket_counts": "numeric[]",
    "detail": "jsonb",
    "exemplars": "jsonb",
}


def points_table() -> KeyedTable:
    """The writer of ``otel_metric_point``."""
    return KeyedTable(POINTS, _POINT_COLUMNS, ("series_id", "time"), numbers.restored)


def logs_table() -> KeyedTable:
    """The writer of ``otel_log``."""
    columns = {
        "event_id": "uuid",
        "time": "timestamptz",
        "observed_time": "timestamptz",
        "node_id": "text",
        "instance": "text",
        "event_name": "text",
        "severity_number": "int2",
        "severity_text": "text",
        "body": "jsonb",
        "trace_id": "bytea",
        "span_id": "bytea",
        "flags": "int8",
        "resource": "jsonb",
        "scope": "jsonb",
        "attributes": "jsonb",
    }
    return KeyedTable(LOGS, columns, ("event_id", "time"))


def events_table(declarations: Declarations, table: str) -> KeyedTable:
    """The writer of an event table."""
    declared = declarations.event_tables[table].columns
    columns = {**FIXED_EVENT_COLUMNS, **{column.name: column.type for column in declared}, "attributes": "jsonb"}
    return KeyedTable(table, columns, ("event_id", "time"), RowFormat(declared).decode)


class WideTable:
    """A typed table: a row is a key with the cells of several points, which may come one by one.

    A cell that is there stays; a point counts as stored when it is the first for its cell.
    """

    _TYPES: ClassVar[Mapping[str, str]] = {"bigint": "int8", "double precision": "float8"}

    def __init__(self, declarations: Declarations, table: str) -> None:
        self.table = table
        self._cells = {column.name: self._TYPES[column.type] for column in declarations.columns_of(table)}
        self._labels = tuple(declarations.tables[table].labels)
        self._columns: dict[str, str] = {
            **dict.fromkeys(_KEY[:3], "text"),
            "time": "timestamptz",
            "started_at": "timestamptz",
            **dict.fromkeys(self._labels, "text"),
            **self._cells,
        }
        filled = [*self._labels, "started_at", *self._cells]
        column = sql.Identifier
        parts = {
            "table": column(table),
            "stage": column(f"stage_{table}"),
            "key": sql.SQL(", ").join(map(column, _KEY)),
            "order": sql.SQL(", ").join(
                sql.SQL('{} COLLATE "C"' if self._columns[k] == "text" else "{}").format(column(k)) for k in _KEY
            ),
            "columns": sql.SQL(", ").join(map(column, self._columns)),
            "cells": sql.SQL(", ").join(sql.SQL("stored.{}").format(column(c)) for c in self._cells),
            "same": sql.SQL(" AND ").join(sql.SQL("stored.{0} = staged.{0}").format(column(k)) for k in _KEY),
            "fill": sql.SQL(", ").join(
                sql.SQL("{0} = coalesce(stored.{0}, staged.{0})").format(column(c)) for c in filled
            ),
            "news": sql.SQL(" OR ").join(
                sql.SQL("(stored.{0} IS NULL AND staged.{0} IS NOT NULL)").format(column(c)) for c in filled
            ),
        }
        self._insert = sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} ORDER BY {order}"
            " ON CONFLICT DO NOTHING RETURNING {key}"
        ).format(**parts)
        # FOR UPDATE reads what another sink committed a moment ago, and keeps it from changing until the update.
        self._lock = sql.SQL(
            "SELECT {key}, {cells} FROM {table} AS stored JOIN {stage} USING ({key})"
            " ORDER BY {order} FOR UPDATE OF stored"
        ).format(**parts)
        self._fill = sql.SQL(
            "UPDATE {table} AS stored SET {fill} FROM {stage} AS staged WHERE {same} AND ({news})"
        ).format(**parts)

    async def copy(self, connection: Connection, rows: Sequence[WideRow], fates: Fates) -> None:
        """See :class:`TableWriter`."""
        await _copy(connection, self.table, self._columns, map(self._encode, rows))
        for row in rows:
            fates.tally(row.key.time, self.table).stored += len(row.cells)

    async def merge(self, connection: Connection, rows: Sequence[WideRow], fates: Fates) -> None:
        """See :class:`TableWriter`."""
        stage = await _stage(connection, self.table)
        await _copy(connection, stage, self._columns, map(self._encode, rows))
        fresh = {WideKey(*key) for key in await (await connection.execute(self._insert)).fetchall()}
        found = await (await connection.execute(self._lock)).fetchall()
        await connection.execute(self._fill)
        there = {WideKey(*row[:4]): dict(zip(self._cells, row[4:], strict=True)) for row in found}
        for row in rows:
            tally = fates.tally(row.key.time, self.table)
            stored: Mapping[str, Any] = {} if row.key in fresh else there.get(row.key, {})
            for name, value in row.cells.items():
                if (old := stored.get(name)) is None:
                    tally.stored += 1
                else:
                    tally.duplicate += 1
                    tally.conflicting += old != value

    def letters(self, row: WideRow, reason: str) -> list[DeadLetter]:
        """See :class:`TableWriter`."""
        key = dict(zip(_KEY, map(_shown, row.key), strict=True))
        rest = {**row.labels, "started_at": _shown(row.started_at)}
        return [
            _letter(self.table, row.key.time, reason, {**key, **rest, name: _shown(value)})
            for name, value in row.cells.items()
        ]

    def _encode(self, row: WideRow) -> Sequence[Any]:
        return [
            *row.key,
            row.started_at,
            *(row.labels.get(label) for label in self._labels),
            *(row.cells.get(cell) for cell in self._cells),
        ]
