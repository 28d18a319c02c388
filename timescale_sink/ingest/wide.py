"""How typed rows go into the database: a row is the cells of several points, which may come one by one.

Where rows of the batch are in columns (TimescaleDB Community), nothing locks them: those that the batch fills are
unpacked first, with what shares a batch of a thousand rows with them, and the database's job packs them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import psycopg
from psycopg import sql

from postel.signals import Declarations
from timescale_sink.ingest.rows import DeadLetter, WideKey, WideRow
from timescale_sink.ingest.staging import Span, copy_rows, fetched, of_days, spans, stage
from timescale_sink.ingest.tables import Fates, letter, shown
from timescale_sink.store.database import Connection

_KEY = ("node_id", "instance", "zone", "time")
_SEGMENT = _KEY[:3]
# Any number that no other program takes for the first of two of an advisory lock: "post" in ASCII.
_UNPACKING = 0x706F7374

_Stored = dict[WideKey, Mapping[str, Any]]
"""Of rows that are there: column -> value."""
_Fill = tuple[sql.Composed, Sequence[Any]]
"""A statement that fills rows, and its parameters."""


class WideTable:
    """A typed table, whose rows may come in parts.

    A cell that is there stays; a point counts as stored when it is the first for its cell.
    """

    _TYPES: ClassVar[Mapping[str, str]] = {"bigint": "int8", "double precision": "float8"}

    def __init__(self, declarations: Declarations, table: str) -> None:
        self.table = table
        self._cells = {column.name: self._TYPES[column.type] for column in declarations.columns_of(table)}
        self._labels = tuple(declarations.tables[table].labels)
        self._columns: dict[str, str] = {
            **dict.fromkeys(_SEGMENT, "text"),
            "time": "timestamptz",
            "started_at": "timestamptz",
            **dict.fromkeys(self._labels, "text"),
            **self._cells,
        }
        self._write_statements()

    def _write_statements(self) -> None:
        filled = [*self._labels, "started_at", *self._cells]
        column = sql.Identifier
        parts: dict[str, sql.Composable] = {
            "table": column(self.table),
            "stage": column(f"stage_{self.table}"),
            "key": _each("{0}", _KEY),
            "found": _each("stored.{0}", [*_KEY, *self._cells]),
            "order": sql.SQL("date_trunc('day', time, 'UTC'), ")
            + sql.SQL(", ").join(
                sql.SQL('{} COLLATE "C"' if self._columns[k] == "text" else "{}").format(column(k)) for k in _KEY
            ),
            "columns": _each("{0}", self._columns),
            "same": _each("stored.{0} = staged.{0}", _KEY, " AND "),
            "segments": _each("stored.{0} = ANY (%s)", _SEGMENT, " AND "),
            "fill": _each("{0} = coalesce(stored.{0}, staged.{0})", filled),
            "news": _each("(stored.{0} IS NULL AND staged.{0} IS NOT NULL)", filled, " OR "),
        }

        def statement(text: str) -> sql.Composed:
            return sql.SQL(text).format(**parts)

        self._insert = statement(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} ORDER BY {order}"
            " ON CONFLICT DO NOTHING RETURNING {key}"
        )
        # FOR UPDATE reads what another transaction committed a moment ago, and keeps it from changing until the update.
        # The spans come in order, so rows are locked by day first, however the batch was cut into them.
        self._lock = statement(
            "SELECT {news}, {found} FROM {table} AS stored JOIN {stage} AS staged USING ({key})"
            " WHERE stored.time BETWEEN %s AND %s"
            " ORDER BY {order} FOR UPDATE OF stored"
        )
        self._read = statement(
            "SELECT {news}, {found} FROM {table} AS stored JOIN {stage} AS staged USING ({key})"
            " WHERE stored.time BETWEEN %s AND %s"
        )
        # Changes nothing, and so unpacks, locks and reads: TimescaleDB unpacks what the constants let match.
        self._unpack = statement(
            "UPDATE {table} AS stored SET started_at = stored.started_at FROM {stage} AS staged"
            " WHERE {same} AND stored.time BETWEEN %s AND %s AND {segments} RETURNING {news}, {found}"
        )
        self._fill = statement(
            "UPDATE {table} AS stored SET {fill} FROM {stage} AS staged"
            " WHERE {same} AND stored.time BETWEEN %s AND %s AND ({news})"
        )
        self._fill_unpacked = statement(
            "UPDATE {table} AS stored SET {fill} FROM {stage} AS staged"
            " WHERE {same} AND stored.time BETWEEN %s AND %s AND {segments} AND ({news})"
        )

    def by_days(self, rows: list[WideRow]) -> Iterator[list[WideRow]]:
        """See :class:`~timescale_sink.ingest.tables.TableWriter`."""
        for positions in of_days([row.key.time.toordinal() for row in rows]):
            yield [rows[at] for at in positions]

    async def copy(self, connection: Connection, rows: list[WideRow], fates: Fates) -> None:
        """See :class:`~timescale_sink.ingest.tables.TableWriter`."""
        await copy_rows(connection, self.table, self._columns, map(self._encode, rows))
        for row in rows:
            fates.tally(row.key.time, self.table).stored += len(row.cells)

    async def merge(self, connection: Connection, rows: list[WideRow], fates: Fates) -> None:
        """See :class:`~timescale_sink.ingest.tables.TableWriter`."""
        await copy_rows(connection, await stage(connection, self.table), self._columns, map(self._encode, rows))
        fresh = {WideKey(*key) for key in await fetched(connection, self._insert)}
        there: _Stored = {}
        fills: list[_Fill] = []
        # All are locked before any is filled.
        for span in spans(row.key.time for row in rows if row.key not in fresh):
            stored_there, fill = await self._locked(connection, span)
            there |= stored_there
            fills += [fill] if fill else []
        for statement, parameters in fills:
            await connection.execute(statement, parameters, prepare=False)
        for row in rows:
            tally = fates.tally(row.key.time, self.table)
            stored = {} if row.key in fresh else there.get(row.key, {})
            for name, value in row.cells.items():
                if (old := stored.get(name)) is None:
                    tally.stored += 1
                else:
                    tally.duplicate += 1
                    tally.conflicting += old != value

    async def _locked(self, connection: Connection, span: Span) -> tuple[_Stored, _Fill | None]:
        """What is stored of rows of a span, which nobody changes before they are filled, and what fills them."""
        try:
            async with connection.transaction():
                stored, lacking = self._stored(await fetched(connection, self._lock, span))
        except psycopg.errors.FeatureNotSupported:
            return await self._unpacked(connection, span)
        return stored, (self._fill, _span(lacking)) if lacking else None

    async def _unpacked(self, connection: Connection, span: Span) -> tuple[_Stored, _Fill | None]:
        """The same where rows are in columns. Cells that are there stay, so a row that lacks none needs no lock."""
        # Of two that unpack the same rows TimescaleDB refuses one.
        await connection.execute("SELECT pg_advisory_xact_lock(%s, %s::regclass::oid::int)", (_UNPACKING, self.table))
        stored, lacking = self._stored(await fetched(connection, self._read, span))
        if not lacking:
            return stored, None
        segments = ([*{getattr(key, column) for key in lacking}] for column in _SEGMENT)
        bounds = (*_span(lacking), *segments)
        stored |= self._stored(await fetched(connection, self._unpack, bounds))[0]
        return stored, (self._fill_unpacked, bounds)

    def _stored(self, found: Iterable[Sequence[Any]]) -> tuple[_Stored, list[WideKey]]:
        """The rows that were found, and the keys of those that lack what the batch has."""
        stored: _Stored = {}
        lacking = []
        for lacks, *row in found:
            key = WideKey(*row[:4])
            stored[key] = dict(zip(self._cells, row[4:], strict=True))
            if lacks:
                lacking.append(key)
        return stored, lacking

    def letters(self, rows: list[WideRow], reason: str) -> list[DeadLetter]:
        """See :class:`~timescale_sink.ingest.tables.TableWriter`."""
        (row,) = rows
        key = dict(zip(_KEY, map(shown, row.key), strict=True))
        rest = {**row.labels, "started_at": shown(row.started_at)}
        return [
            letter(self.table, row.key.time, reason, {**key, **rest, name: shown(value)})
            for name, value in row.cells.items()
        ]

    def _encode(self, row: WideRow) -> Sequence[Any]:
        return [
            *row.key,
            row.started_at,
            *(row.labels.get(label) for label in self._labels),
            *(row.cells.get(cell) for cell in self._cells),
        ]


def _each(text: str, columns: Iterable[str], between: str = ", ") -> sql.Composed:
    """A text for each column, ``{0}``, with what stands between."""
    return sql.SQL(between).join(sql.SQL(text).format(sql.Identifier(column)) for column in columns)


def _span(keys: Sequence[WideKey]) -> Span:
    times = [key.time for key in keys]
    return Span(min(times), max(times))
