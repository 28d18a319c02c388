"""The page at ``/``: alerts, nodes, mail queue and host charts, refreshed in place every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from nicegui import ui

from dashboards.web import charts
from dashboards.web.alerts import firing
from dashboards.web.board import Board
from dashboards.web.cards import demo_mark
from dashboards.web.charts import age
from dashboards.web.filters import Narrowed
from dashboards.web.frame import OpenPages
from dashboards.web.names import DEMO_SUFFIX, names
from dashboards.web.ranged import RangePage, Section, Subject
from timescale_sink.api.alerts import Alert
from timescale_sink.api.readers import Readers
from timescale_sink.api.series import Node

# The agent sends every 30 s; a node is late when two sendings are missing, silent when it surely is not on its way.
LATE_S, SILENT_S = 90, 600
OVERVIEW = Subject(
    "/",
    "Overview",
    (
        Section(
            "Mail · Zone-MTA",
            "No Zone-MTA figures in this time. `postel doctor` tells where its API is looked for.",
            (charts.QUEUE, charts.ATTEMPTS, charts.ZONES),
        ),
        Section("Host", "No host figures in this time: is the agent running? `postel doctor` tells.", charts.HOST),
    ),
    900,
)


class _NodeLabel:
    """A node's host, what runs there, and how long ago it was last heard of."""

    def __init__(self, node: Node, name: str) -> None:
        with ui.element("div").classes("node") as self._box:
            ui.element("span").classes("dot")
            ui.label(name.removesuffix(DEMO_SUFFIX)).classes("name")
            if node.demo:
                demo_mark()
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


class Overview(RangePage):
    """One open overview: the alerts and nodes above its charts."""

    def __init__(self, readers: Readers, board: Board, node: str, seconds: str) -> None:
        super().__init__(OVERVIEW, readers, board, node, seconds, narrowed=Narrowed())
        self._alerts = readers.alerts
        self._hosts: Mapping[str, str] = {}
        self._node_labels: dict[str, _NodeLabel] = {}
        with self.above:
            self._firing = _AlertsLink()
            self._nodes = ui.element("div").classes("nodes")

    async def show(self) -> None:
        """Show alerts and all else, each where the other cannot be told: a replica answers without its primary."""
        for failed in await asyncio.gather(super().show(), self._show_alerts(), return_exceptions=True):
            if failed is not None:
                raise failed

    async def _show_alerts(self) -> None:
        self._firing.show(firing((await self._alerts.latest()).alerts))

    async def show_above(self, nodes: Sequence[Node]) -> None:
        """Show how long ago each node was heard of."""
        hosts = names(nodes)
        if hosts != self._hosts or not self._node_labels:
            self._hosts = hosts
            self._nodes.clear()
            with self._nodes:
                self._node_labels = {node.id: _NodeLabel(node, hosts[node.id]) for node in nodes}
        for node in nodes:
            self._node_labels[node.id].show(node)


def add(opened: OpenPages, readers: Readers, board: Board) -> None:
    """Make the overview of these readers the page at ``/``."""

    @ui.page("/", title="Postel")
    async def overview(node: str = "", range: str = "") -> None:  # noqa: A002 - the name in the page's address
        await opened.open(Overview(readers, board, node, range))
