"""Writes the rows of one or several requests in one transaction, with the ledger that proves it.

What :meth:`Writer.write` returns from is committed. A record that the database refuses goes to ``dead_letter``, alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg.types.json import Jsonb

from postel.signals import Declarations
from timescale_sink.ingest.rows import LOGS, POINTS, DeadLetter, Rows, SeriesRow, Sighting, Tally
from timescale_sink.ingest.sightings import NodeBook
from timescale_sink.ingest.tables import (
    Fates,
    events_table,
    logs_table,
    points_table,
    store,
)
from timescale_sink.ingest.telemetry import Telemetry
from timescale_sink.ingest.wide import WideTable
from timescale_sink.store.database import Connection, Pool

# The Collector waits 30 s for an answer; within this time it is committed or "retry".
COMMIT_SECONDS = 5.0
# Series ids that are known to be stored, so that a point costs no second look. The set begins anew when it is large,
# and now and then, as do the nodes, because `postel demo --remove` deletes both under a running sink: what comes after
# that is written again, however often it came before.
_SERIES_KNOWN = 200_000
_SERIES_SECONDS = 60.0
# Bytes of dead letters in one statement; the driver makes two copies of them.
_LETTERS_BYTES = 4 << 20


class MixedRefusalError(Exception):
    """A record of several requests' rows is refused; written one by one, each sender hears of its own only."""


class _News(NamedTuple):
    """The series and nodes of some rows that were not written lately."""

    series: Mapping[bytes, SeriesRow]
    nodes: Mapping[str, Sighting]


class Writer:
    """Writes into one database, also two transactions at once.

    Args:
        pool: open.
        declarations: which typed tables there are.
        sink: names this sink in the ledger.
        telemetry: told of each transaction.
    """

    def __init__(self, pool: Pool, declarations: Declarations, sink: str, telemetry: Telemetry | None = None) -> None:
        self._pool = pool
        self._telemetry = telemetry
        self._sink = sink
        self._wide = {table: WideTable(declarations, table) for table in sorted(declarations.tables)}
        self._keyed = {
            POINTS: points_table(),
            LOGS: logs_table(),
            **{table: events_table(declarations, table) for table in declarations.event_tables},
        }
        self._series: set[bytes] = set()
        self._series_since = time.monotonic()
        self._nodes = NodeBook()

    async def write(self, rows: Rows, *, mixed: bool = False) -> list[DeadLetter]:
        """Store everything, or nothing.

        Args:
            rows: of one request, or of several.
            mixed: they are of several.

        Returns:
            What the database refused, beyond what mapping had already found.

        Raises:
            MixedRefusalError: the database refuses a record and ``mixed`` is true.
            TimeoutError: it was not committed within `COMMIT_SECONDS`.
            psycopg.Error: the database is away, or something that only a retry can mend.
        """
        self._forget()
        began = time.monotonic()
        fates = Fates()
        news = self._news(rows)
        async with asyncio.timeout(COMMIT_SECONDS), self._connection() as connection:
            async with connection.transaction():
                refused = await self._write(connection, rows, news, fates)
                if refused and mixed:
                    raise MixedRefusalError
            self._remember(news)
        if self._telemetry:
            self._telemetry.committed(_by_table(rows, fates), time.monotonic() - began)
        return refused

    async def probe(self) -> None:
        """Ask the database for a write that changes nothing.

        Raises:
            TimeoutError: it does not answer within `COMMIT_SECONDS`.
            psycopg.Error: it is away, or takes no writes.
        """
        async with asyncio.timeout(COMMIT_SECONDS), self._connection() as connection:
            await connection.execute("UPDATE ingest_ledger SET received = received WHERE false")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._pool.connection() as connection:
            try:
                yield connection
            except psycopg.errors.ReadOnlySqlTransaction:
                # A session that began read-only stays so, also when its database, or another host of the URL, is
                # written again.
                await connection.close()
                raise

    async def _write(self, connection: Connection, rows: Rows, news: _News, fates: Fates) -> list[DeadLetter]:
        refused: list[DeadLetter] = []
        for table, writer in self._wide.items():
            wide = rows.wide.get(table, {})
            refused += await store(connection, writer, [wide[key] for key in sorted(wide)], fates)
        if news.series:
            await _add_series(connection, news.series)
        for table, keyed in rows.ordered().items():
            refused += await store(connection, self._keyed[table], keyed, fates)
        await _add_parts(connection, rows.parts)
        await _add_letters(connection, [*rows.dead.values(), *refused], fates)
        await _add_nodes(connection, news.nodes)
        await self._add_ledger(connection, rows, fates)
        return refused

    def _forget(self) -> None:
        # Before the rows are written, so that all that is remembered was written since, or by a transaction that was
        # under way then.
        now = time.monotonic()
        if len(self._series) > _SERIES_KNOWN or now - self._series_since > _SERIES_SECONDS:
            self._series.clear()
            self._nodes.clear()
            self._series_since = now

    def _news(self, rows: Rows) -> _News:
        fresh = {id_: row for id_, row in rows.series.items() if id_ not in self._series}
        return _News(fresh, self._nodes.news(rows.nodes))

    def _remember(self, news: _News) -> None:
        # Only after the commit: a series of a transaction that failed is not there. And only what this transaction has
        # written: what it knew from before may have been forgotten meanwhile, by one beside it.
        self._series.update(news.series)
        self._nodes.add(self._nodes.news(news.nodes))

    async def _add_ledger(self, connection: Connection, rows: Rows, fates: Fates) -> None:
        lines = [
            (at, table, self._sink, all_.received, all_.stored, all_.duplicate, all_.conflicting, all_.dead_lettered)
            for (at, table), all_ in _lines(rows, fates)
        ]
        async with connection.cursor() as cursor:
            await cursor.executemany(
                """
                INSERT INTO ingest_ledger AS ledger (
                    hour, destination, sink, received, stored, duplicate, conflicting, dead_lettered
                ) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
                ON CONFLICT (hour, destination, sink) DO UPDATE SET
                    received = ledger.received + excluded.received,
                    stored = ledger.stored + excluded.stored,
                    duplicate = ledger.duplicate + excluded.duplicate,
                    conflicting = ledger.conflicting + excluded.conflicting,
                    dead_lettered = ledger.dead_lettered + excluded.dead_lettered
                """,
                lines,
            )


