"""Turns families of a Prometheus page into declared points, driven by the ``source`` of a metadata.yaml.

Pure: families in, points out. A metric with ``source: {prometheus: FAMILY, labels: {LABEL: ATTRIBUTE}}`` is made of
that family. What of a page is not understood is left out and named in ``problems``; it is never folded into something
that it is not:

* a label value outside an attribute's enum (a newer server's status), or no number where the attribute is one, leaves
  that sample out (``undeclared_value``);
* a label that the declaration does not map leaves that sample out, because another sample differs by it alone
  (``undeclared_label``);
* a value that is no count (NaN, infinite, negative, a fraction, beyond 64 bits) leaves that sample out
  (``invalid_value``).

An empty label is an absent label, as Prometheus has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.samples import Sample

from otel_receivers.points import INT64_MAX, Recorder, UndeclaredError, number_of
from otel_receivers.prometheus import Family, PageError
from otel_receivers.receiver import Problem
from postel.signals import Attribute, Declaration, Kind, Metric

# A gauge that prom-client writes of its own process; it tells the epochs of that process's counters apart.
PROCESS_START = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class Point:
    """One sample under its declared name; ``series`` tells it from all others of the page."""

    metric: Metric
    attributes: Mapping[str, str | int]
    value: int | float
    series: str


def points_of(
    families: Mapping[str, Family], declaration: Declaration
) -> tuple[tuple[Point, ...], tuple[Problem, ...]]:
    """The points of a page and what was left out of it.

    Raises:
        PageError: a series is there twice; no part of the page may be used.
    """
    problems: list[Problem] = []
    points: dict[str, Point] = {}
    for metric in declaration.metrics.values():
        family = families.get(metric.source.get("prometheus", ""))
        if family is None:
            continue
        for point in _points(metric, family, declaration.attributes, problems):
            if point.series in points:
                raise PageError("malformed", f"{point.series} is there twice")
            points[point.series] = point
    return tuple(points.values()), tuple(problems)


def counters_of(points: Iterable[Point]) -> dict[str, int | float]:
    """The counters, series -> value, for :meth:`otel_receivers.epochs.Epochs.starts`."""
    return {point.series: point.value for point in points if point.metric.kind is Kind.SUM}


def record(points: Iterable[Point], problems: Sequence[Problem], recorder: Recorder, starts: Mapping[str, int]) -> None:
    """Record points whose counters began at these starts, and the problems."""
    for point in points:
        recorder.number(point.metric.key, point.value, point.attributes, start_unix_nano=starts.get(point.series))
    for problem in problems:
        recorder.problem(problem.error_type, problem.message)


def process_start(family: Family) -> int:
    """When the process that wrote the page began, nanoseconds since 1970.

    Raises:
        PageError: the family says no time, or several.
    """
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
        attributes, fault = _attributes(name, sample, labels)
        value = _value(metric, sample)
        if value is None:
            fault = Problem("invalid_value", f"{name} is {sample.value!r}, which is no count")
        if fault is None and value is not None:
            yield Point(metric, attributes, value, f"{name}{attributes}")
        elif fault is not None:
            problems.append(fault)


def _attributes(
    name: str, sample: Sample, labels: Sequence[tuple[str, Attribute]]
) -> tuple[dict[str, str | int], Problem | None]:
    """In the order of the declaration, so that equal attributes give equal series."""
    attributes: dict[str, str | int] = {}
    known = 0
    fault = None
    for label, attribute in labels:
        text = sample.labels.get(label)
        known += text is not None
        if text:
            attributes[attribute.name] = text
        if attribute.enum and text not in attribute.enum:
            fault = Problem("undeclared_value", f"{name}: {label} is {text!r}, none of {', '.join(attribute.enum)}")
        elif attribute.type == "int" and text:
            # As many digits as an OTLP integer surely holds; ASCII, as str.isdecimal knows every script's.
            if text.isascii() and text.isdecimal() and len(text) <= 18:  # noqa: PLR2004 - as said
                attributes[attribute.name] = int(text)
            else:
                fault = Problem("undeclared_value", f"{name}: {label} is {text!r}, which is no number")
    if known != len(sample.labels):
        mapped = {label for label, _ in labels}
        if surplus := [label for label, text in sample.labels.items() if text and label not in mapped]:
            fault = Problem("undeclared_label", f"{name} has the labels {surplus} that no attribute stands for")
    return attributes, fault


def _value(metric: Metric, sample: Sample) -> int | float | None:
    try:
        value = number_of(metric.value_type, sample.value)
    except UndeclaredError:
        return None
    return None if value < 0 else value
