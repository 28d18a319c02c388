"""Renders the declarations as the pages under ``docs/reference/``.

One page a source and an index; ``postel describe --write docs/reference`` writes them, and a test compares them with
what is checked in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from postel.errors import PostelError
from postel.signals.derivation import is_derived
from postel.signals.model import (
    Column,
    Declaration,
    Declarations,
    Event,
    EventColumn,
    EventTable,
    Metric,
    Table,
)

# What every page begins with; nothing else is replaced or removed.
_MARK = "<!-- Made by `postel describe"
_HEAD = f"{_MARK} --write docs/reference` from the metadata.yaml files; do not edit. -->"


def render(declarations: Declarations) -> dict[str, str]:
    """All pages: file name -> Markdown text."""
    pages = {"README.md": "\n".join(_index(declarations)) + "\n"}
    for declaration in declarations:
        pages[f"{declaration.type}.md"] = "\n".join(_page(declaration, declarations)) + "\n"
    return pages


def write(pages: Mapping[str, str], folder: Path) -> None:
    """Write all pages into ``folder`` and remove pages of sources that are gone.

    Raises:
        PostelError: a file there is somebody's own, or the folder cannot be written; the message names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = {page.name for page in folder.glob("*.md") if page.read_text("utf-8", "replace").startswith(_MARK)}
        if foreign := sorted(name for name in pages if name not in made and (folder / name).exists()):
            raise PostelError(f"{folder / foreign[0]} is not a page of the reference; write it into another folder")
        for name in made - pages.keys():
            (folder / name).unlink()
        for name, text in pages.items():
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise PostelError(f"{error.filename or folder}: cannot be written: {error.strerror}") from None


def _index(declarations: Declarations) -> Iterator[str]:
    yield _HEAD
    yield ""
    yield "# What Postel emits"
    yield ""
    yield from _table(
        ("Source", "Metrics", "Events", "Typed tables", ""),
        [
            (
                f"[{d.type}]({d.type}.md)",
                str(len(d.metrics)),
                str(len(d.events)),
                ", ".join(f"`{name}`" for name in d.tables),
                d.description,
            )
            for d in declarations
        ],
    )


def _page(declaration: Declaration, declarations: Declarations) -> Iterator[str]:
    yield _HEAD
    yield ""
    yield f"# {declaration.type}"
    yield ""
    yield declaration.description
    yield ""
    if not declaration.shared:
        yield f"Scope `{declaration.scope}`, resource `service.name` = `{declaration.service}`."
    for table in declaration.tables.values():
        yield from _typed_table(table, declarations)
    for event_table in declaration.event_tables.values():
        yield from _event_table(event_table, declarations)
    if declaration.metrics:
        yield from ("", "## Metrics")
    for metric in declaration.metrics.values():
        yield from _metric(metric)
    if declaration.events:
        yield from ("", "## Events")
    for event in declaration.events.values():
        yield from _event(event)
    if declaration.attributes:
        yield from ("", "## Attributes", "")
        yield from _table(
            ("Attribute", "Type", "Values", ""),
            [
                (f"`{a.name}`", a.type, ", ".join(f"`{v}`" for v in a.enum) or "any", a.description)
                for a in declaration.attributes.values()
            ],
        )


def _typed_table(table: Table, declarations: Declarations) -> Iterator[str]:
    yield from ("", f"## Table `{table.name}`", "", table.description, "")
    yield f"Key: time (every {table.interval} s), node_id, instance, zone" + (
        f" (from `{table.zone}`)." if table.zone else " (always '')."
    )
    yield ""
    rows = [
        (f"`{c.name}`", c.type, _feed(c), declarations.metrics[c.metric].unit)
        for c in declarations.columns_of(table.name)
    ]
    rows += [(f"`{name}`", "text", f"resource attribute `{source}`", "") for name, source in table.labels.items()]
    yield from _table(("Column", "Type", "Fed by", "Unit"), rows)


def _event_table(table: EventTable, declarations: Declarations) -> Iterator[str]:
    yield from ("", f"## Table `{table.name}`", "", table.description, "")
    yield "Key: event_id, time; beside it node_id, instance and event_name. `attributes` has what no column holds."
    yield ""
    yield from _table(
        ("Column", "Type", "Fed by", ""),
        [(f"`{c.name}`", c.type, _event_feed(c), c.description) for c in table.columns],
    )
    rows = [
        (f"`{event.name}`", ", ".join(f"{column} = {value}" for column, value in event.row.values.items()))
        for event in declarations.events.values()
        if event.row and event.row.table == table.name
    ]
    yield from ("", "Its events, and what each says by its name:", "")
    yield from _table(("Event", "Columns"), rows)


def _event_feed(column: EventColumn) -> str:
    if not column.attributes:
        return "the event's name"
    of = f"the {column.part} of " if column.part else ""
    kind = "resource attribute " if column.resource else ""
    return of + kind + " or ".join(f"`{name}`" for name in column.attributes)


def _feed(column: Column) -> str:
    return f"`{column.metric}`" + (f" where {_equal(column.when)}" if column.when else "")


def _metric(metric: Metric) -> Iterator[str]:
    monotonic = ", cumulative and monotonic" if metric.monotonic else ""
    yield from ("", f"### `{metric.name}`", "", metric.description, "")
    yield f"- {metric.kind.value}{monotonic}, {metric.value_type}, unit `{metric.unit}`"
    yield from _used(metric.attributes)
    if metric.bounds:
        yield "- buckets up to " + ", ".join(f"{bound:.15g}" for bound in metric.bounds) + ", and beyond"
    if metric.columns:
        yield "- typed columns: " + ", ".join(f"`{c.table}.{c.name}`" for c in metric.columns)
    if is_derived(metric):
        yield f"- derived from {_derivation(metric.source)}"
    else:
        yield f"- source: {_source(metric.source)}"


def _derivation(source: Mapping[str, Any]) -> str:
    events = [f"`{name}`" + (f" ({_equal(fixed)})" if fixed else "") for name, fixed in source["events"].items()]
    parts = ["the events " + ", ".join(events)]
    if source["when"]:
        wanted = (f"`{name}` is {_either(values)}" for name, values in source["when"].items())
        parts.append("where " + " and ".join(wanted))
    if "value" in source:
        parts.append(f"value `{source['value']}`")
    return "; ".join(parts)


def _equal(values: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}` = `{value}`" for name, value in values.items())


def _either(values: Sequence[object]) -> str:
    return " or ".join(f"`{value}`" for value in values)


def _event(event: Event) -> Iterator[str]:
    yield from ("", f"### `{event.name}`", "", event.description, "")
    yield f"- severity {event.severity.value}"
    yield from _used(event.attributes)
    yield f"- source: {_source(event.source)}"


def _used(attributes: Sequence[str]) -> Iterator[str]:
    if attributes:
        yield "- attributes: " + ", ".join(f"`{name}`" for name in attributes)


def _source(source: object) -> str:
    if isinstance(source, dict):
        return ", ".join(f"{key} {_source(value)}" for key, value in source.items() if value not in ({}, [], None))
    return f"`{source}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