def _lines(rows: Rows, fates: Fates) -> Iterator[tuple[tuple[datetime, str], Tally]]:
    """The lines of the ledger: what mapping found, and what became of the rest in the database."""
    for key in sorted(rows.ledger.keys() | fates.ledger.keys()):
        line = Tally()
        for tally in (rows.ledger.get(key), fates.ledger.get(key)):
            if tally:
                line.add(tally)
        yield key, line


def _by_table(rows: Rows, fates: Fates) -> dict[str, Tally]:
    tables: dict[str, Tally] = {}
    for (_, table), line in _lines(rows, fates):
        tables.setdefault(table, Tally()).add(line)
    return tables


async def _add_series(connection: Connection, series: Mapping[bytes, SeriesRow]) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO otel_series (
                series_id, node_id, instance, metric, unit, kind, temporality, monotonic, description,
                resource, scope, attributes
            ) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::jsonb, %s::jsonb, %s::jsonb)
            ON CONFLICT DO NOTHING
            """,
            [(*row[:9], *(part.decode() for part in row[9:])) for _, row in sorted(series.items())],
        )


async def _add_parts(connection: Connection, parts: Mapping[UUID, bytes]) -> None:
    for part_id in sorted(parts):
        await connection.execute(
            "INSERT INTO dead_letter_part (part_id, content) VALUES (%s, %s::jsonb) ON CONFLICT DO NOTHING",
            (part_id, parts[part_id].decode()),
        )


async def _add_letters(connection: Connection, letters: list[DeadLetter], fates: Fates) -> None:
    letters.sort(key=_record_id)
    for group in _groups(letters):
        columns = [list(column) for column in zip(*group, strict=True)]
        columns[4] = [record.decode() for record in columns[4]]
        cursor = await connection.execute(
            """
            INSERT INTO dead_letter (record_id, hour, destination, reason, record, resource_id, scope_id, metric_id)
            SELECT * FROM unnest(
                %s::uuid[], %s::timestamptz[], %s::text[], %s::text[], %s::jsonb[], %s::uuid[], %s::uuid[], %s::uuid[]
            )
            ON CONFLICT DO NOTHING RETURNING record_id
            """,
            columns,
        )
        stored = {row[0] for row in await cursor.fetchall()}
        for letter in group:
            tally = fates.tally(letter.hour, letter.destination)
            if letter.record_id in stored:
                stored.remove(letter.record_id)
                tally.dead_lettered += 1
            else:
                tally.duplicate += 1


def _groups(letters: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    """What goes into one statement: `_LETTERS_BYTES`, or a letter that alone is larger."""
    start = size = 0
    for position, letter in enumerate(letters):
        if size and size + len(letter.record) > _LETTERS_BYTES:
            yield letters[start:position]
            start, size = position, 0
        size += len(letter.record)
    if letters:
        yield letters[start:]


def _record_id(letter: DeadLetter) -> UUID:
    return letter.record_id


async def _add_nodes(connection: Connection, nodes: Mapping[str, Sighting]) -> None:
    for node_id, seen in sorted(nodes.items(), key=_by_id):
        sources = None if seen.sources is None else orjson.dumps(seen.sources).decode()
        await connection.execute(
            """
            INSERT INTO node AS known (id, host, first_seen, last_seen, sources, versions, demo, attributes)
            VALUES (%(id)s, %(host)s, %(first)s, %(last)s, coalesce(%(sources)s::jsonb, '[]'), %(versions)s, %(demo)s,
                %(attributes)s)
            ON CONFLICT (id) DO UPDATE SET
                host = coalesce(nullif(excluded.host, ''), known.host),
                first_seen = least(known.first_seen, excluded.first_seen),
                last_seen = greatest(known.last_seen, excluded.last_seen),
                sources = coalesce(%(sources)s::jsonb, known.sources),
                versions = known.versions || excluded.versions,
                demo = known.demo AND excluded.demo,
                attributes = known.attributes || excluded.attributes
            """,
            {
                "id": node_id,
                "host": seen.host,
                "first": seen.first,
                "last": seen.last,
                "sources": sources,
                "versions": Jsonb(seen.versions),
                "demo": seen.demo,
                "attributes": Jsonb(seen.attributes),
            },
        )


def _by_id(entry: tuple[str, Sighting]) -> str:
    return entry[0]
