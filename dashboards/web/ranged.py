"""What the pages with a range share: the choice of node, range and filters, kept in the address, and sections of cards.

A page of a subject is a `Subject`: sections of charts and tables. ``ADDRESS?node=ID&range=SECONDS`` opens one view,
with ``zone``, ``domain`` and ``provider`` where it is of outbound mail; a node that is not there becomes all nodes, a
range that there is not the subject's own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from nicegui import ui

from dashboards.web.board import Board
from dashboards.web.cards import ChartCard, TableCard
from dashboards.web.charts import Chart
from dashboards.web.filters import FilterBar, Narrowed
from dashboards.web.frame import OpenPages, Page, text
from dashboards.web.names import names
from dashboards.web.tables import Table, View
from timescale_sink.api.access import TooSlowError
from timescale_sink.api.readers import Readers
from timescale_sink.api.series import Node

RANGES: Mapping[int, str] = {
    900: "15 min", 3600: "1 h", 6 * 3600: "6 h", 86400: "24 h", 7 * 86400: "7 d", 30 * 86400: "30 d",
}  # fmt: skip
# As texts, for an address may hold anything: int() raises on 4,301 digits.
RANGES_IN_ADDRESS: Mapping[str, int] = {str(seconds): seconds for seconds in RANGES}
_ALL = ""
_NO_NODE = "No data yet: is the agent running? `postel doctor` tells. This page fills by itself when data comes."
_NARROWED = "Nothing of this zone, domain or provider in this time."
# Events are counted up to the end of such a step: who looks meanwhile gets the same answer.
_STEPS, _LEAST_STEP_S, _LONGEST_STEP_S = 240, 15, 300
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Section:
    """Charts and tables under a heading; ``nothing`` stands there where none of them has anything."""

    name: str
    nothing: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """A page: its address and name, its sections, and the range that it opens with, in seconds.

    ``outbound``: it can be narrowed to a zone, a domain and a provider; its charts have zones.
    """

    address: str
    name: str
    sections: tuple[Section, ...]
    seconds: int
    outbound: bool = False


class _Part:
    """A section as it is shown."""

    def __init__(self, section: Section) -> None:
        text("h2", section.name).classes("section-name")
        with ui.element("div").classes("grid") as self._charts:
            self.charts = [ChartCard(chart) for chart in section.charts]
        with ui.element("div").classes("grid tables") as self._tables:
            self.tables = [TableCard(table) for table in section.tables]
        self._section = section
        self._nothing = ui.label(section.nothing).classes("empty panel")
        self.fill(charts=False, tables=False)

    def fill(self, *, charts: bool, tables: bool, nothing: str = "") -> None:
        """Show those that have something to show; a section of nothing says what to do, or ``nothing``."""
        self._nothing.set_text(nothing or self._section.nothing)
        self._charts.set_visibility(charts)
        self._tables.set_visibility(tables)
        self._nothing.set_visibility(not charts and not tables)


class RangePage(Page):
    """One open page of a subject: its choice of node, range and filters, and what it shows."""

    def __init__(
        self,
        subject: Subject,
        readers: Readers,
        board: Board,
        node: str,
        seconds: str,
        *,
        narrowed: Narrowed,
    ) -> None:
        super().__init__(subject.address)
        self._subject, self._readers, self._board = subject, readers, board
        self._node = node
        self._narrowed = narrowed
        self._seconds = RANGES_IN_ADDRESS.get(seconds, subject.seconds)
        self._offered: Mapping[str, str] | None = None
        with self.bar:
            self._select = ui.select({_ALL: "All nodes"}, value=_ALL, on_change=self._choose_node)
            self._select.props('outlined dense options-dense aria-label="Node"').set_visibility(False)
            ui.toggle(dict(RANGES), value=self._seconds, on_change=self._choose_range).props(
                'unelevated toggle-color=primary aria-label="Range"'
            )
        with self.body:
            self._filters = FilterBar(narrowed, self._narrow) if subject.outbound else None
            self.above = ui.element("div").classes("nodes")
            self._nothing = ui.label(_NO_NODE).classes("empty panel")
            self._nothing.set_visibility(False)
            with ui.element("div") as self._main:
                self._main.set_visibility(False)
                self._parts = [_Part(section) for section in subject.sections]

    async def show(self) -> None:
        """Show charts and tables; what the database raises is told on the page."""
        nodes = await self._board.reader.nodes()
        self._offer(names(nodes))
        if self._filters:
            self._filters.offer(await self._board.reader.zones("metrics_zonemta", node=self._node or None))
        await self.show_above(nodes)
        view = self._view(nodes)
        charts = [card for part in self._parts for card in part.charts]
        tables = [card for part in self._parts for card in part.tables]
        node, zone = self._node or None, self._narrowed.zone or None
        drawings = [
            self._board.draw(card.chart, node=node, zone=zone, seconds=self._seconds, nodes=nodes) for card in charts
        ]
        drawn = await asyncio.gather(*map(_in_time, drawings))
        rows = await asyncio.gather(*(_in_time(card.table.ask(view)) for card in tables)) if nodes else []
        filled = {card for card, drawing in zip(charts, drawn, strict=True) if card.show(drawing)}
        told = {card for card, found in zip(tables, rows, strict=False) if card.show(found, demo=view.demo)}
        for part in self._parts:
            part.fill(
                charts=not filled.isdisjoint(part.charts),
                tables=not told.isdisjoint(part.tables),
                nothing=_NARROWED if self._narrowed.in_address else "",
            )
        self._main.set_visibility(bool(nodes))
        self._nothing.set_visibility(not nodes)

    async def show_above(self, nodes: Sequence[Node]) -> None:
        """Show what stands above the sections."""

    def repaint(self) -> None:
        """Send every chart again, for other colours."""
        for part in self._parts:
            for card in part.charts:
                card.repaint()

    def _view(self, nodes: Sequence[Node]) -> View:
        step = min(max(_LEAST_STEP_S, self._seconds // _STEPS), _LONGEST_STEP_S)
        stop = math.ceil(time.time() / step) * step
        shown = tuple(node for node in nodes if node.id == self._node or not self._node)
        real = tuple(node.id for node in shown if not node.demo)
        only = real if 0 < len(real) < len(nodes) else tuple(n.id for n in shown) if self._node else None
        start, end = (datetime.fromtimestamp(moment, UTC) for moment in (stop - self._seconds, stop))
        return View(self._readers, shown, names(nodes), only, start, end, self._narrowed)

    def _offer(self, hosts: Mapping[str, str]) -> None:
        if hosts != self._offered:
            self._offered = hosts
            if self._node not in hosts:
                self._node = _ALL
            self._select.set_options({_ALL: "All nodes", **hosts}, value=self._node)
            self._select.set_visibility(len(hosts) > 1)

    async def _choose_node(self, event: Any) -> None:
        if event.value != self._node:
            self._node = event.value
            await self._chosen()

    async def _choose_range(self, event: Any) -> None:
        self._seconds = event.value
        await self._chosen()

    async def _narrow(self, narrowed: Narrowed) -> None:
        self._narrowed = narrowed
        await self._chosen()

    async def _chosen(self) -> None:
        chosen = urlencode({"node": self._node, "range": self._seconds, **self._narrowed.in_address})
        ui.navigate.history.replace(f"{self._subject.address}?{chosen}")
        await self.refresh()


async def _in_time(asked: Awaitable[T]) -> T | TooSlowError:
    try:
        return await asked
    except TooSlowError as error:
        return error


def add(opened: OpenPages, subject: Subject, readers: Readers, board: Board) -> None:
    """Make a subject a page."""

    @ui.page(subject.address, title=f"{subject.name} · Postel")
    async def page(
        node: str = "",
        range: str = "",  # noqa: A002 - the name in the page's address
        zone: str = "",
        domain: str = "",
        provider: str = "",
    ) -> None:
        asked = {"zone": zone, "domain": domain, "provider": provider} if subject.outbound else {}
        await opened.open(RangePage(subject, readers, board, node, range, narrowed=Narrowed.told(asked)))
