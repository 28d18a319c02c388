"""Which events are meant: the same filter as SQL, for what is stored, and as a predicate, for what is coming in.

A filter is what every term of it says. Terms are made of texts such as ``status=deferred``; several with ``=`` on one
column are one term, any of the values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, LiteralString, Protocol, cast
from uuid import UUID

import orjson
from psycopg import sql
from psycopg.types.json import Jsonb

from postel.signals import FIXED_EVENT_COLUMNS, EventTable
from timescale_sink.api.access import BadQueryError

# Of a question at most.
MOST_FILTERS = 20
_TERM = re.compile(r"([a-z_]+)(!=|>=|<=|=|~)(.*)", re.DOTALL)
_ORDERED = ("bigint", "double precision", "timestamptz")
_COMPOSED = ("text[]", "jsonb")
# What a message's client was answered, and what the server was that stored the message.
_REPLY, _STORAGE = "smtp.response.text", "haraka.storage.text"


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

    def cell(self, column: str) -> Any:
        """A column's value, of the fixed or the declared ones; None where it is NULL."""
        read = _FIXED_CELLS.get(column)
        return read(self) if read else self.values.get(column)

    def told(self) -> dict[str, Any]:
        """As the API tells it."""
        return {
            "table": self.table,
            "time": self.time,
            "id": str(self.event_id),
            "node": self.node,
            "instance": self.instance,
            "name": self.name,
            "values": self.values,
            "attributes": self.attributes,
        }

    def encoded(self) -> bytes:
        """The same as JSON."""
        return orjson.dumps(self.told(), option=orjson.OPT_UTC_Z)


_FIXED_CELLS: Mapping[str, Callable[[Event], Any]] = {
    "time": lambda event: event.time,
    "event_id": lambda event: event.event_id,
    "node_id": lambda event: event.node,
    "instance": lambda event: event.instance,
    "event_name": lambda event: event.name,
}


class Where:
    """Terms that rows have to meet, all of them, and the values in them, which go to the server apart from the text."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._terms: list[sql.Composed] = []

    @property
    def condition(self) -> sql.Composable:
        """The terms together."""
        return sql.SQL("\n    AND ").join(self._terms) if self._terms else sql.SQL("true")

    def add(self, form: LiteralString, *parts: Any) -> None:
        """A term: its text with {} for each of the parts, which are identifiers or values."""
        self._terms.append(sql.SQL(form).format(*map(self._part, parts)))

    def _part(self, part: Any) -> sql.Composable:
        if isinstance(part, sql.Composable):
            return part
        name = f"value_{len(self.values)}"
        self.values[name] = part
        return sql.Placeholder(name)


class Term(Protocol):
    """What a filter says of one column, or of the addresses."""

    @property
    def columns(self) -> frozenset[str]:
        """Which columns it reads."""

    def add_to(self, where: Where) -> None:
        """Say it in SQL."""

    def meets(self, event: Event) -> bool:
        """Whether an event is so."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Events of one table that meet all of the terms."""

    table: str
    terms: tuple[Term, ...]

    @property
    def columns(self) -> frozenset[str]:
        """Which columns it reads."""
        return frozenset[str]().union(*(term.columns for term in self.terms))

    def add_to(self, where: Where) -> None:
        """Say it in SQL."""
        for term in self.terms:
            term.add_to(where)

    def meets(self, event: Event) -> bool:
        """Whether an event of the table is meant."""
        return all(term.meets(event) for term in self.terms)


def parse(table: EventTable, texts: Sequence[str], address: str | None, said: str | None = None) -> Filter:
    """The filter of these texts.

    Args:
        table: whose columns they name.
        texts: a column, one of = != >= <= ~ ("contains", without regard to case) and a value.
        address: of the sender or of one of the recipients, as the envelope says it; ``<>``, or '', for the null sender;
            None: any.
        said: what a server's answer contains, without regard to case; None: any answer, or none.

    Raises:
        BadQueryError: no such column, or a value that it cannot have.
    """
    types = {**FIXED_EVENT_COLUMNS, **{column.name: column.type for column in table.columns}}
    terms: list[Term] = []
    equal: dict[str, list[Any]] = {}
    for text in texts:
        found = _TERM.fullmatch(text)
        if found is None:
            raise BadQueryError(f"filter: {text!r} is not a column, one of = != >= <= ~ and a value")
        column, operator, value = found.groups()
        if column not in types:
            raise BadQueryError(f"filter: {table.name} has no column {column!r}; it has {', '.join(types)}")
        if operator == "=":
            equal.setdefault(column, []).append(_read(column, types[column], value))
        else:
            terms.append(_term(column, types[column], operator, value))
    terms += [_AnyOf(column, types[column], tuple(values)) for column, values in equal.items()]
    if address is not None:
        terms.append(_Address("" if address == "<>" else address, in_columns="from_user" in types))
    if said is not None:
        terms.append(_Contains("response", said) if "response" in types else _Said(said))
    return Filter(table.name, tuple(terms))


