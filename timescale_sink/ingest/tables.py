"""How rows of each table go into the database: COPY first, and where a key is there already, through a staging table.

Every writer here stores a list of rows of one table inside the caller's transaction and says what became of each in
the :class:`Fates`. COPY is optimistic: rows that are new cost one statement; a unique violation undoes it and the same
rows go through a temporary table with ON CONFLICT. Rows are in the order of days and then of keys, so that two
transactions lock them in the same order, and those of each day go by themselves: TimescaleDB has a chunk for each,
locks the table to make one, and writes what COPY brings for several in an order of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from postel.signals import FIXED_EVENT_COLUMNS, Declarations
from timescale_sink.ingest import cells
from timescale_sink.ingest.events import RowFormat
from timescale_sink.ingest.point_rows import POINT_COLUMNS, KeyedRows, PointRow
from timescale_sink.ingest.rows import LOGS, POINTS, DeadLetter, Tally
from timescale_sink.ingest.staging import copy_rows, copying, fetched, of_days, spans, stage
from timescale_sink.ingest.values import HOUR, by_hour, canonical, fingerprint, from_microseconds, hour
from timescale_sink.store.database import Connection

_DAY = 24 * HOUR
# Rows that are handed to the driver at once.
_JOINED = 4000


class Batch(Protocol):
    """Rows of one table, in the order of their keys, or of their days first."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Self: ...


AnyBatch = TypeVar("AnyBatch", bound=Batch)


@dataclass(slots=True)
class Fates:
    """What became of the rows of one transaction: (hour, destination) -> counts of points and records."""

    ledger: dict[tuple[datetime, str], Tally] = field(default_factory=dict)

    def tally(self, at: datetime, destination: str) -> Tally:
        """The line of a record's time."""
        return self.ledger.setdefault((hour(at), destination), Tally())


class TableWriter(Protocol[AnyBatch]):
    """Stores rows of one table."""

    @property
    def table(self) -> str:
        """The table's name, which is the ledger's destination."""

    def by_days(self, rows: AnyBatch) -> Iterator[AnyBatch]:
        """The rows of each day (`staging.of_days`)."""

    async def copy(self, connection: Connection, rows: AnyBatch, fates: Fates) -> None:
        """Store rows that are all new.

        Raises:
            psycopg.errors.UniqueViolation: one is not.
        """

    async def merge(self, connection: Connection, rows: AnyBatch, fates: Fates) -> None:
        """Store rows of which some may be there."""

    def letters(self, rows: AnyBatch, reason: str) -> list[DeadLetter]:
        """The dead letters of what the database refuses: one for each point or record in it.

        Args:
            rows: one row.
            reason: why.
        """


async def store(
    connection: Connection, writer: TableWriter[AnyBatch], rows: AnyBatch, fates: Fates
) -> list[DeadLetter]:
    """Store rows, a day after the other; what the database refuses is found by halving.

    Returns:
        The dead letters of refused rows; they are not stored yet.
    """
    return [letter for day in writer.by_days(rows) for letter in await _store_day(connection, writer, day, fates)]


async def _store_day(
    connection: Connection, writer: TableWriter[AnyBatch], rows: AnyBatch, fates: Fates
) -> list[DeadLetter]:
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
            return writer.letters(rows, _reason(error, writer.table))
        middle = len(rows) // 2
        refused = await _store_day(connection, writer, rows[:middle], fates)
        return refused + await _store_day(connection, writer, rows[middle:], fates)
    for key, tally in attempt.ledger.items():
        fates.ledger.setdefault(key, Tally()).add(tally)
    return []


def _reason(error: psycopg.Error, table: str) -> str:
    """Why, in a line: by the table's name where the database says that of a chunk, of which each time has another."""
    said = str(error).splitlines()[0]
    part = error.diag.table_name
    return said.replace(f'"{part}"', f'"{table}"') if part else said


