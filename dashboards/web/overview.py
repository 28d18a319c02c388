"""The page at ``/``: alerts, nodes, mail queue and host charts, refreshed in place every few seconds.

``/?node=ID&range=SECONDS`` opens one view; what the page does not have of it becomes all nodes or the first range.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from dashboards.web.alerts import firing
from dashboards.web.board import Board, Drawing
from dashboards.web.charts import CHARTS, Chart, Section, age
from dashboards.web.frame import OpenPages, Page, text
from dashboards.web.names import DEMO_SUFFIX, names
from timescale_sink.api.access import TooSlowError
from timescale_sink.api.alerts import Alert, AlertReader
from timescale_sink.api.series import Node

RANGES: Mapping[int, str] = {900: "15 min", 3600: "1 h", 6 * 3600: "6 h", 86400: "24 h"}
_FIRST_RANGE = next(iter(RANGES))
# As texts, for an address may hold anything: int() raises on 4,301 digits.
_RANGES_IN_ADDRESS: Mapping[str, int] = {str(seconds): seconds for seconds in RANGES}
# The agent sends every 30 s; a node is late when two sendings are missing, silent when it surely is not on its way.
LATE_S, SILENT_S = 90, 600
_ALL = ""
# Each section's name, and what to do where it is empty.
_SECTIONS: Mapping[Section, tuple[str, str]] = {
    "mail": ("Mail · Zone-MTA", "No Zone-MTA figures in this time. `postel doctor` tells where its API is looked for."),
    "host": ("Host", "No host figures in this time: is the agent running? `postel doctor` tells."),
}
_NO_NODE = "No data yet: is the agent running? `postel doctor` tells. This page fills by itself when data comes."


class _Card:
    """One chart with its head; hidden figures where there are none."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self._drawing: Drawing | None = None
        with ui.element("article").classes("card").props(f"data-chart={chart.key}"):
            with ui.element("div").classes("head"):
                text("h3", chart.title)
                self._demo = _demo_mark()
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


class _NodeLabel:
    """A node's host, what runs there, and how long ago it was last heard of."""

    def __init__(self, node: Node, name: str) -> None:
        with ui.element("div").classes("node") as self._box:
            ui.element("span").classes("dot")
            ui.label(name.removesuffix(DEMO_SUFFIX)).classes("name")
            if node.demo:
                _demo_mark()
            self._what = ui.label().classes("what")
            self._age = ui.label().classes("age")
        self.show(node)

    def show(self, node: Node) -> None:
        self._what.set_text(", ".join(sorted(node.sources or ())))
        self._age.set_text(age(node.age) if node.age < SILENT_S else f"silent, last heard of {age(node.age)}")
        state = "silent" if node.age >= SILENT_S else "late" if node.age >= LATE_S else "live"
        self._box.classes(remove="silent late live").classes(state)


class _AlertsLink:
    """How many alerts fire, and the way to them."""

    def __init__(self) -> None:
        with ui.element("a").classes("firing-card").props("href=/alerts?state=firing") as self._box:
            ui.element("span").classes("dot")
            self._label = ui.label()
        self._box.set_visibility(False)

    def show(self, alerts: Sequence[Alert]) -> None:
        count = len(alerts)
        critical = sum(alert.severity == "critical" for alert in alerts)
        self._label.set_text(
            f"{count} {'alert fires' if count == 1 else 'alerts fire'}" + (f", {critical} critical" if critical else "")
            if count
            else "No alert fires"
        )
        self._box.classes(remove="none warning critical").classes(
            "critical" if critical else "warning" if count else "none"
        )
        self._box.set_visibility(True)


