"""What Grafana makes of a query before its PostgreSQL data source sends it.

Sources, of Grafana 11: pkg/tsdb/grafana-postgresql-datasource/macros.go and sqleng/sql_engine.go (`Interpolate`) for
the macros; packages/grafana-data/src/datetime/rangeutil.ts (`calculateInterval`, `roundInterval`) for the interval; the
format `sqlstring` of variables, and that the value of All is put in as it is, in public/app/features/templating.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
_VARIABLE = re.compile(r"\$\{(\w+):sqlstring\}")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}
# An interval up to the first becomes the second, milliseconds.
_ROUNDED = (
    (1500, 1000),
    (3500, 2000),
    (7500, 5000),
    (12500, 10000),
    (17500, 15000),
    (25000, 20000),
    (45000, 30000),
    (90000, 60000),
    (210000, 120000),
    (450000, 300000),
    (750000, 600000),
    (1050000, 900000),
    (1500000, 1200000),
    (2700000, 1800000),
    (5400000, 3600000),
    (9000000, 7200000),
    (16200000, 10800000),
    (32400000, 21600000),
    (86400000, 43200000),
    (604800000, 86400000),
    (1814400000, 604800000),
    (3628800000, 2592000000),
)


@dataclass(frozen=True, slots=True)
class Range:
    """A dashboard's range of time."""

    begin: datetime
    end: datetime

    def interval(self, points: int, least: str) -> int:
        """The step that a panel of so many points asks for, milliseconds; not less than ``least``, such as "30s"."""
        exact = (self.end - self.begin) / timedelta(milliseconds=1) / points
        rounded = next((length for below, length in _ROUNDED if exact < below), 31536000000)
        return max(rounded, round(seconds(least) * 1000))


def expand(
    sql: str, over: Range, interval: int, variables: Mapping[str, Sequence[str]] | None = None, *, timescale: bool
) -> str:
    """The SQL that is sent.

    Args:
        sql: with macros and variables.
        over: the range.
        interval: milliseconds.
        variables: name -> what is chosen; one that is not here stands at All, whose value is `'*'`.
        timescale: the data source's switch of that name.

    Raises:
        ValueError: no such macro, or too few arguments.
    """
    chosen = variables or {}
    sql = _VARIABLE.sub(lambda found: _sqlstring(chosen[found[1]]) if found[1] in chosen else "'*'", sql)
    sql = sql.replace("$__interval_ms", str(interval)).replace("$__interval", _spoken(interval))
    whole = sql

    def one(found: re.Match[str]) -> str:
        name = found[1]
        # As in older versions of Grafana: a comma behind it makes it a column named "time".
        after = whole.index(found[0]) + len(found[0])
        if name == "__timeGroup" and whole[after : after + 1] == ",":
            name = "__timeGroupAlias"
        return _macro(name, [argument.strip(" ") for argument in found[2].split(",")], over, timescale=timescale)

    return _MACRO.sub(one, sql)


def _macro(name: str, arguments: list[str], over: Range, *, timescale: bool) -> str:
    begin, end = (moment.astimezone(UTC).isoformat().replace("+00:00", "Z") for moment in (over.begin, over.end))
    first = arguments[0]
    simple: dict[str, Callable[[], str]] = {
        "__time": lambda: f'{first} AS "time"',
        "__timeEpoch": lambda: f'extract(epoch from {first}) as "time"',
        "__timeFilter": lambda: f"{first} BETWEEN '{begin}' AND '{end}'",
        "__timeFrom": lambda: f"'{begin}'",
        "__timeTo": lambda: f"'{end}'",
        "__timeGroup": lambda: _group(arguments, timescale=timescale),
        "__timeGroupAlias": lambda: f'{_group(arguments, timescale=timescale)} AS "time"',
    }
    if name not in simple:
        raise ValueError(f"unknown macro {name!r}")
    return simple[name]()


def _group(arguments: list[str], *, timescale: bool) -> str:
    if len(arguments) < 2:
        raise ValueError("macro __timeGroup needs time column and interval and optional fill value")
    if len(arguments) == 3 and arguments[2] not in ("NULL", "previous"):
        float(arguments[2])
    length = seconds(arguments[1].strip("'"))
    if timescale:
        return f"time_bucket('{length:.3f}s',{arguments[0]})"
    shown = f"{length:g}"
    return f"floor(extract(epoch from {arguments[0]})/{shown})*{shown}"


def seconds(spoken: str) -> float:
    """How long an interval such as "30s" is."""
    found = re.fullmatch(r"(\d+)(ms|[Mwdhmsy])", spoken)
    if not found:
        raise ValueError(f"error parsing interval {spoken}")
    return int(found[1]) * _UNITS[found[2]]


def _spoken(milliseconds: int) -> str:
    """As `gtime.FormatInterval`: in the largest unit that fits, the rest dropped."""
    for unit, length in (("y", 31536000), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if milliseconds >= length * 1000:
            return f"{milliseconds // (length * 1000)}{unit}"
    return f"{milliseconds}ms"


def _sqlstring(values: Sequence[str]) -> str:
    return ",".join("'" + value.replace("'", "''") + "'" for value in values)
