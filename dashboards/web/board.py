"""The figures behind the page: each chart's options, made once for all viewers who look at the same.

A chart is asked of the database and turned into options once for each (chart, node, zone, range) and each new answer; a
further open page costs the sending alone.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median_low

from dashboards.web.charts import Chart, Curve, Options, curves, latest, options, text, unit_of
from dashboards.web.names import names
from timescale_sink.api.rolled import begin
from timescale_sink.api.series import Answer, Node, Query, Reader

# About as many points as a card is wide enough to show.
_POINTS = 240
_KEPT = 256
_FEWEST_DISTANCES = 3


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart as it is now: its curves, their ECharts options, and its newest values in words.

    ``demo`` is True where all of it is synthetic.
    """

    answer: Answer
    curves: tuple[Curve, ...]
    options: Options
    now: str
    demo: bool


class Board:
    """Draws charts from a reader; raises what the reader raises."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._drawn: OrderedDict[tuple[Chart, str | None, str | None, int], Drawing] = OrderedDict()

    async def draw(
        self, chart: Chart, *, node: str | None, seconds: int, nodes: Sequence[Node], zone: str | None = None
    ) -> Drawing:
        """A chart of the last ``seconds`` of one of the nodes, or of all (None); ``zone``: of this one alone.

        The same object comes back while nothing is new, so that a page need not send it again.
        """
        answer = await self.reader.series(await self._query(chart, node, zone, seconds))
        if (coarser := typical_distance(answer)) > 1:
            answer = await self.reader.series(await self._query(chart, node, zone, seconds, coarser))
        key = (chart, node, zone, seconds)
        drawing = self._drawn.get(key)
        if drawing is None or (drawing.answer is not answer and drawing.answer != answer):
            demo = frozenset(one.id for one in nodes if one.demo)
            drawn = tuple(curves(chart, answer, names(nodes), demo))
            synthetic = bool(drawn) and demo.issuperset(series.node for series in answer.series)
            told = replace(chart, unit=unit_of(chart, answer.units))
            drawing = Drawing(answer, drawn, options(told, answer, drawn), _now(told, drawn), synthetic)
            self._drawn[key] = drawing
            while len(self._drawn) > _KEPT:
                self._drawn.popitem(last=False)
        return drawing

    async def _query(self, chart: Chart, node: str | None, zone: str | None, seconds: int, coarser: int = 1) -> Query:
        start, stop, step = await grid(self.reader, chart.table, seconds, node=node, zone=zone, coarser=coarser)
        return Query(chart.table, chart.columns, start, stop, step, chart.reading, node, zone=zone)


async def grid(
    reader: Reader, table: str, seconds: int, *, node: str | None, zone: str | None = None, coarser: int = 1
) -> tuple[int, int, int]:
    """Start, stop and step of a range that ends now: the same for all who ask within a step.

    Args:
        reader: knows the table; what it raises is raised.
        table: of metrics.
        seconds: of the range.
        node: only this one; None: each.
        zone: the same.
        coarser: steps are so many times as long.
    """
    step = await reader.step(table, seconds, _POINTS, node=node, zone=zone) * coarser
    stop = begin(time.time(), step) + step
    return stop - math.ceil(seconds / step) * step, stop, step


def typical_distance(answer: Answer) -> int:
    """From one value to the next, in steps: above 1 where an agent is set to ask less often than the grid expects.

    Drawn on that grid such values would be dots. An outage makes one long distance, not many.
    """
    distances: list[int] = []
    for series in answer.series:
        told = [step for step, value in enumerate(series.values) if value is not None]
        distances += (after - before for before, after in pairwise(told))
    if len(distances) < _FEWEST_DISTANCES:
        return 1
    middle = median_low(distances)
    # An interval that is no multiple of the step is a step longer now and then.
    return middle if middle == 1 else max(distance for distance in distances if distance <= middle + 1)


def _now(chart: Chart, drawn: tuple[Curve, ...]) -> str:
    told = [(curve.name, value) for curve in drawn if (value := latest(curve.values)) is not None]
    if chart.style == "bars" and chart.by != "share":
        return text(sum(value for _, value in told), chart.unit) if told else ""
    if len(drawn) == 1:
        return text(told[0][1], chart.unit) if told else ""
    if len(drawn) > len(chart.lines):
        return ""
    # Where a card is too narrow the line breaks between the two, not between a number and what it counts.
    return " · ".join(f"{text(value, chart.unit)} {name}".replace(" ", "\N{NO-BREAK SPACE}") for name, value in told)