class Overview(Page):
    """One open overview: its elements and what its viewer chose."""

    def __init__(self, board: Board, alerts: AlertReader, node: str, seconds: int) -> None:
        super().__init__("/")
        self._board = board
        self._alerts = alerts
        self._node = node
        self._seconds = seconds
        self._hosts: dict[str, str] = {}
        self._node_labels: dict[str, _NodeLabel] = {}
        self._cards: list[_Card] = []
        self._sections: dict[Section, tuple[ui.element, ui.element, ui.element]] = {}
        with self.bar:
            self._select = ui.select({_ALL: "All nodes"}, value=_ALL, on_change=self._choose_node)
            self._select.props('outlined dense options-dense aria-label="Node"').set_visibility(False)
            ui.toggle(dict(RANGES), value=self._seconds, on_change=self._choose_range).props("unelevated")
        with self.body:
            self._build()

    def _build(self) -> None:
        with ui.element("div").classes("nodes"):
            self._firing = _AlertsLink()
            self._nodes = ui.element("div").classes("nodes")
        self._nothing = ui.label(_NO_NODE).classes("empty panel nothing")
        self._nothing.set_visibility(False)
        with ui.element("div") as self._main:
            self._main.set_visibility(False)
            for section, (name, hint) in _SECTIONS.items():
                heading = text("h2", name).classes("section-name")
                with ui.element("div").classes("grid") as grid:
                    self._cards += [_Card(chart) for chart in CHARTS if chart.section == section]
                empty = ui.label(hint).classes("empty panel")
                empty.set_visibility(False)
                self._sections[section] = (heading, grid, empty)

    async def show(self) -> None:
        """Show nodes and charts; what the database raises is told on the page."""
        nodes = await self._board.reader.nodes()
        self._show_nodes(nodes)
        self._firing.show(firing((await self._alerts.latest()).alerts))
        drawings = await asyncio.gather(*(self._draw(card.chart, nodes) for card in self._cards))
        filled = dict.fromkeys(self._sections, False)
        for card, drawing in zip(self._cards, drawings, strict=True):
            filled[card.chart.section] |= card.show(drawing)
        for section, (_, grid, empty) in self._sections.items():
            grid.set_visibility(filled[section])
            empty.set_visibility(not filled[section])
        self._main.set_visibility(bool(nodes))
        self._nothing.set_visibility(not nodes)

    def repaint(self) -> None:
        """Send every chart again, for other colours."""
        for card in self._cards:
            card.repaint()

    async def _draw(self, chart: Chart, nodes: tuple[Node, ...]) -> Drawing | TooSlowError:
        try:
            return await self._board.draw(chart, node=self._node or None, seconds=self._seconds, nodes=nodes)
        except TooSlowError as error:
            return error

    def _show_nodes(self, nodes: tuple[Node, ...]) -> None:
        hosts = names(nodes)
        if hosts != self._hosts or not self._node_labels:
            self._hosts = hosts
            self._nodes.clear()
            with self._nodes:
                self._node_labels = {node.id: _NodeLabel(node, hosts[node.id]) for node in nodes}
            if self._node not in hosts:
                self._node = _ALL
            self._select.set_options({_ALL: "All nodes", **hosts}, value=self._node)
            self._select.set_visibility(len(nodes) > 1)
        for node in nodes:
            self._node_labels[node.id].show(node)

    async def _choose_node(self, event: Any) -> None:
        if event.value != self._node:
            self._node = event.value
            await self._chosen()

    async def _choose_range(self, event: Any) -> None:
        self._seconds = event.value
        await self._chosen()

    async def _chosen(self) -> None:
        ui.navigate.history.replace("/?" + urlencode({"node": self._node, "range": self._seconds}))
        await self.refresh()


def _demo_mark() -> ui.label:
    with ui.label("DEMO").classes("demo") as mark:
        ui.tooltip("Synthetic data of `postel demo`; no mail was sent.")
    return mark


def add(opened: OpenPages, board: Board, alerts: AlertReader) -> None:
    """Make the overview of this board and these alerts the page at ``/``."""

    @ui.page("/", title="Postel")
    async def overview(node: str = "", range: str = "") -> None:  # noqa: A002 - the name in the page's address
        await opened.open(Overview(board, alerts, node, _RANGES_IN_ADDRESS.get(range, _FIRST_RANGE)))
