"""What of a mail address may leave this host: ``[privacy] addresses``. Pure.

``keep``: all of it. ``hash``: the domain, and a digest in the place of the local part, the same for the same address on
every node, so that messages can still be joined by it. ``domain``: the domain alone. An address is replaced wherever it
stands in a record: in an attribute, in a server's answer, in the sentence. Message-IDs are no addresses and stay; they
are what a message is followed by.

A digest hides an address from those who read along, and from nobody who guesses: who knows an address can look for it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

_MESSAGE_ID = "email.message_id"
# RFC 5321's local part as it stands in logs: no spaces, brackets or quotes around it; addresses in SMTPUTF8 too.
_IN_TEXT = re.compile(r"[^\s<>()\[\],;:\"'@=]{1,256}@([\w-]+(?:\.[\w-]+)*)")
_DIGEST_BYTES = 8


class Privacy:
    """Replaces addresses in records.

    Args:
        addresses: the setting.
    """

    def __init__(self, addresses: Literal["keep", "hash", "domain"]) -> None:
        self._addresses = addresses

    def apply(self, record: LogRecord) -> None:
        """Replace every address in a record."""
        if self._addresses == "keep":
            return
        self._value(record.body)
        for attribute in record.attributes:
            if attribute.key != _MESSAGE_ID:
                self._value(attribute.value)

    def text(self, text: str) -> str:
        """A text with every address in it replaced."""
        return _IN_TEXT.sub(self._replaced, text) if self._addresses != "keep" and "@" in text else text

    def _value(self, value: AnyValue) -> None:
        match value.WhichOneof("value"):
            case "string_value":
                value.string_value = self.text(value.string_value)
            case "array_value":
                for item in value.array_value.values:
                    self._value(item)
            case "kvlist_value":
                for pair in value.kvlist_value.values:
                    self._value(pair.value)
            case _:
                pass

    def _replaced(self, found: re.Match[str]) -> str:
        domain = found[1].lower()
        if self._addresses == "domain":
            return f"@{domain}"
        # Local parts may differ by case, and those that people use do not.
        digest = hashlib.blake2b(found[0].lower().encode(), digest_size=_DIGEST_BYTES).hexdigest()
        return f"{digest}@{domain}"
