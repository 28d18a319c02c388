"""The cards of a page: a chart or a table with its head, that sends its viewer only what is new."""

from __future__ import annotations

from nicegui import ui

from dashboards.web import tables
from dashboards.web.board import Drawing
from dashboards.web.charts import Chart
from dashboards.web.frame import text
from dashboards.web.tables import Rows, Table
from timescale_sink.api.access import TooSlowError


class ChartCard:
    """One chart with its head; hidden figures where there are none."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self._drawing: Drawing | None = None
        with ui.element("article").classes("card").props(f"data-chart={chart.key}"):
            with ui.element("div").classes("head"):
                text("h3", chart.title)
                self._demo = demo_mark()
                self._now = ui.label().classes("now")
                ui.label(chart.hint).classes("hint")
            self._canvas = ui.echart({}).props(f'role=img aria-label="{chart.title}"')
            self._empty = ui.label().classes("empty")
        self._fill(filled=False, now="", empty="")
        self._demo.set_visibility(False)

    def show(self, drawing: Drawing | TooSlowError) -> bool:
        """Show a drawing, sending only what is new, or why there is none; True where there is something to see."""
        if isinstance(drawing, TooSlowError):
            self._drawing = None
            self._fill(filled=False, now="", empty=f"{drawing}.")
            return True
        filled = bool(drawing.curves)
        if drawing is not self._drawing:
            self._drawing = drawing
            self._fill(filled=filled, now=drawing.now, empty="No data in this time.")
            self._demo.set_visibility(drawing.demo)
            if filled:
                self.repaint()
        return filled

    def _fill(self, *, filled: bool, now: str, empty: str) -> None:
        self._now.set_text(now)
        self._empty.set_text(empty)
        self._canvas.set_visibility(filled)
        self._empty.set_visibility(not filled)

    def repaint(self) -> None:
        """Send the chart again: the browser looks its colours up anew."""
        if self._drawing is not None:
            self._canvas.options.clear()
            self._canvas.options.update(self._drawing.options)
            self._canvas.update()


class TableCard:
    """One table with its head."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._shown: str | None = None
        with ui.element("article").classes("card rows").props(f"data-table={table.key}") as box:
            with ui.element("div").classes("head"):
                text("h3", table.title)
                self._demo = demo_mark()
                ui.label(table.hint).classes("hint")
            self._content = ui.html("", sanitize=False)
            self._empty = ui.label().classes("empty")
        if table.wide:
            box.classes("wide")

    def show(self, rows: Rows | TooSlowError, *, demo: bool) -> bool:
        """Show rows, or why there are none; True where there is something to see. ``demo``: all of it is synthetic."""
        self._demo.set_visibility(demo)
        slow = isinstance(rows, TooSlowError)
        shown = f"{rows}." if isinstance(rows, TooSlowError) else tables.html(self.table.fields, rows) if rows else ""
        if shown != self._shown:
            self._shown = shown
            filled = bool(shown) and not slow
            # A cell of an event is text, which `tables.html` escapes.
            self._content.set_content(shown if filled else "")
            self._content.set_visibility(filled)
            self._empty.set_text(shown if slow else self.table.nothing)
            self._empty.set_visibility(not filled)
        return bool(shown)


def demo_mark() -> ui.label:
    """Says that what it stands beside is synthetic."""
    with ui.label("DEMO").classes("demo") as mark:
        ui.tooltip("Synthetic data of `postel demo`; no mail was sent.")
    return mark
