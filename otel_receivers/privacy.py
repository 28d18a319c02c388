"""What of a mail address may leave this host: ``[privacy] addresses``. Pure.

``keep``: all of it. ``hash``: the domain, and a digest in the place of the local part, the same for the same address on
every node, so that messages can still be joined by it. ``domain``: the domain alone. An address is replaced wherever it
stands: in an attribute of a record, its scope or its resource, in a key, in a server's answer, in the sentence. A login
without a domain is a local part: a digest, or not there at all. Message-IDs are no addresses and stay; they are what a
message is followed by.

A digest hides an address from those who read along, and from nobody who guesses: who knows an address can look for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableSequence
from typing import Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from otel_receivers.addresses import replace_addresses

_MESSAGE_IDS = frozenset({"email.message_id", "haraka.bounce.message_id"})
# Attributes that are an address and nothing else, so that any character before its last @ is of the local part.
_ADDRESSES = frozenset(
    {
        "email.from.address",
        "email.to.address",
        "haraka.recipient.refused.address",
        "wildduck.address",
        "wildduck.message.from.address",
        "zonemta.return_path",
    }
)
_LOGINS = frozenset({"user.name", "enduser.id"})
_EMPTY = AnyValue(string_value="")
_DIGEST_BYTES = 8


class Privacy:
    """Replaces addresses.

    Args:
        addresses: the setting.
    """

    def __init__(self, addresses: Literal["keep", "hash", "domain"]) -> None:
        self._addresses = addresses

    def apply(self, logs: ResourceLogs) -> None:
        """Replace every address in a resource and its records."""
        if self._addresses == "keep":
            return
        self._attributes(logs.resource.attributes)
        for scope_logs in logs.scope_logs:
            self._attributes(scope_logs.scope.attributes)
            for record in scope_logs.log_records:
                self._record(record)

    def text(self, text: str) -> str:
        """A text with every address in it replaced."""
        return text if self._addresses == "keep" else replace_addresses(text, self._local_part)

    def address(self, text: str) -> str:
        """A text that is one address, or a local part alone."""
        if self._addresses == "keep" or not text:
            return text
        local_part, at, domain = text.rpartition("@")
        if not at:
            return self._local_part(text, "")
        if len(local_part) > 1 and local_part[0] == local_part[-1] == '"':
            return self.text(text)  # what is quoted and what is not are the same address
        return f"{self._local_part(local_part, domain.lower()) if local_part else ''}@{domain.lower()}"

    def _record(self, record: LogRecord) -> None:
        record.event_name = self.text(record.event_name)
        self._value(record.body, "")
        self._attributes(record.attributes)

    def _attributes(self, attributes: MutableSequence[KeyValue]) -> None:
        nothing: list[int] = []
        for index, attribute in enumerate(attributes):
            key, value = attribute.key, attribute.value
            if key not in _MESSAGE_IDS:
                self._value(value, key)
                if (shown := self.text(key)) != key:
                    attribute.key = shown
                if key in _LOGINS and value == _EMPTY:
                    nothing.append(index)
        for index in reversed(nothing):
            del attributes[index]

    def _value(self, value: AnyValue, key: str) -> None:
        match value.WhichOneof("value"):
            case "string_value":
                text = value.string_value
                shown = self.address(text) if key in _ADDRESSES or key in _LOGINS else self.text(text)
                if shown != text:
                    value.string_value = shown
            case "bytes_value":
                # A text all the same, where it has an address in it.
                text = value.bytes_value.decode(errors="surrogateescape")
                value.bytes_value = self.text(text).encode(errors="surrogateescape")
            case "array_value":
                for item in value.array_value.values:
                    self._value(item, key)
            case "kvlist_value":
                self._attributes(value.kvlist_value.values)
            case _:
                pass

    def _local_part(self, local_part: str, domain: str) -> str:
        if self._addresses == "domain":
            return ""
        # Local parts may differ by case, and those that people use do not.
        whole = f"{local_part}@{domain}" if domain else local_part
        return hashlib.blake2b(whole.lower().encode(errors="surrogateescape"), digest_size=_DIGEST_BYTES).hexdigest()
