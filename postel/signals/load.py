"""Reads and checks every ``metadata.yaml``; what is wrong is named by file and key.

The YAML is checked for its shape first (pydantic), then for what one file says (attributes, sources, columns), then for
what the files say together (a name has one owner, a typed column has one feeding point).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from postel.errors import DeclarationError
from postel.signals import schema
from postel.signals.checks import faults, faults_together
from postel.signals.model import (
    Attribute,
    Column,
    Declaration,
    Declarations,
    Event,
    EventColumn,
    EventRow,
    EventTable,
    Kind,
    Metric,
    Severity,
    Table,
)
from postel.signals.sources import EVENT_SOURCES, METRIC_SOURCES, Source, kind_of
from postel.yaml_loader import SafeLoader


class _Loader(SafeLoader):
    """YAML whose every fault is a YAMLError with its line; a repeated key is one, of which PyYAML keeps the last."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's signature
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            # Of a day that no calendar has, a number that is none; PyYAML leaves them as Python raised them.
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "a map is expected", node.start_mark)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            fault = ""
            if not isinstance(key, Hashable):
                fault = "a list or map cannot be a key"
            elif key in seen:
                fault = f"key {key!r} is there twice"
            if fault:
                raise yaml.constructor.ConstructorError(None, None, fault, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


@cache
def load_all() -> Declarations:
    """Every declaration that this distribution ships.

    Raises:
        DeclarationError: a file contradicts the schema, itself or another file.
    """
    agent, sink = (Path(str(files(package))) for package in ("otel_receivers", "timescale_sink"))
    return load(sorted([*agent.glob("metadata.yaml"), *agent.glob("*/metadata.yaml"), sink / "metadata.yaml"]))


def load(paths: Iterable[Path]) -> Declarations:
    """Read and check these files, each alone and all together.

    Raises:
        DeclarationError: names the file, the key and what is wrong.
    """
    sources: dict[str, Declaration] = {}
    parsed = {path: _parse(path) for path in paths}
    shared = {name: one for file in parsed.values() if file.shared for name, one in _attributes(file).items()}
    for path, file in parsed.items():
        declaration = _declaration(file, path, {} if file.shared else shared)
        if declaration.type in sources:
            raise DeclarationError(f"{path}: type: {declaration.type!r} is also {sources[declaration.type].path}'s")
        sources[declaration.type] = declaration
    declarations = Declarations(dict(sorted(sources.items())))
    for fault in faults_together(declarations):
        raise DeclarationError(fault)
    return declarations


def _parse(path: Path) -> schema.File:
    try:
        text = path.read_text("utf-8")
        # _Loader is a SafeLoader: it builds plain values only.
        content = yaml.load(text, _Loader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path}: is not YAML: {error}") from None
    try:
        return schema.File.model_validate(content)
    except ValidationError as error:
        raise DeclarationError(_misshapen(error, path, ())) from None


def _misshapen(error: ValidationError, path: Path, place: tuple[str, ...]) -> str:
    lines = []
    for fault in error.errors():
        key = ".".join(str(k) for k in (*place, *fault["loc"]) if k != "[key]")
        lines.append(f"{path}: {key or 'file'}: {fault['msg'].removeprefix('Value error, ')}, got {fault['input']!r}")
    return "\n".join(lines)


def _attributes(file: schema.File) -> dict[str, Attribute]:
    return {n: Attribute(n, a.description, a.type, tuple(a.enum)) for n, a in file.attributes.items()}


def _declaration(file: schema.File, path: Path, shared: Mapping[str, Attribute]) -> Declaration:
    """``shared``: other files' attributes; those that this one uses are its own too, in its words where it has some."""
    attributes = _attributes(file)
    for name, own in attributes.items():
        if name in shared and own.type != shared[name].type:
            raise DeclarationError(f"{path}: attributes.{name}.type: is {shared[name].type} in what all files share")
    used = {name for part in (file.metrics, file.events) for one in part.values() for name in one.attributes}
    attributes |= {name: one for name, one in shared.items() if name in used and name not in attributes}
    tables = {n: Table(n, t.description, t.interval, t.zone, t.labels) for n, t in file.tables.items()}
    metrics = {name: _metric(name, metric, path) for name, metric in file.metrics.items()}
    events = {name: _event(name, event, path) for name, event in file.events.items()}
    declaration = Declaration(
        type=file.type,
        scope=file.scope,
        service=file.service,
        description=file.description,
        shared=file.shared,
        attributes=attributes,
        tables=tables,
        event_tables={name: _event_table(name, table) for name, table in file.event_tables.items()},
        metrics=metrics,
        events=events,
        path=path,
    )
    for fault in faults(declaration):
        raise DeclarationError(f"{path}: {fault}")
    return declaration


def _event(name: str, event: schema.Event, path: Path) -> Event:
    return Event(
        name=name,
        key=event.key or _key(name),
        description=event.description,
        severity=Severity(event.severity),
        attributes=tuple(event.attributes),
        source=_source(event.source, EVENT_SOURCES, path, ("events", name, "source")),
        row=EventRow(event.row.table, event.row.values) if event.row else None,
    )


def _event_table(name: str, table: schema.EventTable) -> EventTable:
    columns = (
        EventColumn(column, c.description, c.type, tuple(c.attributes), c.part, c.resource)
        for column, c in table.columns.items()
    )
    return EventTable(name, table.description, tuple(columns))


def _metric(name: str, metric: schema.Metric, path: Path) -> Metric:
    kind, value = next(
        (kind, value)
        for kind, value in ((Kind.GAUGE, metric.gauge), (Kind.SUM, metric.sum), (Kind.HISTOGRAM, metric.histogram))
        if value is not None
    )
    monotonic = isinstance(value, schema.Sum) and value.monotonic
    bounds = tuple(value.bounds) if isinstance(value, schema.Histogram) else ()
    columns = tuple(Column(c.table, c.column, c.type, c.when, name, monotonic) for c in metric.columns)
    return Metric(
        name=name,
        key=metric.key or _key(name),
        description=metric.description,
        unit=metric.unit,
        kind=kind,
        value_type=value.value_type,
        monotonic=monotonic,
        attributes=tuple(metric.attributes),
        columns=columns,
        source=_source(metric.source, METRIC_SOURCES, path, ("metrics", name, "source")),
        bounds=bounds,
    )


def _source(
    source: dict[str, Any], kinds: Mapping[str, type[Source]], path: Path, place: tuple[str, ...]
) -> Mapping[str, Any]:
    """A source with all keys of its kind that have a value."""
    try:
        kind = kind_of(source, kinds)
        return kinds[kind].model_validate(source).model_dump(exclude_none=True)
    except ValidationError as error:
        raise DeclarationError(_misshapen(error, path, place)) from None
    except ValueError as error:
        raise DeclarationError(f"{path}: {'.'.join(place)}: {error}") from None


def _key(name: str) -> str:
    return name.replace(".", "_")
