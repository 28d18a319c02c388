"""Panels that are a table of what instances told last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.grafana import queries
from tools.grafana.model import TEXT, Panel, Shown


@dataclass(frozen=True, slots=True)
class Figure:
    """A column of the table: its headline, and Grafana's unit of it."""

    label: str
    unit: str


def latest(title: str, table: str, figures: Mapping[str, Figure], *, height: int, note: str = "") -> Panel:
    """A row for each instance that a typed table has, with these of its columns."""
    return Panel(
        title,
        "table",
        queries.latest(table, {column: figure.label for column, figure in figures.items()}),
        TEXT,
        {figure.label: Shown(figure.unit, (f"{table}.{column}",)) for column, figure in figures.items()},
        note=note,
        width=24,
        height=height,
    )
