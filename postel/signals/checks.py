"""What is wrong with declarations beyond the shape of each: what one says of itself, and what all say together.

Each fault begins with its key; those of all together begin with the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from postel.signals import derivation
from postel.signals.model import (
    EVENT_COLUMNS,
    STANDARD_COLUMNS,
    Attribute,
    AttributeValue,
    Column,
    Declaration,
    Declarations,
    Event,
    EventColumn,
    EventRow,
    Kind,
    Metric,
    Table,
)
from postel.signals.sources import EVENT_SOURCES, METRIC_SOURCES, Source, kind_of

# A unit belongs into `unit`, and "total" is what a monotonic sum is ("Instrument naming rule", "Units").
_UNIT_IN_NAME = re.compile(r"[._](total|seconds|milliseconds|bytes|percent|ratio)$")


def faults(declaration: Declaration) -> Iterator[str]:
    """What one declaration says wrongly of itself."""
    for table in declaration.tables.values():
        for label in table.labels:
            yield from _name_faults(f"tables.{table.name}.labels.{label}", label)
    for metric in declaration.metrics.values():
        yield from _metric_faults(f"metrics.{metric.name}", metric, declaration.attributes)
        yield from derivation.faults(f"metrics.{metric.name}", metric, declaration)
    yield from _origin_faults("metrics", declaration.metrics, METRIC_SOURCES)
    yield from _origin_faults("events", declaration.events, EVENT_SOURCES)
    for event in declaration.events.values():
        yield from _attribute_faults(f"events.{event.name}", event.attributes, declaration.attributes)
        yield from _source_faults(f"events.{event.name}.source", event, EVENT_SOURCES)
    for events in declaration.event_tables.values():
        for column in events.columns:
            yield from _event_column_faults(f"event_tables.{events.name}.columns.{column.name}", column)
    for name in () if declaration.shared else declaration.attributes.keys() - _used(declaration):
        yield f"attributes.{name}: no metric, event or table uses it"
    for part, keys in (
        ("metrics", [m.key for m in declaration.metrics.values()]),
        ("events", [e.key for e in declaration.events.values()]),
    ):
        for key in {key for key in keys if keys.count(key) > 1}:
            yield f"{part}: the key {key!r} is there twice"


def _used(declaration: Declaration) -> set[str]:
    """The attributes that something carries."""
    used = {
        name for part in (declaration.metrics, declaration.events) for one in part.values() for name in one.attributes
    }
    for table in declaration.tables.values():
        used.update(table.labels.values(), [table.zone] if table.zone else [])
    return used


def _metric_faults(place: str, metric: Metric, declared: Mapping[str, Attribute]) -> Iterator[str]:
    if _UNIT_IN_NAME.search(metric.name):
        yield f"{place}: the name ends in a unit or 'total'; the unit stands in `unit`"
    if metric.columns and metric.kind is Kind.HISTOGRAM:
        yield f"{place}.columns: a histogram has no single value for a typed column"
    yield from _attribute_faults(place, metric.attributes, declared)
    yield from _source_faults(f"{place}.source", metric, METRIC_SOURCES)
    for column in metric.columns:
        yield from _column_faults(f"{place}.columns.{column.name}", column, metric)
        yield from _when_faults(f"{place}.columns.{column.name}", column.when, metric, declared)


def _attribute_faults(place: str, names: tuple[str, ...], declared: Mapping[str, Attribute]) -> Iterator[str]:
    for name in names:
        if name not in declared:
            yield f"{place}.attributes: {name!r} is not declared under `attributes`"


def _source_faults(place: str, one: Metric | Event, kinds: Mapping[str, type[Source]]) -> Iterator[str]:
    maps = kinds[kind_of(one.source, kinds)].maps
    given: dict[str, str] = {}
    for theirs, ours in one.source.get(maps, {}).items():
        if ours not in one.attributes:
            yield f"{place}.{maps}.{theirs}: {ours!r} is no attribute of {one.name}"
        if given.setdefault(ours, theirs) != theirs:
            yield f"{place}.{maps}.{theirs}: {ours!r} is what {given[ours]} gives already"
    for ours in one.source.get("split", {}):
        if ours not in one.attributes:
            yield f"{place}.split: {ours!r} is no attribute of {one.name}"
        elif ours in given:
            yield f"{place}.split: {ours!r} is what {given[ours]} gives already"


def _origin_faults(
    place: str, fed_by: Mapping[str, Metric] | Mapping[str, Event], kinds: Mapping[str, type[Source]]
) -> Iterator[str]:
    fed: dict[tuple[str, str], str] = {}
    for name, one in fed_by.items():
        kind = kind_of(one.source, kinds)
        origin = one.source[kind]
        if kinds[kind].alone and (other := fed.setdefault((kind, origin), name)) != name:
            yield f"{place}.{name}.source.{kind}: {origin!r} feeds {other} already"


def _column_faults(place: str, column: Column, metric: Metric) -> Iterator[str]:
    yield from _name_faults(place, column.name)
    if column.type == "bigint" and metric.value_type != "int":
        yield f"{place}.type: bigint cannot hold what {metric.name} gives: {metric.value_type}"


def _event_column_faults(place: str, column: EventColumn) -> Iterator[str]:
    if column.name in EVENT_COLUMNS:
        yield f"{place}: every event table has a column of this name"
    if column.part and column.type != ("text[]" if column.part == "domains" else "text"):
        yield f"{place}.type: {column.type} cannot hold a part of an address"


def _name_faults(place: str, column: str) -> Iterator[str]:
    if column in STANDARD_COLUMNS:
        yield f"{place}: every table has a column of this name"


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
    for source in declarations:
        for name in [*source.metrics, *source.events, *source.tables, *source.event_tables]:
            if name in owners:
                yield f"{source.path}: {name}: is already declared in {owners[name]}"
            owners[name] = source.path
    yield from _feeds_together(declarations)
    for source in declarations:
        for event in source.events.values():
            if event.row is not None:
                yield from _row_faults(f"{source.path}: events.{event.name}.row", event.row, declarations)
        if source.shared:
            yield from _shared_faults(source, declarations)


def _feeds_together(declarations: Declarations) -> Iterator[str]:
    fed: dict[tuple[str, str], Column] = {}
    for source in declarations:
        for metric in source.metrics.values():
            for column in metric.columns:
                place = f"{source.path}: metrics.{metric.name}.columns.{column.name}"
                yield from _feed_faults(place, metric, column, declarations.tables.get(column.table))
                feeder = fed.setdefault((column.table, column.name), column)
                if feeder is not column:
                    yield f"{place}: {feeder.metric} feeds this column already"


def _row_faults(place: str, row: EventRow, declarations: Declarations) -> Iterator[str]:
    table = declarations.event_tables.get(row.table)
    if table is None:
        yield f"{place}.table: no file declares the event table {row.table!r}"
        return
    texts = [column.name for column in table.columns if column.type == "text"]
    for name in row.values.keys() - set(texts):
        yield f"{place}.values: {name!r} is no text column of {row.table}; those are {', '.join(texts)}"


def _shared_faults(shared: Declaration, declarations: Declarations) -> Iterator[str]:
    used = {name for source in declarations for name in _used(source)}
    for name in shared.attributes.keys() - used:
        yield f"{shared.path}: attributes.{name}: no metric, event or table of any file uses it"
    known = {name for source in declarations for name in source.attributes}
    for table in shared.event_tables.values():
        for column in table.columns:
            for name in () if column.resource else column.attributes:
                if name not in known:
                    yield (
                        f"{shared.path}: event_tables.{table.name}.columns.{column.name}.attributes: "
                        f"no file declares {name!r}"
                    )


def _feed_faults(place: str, metric: Metric, column: Column, table: Table | None) -> Iterator[str]:
    if table is None:
        yield f"{place}: no file declares the table {column.table!r}"
        return
    if missing := set(metric.attributes) - set(column.when) - {table.zone}:
        yield f"{place}.when: says nothing of {', '.join(sorted(missing))}"
    if column.name in table.labels:
        yield f"{place}: {table.name} has a label of this name"
