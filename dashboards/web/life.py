"""A message's life in steps that a person reads: what each event says happened, in order of time. No I/O.

Haraka tells a transaction in one event when it is over. How long its parts took tells when they began: so the client's
connection, Rspamd's scan and the storing stand where they were, and what Zone-MTA did meanwhile stands between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from timescale_sink.api.filters import Event

Tone = Literal["good", "warn", "bad", ""]
_MOST_NAMES = 10
_TONES: Mapping[str, Tone] = {
    "delivered": "good",
    "stored": "good",
    "forwarded": "good",
    "queued": "good",
    "accepted": "good",
    "deferred": "warn",
    "abandoned": "warn",
    "deleted": "warn",
    "dropped": "warn",
    "discarded": "warn",
    "unknown": "warn",
    "refused": "bad",
    "rejected": "bad",
    "recipient_rejected": "bad",
    "connection_denied": "bad",
    "no action": "good",
    "reject": "bad",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to the message.

    Attributes:
        node: the id of the node where it did.
        part: who did it: Haraka, Rspamd, storage, Zone-MTA.
        facts: what is told of it, names and texts.
        event: which says so.
        begins: it is the begin of what the event is the end of.
    """

    time: datetime
    node: str
    part: str
    title: str
    tone: Tone
    facts: tuple[tuple[str, str], ...]
    event: Event
    begins: bool = False


def tone(state: str) -> Tone:
    """Whether a state is one to be glad of."""
    return _TONES.get(state, "")


def steps(events: Iterable[Event]) -> list[Step]:
    """The steps of events that are in order of time."""
    found = [step for event in events for step in _steps(event)]
    # Of one moment a transaction's begin stands before what came of it; otherwise the order of the events stays.
    return sorted(found, key=lambda step: (step.time, not step.begins))


def headline(event: Event) -> Step:
    """What an event says in one line."""
    *_, last = _steps(event)
    return last


def trace_id(event: Event) -> str:
    """By which id the message of an event is found."""
    for id_ in (event.values.get("message_id"), event.values.get("queue_id")):
        if isinstance(id_, str) and id_:
            return id_
    return str(event.event_id)


def addresses(event: Event) -> str:
    """From whom to whom, as far as the event says it."""
    user, domain = event.values.get("from_user"), event.values.get("from_domain")
    sender = event.attributes.get("email.from.address") or (f"{user or ''}@{domain}" if domain else user)
    recipients = _names(event.attributes.get("email.to.address"))
    return " → ".join(part for part in (str(sender or ""), recipients) if part)


def everything(event: Event) -> str:
    """All that the event says, a line for each name."""
    said = {"event_name": event.name, "event_id": event.event_id, "instance": event.instance, **event.values}
    return "\n".join(f"{name}: {_text(value)}" for name, value in {**said, **event.attributes}.items())


def _steps(event: Event) -> Iterator[Step]:
    source, _, what = event.name.partition(".")
    if source == "haraka" and what.startswith("message."):
        yield from _transaction(event)
    elif "status" in event.values:
        yield _attempt(event)
    else:
        yield _one(event)


def _transaction(event: Event) -> Iterator[Step]:
    said = event.attributes
    client = str(event.values.get("client_ip", "a client"))
    yield _step(
        event,
        f"Connection of {client}",
        before="haraka.transaction.duration",
        begins=True,
        reverse_DNS=said.get("haraka.client.name"),
        hello=said.get("haraka.hello.name"),
        TLS=event.values.get("tls"),
        user=said.get("user.name"),
        envelope=addresses(event),
        refused=_names(said.get("haraka.recipient.refused.address")),
    )
    if any(name.startswith("rspamd.") for name in said) or "spam_score" in event.values:
        yield _scan(event)
    yield _end(event)


def _scan(event: Event) -> Step:
    score, action = event.values.get("spam_score"), event.values.get("spam_action")
    error, reason = event.attributes.get("rspamd.error"), event.attributes.get("rspamd.skip.reason")
    required = event.attributes.get("rspamd.required_score")
    if score is not None:
        title = f"Score {round(score, 2):g}" + (f" of {required:g}" if isinstance(required, int | float) else "")
        title += f": {action}" if action else ""
    elif error:
        title = "Not scanned, for Rspamd failed"
    else:
        title = "Not scanned"
    symbols = event.values.get("symbols")
    weighed = sorted(symbols.items(), key=lambda item: -abs(item[1])) if isinstance(symbols, dict) else []
    return _step(
        event,
        title,
        part="Rspamd",
        tone="bad" if error else _TONES.get(str(action), "warn") if action else "",
        before="haraka.queue.duration",
        symbols=", ".join(f"{name} ({round(score, 2):g})" for name, score in weighed),
        took=_seconds(event.attributes.get("rspamd.scan.time")),
        reason=reason,
        error=error,
    )