def letter(table: str, at: datetime, reason: str, content: Mapping[str, Any]) -> DeadLetter:
    """The dead letter of a point or record that the database refuses, by the names of its columns."""
    encoded = canonical(content)
    return DeadLetter(fingerprint(table.encode(), encoded), hour(at), table, reason, encoded)


def shown(value: Any) -> Any:
    """A field as a JSON value for a human; the JSON columns hold encoded bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").replace("\0", "\ufffd")
    return value if value is None or isinstance(value, (str, int)) else str(value)


class KeyedTable:
    """A table whose rows are points or records, each stored whole or not at all; the first of a key stays.

    Args:
        table: its name.
        columns: column -> type, in the order of the row's fields.
        key: the columns that tell rows apart.
        restored: the values of a row, where rows are the bytes of COPY.
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
            " WHERE stored.time BETWEEN %s AND %s AND ({staged}) IS DISTINCT FROM ({stored}) GROUP BY 1"
        ).format(**parts)
        self._insert = sql.SQL(
            "WITH fresh AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage}"
            " ORDER BY date_trunc('day', time, 'UTC'), {key}"
            " ON CONFLICT DO NOTHING RETURNING time)"
            " SELECT date_trunc('hour', time, 'UTC'), count(*) FROM fresh GROUP BY 1"
        ).format(**parts)

    def by_days(self, rows: KeyedRows) -> Iterator[KeyedRows]:
        """See :class:`TableWriter`."""
        # Nearly always all are of one.
        if rows and min(rows.times) // _DAY == max(rows.times) // _DAY:
            yield rows
            return
        for positions in of_days([time // _DAY for time in rows.times]):
            yield KeyedRows([rows.times[at] for at in positions], [rows.rows[at] for at in positions])

    async def copy(self, connection: Connection, rows: KeyedRows, fates: Fates) -> None:
        """See :class:`TableWriter`."""
        await self._copy(connection, self.table, rows)
        for at, count in by_hour(rows.times):
            fates.tally(at, self.table).stored += count

    async def merge(self, connection: Connection, rows: KeyedRows, fates: Fates) -> None:
        """See :class:`TableWriter`."""
        await self._copy(connection, await stage(connection, self.table), rows)
        conflicting = [
            found
            for span in spans(map(from_microseconds, rows.times))
            for found in await fetched(connection, self._conflicting, span)
        ]
        stored = await (await connection.execute(self._insert)).fetchall()
        for at, count in by_hour(rows.times):
            fates.tally(at, self.table).duplicate += count
        for at, count in stored:
            tally = fates.tally(at, self.table)
            tally.stored += count
            tally.duplicate -= count
        for at, count in conflicting:
            fates.tally(at, self.table).conflicting += count

    def letters(self, rows: KeyedRows, reason: str) -> list[DeadLetter]:
        """See :class:`TableWriter`."""
        (time,), (values,) = rows.times, rows.rows
        if self._restored:
            values = self._restored(values)
        content = dict(zip(self._columns, map(shown, values), strict=True))
        return [letter(self.table, from_microseconds(time), reason, content)]

    async def _copy(self, connection: Connection, table: str, rows: KeyedRows) -> None:
        if self._restored:
            async with copying(connection, table, self._columns) as copy:
                await copy.write(cells.BEGIN)
                # Joined all at once they would be in memory twice.
                for start in range(0, len(rows), _JOINED):
                    await copy.write(b"".join(rows.rows[start : start + _JOINED]))
                await copy.write(cells.END)
        else:
            await copy_rows(connection, table, self._columns, self._encode(rows.rows))

    def _encode(self, rows: Iterable[Iterable[Any]]) -> Iterator[Sequence[Any]]:
        for row in rows:
            fields: list[Any] = list(row)
            for position in self._json:
                if fields[position] is not None:
                    fields[position] = Jsonb(fields[position], dumps=bytes)
            yield fields


def points_table() -> KeyedTable:
    """The writer of ``otel_metric_point``."""
    return KeyedTable(POINTS, POINT_COLUMNS, ("series_id", "time"), PointRow.decode)


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
