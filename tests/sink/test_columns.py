"""Rows that come late into chunks that are in columns: the same fates as elsewhere, and little is unpacked for them.

With the writers' own statements, in process, and on a server where there is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testbed import pglite

from postel.signals import load_all
from support.node import Node
from support.postgres import SERVERS, fresh_database, migrate_now
from timescale_sink.ingest.events import RowFormat, TypedEvent
from timescale_sink.ingest.point_rows import KeyedRows, PointRow
from timescale_sink.ingest.rows import LOGS, POINTS, LogRow, Tally, WideKey, WideRow
from timescale_sink.ingest.staging import SPANS, of_days, spans
from timescale_sink.ingest.tables import Fates, TableWriter, events_table, logs_table, points_table, store
from timescale_sink.ingest.values import from_microseconds, microseconds
from timescale_sink.ingest.wide import WideTable
from timescale_sink.store.database import Connection, connect

DAY = datetime(2026, 1, 14, tzinfo=UTC)
TICK = timedelta(seconds=15)
WIDE = "metrics_system"
EVENTS = "email_events"


Opening = Callable[[], AbstractAsyncContextManager[Connection]]


@pytest.fixture(scope="module", params=["pglite", *(server for server in SERVERS if server == "timescale")])
def opening(request: pytest.FixtureRequest) -> Iterator[Opening]:
    """Opens a migrated database that has columns; all of this file are of one, which takes longest to make."""
    if request.param == "pglite":
        node: Node = request.getfixturevalue("node")
        packages: Path = request.getfixturevalue("pglite_packages")
        with pglite.database(node, packages, request.getfixturevalue("migrated_pglite")) as running:

            @asynccontextmanager
            async def in_process() -> AsyncIterator[Connection]:
                yield running.connection

            yield in_process
    else:
        with fresh_database(request.getfixturevalue(request.param)) as url:
            migrate_now(url)

            @asynccontextmanager
            async def of_the_server() -> AsyncIterator[Connection]:
                connection = await connect(url)
                try:
                    yield connection
                finally:
                    await connection.close()

            yield of_the_server


@pytest.fixture
async def database(opening: Opening) -> AsyncIterator[Connection]:
    """One whose tables are empty."""
    async with opening() as connection:
        for table in (WIDE, POINTS, LOGS, EVENTS):
            await connection.execute(f"TRUNCATE {table}".encode())
        yield connection


async def _rows(database: Connection, query: str) -> list[tuple[Any, ...]]:
    return await (await database.execute(query.encode())).fetchall()


async def _pack(database: Connection, table: str) -> None:
    """Put all of a table into columns, as the job does."""
    await database.execute(f"SELECT compress_chunk(chunk) FROM show_chunks('{table}') AS chunk".encode())


async def _unpacked(database: Connection, table: str) -> int:
    """How many rows of a table are not in columns."""
    await database.execute(b"SET timescaledb.enable_transparent_decompression = off")
    try:
        return int((await _rows(database, f"SELECT count(*) FROM {table}"))[0][0])
    finally:
        await database.execute(b"RESET timescaledb.enable_transparent_decompression")


async def _stored(database: Connection, writer: TableWriter[Any], rows: list[WideRow] | KeyedRows) -> Tally:
    """Store rows as a transaction of the sink's does; what became of them."""
    fates = Fates()
    async with database.transaction():
        assert await store(database, writer, rows, fates) == []
    total = Tally()
    for (_, destination), tally in fates.ledger.items():
        assert destination == writer.table
        total.add(tally)
    return total


def _tally(stored: int, duplicate: int = 0, conflicting: int = 0) -> Tally:
    return Tally(stored=stored, duplicate=duplicate, conflicting=conflicting)


def _wide(node: str, tick: int, *, began: bool = False, **cells: float) -> WideRow:
    key = WideKey(node, "i", "", DAY + tick * TICK)
    return WideRow(key, DAY if began else None, {}, {**cells})


def _history(nodes: int, ticks: int) -> list[WideRow]:
    return [_wide(f"n{node}", tick, load_1m=tick) for node in range(nodes) for tick in range(ticks)]


