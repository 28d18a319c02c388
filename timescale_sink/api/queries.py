"""The named queries of ``queries.sql``.

A query opens with ``-- name --`` and the comment that says what it gives. ``{names in braces}`` are tables and columns
of the declarations, put in as quoted identifiers; ``%(values)s`` go to the server apart from the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

from psycopg import sql

from timescale_sink.store.rollups import ORIGIN

_ALL = sql.SQL("true")
_ORIGIN = sql.Literal(datetime.fromisoformat(ORIGIN))
_HEAD = re.compile(r"^-- (\w+) --$", re.MULTILINE)


@cache
def _texts() -> Mapping[str, LiteralString]:
    text = files(__package__).joinpath("queries.sql").read_text("utf-8")
    _, *parts = _HEAD.split(text)
    # The text is this package's own file: no value of a caller is ever part of it.
    return {name: cast("LiteralString", body.strip()) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def query(
    name: str, table: str = "", columns: Sequence[str] = (), condition: sql.Composable = _ALL, **parts: sql.Composable
) -> sql.Composed:
    """The query of this name about a table and columns of it; KeyError where there is no such query.

    ``{table}`` stands for the table, ``{increase}`` for the view of its counters' increase, ``{origin}`` for the time
    that steps are counted from, ``{columns}`` for the columns, ``{avg}``, ``{max}`` and ``{sum}`` for that aggregate of
    each column, ``{condition}`` for what rows have to meet; further names for the ``parts``.
    """
    names = [sql.Identifier(column) for column in columns]
    aggregates = {
        aggregate: sql.SQL(", ").join(sql.SQL(f"{aggregate}({{}})::float8 AS {{}}").format(n, n) for n in names)
        for aggregate in ("avg", "max", "sum")
    }
    return sql.SQL(_texts()[name]).format(
        table=sql.Identifier(table),
        increase=sql.Identifier(f"{table}_increase"),
        columns=sql.SQL(", ").join(names),
        condition=condition,
        origin=_ORIGIN,
        **aggregates,
        **parts,
    )
