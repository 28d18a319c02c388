"""How a chart of a page is declared, and how series become the options of an ECharts chart. No I/O.

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
_MINUTE = 60
# Seconds that are written as minutes, hours or days.
_LONGEST_IN_TENS = 120
_TIMES = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 4 * 3600, 6 * 3600, 12 * 3600, 86400)
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
    """A chart of a page.

    Attributes:
        key: names it in the page.
        lines: columns of the table; of a share, those of one label are one line, and those of none only make up the
            whole.
        unit: how values are written; "": as the declared unit of the columns says (`unit_of`).
        by: what a line stands for: a column of a node (or queue), a column over everything, a zone, or a column's
            share of the whole.
        merge: how values of several queues or nodes become one.
        whole: of shares: the column that is the whole; "": all lines together are.
        top: where the value axis ends; 0: at the greatest value.
        scale: factor from the answer's unit to the chart's: 60 from per second to per minute.
    """

    key: str
    title: str
    table: str
    lines: tuple[Line, ...]
    hint: str = ""
    unit: str = ""
    style: Literal["line", "bars"] = "line"
    by: Literal["column", "total", "zone", "share"] = "column"
    merge: Literal["sum", "max"] = "sum"
    whole: str = ""
    top: float = 0
    scale: float = 1
    reading: Reading = "rate"

    @property
    def columns(self) -> tuple[str, ...]:
        """What is asked for."""
        return tuple(dict.fromkeys([*(line.column for line in self.lines), *([self.whole] if self.whole else [])]))


def unit_of(chart: Chart, units: Mapping[str, str]) -> str:
    """How a chart's values are written: ``%``, ``By``, ``By/s``, ``s``, ``/min``, ``/s``, ``1``, ``n`` (counted).

    Args:
        chart: whose.
        units: the declared ones (UCUM) of its columns.
    """
    if chart.unit or chart.by == "share":
        return chart.unit or "%"
    unit, per, _ = units.get(chart.lines[0].column, "").partition("/s")
    if not unit.startswith("{"):
        return unit + per
    # What is counted is said by the title.
    return ("/min" if chart.scale == _MINUTE else "/s") if per else "n"


OUTCOMES = (
    Line("delivered_total", "delivered", "good"),
    Line("deferred_total", "deferred", "warn"),
    Line("rejected_total", "rejected", "bad"),
    Line("unknown_total", "unknown", "idle"),
)

QUEUE = Chart(
    "queue",
    "Queue",
    "metrics_zonemta",
    (Line("queue_size", "queued", "first"), Line("deferred_size", "deferred", "warn")),
    "recipients that wait; a shared queue is counted once",
)
ATTEMPTS = Chart(
    "attempts",
    "Delivery attempts by outcome",
    "metrics_zonemta",
    OUTCOMES,
    "per minute, zones together",
    style="bars",
    by="total",
    scale=_MINUTE,
)
ZONES = Chart(
    "zones",
    "Delivery attempts by zone",
    "metrics_zonemta",
    OUTCOMES,
    "per minute, all outcomes",
    style="bars",
    by="zone",
    scale=_MINUTE,
)
HOST = (
    Chart("cpu", "CPU", "metrics_system", (Line("cpu_load", "busy", "first"),), "all cores", top=100),
    Chart("memory", "Memory", "metrics_system", (Line("memory_percent", "used", "first"),), "in use", top=100),
    Chart("disk", "Disk", "metrics_system", (Line("disk_percent", "used", "first"),), "fullest file system", top=100),
    Chart(
        "network",
        "Network",
        "metrics_system",
        (Line("network_in", "in", "first"), Line("network_out", "out", "second")),
        "all interfaces but loopback",
    ),
    Chart(
        "load",
        "Load",
        "metrics_system",
        (Line("load_1m", "load", "first"),),
        "processes that run or wait, 1 min",
        # A mean, though of what is counted.
        unit="1",
    ),
    Chart("processes", "Processes", "metrics_system", (Line("process_count", "processes", "first"),), "all users"),
)
CHARTS = (QUEUE, ATTEMPTS, ZONES, *HOST)
"""Those of the overview."""


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
    if chart.by == "share":
        found = list(_shares(chart, series))
    elif chart.by == "zone":
        zones = sorted({one.zone for one in series})
        found = [
            Curve(zone or "no zone told", "", _merged([one for one in series if one.zone == zone], chart))
            for zone in zones
        ]
    else:
        found = [
            Curve(line.label, line.hue, _merged([one for one in series if one.column == line.column], chart))
            for line in chart.lines
        ]
    return [curve for curve in found if curve.values][:MAX_LINES]


def _by_column(chart: Chart, answer: Answer, hosts: Mapping[str, str]) -> Iterator[Curve]:
    # A zone's figure is a part of the whole, and all of it where one is asked for.
    wholes = [series for series in answer.series if series.zone == (answer.query.zone or "")]
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


def _merged(series: Sequence[Series], chart: Chart) -> tuple[float | None, ...]:
    merge = max if chart.merge == "max" else sum
    columns = zip(*(one.values for one in series), strict=True)
    told = ([value for value in column if value is not None] for column in columns)
    return tuple(merge(values) * chart.scale if values else None for values in told)


def _shares(chart: Chart, series: Sequence[Series]) -> Iterator[Curve]:
    """Of each label in percent of the whole; where nothing came there is no share."""

    def of(columns: Sequence[str]) -> tuple[float | None, ...]:
        return _merged([one for one in series if one.column in columns], chart)

    whole = of([chart.whole] if chart.whole else chart.columns)
    for label in dict.fromkeys(line.label for line in chart.lines if line.label):
        lines = [line for line in chart.lines if line.label == label]
        part = of([line.column for line in lines]) or tuple(None for _ in whole)
        shares = tuple(100 * (some or 0) / all_ if all_ else None for some, all_ in zip(part, whole, strict=True))
        if any(share is not None for share in shares):
            yield Curve(label, lines[0].hue, shares)


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
            **_axis(chart, drawn),
            "splitNumber": 4,
            "minInterval": 1 if chart.unit == "n" else 0,
            ":axisLabel": f"({{...postel.text(), formatter: postel.format('{chart.unit}')}})",
            ":splitLine": "({lineStyle: {color: postel.line()}})",
        },
        "series": [_series(chart, curve, times, index, len(drawn)) for index, curve in enumerate(drawn)],
    }


def _axis(chart: Chart, drawn: Sequence[Curve]) -> Options:
    """Where the value axis ends, and its steps, where ECharts would not find them."""
    if chart.top:
        return {"max": chart.top, "interval": chart.top / 4}
    most = max((value for curve in drawn for value in curve.values if value is not None), default=0)
    if chart.unit != "s" or most <= _LONGEST_IN_TENS:
        return {}
    # Minutes and hours are no tens of seconds.
    interval = next((step for step in _TIMES if most <= 5 * step), math.ceil(most / 5 / 86400) * 86400)
    return {"max": math.ceil(most / interval) * interval, "interval": interval}


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
    if unit == "s":
        return duration(value)
    number = f"{value:,.1f}".removesuffix(".0")
    return f"{number} %" if unit == "%" else number + unit.removeprefix("1")


def duration(seconds: float) -> str:
    """A time in the largest unit of which it is two at least; below ten seconds with its fractions."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.3g} s"


def age(seconds: float) -> str:
    """How long ago, in words."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {name} ago"
    return f"{max(0, seconds):.0f} s ago"
