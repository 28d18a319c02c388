"""Events of the tables that the declarations give them: searched, paged, and streamed as a whole.

A page goes on by its last event's key (time, event_id), newest first, so that pages neither repeat nor leave out an
event while others come in. A stream is such pages in a row: it holds no connection while its reader takes its time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, LiteralString, Self, cast
from uuid import UUID

from psycopg import sql
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from postel.signals import Declarations, EventTable
from timescale_sink.api.access import Access, BadQueryError
from timescale_sink.api.queries import query

# In every event table, before the declared columns; `attributes` stands behind them.
FIXED: Mapping[str, str] = {
    "time": "timestamptz",
    "event_id": "uuid",
    "node_id": "text",
    "instance": "text",
    "event_name": "text",
}
LONGEST_PAGE = 1000

Operator = Literal["=", "!=", ">=", "<=", "~"]
_CONDITION = re.compile(r"([a-z_]+)(!=|>=|<=|=|~)(.*)", re.DOTALL)
_READERS: Mapping[str, Callable[[str], Any]] = {
    "bigint": int,
    "double precision": float,
    "uuid": UUID,
    "timestamptz": datetime.fromisoformat,
}
_NUMBERS = ("bigint", "double precision", "timestamptz")
_UNORDERED = ("text[]", "jsonb")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Event:
    """A row of an event table; ``values`` are its declared columns that are not NULL, by their names."""

    table: str
    time: datetime
    event_id: UUID
    node: str
    instance: str
    name: str
    values: Mapping[str, Any]
    attributes: Mapping[str, Any]

    @property
    def key(self) -> Key:
        """Where a page that ends with it goes on."""
        return Key(self.time, self.event_id)


@dataclass(frozen=True, slots=True)
class Key:
    """An event's place in the order of pages."""

    time: datetime
    event_id: UUID

    def __str__(self) -> str:
        """As a page's ``next`` gives it: microseconds since the epoch and the id."""
        return f"{(self.time - _EPOCH) // _MICROSECOND}-{self.event_id.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that a page gave; BadQueryError where it is none."""
        try:
            microseconds, _, event_id = text.rpartition("-")
            return cls(_EPOCH + int(microseconds) * _MICROSECOND, UUID(hex=event_id))
        except (ValueError, OverflowError):
            raise BadQueryError("before: is not the `next` of a page") from None


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column must be. Several with = on one column: any of them; all else: each."""

    column: str
    operator: Operator
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """``column=value``, and the same with != >= <= or ~ ("contains", without regard to case)."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise BadQueryError(f"filter: {text!r} is not a column, one of = != >= <= ~ and a value")
        column, operator, value = found.groups()
        return cls(column, cast("Operator", operator), value)


@dataclass(frozen=True, slots=True)
class Search:
    """Which events.

    Attributes:
        start: the earliest time.
        stop: the first time that is too late.
        address: of the sender or of one of the recipients, as the envelope says it.
        before: only what comes behind this key, which is older.
    """

    table: str
    start: datetime
    stop: datetime
    conditions: tuple[Condition, ...] = ()
    address: str | None = None
    before: Key | None = None


