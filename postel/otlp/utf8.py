"""Puts right what is no UTF-8 in a request, so that one text costs a character of itself and not the whole request.

Both protobuf and JSON demand UTF-8, and a decoder refuses all of a request for one wrong byte. But the
Collector does not look at what it hands on (Go's strings are bytes), and puts many senders' records into one request:
refused, all of them would be lost for a line in Latin-1. So a request that cannot be read is looked at once more, its
wrong bytes become U+FFFD, and what is broken in any other way stays so.

Pure. Sources: protobuf's "Encoding" (the wire format); RFC 8259 section 8 (JSON is UTF-8; lone surrogates).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from postel.otlp import varint

# The wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
# As protobuf itself reads.
_MAX_DEPTH = 100
# Levels at which protobuf is asked first, an attribute's value among them. Asked at each of 100 levels it would read
# what lies deepest 100 times.
_ASKED_DEPTH = 6
# What is escaped and no half of a pair, before the halves that stand alone: the first that fits is taken.
_SURROGATES = re.compile(
    rb"(\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def mend_json(body: bytes) -> bytes:
    """JSON with U+FFFD for bytes that are no UTF-8 and for halves of surrogate pairs; what is right stays the same."""
    valid = body.decode(errors="replace").encode()
    return _SURROGATES.sub(lambda found: found[1] or rb"\ufffd", valid)


def mend_protobuf(body: bytes, descriptor: Descriptor) -> bytes:
    """A message with U+FFFD for what is no UTF-8 in its strings.

    Only what protobuf cannot read is taken apart: of a request with one wrong text the parts above it, and not the
    thousands of records beside it.

    Raises:
        ValueError: it is no message.
    """
    return b"".join(_mended(body, descriptor, 0))


def _mended(body: bytes, descriptor: Descriptor, depth: int) -> Iterator[bytes]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    position = 0
    while position < len(body):
        start = position
        tag, position = varint.read(body, position)
        if tag & 7 == _VARINT:
            _, position = varint.read(body, position)
        elif tag & 7 == _BYTES:
            size, begin = varint.read(body, position)
            position = begin + size
            if position <= len(body) and (field := descriptor.fields_by_number.get(tag >> 3)):
                content = body[begin:position]
                mended = _mended_field(content, field, depth)
                if mended is not content:
                    yield body[start : start + _tag_size(body, start)] + varint.encoded(len(mended)) + mended
                    continue
        else:
            # Groups, which OTLP has none of, are no wire type here either.
            position += _FIXED.get(tag & 7, len(body))
        if position > len(body):
            raise ValueError("cut short, or of an unknown wire type")
        yield body[start:position]


def _mended_field(content: bytes, field: FieldDescriptor, depth: int) -> bytes:
    """The same object where nothing is wrong with it."""
    if field.type == FieldDescriptor.TYPE_STRING:
        try:
            content.decode()
        except UnicodeDecodeError:
            return content.decode(errors="replace").encode()
    elif (message := field.message_type) and (depth > _ASKED_DEPTH or not _is_readable(content, message)):
        return b"".join(_mended(content, message, depth + 1))
    return content


def _is_readable(content: bytes, descriptor: Descriptor) -> bool:
    try:
        GetMessageClass(descriptor).FromString(content)
    except DecodeError:
        return False
    return True


def _tag_size(body: bytes, start: int) -> int:
    return varint.read(body, start)[1] - start
