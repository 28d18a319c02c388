"""Reads and checks every ``metadata.yaml``; what is wrong is named by file and key.

The YAML is checked for its shape first (pydantic), then for what one file says (attributes, columns), then for what
the files say together (a name has one owner, a typed column has one feeding point).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from postel.errors import DeclarationError
from postel.signals.model import (
    Attribute,
    AttributeValue,
    Column,
    Declaration,
    Declarations,
    Event,
    Kind,
    Metric,
    Severity,
    Table,
)

# OpenTelemetry's naming: dotted, lowercase, underscores inside a word ("General naming considerations").
_NAME = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)+$"
_IDENTIFIER = r"^[a-z][a-z0-9_]{0,62}$"
# A unit belongs into `unit`, and "total" is what a monotonic sum is ("Instrument naming rule", "Units").
_UNIT_IN_NAME = re.compile(r"[._](total|seconds|milliseconds|bytes|percent|ratio)$")
_UNIT = r"^(1|%|s|ms|By|By/s|Cel|Hz|[{][a-z_ ]+[}](/s)?)$"

Name = Annotated[str, Field(pattern=_NAME)]
Identifier = Annotated[str, Field(pattern=_IDENTIFIER)]
Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Attribute(_Part):
    description: Text
    type: Literal["string", "int", "double", "boolean", "string[]"]
    enum: list[Text] = []


class _Table(_Part):
    description: Text
    interval: Annotated[int, Field(ge=1)]
    zone: Name | None = None
    labels: dict[Identifier, Name] = {}


class _Column(_Part):
    table: Identifier
    column: Identifier
    type: Literal["bigint", "double precision"]
    when: dict[Name, AttributeValue] = {}


class _Gauge(_Part):
    value_type: Literal["int", "double"]


class _Sum(_Gauge):
    monotonic: bool
    aggregation_temporality: Literal["cumulative"]


class _Metric(_Part):
    key: Identifier | None = None
    description: Text
    unit: Annotated[str, Field(pattern=_UNIT)]
    gauge: _Gauge | None = None
    sum: _Sum | None = None
    histogram: _Gauge | None = None
    attributes: list[Name] = []
    columns: list[_Column] = []
    source: dict[str, Any]

    @model_validator(mode="after")
    def _one_kind(self) -> _Metric:
        if sum(kind is not None for kind in (self.gauge, self.sum, self.histogram)) != 1:
            raise ValueError("needs exactly one of gauge, sum, histogram")
        return self


class _Event(_Part):
    key: Identifier | None = None
    description: Text
    severity: Literal["info", "warn", "error"]
    attributes: list[Name] = []
    source: dict[str, Any]


class _File(_Part):
    type: Identifier
    scope: Name
    service: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    description: Text
    attributes: dict[Name, _Attribute] = {}
    tables: dict[Identifier, _Table] = {}
    metrics: dict[Name, _Metric] = {}
    events: dict[Name, _Event] = {}


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML with a repeated key refused: PyYAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


@cache
def load_all() -> Declarations:
    """Every declaration that this distribution ships.

    Raises:
        DeclarationError: a file contradicts the schema, itself or another file.
    """
    root = Path(str(files("otel_receivers")))
    return load(sorted([*root.glob("metadata.yaml"), *root.glob("*/metadata.yaml")]))


def load(paths: Iterable[Path]) -> Declarations:
    """Read and check these files, each alone and all together.

    Raises:
        DeclarationError: names the file, the key and what is wrong.
    """
    sources: dict[str, Declaration] = {}
    for path in paths:
        declaration = _declaration(_parse(path), path)
        if declaration.type in sources:
            raise DeclarationError(f"{path}: type: {declaration.type!r} is also {sources[declaration.type].path}'s")
        sources[declaration.type] = declaration
    declarations = Declarations(dict(sorted(sources.items())))
    _check_together(declarations)
    return declarations


def _parse(path: Path) -> _File:
    try:
        text = path.read_text("utf-8")
        # _UniqueKeyLoader is a SafeLoader: it builds plain values only.
        content = yaml.load(text, _UniqueKeyLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path}: is not YAML: {error}") from None
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        faults = (
            f"{path}: {'.'.join(str(k) for k in fault['loc'] if k != '[key]') or 'file'}: "
            f"{fault['msg'].removeprefix('Value error, ')}, got {fault['input']!r}"
            for fault in error.errors()
        )
        raise DeclarationError("\n".join(faults)) from None


def _declaration(file: _File, path: Path) -> Declaration:
    attributes = {n: Attribute(n, a.description, a.type, tuple(a.enum)) for n, a in file.attributes.items()}
    tables = {n: Table(n, t.description, t.interval, t.zone, t.labels) for n, t in file.tables.items()}
    metrics = {name: _metric(name, metric) for name, metric in file.metrics.items()}
    events = {
        name: Event(name, e.key or _key(name), e.description, Severity(e.severity), tuple(e.attributes), e.source)
        for name, e in file.events.items()
    }
    declaration = Declaration(
        file.type, file.scope, file.service, file.description, attributes, tables, metrics, events, path
    )
    for fault in _faults(declaration):
        raise DeclarationError(f"{path}: {fault}")
    return declaration


def _metric(name: str, metric: _Metric) -> Metric:
    kind, value = next(
        (kind, value)
        for kind, value in ((Kind.GAUGE, metric.gauge), (Kind.SUM, metric.sum), (Kind.HISTOGRAM, metric.histogram))
        if value is not None
    )
    monotonic = isinstance(value, _Sum) and value.monotonic
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
        source=metric.source,
    )


def _key(name: str) -> str:
    return name.replace(".", "_")


def _faults(declaration: Declaration) -> Iterator[str]:
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


def _check_together(declarations: Declarations) -> None:
    owners: dict[str, Path] = {}
    fed: dict[tuple[str, str], Column] = {}
    for source in declarations:
        for name in [*source.metrics, *source.events, *source.tables]:
            if name in owners:
                raise DeclarationError(f"{source.path}: {name}: is already declared in {owners[name]}")
            owners[name] = source.path
    for source in declarations:
        for metric in source.metrics.values():
            for column in metric.columns:
                place = f"{source.path}: metrics.{metric.name}.columns.{column.name}"
                table = declarations.tables.get(column.table)
                if table is None:
                    raise DeclarationError(f"{place}: no file declares the table {column.table!r}")
                if missing := set(metric.attributes) - set(column.when) - {table.zone}:
                    raise DeclarationError(f"{place}.when: says nothing of {', '.join(sorted(missing))}")
                feeder = fed.setdefault((column.table, column.name), column)
                if feeder is not column:
                    raise DeclarationError(f"{place}: {feeder.metric} feeds this column already")
