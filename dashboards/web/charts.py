"""Which charts the page has, and how series become the options of an ECharts chart. No I/O.

Colours and axis formats are JavaScript (keys that begin with ``:``, run by the browser, `static/page.js`), because they
follow the viewer's system: dark or light, time zone, number format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from timescale_sink.api.series import Answer, Reading, Series

Options = dict[str, Any]
Section = Literal["host", "mail"]
_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
# More lines than this in one chart cannot be told apart.
MAX_LINES = 12


@dataclass(frozen=True, slots=True)
class Line:
    """One column of a chart; ``hue`` fixes its colour (`static/page.js`) where the meaning has one."""

    column: str
    label: str
    hue: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the page.

    Attributes:
        scale: factor from the answer's unit to the chart's, such as 60 from per second to per minute.
        unit: how values are written: ``%``, ``By``, ``By/s``, ``/min``, ``1`` (a ratio), ``n`` (a count).
        top: where the value axis ends; 0: at the greatest value.
        by: what a line stands for: a column of a node (or queue), a column over everything, or a zone.
    """

    key: str
    section: Section
    title: str
    table: str
    lines: tuple[Line, ...]
    unit: str
    hint: str = ""
    style: Literal["line", "bars"] = "line"
    by: Literal["column", "total", "zone"] = "column"
    top: float = 0
    scale: float = 1
    reading: Reading = "rate"


_OUTCOMES = (
    Line("delivered_total", "delivered", "good"),
    Line("deferred_total", "deferred", "warn"),
    Line("rejected_total", "rejected", "bad"),
    Line("unknown_total", "unknown", "idle"),
)

CHARTS = (
    Chart(
        "queue",
        "mail",
        "Queue",
        "metrics_zonemta",
        (Line("queue_size", "queued", "first"), Line("deferred_size", "deferred", "warn")),
        "n",
        "recipients that wait; a shared queue is counted once",
    ),
    Chart(
        "attempts",
        "mail",
        "Delivery attempts by outcome",
        "metrics_zonemta",
        _OUTCOMES,
        "/min",
        "per minute, all zones",
        style="bars",
        by="total",
        scale=60,
    ),
    Chart(
        "zones",
        "mail",
        "Delivery attempts by zone",
        "metrics_zonemta",
        _OUTCOMES,
        "/min",
        "per minute, all outcomes",
        style="bars",
        by="zone",
        scale=60,
    ),
    Chart("cpu", "host", "CPU", "metrics_system", (Line("cpu_load", "busy", "first"),), "%", "all cores", top=100),
    Chart(
        "memory", "host", "Memory", "metrics_system", (Line("memory_percent", "used", "first"),), "%", "in use", top=100
    ),
    Chart(
        "disk",
        "host",
        "Disk",
        "metrics_system",
        (Line("disk_percent", "used", "first"),),
        "%",
        "fullest file system",
        top=100,
    ),
    Chart(
        "network",
        "host",
        "Network",
        "metrics_system",
        (Line("network_in", "in", "first"), Line("network_out", "out", "second")),
        "By/s",
        "all interfaces but loopback",
    ),
    Chart(
        "load",
        "host",
        "Load",
        "metrics_system",
        (Line("load_1m", "load", "first"),),
        "1",
        "processes that run or wait, 1 min",
    ),
    Chart(
        "processes",
        "host",
        "Processes",
        "metrics_system",
        (Line("process_count", "processes", "first"),),
        "n",
        "all users",
    ),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """What one line or stack of bars shows."""

    name: str
    hue: str
    values: tuple[float | None, ...]


def curves(chart: Chart, answer: Answer, hosts: Mapping[str, str], demo: frozenset[str] = frozenset()) -> list[Curve]:
    """The lines of a chart, at most `MAX_LINES`.

    Args:
        chart: what is drawn.
        answer: its figures.
        hosts: node id -> the name that the viewer reads.
        demo: ids of nodes with synthetic data; never added to real ones.
    """
    if chart.by == "column":
        return list(_by_column(chart, answer, hosts))[:MAX_LINES]
    real = [series for series in answer.series if series.node not in demo]
    series = _without_wholes(real or answer.series)
    if chart.by == "zone":
        zones = sorted({one.zone for one in series})
        found = [
            Curve(zone or "no zone told", "", _sum([one for one in series if one.zone == zone], chart.scale))
            for zone in zones
        ]
    else:
        found = [
            Curve(line.label, line.hue, _sum([one for one in series if one.column == line.column], chart.scale))
            for line in chart.lines
        ]
    return [curve for curve in found if curve.values][:MAX_LINES]


def _by_column(chart: Chart, answer: Answer, hosts: Mapping[str, str]) -> Iterator[Curve]:
    # A zone's figure is a part of it.
    wholes = [series for series in answer.series if not series.zone]
    sources = list(dict.fromkeys((s.node, s.instance, s.queue) for s in wholes))
    nodes = {node for node, _, _ in sources}
    for node, instance, queue in sources:
        # Only as much of the name as tells this line from the others.
        host = hosts.get(node, node)
        parts = [] if len(sources) == 1 else [host] if len(nodes) == len(sources) else [host, queue or instance]
        for line in chart.lines:
            for series in wholes:
                if (series.node, series.instance, series.queue, series.column) == (node, instance, queue, line.column):
                    name = " ".join([*parts, line.label]) if len(chart.lines) > 1 or not parts else " ".join(parts)
                    values = tuple(None if v is None else v * chart.scale for v in series.values)
                    yield Curve(name, line.hue if len(sources) == 1 else "", values)


def _without_wholes(series: Sequence[Series]) -> list[Series]:
    """Without what an instance says of itself as a whole where it also tells its zones: the two are never added."""
    zoned = {(one.node, one.instance) for one in series if one.zone}
    return [one for one in series if one.zone or (one.node, one.instance) not in zoned]


def _sum(series: Sequence[Series], scale: float) -> tuple[float | None, ...]:
    columns = zip(*(one.values for one in series), strict=True)
    told = ([value for value in column if value is not None] for column in columns)
    return tuple(sum(values) * scale if values else None for values in told)


def latest(values: Sequence[float | None], within: int = 4) -> float | None:
    """The newest value, where it is among the last ``within`` steps: an older one is not what is now."""
    return next((value for value in reversed(values[-within:]) if value is not None), None)


def options(chart: Chart, answer: Answer, drawn: Sequence[Curve]) -> Options:
    """The ECharts options of a chart: times in epoch milliseconds, null where there is a gap."""
    query = answer.query
    times = [1000 * second for second in range(query.start, query.stop, query.step)]
    return {
        "animation": False,
        "textStyle": {":fontFamily": "postel.font()"},
        # To the right half of the last time stands out of the plot, which containLabel leaves out of account.
        "grid": {"left": 8, "right": 20, "top": 34 if len(drawn) > 1 else 12, "bottom": 4, "containLabel": True},
        "legend": {
            "show": len(drawn) > 1,
            "type": "scroll",
            "left": 4,
            "top": 0,
            "itemWidth": 12,
            "itemHeight": 8,
            "itemGap": 14,
            "icon": "roundRect",
            ":textStyle": "postel.legendText()",
            ":formatter": "postel.brief",
            ":pageTextStyle": "postel.text()",
            ":pageIconColor": "postel.text().color",
            ":pageIconInactiveColor": "postel.line()",
            "pageIconSize": 9,
        },
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            ":valueFormatter": f"postel.format('{chart.unit}')",
            ":backgroundColor": "postel.surface()",
            ":borderColor": "postel.line()",
            ":textStyle": "postel.text()",
            "axisPointer": {"type": "line", ":lineStyle": "({color: postel.faint(), width: 1})"},
        },
        "xAxis": {
            "type": "time",
            "min": times[0],
            "max": times[-1],
            "splitNumber": 4,
            ":axisLabel": "postel.timeLabel()",
            ":axisLine": "({lineStyle: {color: postel.line()}})",
            "axisTick": {"show": False},
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "min": 0,
            **({"max": chart.top, "interval": chart.top / 4} if chart.top else {}),
            "splitNumber": 4,
            "minInterval": 1 if chart.unit == "n" else 0,
            ":axisLabel": f"({{...postel.text(), formatter: postel.format('{chart.unit}')}})",
            ":splitLine": "({lineStyle: {color: postel.line()}})",
        },
        "series": [_series(chart, curve, times, index, len(drawn)) for index, curve in enumerate(drawn)],
    }


