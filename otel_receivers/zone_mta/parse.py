"""Turns a Zone-MTA /metrics page into declared points; driven by ``source`` of this folder's metadata.yaml.

Pure: bytes in, a :class:`Reading` out. What of a page is not understood is left out and named in ``problems``; it is
never folded into something that it is not:

* a label value outside an attribute's enum (a newer server's status) leaves that sample out (``undeclared_value``);
* a label that the declaration does not map leaves that sample out, because another sample differs by it alone
  (``undeclared_label``);
* a value that is no count (NaN, infinite, negative, a fraction, beyond 64 bits) leaves that sample out
  (``invalid_value``).

An empty label is an absent label, as Prometheus has it: a sample without a ``zone`` speaks of the whole instance.
Source: Zone-MTA, lib/prometheus.js; prom-client, lib/metrics/processStartTime.js.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.samples import Sample

from otel_receivers import prometheus
from otel_receivers.epochs import Epochs, Life
from otel_receivers.points import INT64_MAX, Recorder, UndeclaredError, number_of
from otel_receivers.prometheus import Family, PageError
from otel_receivers.receiver import Problem, Tick
from postel.signals import Attribute, Declaration, Kind, Metric

# The main process's own gauge. It stands behind all zonemta_* families of the page, so a page that has it has those
# as a whole; it tells the epochs of the counters apart.
PROCESS_START = "process_start_time_seconds"
# In every Zone-MTA since its page exists, from the first second on.
REQUIRED = ("zonemta_delivery_status", "zonemta_queue_size", PROCESS_START)


@dataclass(frozen=True, slots=True)
class Point:
    """One sample under its declared name; ``series`` tells it from all others of the page."""

    metric: Metric
    attributes: Mapping[str, str]
    value: int | float
    series: str


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
    problems: list[Problem] = []
    points: dict[str, Point] = {}
    for metric in declaration.metrics.values():
        family = families.get(metric.source["prometheus"])
        if family is None:
            continue
        for point in _points(metric, family, declaration.attributes, problems):
            if point.series in points:
                raise PageError("malformed", f"{point.series} is there twice")
            points[point.series] = point
    return Reading(_process_start(families[PROCESS_START]), tuple(points.values()), tuple(problems))


def record(reading: Reading, recorder: Recorder, epochs: Epochs, *, source: str, tick: Tick) -> None:
    """Record a reading; ``source`` names the instance for its epochs."""
    counters = {point.series: point.value for point in reading.points if point.metric.kind is Kind.SUM}
    life = Life(reading.process_start_unix_nano)
    starts = epochs.starts(source, tick, counters, life=life, together=True)
    for point in reading.points:
        recorder.number(point.metric.key, point.value, point.attributes, start_unix_nano=starts.get(point.series))
    for problem in reading.problems:
        recorder.problem(problem.error_type, problem.message)


def _points(
    metric: Metric, family: Family, declared: Mapping[str, Attribute], problems: list[Problem]
) -> Iterator[Point]:
    expected = "counter" if metric.kind is Kind.SUM else "gauge"
    name = metric.source["prometheus"]
    if family.type not in (expected, "unknown"):
        problems.append(Problem("undeclared_type", f"{name} is a {family.type}, not a {expected}"))
        return
    labels = [(label, declared[name]) for label, name in metric.source["labels"].items()]
    for sample in family.samples:
        attributes, known = {}, 0
        fault = None
        # In the order of the declaration, so that equal attributes give equal series.
        for label, attribute in labels:
            text = sample.labels.get(label)
            known += text is not None
            if text:
                attributes[attribute.name] = text
            if attribute.enum and text not in attribute.enum:
                fault = Problem("undeclared_value", f"{name}: {label} is {text!r}, none of {', '.join(attribute.enum)}")
        if known != len(sample.labels) and (
            surplus := [k for k, v in sample.labels.items() if v and k not in metric.source["labels"]]
        ):
            fault = Problem("undeclared_label", f"{name} has the labels {surplus} that no attribute stands for")
        value = _value(metric, sample)
        if value is None:
            fault = Problem("invalid_value", f"{name} is {sample.value!r}, which is no count")
        if fault is None and value is not None:
            yield Point(metric, attributes, value, f"{name}{attributes}")
        elif fault is not None:
            problems.append(fault)


def _value(metric: Metric, sample: Sample) -> int | float | None:
    try:
        value = number_of(metric.value_type, sample.value)
    except UndeclaredError:
        return None
    return None if value < 0 else value


def _process_start(family: Family) -> int:
    samples = family.samples
    if len(samples) != 1:
        raise PageError("unexpected_page", f"{PROCESS_START} is there {len(samples)} times")
    try:
        seconds = number_of("double", samples[0].value)
    except UndeclaredError:
        raise PageError("malformed", f"{PROCESS_START} is {samples[0].value!r}") from None
    nanos = seconds * 1e9
    if not 0 <= nanos <= INT64_MAX:
        raise PageError("malformed", f"{PROCESS_START} is {seconds!r}")
    return int(nanos)
