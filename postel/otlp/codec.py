"""Bytes to OTLP messages and back: compression, limits, protobuf and JSON.

Contract: `decode` returns a message or raises a kind of `Refused`, for every input whatever; it never allocates more
than the limit for what a body decompresses to; wrong UTF-8 is put right (`utf8`). Pure, but for `decode_aside`, which
keeps big bodies off the event loop.

Sources: OTLP specification 1.x, "OTLP/HTTP" (media types, gzip) and "JSON Protobuf Encoding"; RFC 1950 and 1952
(zlib, gzip); RFC 9110 section 8.4.1 (content codings). OTLP asks receivers for gzip; deflate is taken too, as the
Collector does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import zlib
from collections.abc import Iterator

from google.protobuf.message import DecodeError, Message

from postel.otlp import json_mapping
from postel.otlp.errors import Malformed, TooLarge, UnsupportedMedia
from postel.otlp.signal import ExportRequest, Signal
from postel.otlp.utf8 import mend_protobuf

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

# Bytes after decompression; above the Collector's batches of 2 MiB, below what would hurt a small host.
DEFAULT_LIMIT = 16 << 20

# zlib's wbits: 31 is a gzip header and trailer, 15 a zlib header and trailer.
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# A gzip file may be many members end to end (RFC 1952 section 2.2). Each step copies what is left, so that a body of
# a million empty members would cost a minute.
_MAX_MEMBERS = 64
# Bytes that are decompressed at a time. Each step copies what is left of the body.
_CHUNK = 1 << 20
# Below this a decode takes less than a millisecond or two, and a thread costs more than it frees.
_ASIDE = 64 << 10
# What is looked at of a body to weigh it: 7 us.
_SAMPLES = 16
_SAMPLE_BYTES = 256
# T for the tag of a message or string in one of the first eleven fields, L for a length up to 3.
_TAGS, _LENGTHS = range(0x0A, 0x5B, 8), range(4)
_TINY = bytes(ord("T" if byte in _TAGS else "L" if byte in _LENGTHS else ".") for byte in range(256))


def media_type(content_type: str) -> str:
    """Read `PROTOBUF` or `JSON` out of a ``Content-Type`` header, whatever its parameters and case.

    Raises:
        UnsupportedMedia: it is neither.
    """
    essence = content_type.partition(";")[0].strip().lower()
    if essence in (PROTOBUF, JSON):
        return essence
    raise UnsupportedMedia(f"media type {content_type[:100]!r} is not {PROTOBUF} or {JSON}")


def content_coding(content_encoding: str) -> str:
    """Read the one coding out of a ``Content-Encoding`` header: ``gzip``, ``deflate``, or empty for identity.

    Raises:
        UnsupportedMedia: it is another one, or more than one.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding in _WINDOW:
        return coding
    raise UnsupportedMedia(f"content encoding {content_encoding[:100]!r} is not gzip, deflate or identity")


def decode(
    signal: Signal,
    body: bytes,
    content_type: str,
    content_encoding: str = "",
    limit: int = DEFAULT_LIMIT,
    *,
    mend: bool = True,
) -> ExportRequest:
    """As `decode_both`; the request alone."""
    return decode_both(signal, body, content_type, content_encoding, limit, mend=mend)[0]


def decode_both(
    signal: Signal,
    body: bytes,
    content_type: str,
    content_encoding: str = "",
    limit: int = DEFAULT_LIMIT,
    *,
    mend: bool = True,
) -> tuple[ExportRequest, bytes | None]:
    """Decode the body of an export request.

    Args:
        signal: which request it is.
        body: the bytes as they were sent.
        content_type: the header, or `PROTOBUF` or `JSON`.
        content_encoding: the header; empty for a body that is not compressed.
        limit: bytes at most, as sent and after decompression.
        mend: put wrong UTF-8 right; False: it is malformed.

    Returns:
        The request, and the bytes of protobuf that it was decoded from, right and decompressed; None of JSON.

    Raises:
        UnsupportedMedia: the media type or the content encoding is not OTLP's.
        TooLarge: the body is over the limit.
        Malformed: it is broken; the message says where.
    """
    media = media_type(content_type)
    coding = content_coding(content_encoding)
    if len(body) > limit:
        raise TooLarge(f"the body has {len(body)} bytes, the limit is {limit}")
    if coding:
        body = _decompress(body, coding, limit)
    request = signal.request_class()
    if media == JSON:
        json_mapping.decode(body, request, mend=mend)
        return request, None
    return request, _parse(body, request, mend=mend)


