"""Turns a Zone-MTA /metrics page into declared points; driven by ``source`` of this folder's metadata.yaml.

Pure: bytes in, a :class:`Reading` out. What of a page is not understood is left out and named in ``problems``
(:mod:`otel_receivers.page_points` says how).

A sample without a ``zone`` speaks of the whole instance.
Source: Zone-MTA, lib/prometheus.js; prom-client, lib/metrics/processStartTime.js.
"""

from __future__ import annotations

from dataclasses import dataclass

from otel_receivers import page_points, prometheus
from otel_receivers.epochs import Epochs, Life
from otel_receivers.page_points import PROCESS_START, Point
from otel_receivers.points import Recorder
from otel_receivers.receiver import Problem, Tick
from postel.signals import Declaration

# In every Zone-MTA since its page exists, from the first second on. The process's start stands behind all zonemta_*
# families of the page, so a page that has it has those as a whole.
REQUIRED = ("zonemta_delivery_status", "zonemta_queue_size", PROCESS_START)


@dataclass(frozen=True, slots=True)
class Reading:
    """All of a page that is understood, and what is not."""

    process_start_unix_nano: int
    points: tuple[Point, ...]
    problems: tuple[Problem, ...]


def read(body: bytes, declaration: Declaration) -> Reading:
    """Read a page.

    Raises:
        PageError: it must not be used at all: cut short, malformed, or not of a Zone-MTA.
    """
    families = prometheus.parse(body, REQUIRED)
    points, problems = page_points.points_of(families, declaration)
    return Reading(page_points.process_start(families[PROCESS_START]), points, problems)


def record(reading: Reading, recorder: Recorder, epochs: Epochs, *, source: str, tick: Tick) -> None:
    """Record a reading; ``source`` names the instance for its epochs."""
    counters = page_points.counters_of(reading.points)
    life = Life(reading.process_start_unix_nano)
    starts = epochs.starts(source, tick, counters, life=life, together=True)
    page_points.record(reading.points, reading.problems, recorder, starts)
