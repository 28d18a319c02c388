"""TimescaleDB with its Community features, in process under Node: SQL in, rows out; no server, no COPY by a socket."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import psycopg

from support.node import Node
from timescale_sink.store.database import Connection

_PROGRAM = Path(__file__).with_name("pglite.mjs")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_PLACEHOLDER = re.compile(r"%(?:%|s|\((\w+)\)s)")


class PgliteError(Exception):
    """What the database says against a statement."""


def ask(node: Node, packages: Path, *, run: Sequence[str], ask: Sequence[str]) -> list[list[list[Any]]]:
    """Run SQL in a new database that has the extension, and ask it.

    Args:
        node: what it runs on.
        packages: the folder with its `node_modules`.
        run: texts of any number of statements, in order.
        ask: queries of one statement.

    Returns:
        The rows of each query, as JSON has them: times are ISO texts.
    """
    with database(node, packages) as running:
        for text in run:
            running.run(text)
        return [running.run(query, []).rows for query in ask]


@contextmanager
def database(node: Node, packages: Path) -> Iterator[Pglite]:
    """A new database that has the extension."""
    with subprocess.Popen(
        [node.path, _PROGRAM, packages], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Pglite(process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Answer:
    """What a statement answered: rows as JSON has them, and how many it touched."""

    rows: list[list[Any]]
    affected: int


class Pglite:
    """A running database."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, sql: str, parameters: Sequence[Any] | None = None) -> Answer:
        """Run a text of any number of statements, or one statement with parameters ($1 and so on).

        One that must not be in a transaction stands alone. Raises PgliteError.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"sql": sql, "parameters": parameters}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise PgliteError(f"{answer['error']} ({answer['code']}): {sql[:2000]}")
        return Answer(answer["rows"], answer["affected"])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query, times as datetimes."""
        return [tuple(map(_value, row)) for row in self.run(query, []).rows]

    @property
    def connection(self) -> Connection:
        """What the store takes for a connection: as much of one as it uses."""
        return cast("Connection", _Connection(self))


class _Cursor:
    def __init__(self, answer: Answer) -> None:
        self._rows = [tuple(map(_value, row)) for row in answer.rows]
        self.rowcount = answer.affected

    async def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        for row in self._rows:
            yield row


class _Connection:
    """See :attr:`Pglite.connection`."""

    closed = False
    # psycopg quotes literals for whoever has these.
    adapters = psycopg.adapters
    connection = None

    def __init__(self, database: Pglite) -> None:
        self._database = database
        self._depth = 0

    async def execute(self, query: str | bytes, parameters: Any = None, *, prepare: bool = False) -> _Cursor:
        del prepare
        text = query.decode() if isinstance(query, bytes) else query
        if parameters is None:
            return _Cursor(self._database.run(text))
        given: list[Any] = []

        def numbered(found: re.Match[str]) -> str:
            if found[0] == "%%":
                return "%"
            given.append(_parameter(parameters[found[1]] if found[1] else parameters[len(given)]))
            return f"${len(given)}"

        text = _PLACEHOLDER.sub(numbered, text)
        return _Cursor(self._database.run(text, given))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self._depth += 1
        name = f"depth_{self._depth}"
        begin, commit, undo = ("BEGIN", "COMMIT", "ROLLBACK")
        if self._depth > 1:
            begin, commit, undo = (f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO {name}")
        self._database.run(begin)
        try:
            yield
        except BaseException:
            self._database.run(undo)
            raise
        else:
            self._database.run(commit)
        finally:
            self._depth -= 1


def _value(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) and _TIME.fullmatch(value) else value


def _parameter(value: Any) -> Any:
    match value:
        case date():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds()} seconds"
        case _ if isinstance(value, Mapping):
            return json.dumps(value)
        case _:
            return value
