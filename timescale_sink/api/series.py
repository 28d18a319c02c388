"""What the API and the page read: nodes and series, each asked of the database once for all who look at the same time.

A series is what one (node, instance, zone) or one queue says of one typed column, on a grid of equal steps; a step
without a value is None, never 0 and never the value before it. Counters are read as their increase or as the rate per
second, by the store's increase view.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from postel.signals import Column, Declarations, Table
from timescale_sink.api import rolled
from timescale_sink.api.access import Access, BadQueryError, asked_again
from timescale_sink.api.queries import query
from timescale_sink.api.shared import KEEP_S, Shared
from timescale_sink.store.database import Connection, Tier, ask_server

# A chart is drawn well from some hundred points; above this the answer is a download, not a chart.
MAX_STEPS = 5000
# Series times steps of one answer: about 10 MiB of JSON.
MAX_VALUES = 1_000_000
# What has longer steps costs more to ask and changes less: it is kept for a twentieth of a step.
KEEP_LONGEST_S = 30.0
# How many series there are changes with the nodes.
_HELD_S = 60.0
# What told nothing in this time is none.
_LATELY_S = 600

Reading = Literal["rate", "increase"]


@dataclass(frozen=True, slots=True)
class Node:
    """A host that has sent data; ``age`` is seconds since it was last heard of, by the database's clock."""

    id: str
    host: str
    first_seen: datetime
    last_seen: datetime
    age: float
    sources: Any
    versions: Any
    demo: bool


@dataclass(frozen=True, slots=True)
class Query:
    """Which series: typed columns of one table, all gauges or all counters.

    Attributes:
        start: epoch seconds, the first step: so many ``step`` from `rolled.BEGIN`.
        stop: the same; the first step that is no longer asked for.
        step: seconds.
        reading: what is told of counters; gauges are what they are.
        node, instance, zone: only these; None: each.
    """

    table: str
    columns: tuple[str, ...]
    start: int
    stop: int
    step: int
    reading: Reading = "rate"
    node: str | None = None
    instance: str | None = None
    zone: str | None = None

    @property
    def steps(self) -> int:
        """How many values each series has."""
        return (self.stop - self.start) // self.step