async def weigh(body: bytes, content_encoding: str = "", limit: int = DEFAULT_LIMIT) -> int:
    """How many bytes a body has after decompression, without ever having them all in memory.

    Bytes of tiny messages weigh up to eight times as much (`_weight`).

    Raises:
        UnsupportedMedia, TooLarge, Malformed: as `decode`.
    """
    coding = content_coding(content_encoding)
    if not coding:
        return _weight(body)
    return await asyncio.to_thread(_measure, body, coding, limit)


async def decode_aside(
    signal: Signal, body: bytes, content_type: str, content_encoding: str = "", limit: int = DEFAULT_LIMIT
) -> tuple[ExportRequest, bytes | None]:
    """As `decode_both`, in a thread where the body is big, so that the event loop serves others meanwhile."""
    if len(body) < _ASIDE and not content_encoding:
        # What is broken is taken apart to be mended: a tenth of a second for the worst body of this size.
        with contextlib.suppress(Malformed):
            return decode_both(signal, body, content_type, content_encoding, limit, mend=False)
    return await asyncio.to_thread(decode_both, signal, body, content_type, content_encoding, limit)


def encode(message: Message, content_type: str) -> bytes:
    """Encode a request, a response or a Status as `PROTOBUF` or `JSON` (one line, OTLP's mapping)."""
    if media_type(content_type) == JSON:
        return json_mapping.encode(message)
    return message.SerializeToString()


def _parse(body: bytes, request: ExportRequest, *, mend: bool) -> bytes:
    """Parse a body into a request; the body, put right where it was wrong."""
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        # Truncated, no UTF-8 in a string, nested deeper than 100: protobuf tells no more.
        if mend:
            with contextlib.suppress(DecodeError, ValueError):
                body = mend_protobuf(body, request.DESCRIPTOR)
                request.ParseFromString(body)
                return body
        raise Malformed(f"the body is no protobuf {request.DESCRIPTOR.name}: {error}") from error
    return body


def _decompress(body: bytes, coding: str, limit: int) -> bytes:
    return b"".join(_inflate(body, coding, limit))


def _measure(body: bytes, coding: str, limit: int) -> int:
    return sum(map(_weight, _inflate(body, coding, limit)))


def _weight(plain: bytes) -> int:
    """The bytes, times what the messages in them take in memory beside what most do.

    An empty message is two bytes, and protobuf makes 70 (a KeyValue) to 130 (a LogRecord) of them. So what looks like
    the beginning of one with three bytes at most is counted, in a sample: half of all bytes, where there is nothing
    else, and that weighs eight times as much; below an eighth, as in what programs send, nothing changes. The sample
    begins anywhere, so that nobody can know what is looked at.
    """
    size = len(plain)
    sample = plain
    if size > _SAMPLES * _SAMPLE_BYTES:
        stride = size // _SAMPLES
        first = random.randrange(stride - _SAMPLE_BYTES + 1)  # noqa: S311 - no secret
        sample = b"".join([plain[at : at + _SAMPLE_BYTES] for at in range(first, first + stride * _SAMPLES, stride)])
    tiny = sample.translate(_TINY).count(b"TL")
    return size * max(1, 16 * tiny // max(1, len(sample)))


def _inflate(body: bytes, coding: str, limit: int) -> Iterator[bytes]:
    """A compressed body, chunk by chunk."""
    size = 0
    for _ in range(_MAX_MEMBERS):
        member = zlib.decompressobj(_WINDOW[coding])
        while not member.eof:
            try:
                chunk = member.decompress(body, _CHUNK)
            except zlib.error as error:
                raise Malformed(f"the body is no {coding} stream: {error}") from error
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body has more than {limit} bytes after decompression")
            yield chunk
            body = member.unconsumed_tail
            if not (chunk or body or member.eof):
                raise Malformed(f"the {coding} stream of the body is cut short")
        body = member.unused_data
        if not body:
            return
    raise Malformed(f"the {coding} stream of the body has more than {_MAX_MEMBERS} members")