@dataclass(frozen=True, slots=True)
class _OfColumn:
    """A term about one column."""

    column: str

    @property
    def columns(self) -> frozenset[str]:
        return frozenset((self.column,))


@dataclass(frozen=True, slots=True)
class _AnyOf(_OfColumn):
    """One of the values; of several domains or symbols one at least."""

    type: str
    values: tuple[Any, ...]

    def add_to(self, where: Where) -> None:
        forms: Mapping[str, LiteralString] = {
            "text[]": "{} && {}::text[]",
            "jsonb": "{} ?| {}::text[]",
            "text": "{} = ANY({}::text[])",
        }
        where.add(forms.get(self.type, "{} = ANY({})"), sql.Identifier(self.column), list(self.values))

    def meets(self, event: Event) -> bool:
        cell = event.cell(self.column)
        if self.type in _COMPOSED:
            return cell is not None and any(value in cell for value in self.values)
        return cell in self.values


@dataclass(frozen=True, slots=True)
class _Differs(_OfColumn):
    """Another value, or none."""

    value: Any

    def add_to(self, where: Where) -> None:
        where.add("{} IS DISTINCT FROM {}", sql.Identifier(self.column), self.value)

    def meets(self, event: Event) -> bool:
        return bool(event.cell(self.column) != self.value)


@dataclass(frozen=True, slots=True)
class _Bound(_OfColumn):
    """Not less, or not more, than a value."""

    operator: Literal[">=", "<="]
    value: Any

    def add_to(self, where: Where) -> None:
        where.add("{} >= {}" if self.operator == ">=" else "{} <= {}", sql.Identifier(self.column), self.value)

    def meets(self, event: Event) -> bool:
        cell = event.cell(self.column)
        if cell is None:
            return False
        return bool(cell >= self.value if self.operator == ">=" else cell <= self.value)


@dataclass(frozen=True, slots=True)
class _Contains(_OfColumn):
    """Contains a text, without regard to case."""

    text: str

    def add_to(self, where: Where) -> None:
        where.add("{} ILIKE {}", sql.Identifier(self.column), _containing(self.text))

    def meets(self, event: Event) -> bool:
        cell = event.cell(self.column)
        return isinstance(cell, str) and self.text.lower() in cell.lower()


@dataclass(frozen=True, slots=True)
class _Said:
    """A text within what the server answered, or whom it asked; of a table that has no column for answers."""

    text: str

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(("attributes",))

    def add_to(self, where: Where) -> None:
        pattern = _containing(self.text)
        where.add("(attributes ->> {} ILIKE {} OR attributes ->> {} ILIKE {})", _REPLY, pattern, _STORAGE, pattern)

    def meets(self, event: Event) -> bool:
        answers = (event.attributes.get(_REPLY), event.attributes.get(_STORAGE))
        return any(isinstance(answer, str) and self.text.lower() in answer.lower() for answer in answers)


@dataclass(frozen=True, slots=True)
class _Address:
    """The sender's address, or a recipient's.

    Attributes:
        in_columns: the table has columns for the sender; else it is an attribute, as the recipients are.
    """

    address: str
    in_columns: bool

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(("attributes",))

    def add_to(self, where: Where) -> None:
        recipient = Jsonb({"email.to.address": [self.address]})
        if self._split:
            where.add("(attributes @> {} OR from_domain = {} AND from_user = {})", recipient, *self._sender)
        else:
            sender = Jsonb({"email.from.address": self.address})
            where.add("(attributes @> {} OR attributes @> {})", recipient, sender)

    def meets(self, event: Event) -> bool:
        recipients = event.attributes.get("email.to.address")
        if isinstance(recipients, list) and self.address in recipients:
            return True
        if self._split:
            return (event.values.get("from_domain"), event.values.get("from_user")) == self._sender
        return event.attributes.get("email.from.address") == self.address

    @property
    def _split(self) -> bool:
        # The null sender, and what has no domain, is in no column and so still an attribute.
        return self.in_columns and "@" in self.address

    @property
    def _sender(self) -> tuple[str, str]:
        user, _, domain = self.address.rpartition("@")
        return domain.lower(), user


def _containing(text: str) -> str:
    """The pattern of LIKE for what contains a text."""
    return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"


def _term(column: str, type_: str, operator: str, value: str) -> Term:
    if operator == "~" and type_ == "text":
        return _Contains(column, value)
    if operator == "!=" and type_ not in _COMPOSED:
        return _Differs(column, _read(column, type_, value))
    if operator in (">=", "<=") and type_ in _ORDERED:
        return _Bound(column, cast("Literal['>=', '<=']", operator), _read(column, type_, value))
    raise BadQueryError(f"filter: {column} is {type_}, which is not compared by {operator}")


def _read(column: str, type_: str, value: str) -> Any:
    try:
        return _READERS.get(type_, str)(value)
    except (ValueError, OverflowError):
        raise BadQueryError(f"filter: {column} is {type_}, which {value[:100]!r} is not") from None


def _bigint(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise OverflowError
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise OverflowError
    return number


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "bigint": _bigint,
    "double precision": _finite,
    "uuid": UUID,
    "timestamptz": _moment,
}
