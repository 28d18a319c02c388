"""Renders what the mail servers' plugins have to know of the declarations: names, types and severities, as JSON.

The plugins are JavaScript and read no YAML; ``postel describe --constants mail_plugins/lib/signals.json`` writes their
file, and a test compares it with what is checked in. In it are the events that a plugin makes, which their ``source``
says by ``hook`` or ``plugin``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from postel.errors import PostelError
from postel.signals.model import SEVERITY_NUMBER, Declaration, Declarations, Event


def render(declarations: Declarations) -> str:
    """The file's text: source -> scope, service, types of attributes, and events by their key."""
    sources = {declaration.type: _source(declaration) for declaration in declarations if _made_by_plugin(declaration)}
    return json.dumps(sources, indent=2) + "\n"


def write(text: str, path: Path) -> None:
    """Write the file.

    Raises:
        PostelError: it cannot be written; the message names it.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise PostelError(f"{path}: cannot be written: {error.strerror}") from None


def _source(declaration: Declaration) -> dict[str, Any]:
    events = _made_by_plugin(declaration)
    used = {name for event in events for name in event.attributes}
    return {
        "scope": declaration.scope,
        "service": declaration.service,
        "attributes": {name: a.type for name, a in declaration.attributes.items() if name in used},
        "events": {event.key: _event(event) for event in events},
    }


def _made_by_plugin(declaration: Declaration) -> list[Event]:
    return [event for event in declaration.events.values() if event.source.keys() & {"hook", "plugin"}]


def _event(event: Event) -> dict[str, Any]:
    return {
        "name": event.name,
        "severityNumber": SEVERITY_NUMBER[event.severity],
        "severityText": event.severity.value.upper(),
        "attributes": list(event.attributes),
        "source": dict(event.source),
    }