def _end(event: Event) -> Step:
    said = event.attributes
    outcome = str(event.values.get("outcome", "unknown"))
    stored = event.values.get("storage_status")
    plugin = said.get("haraka.storage.plugin") if stored else said.get("haraka.plugin")
    state = str(stored) if stored else outcome
    return _step(
        event,
        state.capitalize() + (f" by {plugin}" if plugin else ""),
        part="Storage" if stored else "Haraka",
        tone=tone(state) if outcome == "accepted" else tone(outcome),
        answer=said.get("haraka.storage.text"),
        reply=_reply(event),
        id=said.get("haraka.storage.id"),
        size=_bytes(event.values.get("size_bytes")),
        why=said.get("error.type"),
        took=_seconds(said.get("haraka.transaction.duration")),
    )


def _attempt(event: Event) -> Step:
    values, said = event.values, event.attributes
    mx, address = values.get("mx"), values.get("mx_ip")
    where = (
        f"{mx} [{address}]" if mx and address and mx != address else str(mx or address or values.get("to_domain", ""))
    )
    number = values.get("attempt")
    title = f"Attempt {number}" if number else "Attempt"
    if said.get("network.protocol.name") == "lmtp":
        title += " by LMTP"
    state = str(values["status"])
    return _step(
        event,
        title + (f" at {where}" if where else "") + f": {state}",
        tone=tone(state),
        recipient=_names(said.get("email.to.address")),
        answer=_reply(event),
        category=values.get("category"),
        interface=said.get("zonemta.interface"),
        zone=values.get("zone"),
        from_address=values.get("source_ip"),
        TLS=said.get("tls.protocol.version"),
        took=_seconds(values.get("duration")),
        in_queue=_seconds(said.get("zonemta.queue.duration") or said.get("haraka.delivery.duration")),
        next_attempt=said.get("zonemta.next_attempt.time") or said.get("haraka.next_attempt.time"),
        error=said.get("error.type") if values.get("smtp_code") is None else None,
    )


def _one(event: Event) -> Step:
    """An event that is one step."""
    said, outcome = event.attributes, str(event.values.get("outcome", ""))
    about = said.get("zonemta.bounce.message.id") or said.get("haraka.bounce.message_id")
    title = _TITLES.get(event.name, event.name)
    if about:
        title = f"Bounce about {about} queued"
    return _step(
        event,
        title,
        tone=tone(outcome),
        client=event.values.get("client_ip"),
        user=said.get("user.name"),
        interface=said.get("zonemta.interface"),
        envelope=addresses(event),
        plugin=said.get("haraka.plugin"),
        reply=_reply(event),
        reason=said.get("zonemta.reason"),
        size=_bytes(event.values.get("size_bytes")),
        queue_id=event.values.get("queue_id"),
    )


_TITLES: Mapping[str, str] = {
    "zonemta.message.queued": "Taken into the queue",
    "zonemta.message.refused": "Refused before the queue",
    "zonemta.message.dropped": "Thrown away",
    "zonemta.message.deleted": "Deleted from the queue",
    "haraka.recipient.rejected": "Recipient refused",
    "haraka.connection.denied": "Connection denied",
    "haraka.bounce.queued": "Bounce queued",
}
_PARTS: Mapping[str, str] = {"haraka": "Haraka", "zonemta": "Zone-MTA"}


def _step(
    event: Event,
    title: str,
    *,
    part: str = "",
    tone: Tone = "",
    before: str = "",
    begins: bool = False,
    **facts: Any,
) -> Step:
    """A step; ``before``: the attribute that says by how many seconds it was before the event."""
    seconds = event.attributes.get(before, 0)
    told = tuple((name.replace("_", " "), str(value)) for name, value in facts.items() if value not in (None, ""))
    return Step(
        event.time - timedelta(seconds=seconds if isinstance(seconds, int | float) else 0),
        event.node,
        part or _PARTS.get(event.name.partition(".")[0], event.name.partition(".")[0]),
        title,
        tone,
        told,
        event,
        begins,
    )


def _reply(event: Event) -> str:
    """What a server answered: its text, the code before it where the text has none."""
    code = event.values.get("smtp_code", event.attributes.get("smtp.response.status_code"))
    text = str(event.values.get("response", event.attributes.get("smtp.response.text", "")))
    return text if code is None or text.startswith(str(code)) else f"{code} {text}".strip()


def _names(value: Any) -> str:
    names = [str(name) for name in value] if isinstance(value, list) else [str(value)] if value else []
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _seconds(value: Any) -> str:
    return f"{value:,.3g} s" if isinstance(value, int | float) else ""


def _bytes(value: Any) -> str:
    return f"{value:,} B" if isinstance(value, int) else ""


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
