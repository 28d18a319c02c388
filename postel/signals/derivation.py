"""What is wrong with metrics that are derived from events, those with ``source: {events: ...}``.

Each fault begins with its key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from postel.signals.model import Attribute, AttributeValue, Declaration, Event, Kind, Metric

_NUMBERS = ("int", "double")
_TYPES: Mapping[str, type | tuple[type, ...]] = {"string": str, "int": int, "double": (int, float), "boolean": bool}


def is_derived(metric: Metric) -> bool:
    """Whether the agent makes this metric of the events that its intake takes."""
    return "events" in metric.source


def faults(place: str, metric: Metric, declaration: Declaration) -> Iterator[str]:
    """What a metric's bounds and its derivation say wrongly."""
    yield from _bounds_faults(place, metric)
    if not is_derived(metric):
        return
    if metric.kind is Kind.GAUGE or (metric.kind is Kind.SUM and not metric.monotonic):
        yield f"{place}: what is derived from events is a histogram or a monotonic sum"
    place = f"{place}.source"
    if not metric.source["events"]:
        yield f"{place}.events: names none"
    events = []
    for name, fixed in metric.source["events"].items():
        if name not in declaration.events:
            yield f"{place}.events.{name}: this file declares no such event"
            continue
        events.append(declaration.events[name])
        yield from _fixed_faults(f"{place}.events.{name}", fixed, metric, declaration.attributes)
    for theirs, ours in metric.source["attributes"].items():
        yield from _carried_faults(f"{place}.attributes.{theirs}", theirs, events)
        if ours in declaration.attributes and theirs in declaration.attributes:
            yield from _type_faults(f"{place}.attributes.{theirs}", theirs, ours, declaration.attributes)
    yield from _value_faults(f"{place}.value", metric, events, declaration.attributes)
    for name, values in metric.source["when"].items():
        yield from _carried_faults(f"{place}.when.{name}", name, events)
        if name in declaration.attributes:
            yield from _of_attribute(f"{place}.when.{name}", values, declaration.attributes[name])


def _bounds_faults(place: str, metric: Metric) -> Iterator[str]:
    bounds = metric.bounds
    if metric.kind is Kind.HISTOGRAM and is_derived(metric) and not bounds:
        yield f"{place}.histogram.bounds: what is derived from events needs some"
    if bounds and not is_derived(metric):
        yield f"{place}.histogram.bounds: only what is derived from events is put into buckets here"
    if any(lower >= upper for lower, upper in pairwise(bounds)):
        yield f"{place}.histogram.bounds: must ascend"


def _fixed_faults(
    place: str, fixed: Mapping[str, AttributeValue], metric: Metric, declared: Mapping[str, Attribute]
) -> Iterator[str]:
    carried = set(metric.source["attributes"].values())
    for name, value in fixed.items():
        if name not in metric.attributes:
            yield f"{place}: {name!r} is no attribute of {metric.name}"
        elif name in carried:
            yield f"{place}: {name!r} is what the events say under `attributes`"
        elif name in declared:
            yield from _of_attribute(f"{place}.{name}", [value], declared[name])
    if missing := set(metric.attributes) - fixed.keys() - carried:
        yield f"{place}: says nothing of {', '.join(sorted(missing))}"


def _carried_faults(place: str, name: str, events: Iterable[Event]) -> Iterator[str]:
    for event in events:
        if name not in event.attributes:
            yield f"{place}: {event.name} has no such attribute"


def _type_faults(place: str, theirs: str, ours: str, declared: Mapping[str, Attribute]) -> Iterator[str]:
    given, wanted = declared[theirs].type, declared[ours].type
    if given != wanted:
        yield f"{place}: is {given}, and {ours} is {wanted}"
    elif wanted not in _TYPES:
        yield f"{place}: a {wanted} tells no series apart"


def _value_faults(
    place: str, metric: Metric, events: Iterable[Event], declared: Mapping[str, Attribute]
) -> Iterator[str]:
    name = metric.source.get("value")
    if name is None:
        if metric.kind is Kind.HISTOGRAM:
            yield f"{place}: a histogram needs one"
        elif metric.value_type != "int":
            yield f"{place}: without one it counts events, and a count is int"
        return
    yield from _carried_faults(place, name, events)
    given = declared[name].type if name in declared else "int"
    if given not in _NUMBERS:
        yield f"{place}: {name} is {given}, which is no number"
    elif metric.value_type == "int" and given != "int":
        yield f"{place}: {name} is {given}, and {metric.name} is int"


def _of_attribute(place: str, values: Iterable[AttributeValue], attribute: Attribute) -> Iterator[str]:
    for value in values:
        fits = isinstance(value, _TYPES.get(attribute.type, ())) and (
            attribute.type == "boolean" or not isinstance(value, bool)
        )
        if not fits:
            yield f"{place}: {value!r} is not of type {attribute.type}"
        elif attribute.enum and value not in attribute.enum:
            yield f"{place}: {value!r} is no value of {attribute.name}; declared are {', '.join(attribute.enum)}"