@dataclass(frozen=True, slots=True)
class Series:
    """One series of one column; ``values`` has one entry a step. ``queue`` is '' where no queue is shared."""

    column: str
    node: str
    instance: str
    zone: str
    queue: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a server says of itself.

    Attributes:
        replica: whether it follows another.
        age: seconds since the newest transaction that a replica has; None of a primary, and of one that was given none
            since it started.
    """

    replica: bool
    age: float | None


@dataclass(frozen=True, slots=True)
class _Held:
    """What a table has: its series (node, instance, zone), and sizes of rollups that are still being made."""

    series: tuple[tuple[str, str, str], ...]
    pending: frozenset[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """The series of a query and the unit of each column (UCUM; a rate's ends in ``/s``)."""

    query: Query
    units: Mapping[str, str]
    series: tuple[Series, ...]


class Reader:
    """Reads nodes and series; what its methods raise beside BadQueryError is told by `Access.connection`."""

    def __init__(self, access: Access, declarations: Declarations) -> None:
        self._access = access
        self._declarations = declarations
        self._nodes: Shared[tuple[Node, ...]] = Shared()
        self._series: Shared[Answer] = Shared()
        self._held: Shared[_Held] = Shared()
        self._tier: Tier | None = None

    async def close(self) -> None:
        """End what is still being asked."""
        await self._nodes.close()
        await self._series.close()
        await self._held.close()

    @asked_again
    async def ping(self) -> Standing:
        """Who answers, where the database does and is migrated."""
        async with self._access.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(query("ping"))
            ((_, replica, age),) = await cursor.fetchall()
            return Standing(replica, age)

    async def nodes(self) -> tuple[Node, ...]:
        """Every node of which something is kept: real ones first, then by host."""
        return await self._nodes.get("nodes", self._ask_nodes)

    async def series(self, asked: Query) -> Answer:
        """The series of a query.

        Raises:
            BadQueryError: no such table or column, gauges and counters together, or too large.
        """
        self.check(asked)
        keep_s = min(max(KEEP_S, asked.step / 20), KEEP_LONGEST_S)
        return await self._series.get(asked, lambda: self._ask_series(asked), keep_s)

    async def step(
        self,
        table: str,
        seconds: float,
        points: int,
        *,
        node: str | None = None,
        instance: str | None = None,
        zone: str | None = None,
    ) -> int:
        """The step that tells a range by so many points, or by fewer where many series are told.

        Args:
            table: a typed table.
            seconds: the range.
            points: at most, of a series.
            node: only this one; None: each.
            instance: the same.
            zone: the same.

        Raises:
            BadQueryError: no such table.
        """
        wanted = (node, instance, zone)
        held = await self._have(table)
        series = sum(all(only in (None, own) for only, own in zip(wanted, key, strict=True)) for key in held.series)
        return rolled.step_for(seconds, self.interval(table), points, series=series)

    async def zones(self, table: str, *, node: str | None = None) -> Sequence[str]:
        """The zones of which a typed table was told within its last minutes; ``node``: by this one alone.

        Raises:
            BadQueryError: no such table.
        """
        held = await self._have(table)
        return sorted({zone for node_id, _, zone in held.series if zone and node in (None, node_id)})

    async def _have(self, table: str) -> _Held:
        self._declared(table)
        return await self._held.get(table, lambda: self._ask_held(table), _HELD_S)

    def interval(self, table: str) -> int:
        """Seconds from one row of a typed table to the next; BadQueryError where there is no such table."""
        return self._declared(table).interval

    def column(self, table: str, name: str) -> Column:
        """A declared typed column; BadQueryError where there is none."""
        self._declared(table)
        columns = {column.name: column for column in self._declarations.columns_of(table)}
        if name not in columns:
            raise BadQueryError(f"column: {table} has no column {name!r}; it has {', '.join(sorted(columns))}")
        return columns[name]

    def _declared(self, table: str) -> Table:
        tables = self._declarations.tables
        if table not in tables:
            raise BadQueryError(f"table: {table!r} is no typed table; there are {', '.join(sorted(tables))}")
        return tables[table]

    def check(self, asked: Query) -> None:
        """Raise BadQueryError where a query cannot be answered, whatever the database has."""
        if not asked.columns:
            raise BadQueryError("column: name one at least")
        kinds = {self.column(asked.table, name).counter for name in asked.columns}
        if len(kinds) > 1:
            raise BadQueryError("column: ask for gauges and for counters apart")
        if asked.stop <= asked.start:
            raise BadQueryError("from: must be before `to`")
        if asked.steps > MAX_STEPS:
            least = math.ceil((asked.stop - asked.start) / MAX_STEPS)
            raise BadQueryError(f"step: {asked.step} s is too short for this range; {least} s or more is accepted")

    @asked_again
    async def _ask_nodes(self) -> tuple[Node, ...]:
        async with self._access.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query("nodes"))
            return tuple(Node(**row) for row in await cursor.fetchall())

    @asked_again
    async def _ask_held(self, table: str) -> _Held:
        rollups = {f"{table}_{size}": size for size in rolled.SECONDS}
        seconds = max(_LATELY_S, 2 * self.interval(table))
        async with self._access.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(query("series", table), {"seconds": seconds})
            series = await cursor.fetchall()
            await cursor.execute(query("pending"), {"rollups": [*rollups]})
            pending = frozenset(rollups[rollup] for (rollup,) in await cursor.fetchall())
        return _Held(tuple(series), pending)

    @asked_again
    async def _ask_series(self, asked: Query) -> Answer:
        columns = [self.column(asked.table, name) for name in asked.columns]
        counter = columns[0].counter
        pending = (await self._have(asked.table)).pending
        values = {
            "step": asked.step,
            "start": asked.start,
            "stop": asked.stop,
            "node": asked.node,
            "instance": asked.instance,
            "zone": asked.zone,
        }
        async with self._access.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            aggregated = await self._aggregated(connection)
            size = rolled.size_for(asked.step, pending=pending) if aggregated else None
            values["since"] = asked.start - rolled.look_back(size)
            await cursor.execute(self.text(asked, size), values)
            rows = await cursor.fetchmany(MAX_VALUES)
            if counter and any(row[-1] for row in rows):
                await cursor.execute(self.text(asked, size, exact=True), values)
                rows = await cursor.fetchmany(MAX_VALUES)
        keys = len({row[1:5] for row in rows})
        if len(rows) == MAX_VALUES or keys * len(columns) * asked.steps > MAX_VALUES:
            raise BadQueryError(f"step: {keys} series are too many for this range and step; name a node or a zone")
        rate = counter and asked.reading == "rate"
        series = tuple(_series(asked, rows, rate=rate))
        per_second = "/s" if rate else ""
        units = {c.name: self._declarations.metrics[c.metric].unit + per_second for c in columns}
        return Answer(asked, units, series)

    def text(self, asked: Query, size: str | None, *, exact: bool = False) -> sql.Composed:
        """The query that answers a question.

        Args:
            asked: the question.
            size: of the buckets that make up its steps, of a rollup that is stored apart from the rows; None: the rows.
            exact: of counters the query that costs more.
        """
        if self.column(asked.table, asked.columns[0]).counter:
            return rolled.increases(asked.table, size, asked.columns, exact=exact)
        shared = "queue_id" in self._declared(asked.table).labels
        if size:
            return rolled.gauges(asked.table, size, asked.columns, shared=shared)
        return query("queue_gauges" if shared else "gauges", asked.table, asked.columns)

    async def _aggregated(self, connection: Connection) -> bool:
        """Whether rollups are stored apart from the rows."""
        if self._tier is None:
            self._tier = (await ask_server(connection)).tier
        return self._tier is Tier.COMMUNITY


def _series(asked: Query, rows: Iterable[Sequence[Any]], *, rate: bool) -> Iterator[Series]:
    found: dict[tuple[str, str, str, str], list[list[float | None]]] = {}
    for row in rows:
        step, node, instance, zone, queue, covered, *values = row
        grids = found.get((queue, node, instance, zone))
        if grids is None:
            grids = found[queue, node, instance, zone] = [[None] * asked.steps for _ in asked.columns]
        place = (step - asked.start) // asked.step
        divisor = covered if rate else 1.0
        for grid, value in zip(grids, values, strict=False):
            grid[place] = None if value is None or divisor is None else value / divisor
    for (queue, node, instance, zone), grids in sorted(found.items()):
        for column, grid in zip(asked.columns, grids, strict=True):
            # A column that this key never fills is another key's: queue figures stand under zone '', attempts do not.
            if any(value is not None for value in grid):
                yield Series(column, node, instance, zone, queue, tuple(grid))
