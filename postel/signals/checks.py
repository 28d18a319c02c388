"""What is wrong with declarations beyond the shape of each: what one says of itself, and what all say together.

Each fault begins with its key; those of all together begin with the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from postel.signals.model import Attribute, AttributeValue, Column, Declaration, Declarations, Kind, Metric

# A unit belongs into `unit`, and "total" is what a monotonic sum is ("Instrument naming rule", "Units").
_UNIT_IN_NAME = re.compile(r"[._](total|seconds|milliseconds|bytes|percent|ratio)$")


def faults(declaration: Declaration) -> Iterator[str]:
    """What one declaration says wrongly of itself."""
    used = {table.zone for table in declaration.tables.values()}
    for table in declaration.tables.values():
        used.update(table.labels.values())
    for metric in declaration.metrics.values():
        place = f"metrics.{metric.name}"
        if _UNIT_IN_NAME.search(metric.name):
            yield f"{place}: the name ends in a unit or 'total'; the unit stands in `unit`"
        if metric.columns and metric.kind is Kind.HISTOGRAM:
            yield f"{place}.columns: a histogram has no single value for a typed column"
        yield from _attribute_faults(place, metric.attributes, declaration.attributes)
        for column in metric.columns:
            yield from _when_faults(f"{place}.columns.{column.name}", column.when, metric, declaration.attributes)
        used.update(metric.attributes)
    for event in declaration.events.values():
        yield from _attribute_faults(f"events.{event.name}", event.attributes, declaration.attributes)
        used.update(event.attributes)
    for name in declaration.attributes.keys() - used:
        yield f"attributes.{name}: no metric, event or table uses it"
    for part, keys in (
        ("metrics", [m.key for m in declaration.metrics.values()]),
        ("events", [e.key for e in declaration.events.values()]),
    ):
        for key in {key for key in keys if keys.count(key) > 1}:
            yield f"{part}: the key {key!r} is there twice"


def _attribute_faults(place: str, names: tuple[str, ...], declared: Mapping[str, Attribute]) -> Iterator[str]:
    for name in names:
        if name not in declared:
            yield f"{place}.attributes: {name!r} is not declared under `attributes`"


def _when_faults(
    place: str, when: Mapping[str, AttributeValue], metric: Metric, declared: Mapping[str, Attribute]
) -> Iterator[str]:
    for name, value in when.items():
        if name not in metric.attributes:
            yield f"{place}.when: {name!r} is no attribute of {metric.name}"
        elif (enum := declared[name].enum) and value not in enum:
            yield f"{place}.when: {value!r} is no value of {name}; declared are {', '.join(enum)}"


def faults_together(declarations: Declarations) -> Iterator[str]:
    """What declarations say wrongly of each other."""
    owners: dict[str, Path] = {}
    fed: dict[tuple[str, str], Column] = {}
    for source in declarations:
        for name in [*source.metrics, *source.events, *source.tables]:
            if name in owners:
                yield f"{source.path}: {name}: is already declared in {owners[name]}"
            owners[name] = source.path
    for source in declarations:
        for metric in source.metrics.values():
            for column in metric.columns:
                place = f"{source.path}: metrics.{metric.name}.columns.{column.name}"
                table = declarations.tables.get(column.table)
                if table is None:
                    yield f"{place}: no file declares the table {column.table!r}"
                    continue
                if missing := set(metric.attributes) - set(column.when) - {table.zone}:
                    yield f"{place}.when: says nothing of {', '.join(sorted(missing))}"
                feeder = fed.setdefault((column.table, column.name), column)
                if feeder is not column:
                    yield f"{place}: {feeder.metric} feeds this column already"
