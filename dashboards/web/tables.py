"""How a table of a page is declared, and how its rows become HTML. No I/O but what a declaration asks the readers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Literal

from dashboards.web import charts
from dashboards.web.filters import Narrowed
from dashboards.web.frame import moment_html
from timescale_sink.api.readers import Readers
from timescale_sink.api.series import Node

# What no rollup has is read of so much at the end of a range: a page asks again and again.
DAY = timedelta(days=1)
_NUMBERS = ("n", "By", "%", "s", "1")


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows at the moment.

    Attributes:
        nodes: those that are shown.
        names: node id -> what it is called.
        only: ids of nodes whose events are counted; None: of all. Synthetic ones are never added to real ones.
        start, stop: the range, in steps so that those who look at about the same time share an answer.
        narrowed: to which part of the outbound mail.
    """

    readers: Readers
    nodes: tuple[Node, ...]
    names: Mapping[str, str]
    only: tuple[str, ...] | None
    start: datetime
    stop: datetime
    narrowed: Narrowed

    @property
    def demo(self) -> bool:
        """Whether what is counted is synthetic."""
        return bool(self.nodes) and all(node.demo for node in self.nodes if self.only is None or node.id in self.only)

    @property
    def day(self) -> datetime:
        """From when on events are read: the range, of a day at most."""
        return max(self.start, self.stop - DAY)


@dataclass(frozen=True, slots=True)
class Link:
    """A cell that leads on."""

    text: str
    address: str


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table.

    Attributes:
        unit: how numbers are written (`charts.text`); "": it is text, a time or a link.
    """

    name: str
    unit: Literal["", "n", "By", "%", "s", "1"] = ""


Cell = str | float | datetime | Link | None
Rows = Sequence[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page; the first cell of a row names it.

    Attributes:
        ask: gives its rows; raises what the readers raise.
        nothing: what stands there without rows.
        wide: it has the page's width.
    """

    key: str
    title: str
    hint: str
    fields: tuple[Field, ...]
    ask: Callable[[View], Awaitable[Rows]]
    nothing: str = "Nothing in this time."
    wide: bool = False


def html(fields: Sequence[Field], rows: Rows) -> str:
    """The table; on a narrow screen its cells stand below each other, each with its column's name.

    A column that has nothing in any row is left out.
    """
    shown = [place for place in range(len(fields)) if not place or any(row[place] is not None for row in rows)]
    head = "".join(f"<th scope=col{_side(fields[place])}>{escape(fields[place].name)}</th>" for place in shown)
    body = "".join(f"<tr>{''.join(_cell(place, fields[place], row[place]) for place in shown)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(place: int, field: Field, cell: Cell) -> str:
    label = f' data-label="{escape(field.name)}"'
    if place == 0:
        return f"<th scope=row{label}>{_told(field, cell)}</th>"
    return f"<td{_side(field)}{label}>{_told(field, cell)}</td>"


def _side(field: Field) -> str:
    return " class=number" if field.unit in _NUMBERS else ""


def _told(field: Field, cell: Cell) -> str:
    match cell:
        case None:
            return "<span class=none>-</span>"
        case Link(text, address):
            return f'<a href="{escape(address)}">{escape(text)}</a>'
        case datetime():
            return moment_html(cell)
        case str():
            return escape(cell)
        case _:
            return escape(charts.text(cell, field.unit or "1"))
