"""What writers of tables share: binary COPY, a temporary twin of a table, and the times that a batch is of.

A statement that joins a batch with its table says of which times it is, in constants: PostgreSQL looks at the
partitions of these alone, and TimescaleDB unpacks no other rows that are in columns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import chain, pairwise
from typing import Any, NamedTuple

from psycopg import AsyncCopy, sql
from psycopg.rows import TupleRow

from timescale_sink.store.database import Connection

# A statement for each; a batch that is of more times has some in one, with all that lies between them.
SPANS = 16


class Span(NamedTuple):
    """The first and the last time of some rows, which are of neighbouring days (UTC)."""

    first: datetime
    last: datetime


def spans(times: Iterable[datetime]) -> list[Span]:
    """The spans that these times (UTC) are in, in order: a record of last year widens none of today's.

    Days are never divided, so two batches that are cut differently are still locked in one order: by day, then by key.
    """
    days: dict[int, Span] = {}
    for time in times:
        day = days.get(number := time.toordinal())
        days[number] = Span(min(day.first, time), max(day.last, time)) if day else Span(time, time)
    ordered = sorted(days)
    widest = sorted(pairwise(ordered), key=lambda pair: pair[0] - pair[1])[: SPANS - 1]
    begins = {right for left, right in widest if right - left > 1}
    found: list[Span] = []
    for number in ordered:
        if not found or number in begins:
            found.append(days[number])
        else:
            found[-1] = Span(found[-1].first, days[number].last)
    return found


def of_days(days: Sequence[int]) -> Iterator[list[int]]:
    """The positions of each day's rows, in the order of days; of very many days those of the last in one.

    Args:
        days: of each row its day's number.
    """
    positions: dict[int, list[int]] = {}
    for position, day in enumerate(days):
        positions.setdefault(day, []).append(position)
    ordered = sorted(positions)
    yield from map(positions.__getitem__, ordered[: SPANS - 1])
    if rest := ordered[SPANS - 1 :]:
        yield [*chain.from_iterable(map(positions.__getitem__, rest))]


@asynccontextmanager
async def copying(connection: Connection, table: str, columns: Iterable[str]) -> AsyncIterator[AsyncCopy]:
    """A binary COPY into a table."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        yield copy


async def copy_rows(
    connection: Connection, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows whose fields are in the order of the columns (name -> type)."""
    async with copying(connection, table, columns) as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            await copy.write_row(row)


async def stage(connection: Connection, table: str) -> str:
    """The name of an empty temporary twin of a table, made once a connection."""
    name = f"stage_{table}"
    await connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS").format(
            sql.Identifier(name), sql.Identifier(table)
        )
    )
    await connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
    return name


async def fetched(
    connection: Connection, statement: sql.Composed, parameters: Sequence[Any] | None = None
) -> list[TupleRow]:
    """The rows that a statement gives. It is planned for its parameters each time: they say where its rows can be."""
    return await (await connection.execute(statement, parameters, prepare=False)).fetchall()
