"""Turns answers of Rspamd's controller into what they say.

Pure: bytes in, values out. An answer is used as a whole or not at all. Of the figures of ``/stat`` some are kept over
restarts and some not, which :mod:`otel_receivers.rspamd.record` knows.

Source: Rspamd, src/controller.c, src/libserver/symcache/symcache_impl.cxx.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from otel_receivers import page_points, prometheus
from otel_receivers.answers import AnswerError, count, decode, shown
from otel_receivers.page_points import Point
from otel_receivers.receiver import Problem
from postel.signals import Declaration

# On the page of every Rspamd that has one, from its start on.
REQUIRED = ("rspamd_build_info", "rspamd_scanned_total", "rspamd_allocated_bytes")
_SYMBOL_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Stat:
    """An answer to ``/stat``.

    Attributes:
        scanned: messages.
        learned: messages.
        connections: accepted by the scanner.
        actions: messages by what was to be done with them, in Rspamd's own words.
        uptime: seconds.
        durations: seconds that each of the last scans took, in no order; none where nothing was scanned yet.
    """

    scanned: int
    learned: int
    connections: int
    actions: Mapping[str, int]
    uptime: int
    durations: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Counter:
    """What ``/counters`` says of a symbol: ``frequency`` is hits a second, ``time`` milliseconds."""

    hits: int
    frequency: float
    time: float


@dataclass(frozen=True, slots=True)
class Page:
    """All of a ``/metrics`` page that is understood, and what is not."""

    points: tuple[Point, ...]
    problems: tuple[Problem, ...]


def stat(body: bytes) -> Stat:
    """Read an answer to ``GET /stat``.

    Raises:
        AnswerError: it is not whole, or not of Rspamd.
    """
    content = decode(body)
    if not isinstance(content, dict) or not {"version", "scanned", "actions"} <= content.keys():
        raise AnswerError("unexpected_page", "no statistics of Rspamd")
    if not isinstance(content["actions"], dict):
        raise AnswerError("malformed", f"actions is {shown(content['actions'])}")
    times = content.get("scan_times")
    return Stat(
        _count(content, "scanned"),
        _count(content, "learned"),
        _count(content, "connections"),
        {name: _count(content["actions"], name) for name in content["actions"]},
        _count(content, "uptime"),
        tuple(_seconds(times if isinstance(times, list) else ())),
    )


def counters(body: bytes) -> dict[str, Counter]:
    """Read an answer to ``GET /counters``: symbol -> what is said of it.

    Raises:
        AnswerError: it is not whole, or not of Rspamd.
    """
    content = decode(body)
    if not isinstance(content, list):
        raise AnswerError("unexpected_page", "no list of symbols")
    found: dict[str, Counter] = {}
    for each in content:
        symbol = each.get("symbol") if isinstance(each, dict) else None
        if not isinstance(symbol, str) or not 0 < len(symbol) <= _SYMBOL_CHARACTERS or symbol in found:
            raise AnswerError("malformed", f"a symbol is named {shown(symbol)}, or there twice")
        found[symbol] = Counter(_count(each, "hits"), _number(each, "frequency"), _number(each, "time"))
    return found


def page(body: bytes, declaration: Declaration) -> Page:
    """Read a page of ``GET /metrics``, which says that it is OpenMetrics and is so only as far as its end mark goes.

    Raises:
        PageError: it must not be used at all: cut short, malformed, or not of an Rspamd.
    """
    families = prometheus.parse(body, REQUIRED)
    if not body.rstrip().endswith(b"# EOF"):
        raise AnswerError("incomplete", "cut short: the page's end is not marked")
    return Page(*page_points.points_of(families, declaration))


def _count(content: Mapping[str, Any], name: str) -> int:
    value = count(content.get(name))
    if value is None:
        raise AnswerError("malformed", f"{name[:40]} is {shown(content.get(name))}, no count")
    return value


def _number(content: Mapping[str, Any], name: str) -> float:
    value = content.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnswerError("malformed", f"{name} is {shown(value)}, no number")
    return float(value)


def _seconds(times: Any) -> Iterator[float]:
    """Of the places that hold one: the others are null."""
    for each in times:
        if isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) and each >= 0:
            yield float(each)
