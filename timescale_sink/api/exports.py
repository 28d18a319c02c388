"""Answers as files: a JSON value a line, or lines of cells that a spreadsheet reads."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import Query
from fastapi.responses import StreamingResponse

Format = Literal["ndjson", "csv"]
Chosen = Annotated[Format, Query(alias="format")]
_MEDIA_TYPES = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
RESPONSES: dict[int | str, dict[str, Any]] = {200: {"content": {name: {} for name in _MEDIA_TYPES.values()}}}
"""What a route that exports answers."""


def response(
    lines: AsyncIterable[bytes | str] | Iterable[bytes | str], name: str, format_: Format
) -> StreamingResponse:
    """The answer that a browser keeps as a file of this name."""
    disposition = f'attachment; filename="{name}.{format_}"'
    return StreamingResponse(lines, media_type=_MEDIA_TYPES[format_], headers={"Content-Disposition": disposition})


def line(cells: Sequence[Any]) -> str:
    """A line of CSV; what is no text or number is JSON in its cell."""
    text = io.StringIO()
    csv.writer(text).writerow([_harmless(_told(cell)) for cell in cells])
    return text.getvalue()


def _told(cell: Any) -> Any:
    return orjson.dumps(cell).decode() if isinstance(cell, list | dict) else cell


def _harmless(cell: Any) -> Any:
    """What a spreadsheet would run as a formula begins with a quote instead."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
