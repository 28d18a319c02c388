"""What a dashboard shows, before Grafana's JSON is made of it (:mod:`tools.grafana.render`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Reading(StrEnum):
    """What is made of the declared figures, and so what becomes of their unit."""

    VALUE = "value"  # as it is, summed, or averaged: the unit stays
    RATE = "rate"  # per second
    SHARE = "share"  # of one in another of the same unit
    COUNT = "count"  # how many rows
    TIME = "time"  # a moment, or the seconds since one
    TEXT = "text"  # words


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure: Grafana's unit of it, and what it is made of.

    Attributes:
        unit: Grafana's id of the unit.
        of: a typed column (`table.column`), a column of an event table, or a metric without a typed column.
    """

    unit: str
    of: tuple[str, ...] = ()
    reading: Reading = Reading.VALUE


TEXT = Shown("string", reading=Reading.TEXT)
MOMENT = Shown("dateTimeAsIso", reading=Reading.TIME)

Kind = Literal["lines", "area", "bars", "stat", "table"]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel with one query.

    Attributes:
        sql: with Grafana's macros and variables.
        shown: every figure of a chart or stat; of a table what no field says otherwise.
        fields: column of the answer -> its own figure.
        note: what the reader has to know beside what the declarations say.
        width: of 24.
        interval: the shortest step that is asked for.
        connected: whether the line goes on over steps without a value.
        levels: from which value on it is yellow, and red.
    """

    title: str
    kind: Kind
    sql: str
    shown: Shown
    fields: Mapping[str, Shown] = field(default_factory=dict)
    note: str = ""
    width: int = 12
    height: int = 8
    interval: str = "30s"
    connected: bool = False
    levels: tuple[float, float] | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A headline and the panels below it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Attributes:
        key: ends its uid and names its file.
        zones: whether it can be narrowed to zones; to nodes it always can.
        documents: the pages that say what its figures are.
    """

    key: str
    title: str
    description: str
    rows: Sequence[Row]
    documents: Sequence[str]
    zones: bool = False
    begin: str = "now-6h"

    @property
    def panels(self) -> list[Panel]:
        """All panels, in their order."""
        return [panel for row in self.rows for panel in row.panels]