async def test_a_row_in_columns_is_filled_and_nothing_else_is_unpacked(database: Connection) -> None:
    writer = WideTable(load_all(), WIDE)
    assert await _stored(database, writer, _history(5, 1500)) == _tally(7500)
    await _pack(database, WIDE)
    assert await _unpacked(database, WIDE) == 0
    # Of n1: rows to fill, one with another value of a cell that is there, repetitions, and one that is new.
    late = [
        *(_wide("n1", tick, began=True, cpu_load=tick / 2, process_count=tick) for tick in range(10, 20)),
        _wide("n1", 20, load_1m=99, cpu_load=10),
        *(_wide("n1", tick, load_1m=tick) for tick in range(21, 25)),
        _wide("n1", 1500, load_1m=1, cpu_load=1),
        # And of n3 only what is there already.
        *(_wide("n3", tick, load_1m=tick) for tick in range(10, 20)),
    ]
    assert await _stored(database, writer, late) == _tally(20 + 1 + 2, 1 + 4 + 10, 1)
    # A batch of n1's, and the new row.
    assert await _unpacked(database, WIDE) == 1000 + 1
    assert await _stored(database, writer, late) == _tally(0, 23 + 15, 1)
    found = f"SELECT node_id, load_1m, cpu_load, process_count, started_at FROM {WIDE} WHERE time = "
    assert await _rows(database, f"{found} '{DAY + 12 * TICK}' AND node_id IN ('n1', 'n3') ORDER BY 1") == [
        ("n1", 12, 6, 12, DAY),
        ("n3", 12, None, None, None),
    ]
    assert await _rows(database, f"{found} '{DAY + 20 * TICK}' AND node_id = 'n1'") == [("n1", 20, 10, None, None)]
    # The job packs it again, and it is taken as before.
    await _pack(database, WIDE)
    assert await _unpacked(database, WIDE) == 0
    assert await _stored(database, writer, late) == _tally(0, 38, 1)
    assert await _unpacked(database, WIDE) == 0
    assert await _rows(database, f"SELECT count(*)::int, count(cpu_load)::int FROM {WIDE}") == [(7501, 12)]


async def test_a_batch_of_two_days_unpacks_none_between_them(database: Connection) -> None:
    """One record that is far behind makes none of the days between a matter of the batch's."""
    writer = WideTable(load_all(), WIDE)
    day = 24 * 3600 // 15
    ticks = [number * day + tick for number in range(5) for tick in range(10)]
    await _stored(database, writer, [_wide("n1", tick, load_1m=tick) for tick in ticks])
    await _pack(database, WIDE)
    late = [_wide("n1", 3, cpu_load=1), _wide("n1", 4 * day + 3, cpu_load=1), _wide("n1", 4 * day + 4, cpu_load=1)]
    assert await _stored(database, writer, late) == _tally(3)
    assert await _unpacked(database, WIDE) == 2 * 10
    assert await _rows(database, f"SELECT count(*)::int FROM {WIDE} WHERE cpu_load = 1 AND load_1m >= 0") == [(3,)]


async def test_a_batch_whose_rows_are_partly_in_columns_is_merged_in_one(database: Connection) -> None:
    """What Postel's agents send after a week away: the first days are in columns, the last not yet."""
    writer = WideTable(load_all(), WIDE)
    rows = [_wide("n1", 5760 + tick, load_1m=tick) for tick in range(-20, 20)]
    await _stored(database, writer, rows)
    await database.execute(
        f"SELECT compress_chunk(chunk) FROM show_chunks('{WIDE}', '{DAY + 5760 * TICK}') AS chunk".encode()
    )
    assert await _unpacked(database, WIDE) == 20
    filled = [_wide("n1", 5760 + tick, load_1m=tick, cpu_load=1) for tick in range(-20, 20)]
    assert await _stored(database, writer, filled) == _tally(40, 40)
    assert await _rows(database, f"SELECT count(*)::int FROM {WIDE} WHERE cpu_load = 1") == [(40,)]


Keyed = tuple[tuple[bytes, int], Any]
"""A row behind its key, which ends with microseconds since 1970."""


def _id(number: int) -> UUID:
    # Ids in no order of time, as hashes are.
    return UUID(int=number * 2_654_435_761 % 2**32)


def _log(number: int, text: str = "text") -> Keyed:
    at = DAY + number * TICK
    body = f'"{text}"'.encode()
    row = LogRow(_id(number), at, None, f"n{number % 7}", "i", "e", 9, "", body, None, None, 0, b"{}", b"{}", b"{}")
    return row.key, row


def _event(number: int, text: str = "text") -> Keyed:
    columns = load_all().event_tables[EVENTS].columns
    rest = f'{{"text": "{text}"}}'.encode()
    event = TypedEvent(DAY + number * TICK, _id(number), f"n{number % 7}", "i", "e", (None,) * len(columns), rest)
    return event.key, RowFormat(columns).encode(event)


