"""Reads JSON answers as a whole or not at all: what several sources' parsers ask of an answer alike.

Pure: bytes in, values out.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from otel_receivers.points import INT64_MAX
from otel_receivers.prometheus import PageError


class AnswerError(PageError):
    """No part of an answer may be used.

    Args:
        error_type: ``empty``, ``html``, ``malformed``, ``unexpected_page``.
        message: one line for the log.
    """


def decode(body: bytes) -> Any:
    """The JSON value that an answer is.

    Raises:
        AnswerError: it is none, or not whole.
    """
    if not body.strip():
        raise AnswerError("empty", "the answer is empty")
    if body.lstrip()[:1] == b"<":
        raise AnswerError("html", f"a page of HTML or XML, not JSON: {body.lstrip()[:40]!r}")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise AnswerError("malformed", f"not whole JSON: {error}") from None


def count(value: Any) -> int | None:
    """An amount, None for what is none; a fraction of one, which JavaScript may give, is rounded down."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and 0 <= value <= INT64_MAX else None


def shown(value: Any) -> str:
    """What stood there, as far as a line of the log has room for it; no text, which may be a person's."""
    return f"a text of {len(value)}" if isinstance(value, str) else repr(value)[:40]
