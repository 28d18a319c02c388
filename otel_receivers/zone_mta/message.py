"""Turns Zone-MTA's answer about one message of its queue into what an operator asks: where it stands, and why.

Pure: bytes in, values out. What the answer does not say is None; what it says in another form than Zone-MTA does makes
no answer. Left out are the message's header, which is its content, and what a client sends to authenticate.

Source: Zone-MTA, lib/mail-queue.js (``getInfo``, ``deferDelivery``), lib/sender.js (``logtrail``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from otel_receivers.privacy import Privacy
from otel_receivers.prometheus import PageError
from otel_receivers.zone_mta.answers import answer, count_of

# Zone-MTA's own (@zone-eu/seq-index) are 18 hexadecimal digits. An id goes into the path of an API that asks for no
# password: nothing that means anything in a URL is one.
_ID = re.compile(r"[0-9A-Za-z]{1,64}").fullmatch
# Milliseconds that are a time of four digits' years.
_LAST_MILLISECOND = 253_402_300_799_999
_AUTH = re.compile(r"(AUTH +[\w-]+) +\S.*", re.IGNORECASE | re.DOTALL)
_CHALLENGE = "334"
_HIDDEN = "(not shown)"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the last attempt: ``kind`` is network, server, client, smtp and so on; ``time`` RFC 3339, UTC."""

    time: str | None
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """How one recipient stands.

    Attributes:
        seq: its number within the message, in hex from 001.
        zone: the sending zone.
        address: of the recipient.
        status: ``queued``: its next attempt is due; ``deferred``: it waits for the time of its next attempt.
        in_delivery: an attempt is being made by the instance that was asked.
        attempts: that were deferred so far; None: not said, as of one that is due.
        first_deferred, last_deferred, next_attempt: RFC 3339, UTC.
        response: why the last attempt was deferred.
        log: of the last attempt.
    """

    seq: str
    zone: str
    address: str
    status: str
    in_delivery: bool
    attempts: int | None
    first_deferred: str | None
    last_deferred: str | None
    next_attempt: str | None
    response: str | None
    log: tuple[LogLine, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A message that waits in the queue; its recipients are those that still wait.

    Attributes:
        id: the queue id.
        message_id: the header.
        from_address: the envelope sender, '' is the null sender.
        queued: when it was taken into the queue, RFC 3339, UTC.
        interface: where it came in.
        client_address: who handed it over.
        body_size: bytes.
    """

    id: str
    message_id: str | None
    from_address: str | None
    queued: str | None
    interface: str | None
    client_address: str | None
    body_size: int | None
    recipients: tuple[Recipient, ...]

    def to_dict(self, privacy: Privacy | None = None) -> dict[str, Any]:
        """As JSON has it, with what ``privacy`` lets out of addresses; None: all of them."""
        privacy = privacy or Privacy("keep")
        content = asdict(self)
        content["from_address"] = None if self.from_address is None else privacy.address(self.from_address)
        content["recipients"] = list(content["recipients"])
        for recipient in content["recipients"]:
            recipient["address"] = privacy.address(recipient["address"])
            recipient["response"] = None if recipient["response"] is None else privacy.text(recipient["response"])
            recipient["log"] = [{**line, "text": privacy.text(line["text"])} for line in recipient["log"]]
        return content

    def with_deliveries_of(self, others: Iterable[Message]) -> Message:
        """The same, with the attempts under way that other instances on the database know of, each its own."""
        under_way = {(each.zone, each.seq) for other in others for each in other.recipients if each.in_delivery}
        recipients = (replace(r, in_delivery=r.in_delivery or (r.zone, r.seq) in under_way) for r in self.recipients)
        return replace(self, recipients=tuple(recipients))


def is_id(text: str) -> bool:
    """Whether this can be the queue id of a message."""
    return _ID(text) is not None


def message(body: bytes, queue_id: str) -> Message:
    """Read an answer to ``GET /message/:id``.

    Raises:
        PageError: it is no whole answer, or not about this message.
    """
    content = answer(body)
    found = content.get("messages")
    if not isinstance(found, list) or not found:
        raise PageError("unexpected_page", "an answer without a list of recipients")
    # Absent where nothing but the queue's entries is left of the message.
    meta = content["meta"] if isinstance(content.get("meta"), dict) else {}
    return Message(
        id=queue_id,
        message_id=_text(meta.get("messageId")),
        from_address=_text(meta.get("from")),
        queued=_time(meta.get("time")),
        interface=_text(meta.get("interface")),
        client_address=_text(meta.get("origin")),
        body_size=count_of(meta.get("bodySize")),
        recipients=tuple(_recipient(each, queue_id) for each in found),
    )


def _recipient(said: Any, queue_id: str) -> Recipient:
    if not isinstance(said, dict) or said.get("id") != queue_id:
        raise PageError("unexpected_page", "a recipient of another message")
    needed = [said.get(name) for name in ("seq", "zone", "recipient", "status")]
    if not all(isinstance(text, str) for text in needed):
        raise PageError("malformed", "a recipient without number, zone, address or status")
    seq, zone, address, status = map(str, needed)
    if not seq:
        raise PageError("malformed", "a recipient with an empty number")
    deferred = said["deferred"] if isinstance(said.get("deferred"), dict) else {}
    log = deferred.get("log")
    return Recipient(
        seq=seq,
        zone=zone,
        address=address,
        status=status.lower(),
        in_delivery=bool(said.get("lock")),
        attempts=count_of(deferred.get("count")),
        first_deferred=_time(deferred.get("first")),
        last_deferred=_time(deferred.get("last")),
        next_attempt=_time(deferred.get("next")),
        response=_text(deferred.get("response")),
        log=_log(log if isinstance(log, list) else ()),
    )


def _log(lines: Sequence[Any]) -> tuple[LogLine, ...]:
    log: list[LogLine] = []
    challenged = False
    for line in lines:
        said: Mapping[str, Any] = line if isinstance(line, dict) else {}
        kind, text = _text(said.get("tnx")) or "", _text(said.get("message")) or ""
        if kind == "client":
            text = _HIDDEN if challenged else _AUTH.sub(rf"\1 {_HIDDEN}", text)
            challenged = False
        elif kind == "server":
            challenged = text.startswith(_CHALLENGE)
        log.append(LogLine(_time(said.get("time")), kind, text))
    return tuple(log)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _time(value: Any) -> str | None:
    """RFC 3339 with milliseconds, of milliseconds since 1970."""
    milliseconds = count_of(value)
    if milliseconds is None or milliseconds > _LAST_MILLISECOND:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