class Where:
    """Terms that rows have to meet, all of them, and the values in them, which go to the server apart from the text."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._terms: list[sql.Composed] = []

    @property
    def condition(self) -> sql.Composed:
        """The terms together."""
        return sql.SQL("\n    AND ").join(self._terms)

    def add(self, form: LiteralString, *parts: Any) -> None:
        """A term: its text with {} for each of the parts, which are identifiers or values."""
        self._terms.append(sql.SQL(form).format(*map(self._part, parts)))

    def _part(self, part: Any) -> sql.Composable:
        if isinstance(part, sql.Composable):
            return part
        name = f"value_{len(self.values)}"
        self.values[name] = part
        return sql.Placeholder(name)


class EventReader:
    """Reads the event tables; what its methods raise beside BadQueryError is told by `Access.connection`."""

    def __init__(self, access: Access, declarations: Declarations) -> None:
        self._access = access
        self._tables = declarations.event_tables

    @property
    def tables(self) -> Sequence[str]:
        """The event tables."""
        return sorted(self._tables)

    def columns(self, table: str) -> Sequence[str]:
        """The names of an event's declared columns; BadQueryError where there is no such table."""
        return [column.name for column in self._declared(table).columns]

    async def page(self, search: Search, limit: int) -> list[Event]:
        """The newest events that were searched for, at most ``limit`` of them.

        Raises:
            BadQueryError: no such table or column, or a value that the column cannot have.
        """
        if search.stop <= search.start:
            raise BadQueryError("from: must be before `to`")
        return await self.read(search.table, _where(search, self._declared(search.table)), limit)

    async def stream(self, search: Search) -> AsyncIterator[Event]:
        """All of them, newest first."""
        while page := await self.page(search, LONGEST_PAGE):
            for event in page:
                yield event
            if len(page) < LONGEST_PAGE:
                return
            search = replace(search, before=page[-1].key)

    async def read(self, table: str, where: Where, limit: int) -> list[Event]:
        """The newest events of a table that meet a condition."""
        names = self.columns(table)
        text = query("events", table, names, condition=where.condition)
        async with self._access.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(text, {"limit": limit, **where.values})
            return [_event(table, names, row) for row in await cursor.fetchall()]

    def _declared(self, table: str) -> EventTable:
        if table not in self._tables:
            raise BadQueryError(f"table: {table!r} is no table of events; there are {', '.join(self.tables)}")
        return self._tables[table]


def _event(table: str, names: Sequence[str], row: Sequence[Any]) -> Event:
    time, event_id, node, instance, name, *cells, attributes = row
    values = {column: cell for column, cell in zip(names, cells, strict=True) if cell is not None}
    return Event(table, time, event_id, node, instance, name, values, attributes)


def _where(search: Search, table: EventTable) -> Where:
    types = {**FIXED, **{column.name: column.type for column in table.columns}}
    where = Where()
    where.add("time >= {} AND time < {}", search.start, search.stop)
    equal: dict[str, list[str]] = {}
    for condition in search.conditions:
        if condition.column not in types:
            raise BadQueryError(f"filter: {table.name} has no column {condition.column!r}; it has {', '.join(types)}")
        if condition.operator == "=":
            equal.setdefault(condition.column, []).append(condition.value)
        else:
            _compare(where, condition, types[condition.column])
    for column, values in equal.items():
        _any_of(where, column, types[column], values)
    if search.address is not None:
        _address(where, search.address, types)
    if search.before is not None:
        where.add("(time, event_id) < ({}, {})", search.before.time, search.before.event_id)
    return where


def _any_of(where: Where, column: str, type_: str, values: Sequence[str]) -> None:
    # One of several domains, a symbol among others.
    forms = {"text[]": "{} && {}::text[]", "jsonb": "{} ?| {}::text[]"}
    form = forms.get(type_, f"{{}} = ANY({{}}::{type_}[])")
    where.add(form, sql.Identifier(column), [_read(column, type_, value) for value in values])


def _compare(where: Where, condition: Condition, type_: str) -> None:
    column, operator = condition.column, condition.operator
    if operator == "~" and type_ == "text":
        where.add("{} ILIKE {}", sql.Identifier(column), "%" + re.sub(r"([\\%_])", r"\\\1", condition.value) + "%")
        return
    form = {"!=": "{} IS DISTINCT FROM {}", ">=": "{} >= {}", "<=": "{} <= {}"}.get(operator)
    if form is None or type_ in _UNORDERED or (operator != "!=" and type_ not in _NUMBERS):
        raise BadQueryError(f"filter: {column} is {type_}, which is not compared by {operator}")
    where.add(form, sql.Identifier(column), _read(column, type_, condition.value))


def _read(column: str, type_: str, value: str) -> Any:
    try:
        return _READERS.get(type_, str)(value)
    except ValueError:
        raise BadQueryError(f"filter: {column} is {type_}, which {value!r} is not") from None


def _address(where: Where, address: str, types: Mapping[str, str]) -> None:
    """The sender is in columns of its own where there are any, else an attribute as the recipients are."""
    recipient = Jsonb({"email.to.address": [address]})
    user, at, domain = address.rpartition("@")
    if "from_user" in types and at:
        where.add("(attributes @> {} OR from_domain = {} AND from_user = {})", recipient, domain.lower(), user)
    else:
        where.add("(attributes @> {} OR attributes @> {})", recipient, Jsonb({"email.from.address": address}))
