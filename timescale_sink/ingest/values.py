"""OTLP values as PostgreSQL takes them: times, texts, JSON, ids. Pure.

What a column cannot hold raises :class:`UnstorableError` with the reason that goes to ``dead_letter``.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
# A clock may be wrong by this much; what lies further ahead would sit in every "latest" for years.
AHEAD = timedelta(days=1)
# Bytes of a text that is part of a key: three of them and a time fit into PostgreSQL's index row (a third of a page).
KEY_BYTES = 512
# Microseconds.
HOUR = 3_600_000_000
SMALLINT_MAX = 2**15 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UnstorableError(ValueError):
    """A record that no table can hold; the message is its reason in ``dead_letter``."""


def moment(unix_nano: int, now: datetime) -> datetime:
    """The time of a record, to the microsecond that PostgreSQL keeps.

    Raises:
        UnstorableError: there is none (0), or it lies more than `AHEAD` after ``now``.
    """
    if unix_nano == 0:
        raise UnstorableError("it has no time")
    at = instant(unix_nano)
    if at > now + AHEAD:
        raise UnstorableError(f"its time {at.isoformat()} lies more than a day ahead")
    return at


def instant(unix_nano: int) -> datetime:
    """Any time that 64 bits of nanoseconds can name: until the year 2554."""
    return from_microseconds(unix_nano // 1000)


def from_microseconds(since_1970: int) -> datetime:
    """A time; `microseconds` is the way back."""
    return _EPOCH + timedelta(microseconds=since_1970)


def microseconds(at: datetime) -> int:
    """Since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def optional_instant(unix_nano: int) -> datetime | None:
    """None for 0, by which OTLP says that a time is unknown."""
    return instant(unix_nano) if unix_nano else None


def hour(at: datetime) -> datetime:
    """The hour of the ledger that a time belongs to (UTC)."""
    return at.replace(minute=0, second=0, microsecond=0)


def by_hour(times: Iterable[int]) -> list[tuple[datetime, int]]:
    """Each hour of the ledger, and how many of these times (microseconds since 1970) belong to it."""
    counts: Counter[int] = Counter()
    # By their time first, in C: many points have the same.
    for time, count in Counter(times).items():
        counts[time // HOUR] += count
    return [(from_microseconds(number * HOUR), count) for number, count in counts.items()]


def text(value: str) -> str:
    """The text with U+FFFD for NUL, which PostgreSQL refuses in text and jsonb."""
    return value.replace("\0", "\ufffd") if "\0" in value else value


def key_text(value: str, what: str) -> str:
    """A text for a key column.

    Raises:
        UnstorableError: it has more than `KEY_BYTES` bytes.
    """
    if not is_key(value):
        raise UnstorableError(f"{what} has {len(value.encode())} bytes, a key column holds {KEY_BYTES}")
    return text(value)


def is_key(value: str) -> bool:
    """Whether a key column can hold a text."""
    return len(value) * 4 <= KEY_BYTES or len(value.encode()) <= KEY_BYTES


def hour_of_letter(unix_nano: int, now: datetime) -> datetime:
    """The hour under which a dead letter is counted: its own where that can be, so that a repetition finds it."""
    try:
        return hour(moment(unix_nano, now))
    except UnstorableError:
        return hour(instant(unix_nano)) if unix_nano else datetime.fromtimestamp(0, now.tzinfo)


def severity(number: int) -> int:
    """A severity number; OTLP's are 1 to 24, 0 for none, and its enumeration is open.

    Raises:
        UnstorableError: it does not fit into 16 bits.
    """
    if not -SMALLINT_MAX <= number <= SMALLINT_MAX:
        raise UnstorableError(f"the severity number {number} does not fit into 16 bits")
    return number


def whole(value: float) -> int:
    """A whole number within 64 bits.

    Raises:
        UnstorableError: it is none.
    """
    if not math.isfinite(value) or value != int(value):
        raise UnstorableError(f"{value!r} is not a whole number, which its column holds")
    number = int(value)
    if not INT64_MIN <= number <= INT64_MAX:
        raise UnstorableError(f"{number} does not fit into 64 bits")
    return number


def finite(value: float) -> float:
    """A number that an average survives.

    Raises:
        UnstorableError: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise UnstorableError(f"{value!r} is not a number that its column holds")
    return float(value)


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as JSON values; of a key that is there twice, against the specification, the last counts."""
    return {text(pair.key): plain(pair.value) for pair in pairs}


def plain(value: AnyValue) -> Any:
    """An AnyValue as a JSON value: bytes as base64, NaN and infinities as their names.

    No decoder of OTLP lets a value nest deeper than 50 levels, so that this recursion has an end.
    """
    kind = value.WhichOneof("value")
    result: Any = None
    match kind:
        case "string_value":
            result = text(value.string_value)
        case "bool_value" | "int_value":
            result = getattr(value, kind)
        case "double_value":
            number = value.double_value
            result = number if math.isfinite(number) else repr(number)
        case "array_value":
            result = [plain(item) for item in value.array_value.values]
        case "kvlist_value":
            result = {text(pair.key): plain(pair.value) for pair in value.kvlist_value.values}
        case "bytes_value":
            result = base64.b64encode(value.bytes_value).decode()
    return result


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: equal values give equal bytes."""
    # Copied, since orjson's result keeps the buffer that it was written into: 3.7 KiB for the two bytes of {}.
    return bytes(memoryview(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))


def fingerprint(*parts: bytes) -> UUID:
    """A 128-bit hash of parts, each with its length, so that no two lists of parts run into each other."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return UUID(bytes=digest.digest())