def _series(chart: Chart, curve: Curve, times: Sequence[int], index: int, count: int) -> Options:
    color = f"postel.hue('{curve.hue}', {index})"
    points = list(zip(times, curve.values, strict=True))
    if chart.style == "bars":
        return {
            "name": curve.name,
            "type": "bar",
            "stack": "all",
            "barCategoryGap": "15%",
            "barMaxWidth": 14,
            ":color": color,
            "data": [list(point) for point in points],
        }
    return {
        "name": curve.name,
        "type": "line",
        "symbol": "none",
        "connectNulls": False,
        ":color": color,
        "lineStyle": {"width": 1.6},
        **({":areaStyle": f"({{color: {color}, opacity: 0.12}})"} if count == 1 else {}),
        "data": [
            _point(time, value, alone=alone) for (time, value), alone in zip(points, _alone(curve.values), strict=True)
        ],
    }


def _point(time: int, value: float | None, *, alone: bool) -> Any:
    # A line of one point has no length; it is drawn as a dot, or the first value after a start would not be seen.
    return {"value": [time, value], "symbol": "circle", "symbolSize": 5} if alone else [time, value]


def _alone(values: Sequence[float | None]) -> Iterator[bool]:
    around = [None, *values, None]
    for (before, value), (_, after) in zip(pairwise(around[:-1]), pairwise(around[1:]), strict=True):
        yield value is not None and before is None and after is None


def text(value: float, unit: str) -> str:
    """A value with its unit, for a card's head (the axes are written by `static/page.js`)."""
    if unit.startswith("By"):
        power = min(max(0, int(math.log10(max(abs(value), 1)) // 3)), len(_BYTES) - 1)
        return f"{value / 1000**power:.3g} {_BYTES[power]}{unit.removeprefix('By')}"
    if unit == "n":
        return f"{value:,.0f}"
    number = f"{value:,.1f}".removesuffix(".0")
    return f"{number} %" if unit == "%" else number + unit.removeprefix("1")


def age(seconds: float) -> str:
    """How long ago, in words."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {name} ago"
    return f"{max(0, seconds):.0f} s ago"
