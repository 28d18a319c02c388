"""OTLP's JSON: the proto3 JSON mapping with three differences, which `google.protobuf.json_format` cannot express.

What OTLP changes (specification 1.x, "JSON Protobuf Encoding"): `trace_id` and `span_id` are hex, in any case, not
base64; enums are integers; unknown fields are ignored. What is sent here follows it to the letter. What is received
is read as the Collector reads it, more liberally: enum names and the ``snake_case`` field names are taken as well,
64-bit integers may be strings or numbers.

Every input has a fate: a message, or `Malformed` with the path of the field. Malformed are NaN and Infinity as bare
words, numbers out of range, two members of one oneof, one field under both of its names, and messages nested deeper
than protobuf itself reads (100). Wrong UTF-8 and lone surrogates are put right (`utf8`). Of a key given twice the last
counts, as RFC 8259 section 4 says that most do and as the Collector does.

`json_format.ParseDict` builds its table of field names for every message anew; here one table per message type is
kept, which reads a request several times faster.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from postel.otlp.errors import Malformed
from postel.otlp.utf8 import mend_json

# Messages below the request. upb, which reads and writes protobuf, goes no deeper either; a deeper message could be
# read here but never be sent on.
MAX_DEPTH = 100

_IDS = frozenset({"traceId", "spanId", "parentSpanId"})
_ID_FIELDS = frozenset({"trace_id", "span_id", "parent_span_id"})
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,20}", re.ASCII)
_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def decode(body: bytes, message: Message, *, mend: bool = True) -> None:
    """Fill an empty `message` from OTLP JSON.

    Args:
        body: the JSON.
        message: an empty one.
        mend: put wrong UTF-8 right; False: it is malformed.

    Raises:
        Malformed: the body is no JSON, or does not fit the message.
    """
    value = _read(body, mend=mend)
    try:
        _fill(message, value, 0)
    except _WrongError as error:
        place = ".".join(reversed(error.path)).replace(".[", "[") or "the body"
        raise Malformed(f"{place}: {error}") from error


def encode(message: Message) -> bytes:
    """Write `message` as one line of OTLP JSON: hex ids, lowerCamelCase, integer enums, 64-bit integers as strings."""
    value = json_format.MessageToDict(message, use_integers_for_enums=True)
    _ids_to_hex(value)
    return orjson.dumps(value)


def _read(body: bytes, *, mend: bool) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if mend:
            with contextlib.suppress(orjson.JSONDecodeError):
                return orjson.loads(mend_json(body))
        raise Malformed(f"the body is no JSON: {error}") from error


class _WrongError(Exception):
    """A value does not fit its field; each level adds its step to the path on the way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    # The oneof that the field is in, or its own name: what may be given once per message.
    group: str
    repeated: bool
    # None for a message.
    convert: Callable[[Any], Any] | None


@cache
def _fields(descriptor: Descriptor) -> dict[str, _Field]:
    table: dict[str, _Field] = {}
    for field in descriptor.fields:
        entry = _Field(
            name=field.name,
            group=field.containing_oneof.name if field.containing_oneof else field.name,
            repeated=field.is_repeated,
            convert=_converter(field),
        )
        table[field.name] = table[field.json_name] = entry
    return table


def _converter(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return None
    if field.enum_type:
        return partial(_enum, field.enum_type)
    if field.cpp_type in _BOUNDS:
        return partial(_integer, *_BOUNDS[field.cpp_type])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _hex if field.name in _ID_FIELDS else _base64
    return {
        FieldDescriptor.CPPTYPE_BOOL: _boolean,
        FieldDescriptor.CPPTYPE_DOUBLE: _double,
        FieldDescriptor.CPPTYPE_STRING: _string,
    }[field.cpp_type]


def _fill(message: Message, value: Any, depth: int) -> None:
    if type(value) is not dict:
        raise _WrongError("expected an object")
    if depth > MAX_DEPTH:
        raise _WrongError(f"nested deeper than {MAX_DEPTH}")
    fields = _fields(message.DESCRIPTOR)
    given: set[str] = set()
    for key, item in value.items():
        field = fields.get(key)
        if field is None or item is None:
            continue
        try:
            _once(field.group, given)
            if field.repeated:
                _extend(getattr(message, field.name), field.convert, item, depth)
            elif field.convert:
                setattr(message, field.name, field.convert(item))
            else:
                child = getattr(message, field.name)
                child.SetInParent()
                _fill(child, item, depth + 1)
        except _WrongError as error:
            error.path.append(key)
            raise


def _once(group: str, given: set[str]) -> None:
    if group in given:
        raise _WrongError("given twice, or together with another field that excludes it")
    given.add(group)


def _extend(container: Any, convert: Callable[[Any], Any] | None, items: Any, depth: int) -> None:
    if type(items) is not list:
        raise _WrongError("expected an array")
    for index, item in enumerate(items):
        try:
            if convert:
                container.append(convert(item))
            else:
                _fill(container.add(), item, depth + 1)
        except _WrongError as error:
            error.path.append(f"[{index}]")
            raise


def _integer(low: int, high: int, value: Any) -> int:
    if type(value) is int:
        number = value
    elif type(value) is float and value.is_integer():
        number = int(value)  # proto3 JSON takes 1.0 and 1e3 for integers
    elif type(value) is str and _INTEGER.fullmatch(value):
        number = int(value)
    else:
        raise _WrongError("expected an integer, as a number or a decimal string")
    if not low <= number <= high:
        raise _WrongError(f"the integer is not within {low} and {high}")
    return number


def _enum(enum: EnumDescriptor, value: Any) -> int:
    if type(value) is str and (known := enum.values_by_name.get(value)):
        return known.number
    if type(value) is not int:
        raise _WrongError(f"expected a number of the enum {enum.name}")
    return _integer(*_BOUNDS[FieldDescriptor.CPPTYPE_INT32], value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise _WrongError("expected true or false")
    return value


def _double(value: Any) -> float:
    if type(value) in (float, int):
        return float(value)
    if type(value) is str:
        if value in _SPECIAL:
            return _SPECIAL[value]
        if _NUMBER.fullmatch(value):
            return float(value)
    raise _WrongError("expected a number")


def _string(value: Any) -> str:
    if type(value) is not str:
        raise _WrongError("expected a string")
    return value


def _hex(value: Any) -> bytes:
    try:
        return binascii.unhexlify(_string(value))
    except ValueError as error:
        raise _WrongError("expected a string of hex digits, two a byte") from error


def _base64(value: Any) -> bytes:
    text = _string(value).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise _WrongError("expected base64") from error


def _ids_to_hex(value: Any) -> None:
    """Turn the base64 of ids into hex, in place. OTLP has no map fields, so that no key is a user's text."""
    if isinstance(value, list):
        for item in value:
            _ids_to_hex(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _IDS and isinstance(item, str):
                value[key] = base64.b64decode(item).hex()
            else:
                _ids_to_hex(item)
