"""What WildDuck tells a webhook, as an event. Pure.

Only the declared fields are taken (``source.fields`` in ``metadata.yaml``): what else WildDuck says, subjects of
messages and names among it, is read by nobody. It tells of no password.

WildDuck posts an event up to five times, until it is answered with 2xx, each time with the same content; where several
webhooks of it lead here, once for each, with another ``id``. So the id of the event is made of all but that.

Source: WildDuck's lib/events.js (names, ``time`` in milliseconds), webhooks.js (the request, ``id``).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from postel.otlp.errors import Malformed
from postel.signals import Declaration, Event

_NAMESPACE = uuid.UUID("5b0f0cf5-2a3e-5d1e-9c53-2f6d1b7a8e44")
# What webhooks.js adds for each webhook: an ObjectId and the webhook's number.
_DELIVERY = re.compile(r"[0-9a-f]{24}:\d+")
_OTHER = "*"
_MAX_TEXT = 1000
# 1970 to 2262, the nanoseconds of 64 bits.
_LAST_MILLISECOND = 9_223_372_036_854


@dataclass(frozen=True, slots=True)
class Told:
    """An event that WildDuck told.

    Attributes:
        key: of the event in the declaration.
        name: WildDuck's own.
        attributes: of the declared ones those that it said.
        time_unix_nano: when it happened; None where WildDuck did not say it.
        uid: the same for each time that it is told.
    """

    key: str
    name: str
    attributes: Mapping[str, str]
    time_unix_nano: int | None
    uid: str


class Vocabulary:
    """The events that are declared for webhooks.

    Args:
        declaration: of ``wildduck``.
        names: whether events hold usernames.
    """

    def __init__(self, declaration: Declaration, *, names: bool) -> None:
        self._events = {event.source["webhook"]: event for event in declaration.events.values() if _is_told(event)}
        self._left_out = frozenset() if names else frozenset({"user.name"})

    def read(self, body: bytes) -> Told:
        """Read a request's body.

        Raises:
            Malformed: it is no event of WildDuck's.
        """
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"the body is no JSON: {error}") from None
        name = content.get("ev") if isinstance(content, dict) else None
        if not isinstance(name, str) or not name:
            raise Malformed("the body is no event of WildDuck's: it has no text `ev`")
        event = self._events.get(name, self._events[_OTHER])
        return Told(event.key, name[:_MAX_TEXT], dict(self._attributes(event, content)), _time(content), _uid(content))

    def _attributes(self, event: Event, content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for field, attribute in event.source["fields"].items():
            value = _at(content, field)
            if isinstance(value, str) and value and attribute not in self._left_out:
                yield attribute, _without_secrets(value)[:_MAX_TEXT]


def _is_told(event: Event) -> bool:
    return "webhook" in event.source


def _at(content: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(content, Mapping):
            return None
        content = content.get(name)
    return content


def _time(content: Mapping[str, Any]) -> int | None:
    time = content.get("time")
    # JSON's true is no number, although Python's is.
    return time * 1_000_000 if type(time) is int and 0 < time <= _LAST_MILLISECOND else None


def _uid(content: Mapping[str, Any]) -> str:
    said = dict(content)
    delivery = said.get("id")
    if isinstance(delivery, str) and _DELIVERY.fullmatch(delivery):
        del said["id"]
    try:
        text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # orjson reads deeper than it writes.
        raise Malformed("the body is nested too deeply") from None
    return str(uuid.uuid5(_NAMESPACE, text.decode()))


def _without_secrets(value: str) -> str:
    """Mail may be forwarded to a URL, with a password in it or a path that is as good as one."""
    if "://" not in value:
        return value
    try:
        url = urlsplit(value)
    except ValueError:
        return value.partition("://")[0] + "://"
    return f"{url.scheme}://{url.hostname or ''}"
