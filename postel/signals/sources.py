"""Where a value comes from: the forms that ``source`` of a metric or an event may have in a ``metadata.yaml``.

The key of its kind names the origin, the others say how it is read. A further kind is a class here and a line in
`METRIC_SOURCES` or `EVENT_SOURCES`; what reads it is the source's receiver.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from postel.signals.model import AttributeValue
from postel.signals.schema import Name, Part, Text


class Source(Part):
    """A kind of source.

    Attributes:
        maps: the key under which the origin's own names stand for attributes of the metric; '' where there is none.
        alone: a receiver finds the metric by the origin, so that it can be the origin of one metric only.
    """

    maps: ClassVar[str] = ""
    alone: ClassVar[bool] = False


class Prometheus(Source):
    """A family of the server's Prometheus page; ``labels`` maps its labels to attributes.

    ``split`` names, for an attribute that the page does not have, the call of the server's API that the points with it
    come from: the page's are of the whole.
    """

    maps = "labels"
    alone = True
    prometheus: Text
    labels: dict[Text, Name] = Field(default_factory=dict)
    split: dict[Name, Text] | None = None


class Instrument(Source):
    """An instrument of opentelemetry-instrumentation-system-metrics.

    ``attributes`` maps its attributes to ours, ``values`` their values; ``name`` is its name where points come under
    another one than its configuration has.
    """

    maps = "attributes"
    alone = True
    instrument: Text
    name: Text | None = None
    attributes: dict[Text, Name] = Field(default_factory=dict)
    values: dict[Text, dict[Text, Text]] = Field(default_factory=dict)


class Api(Source):
    """A call of the server's API, by its path; the value is added up from its answers."""

    api: Text


class Reader(Source):
    """A part of the receiver, by its name or in words; ``values`` maps values that it finds to ours."""

    reader: Text
    values: dict[Text, dict[Text, Text]] = Field(default_factory=dict)


class Hook(Source):
    """A hook of the mail server that its plugin is called by; ``action`` is the entry's, where it sees several."""

    hook: Text
    action: Text | None = None


class Webhook(Source):
    """An event that the server tells whoever registered for it; ``fields`` maps what it says to attributes.

    A dot in a field's name leads into an object: ``from.address``.
    """

    maps = "fields"
    alone = True
    webhook: Text
    fields: dict[Text, Name] = Field(default_factory=dict)


class Plugin(Source):
    """A part of every plugin, whatever the server."""

    plugin: Text


class Events(Source):
    """Events that the agent's intake took, each once.

    ``events`` names them, each with the attributes of the metric whose value it fixes. ``attributes`` maps attributes
    of the events to those of the metric; ``value`` is the attribute whose value is recorded or added, without it each
    event adds 1; ``when`` names, for attributes of the events, the values of which one must be there.
    """

    maps = "attributes"
    events: dict[Name, dict[Name, AttributeValue]]
    attributes: dict[Name, Name] = Field(default_factory=dict)
    value: Name | None = None
    when: dict[Name, list[AttributeValue]] = Field(default_factory=dict)


METRIC_SOURCES: Mapping[str, type[Source]] = {
    "prometheus": Prometheus,
    "instrument": Instrument,
    "api": Api,
    "reader": Reader,
    "events": Events,
}
EVENT_SOURCES: Mapping[str, type[Source]] = {
    "api": Api,
    "reader": Reader,
    "hook": Hook,
    "plugin": Plugin,
    "webhook": Webhook,
}


def kind_of(source: Mapping[str, Any], kinds: Mapping[str, type[Source]]) -> str:
    """The key of a source's kind.

    Raises:
        ValueError: it has none of these kinds, or several.
    """
    named = [kind for kind in kinds if kind in source]
    if len(named) != 1:
        got = ", ".join(map(repr, source)) or "nothing"
        raise ValueError(f"needs exactly one of {', '.join(kinds)}, got {got}")
    return named[0]