def _point(number: int, text: str = "text") -> Keyed:
    # A plain number, with a NaN among them, and a histogram.
    series, at = UUID(int=number % 7), DAY + number * TICK
    value = float("nan") if number % 50 == 0 else number / 4
    if number % 2:
        row = PointRow(series, at, None, 0, value=value if text == "text" else 1e9)
    else:
        row = PointRow(series, at, DAY, 0, None, None, number, 1.5, -0.0, 3.0, [1.0, 2.0], [1, 2**60, 3], None, None)
        row = row if text == "text" else row._replace(detail=b'{"other": 1}')
    return (series.bytes, microseconds(at)), row.encode()


@pytest.mark.parametrize("table", [POINTS, LOGS, EVENTS])
async def test_a_record_in_columns_is_known_again_and_none_is_unpacked(database: Connection, table: str) -> None:
    make, writer = {
        POINTS: (_point, points_table()),
        LOGS: (_log, logs_table()),
        EVENTS: (_event, events_table(load_all(), EVENTS)),
    }[table]

    def rows(*numbers: int, others: Sequence[int] = ()) -> KeyedRows:
        made = [*(make(number) for number in numbers), *(make(number, "other") for number in others)]
        made.sort(key=itemgetter(0))
        return KeyedRows([time for (_, time), _ in made], [row for _, row in made])

    known = range(0, 6000, 2)
    assert await _stored(database, writer, rows(*known)) == _tally(3000)
    before = await _rows(database, f"SELECT whole::text FROM {table} AS whole ORDER BY 1")
    await _pack(database, table)
    assert await _rows(database, f"SELECT whole::text FROM {table} AS whole ORDER BY 1") == before
    # By segments of nodes an event would be looked for in a batch of every node.
    segments = "SELECT DISTINCT segmentby FROM timescaledb_information.chunk_columnstore_settings WHERE hypertable = "
    wanted = "series_id" if table == POINTS else ""
    assert await _rows(database, f"{segments} '{table}'::regclass") == [(wanted,)]
    late = rows(*range(100, 160), others=range(200, 210, 2))
    assert await _stored(database, writer, late) == _tally(30, 30 + 5, 5)
    assert await _unpacked(database, table) == 30
    # Of new ones alone, which COPY takes, and of both again.
    assert await _stored(database, writer, rows(*range(301, 321, 2))) == _tally(10)
    assert await _stored(database, writer, late) == _tally(0, 65, 5)
    assert await _unpacked(database, table) == 40
    await _pack(database, table)
    assert await _unpacked(database, table) == 0
    assert await _rows(database, f"SELECT count(*)::int FROM {table}") == [(3040,)]


@given(st.lists(st.integers(0, 2**64 // 1000).map(from_microseconds), max_size=60))
def test_spans_hold_every_time_and_divide_no_day(times: list[datetime]) -> None:
    found = spans(times)
    assert all(any(first <= time <= last for first, last in found) for time in times)
    assert {edge for span in found for edge in span} <= {*times}
    assert all(left.last.date() < right.first.date() for left, right in pairwise(found))
    assert len(found) <= SPANS


def test_a_time_that_is_far_behind_widens_no_span() -> None:
    hour = timedelta(hours=1)
    today, yesterday, old = DAY + 5 * hour, DAY - hour, DAY - timedelta(days=400)
    assert spans([today, old, yesterday, DAY, old]) == [(old, old), (yesterday, today)]
    many = [DAY + timedelta(days=2 * number) for number in range(SPANS)]
    far = many[-1] + timedelta(days=9)
    # One more than there may be: the two that are nearest are one.
    assert [*map(tuple, spans([*many, many[3] + timedelta(days=1), far]))][3] == (many[3], many[4])
    assert spans([]) == []


@given(st.lists(st.integers(-1, 40), max_size=60))
def test_rows_of_a_day_stay_together_and_in_their_order(days: list[int]) -> None:
    found = [*of_days(days)]
    assert sorted(place for places in found for place in places) == [*range(len(days))]
    assert all(places == sorted(places, key=lambda place: (days[place], place)) for places in found)
    of_each = [{days[place] for place in places} for places in found]
    assert [*map(min, of_each)] == sorted(set(days))[: len(found)]
    # Of very many days the last are together.
    assert all(len(of_one) == 1 for of_one in of_each[: SPANS - 1])
    assert len(found) == min(len(set(days)), SPANS)
