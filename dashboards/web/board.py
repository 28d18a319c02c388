"""The figures behind the page: each chart's options, made once for all viewers who look at the same.

A chart is asked of the database and turned into options once for each (chart, node, range) and each new answer; a
further open page costs the sending alone.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from dashboards.web.charts import Chart, Curve, Options, curves, latest, options, text
from timescale_sink.api.series import Answer, Query, Reader

# About as many points as a card is wide enough to show.
_POINTS = 240
_KEPT = 256


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart as it is now: its curves, their ECharts options, and its newest values in words."""

    answer: Answer
    curves: tuple[Curve, ...]
    options: Options
    now: str


class Board:
    """Draws charts from a reader; raises what the reader raises."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._drawn: OrderedDict[tuple[str, str | None, int], Drawing] = OrderedDict()

    async def draw(self, chart: Chart, *, node: str | None, seconds: int, hosts: Mapping[str, str]) -> Drawing:
        """A chart of the last ``seconds`` of one node, or of all (None).

        The same object comes back while nothing is new, so that a page need not send it again.
        """
        answer = await self.reader.series(self._query(chart, node, seconds))
        key = (chart.key, node, seconds)
        drawing = self._drawn.get(key)
        if drawing is None or (drawing.answer is not answer and drawing.answer != answer):
            drawn = tuple(curves(chart, answer, hosts))
            drawing = Drawing(answer, drawn, options(chart, answer, drawn), _now(chart, drawn))
            self._drawn[key] = drawing
            while len(self._drawn) > _KEPT:
                self._drawn.popitem(last=False)
        return drawing

    def _query(self, chart: Chart, node: str | None, seconds: int) -> Query:
        interval = self.reader.interval(chart.table)
        step = max(1, math.ceil(seconds / _POINTS / interval)) * interval
        stop = (int(time.time()) // step + 1) * step
        columns = tuple(line.column for line in chart.lines)
        start = stop - math.ceil(seconds / step) * step
        return Query(chart.table, columns, start, stop, step, chart.reading, node)


def _now(chart: Chart, drawn: tuple[Curve, ...]) -> str:
    told = [(curve.name, value) for curve in drawn if (value := latest(curve.values)) is not None]
    if chart.style == "bars":
        return text(sum(value for _, value in told), chart.unit) if told else ""
    if len(drawn) == 1:
        return text(told[0][1], chart.unit) if told else ""
    return " · ".join(text(value, chart.unit) for _, value in told) if len(drawn) == len(chart.lines) else ""
