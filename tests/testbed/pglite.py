"""TimescaleDB with its Community features, in process under Node: SQL and COPY in, rows out; no server, no socket."""

from __future__ import annotations

import base64
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
from psycopg import pq, sql
from psycopg._copy_base import BinaryFormatter
from psycopg.adapt import Transformer

from support.node import Node
from timescale_sink.store.database import Connection

_PROGRAM = Path(__file__).with_name("pglite.mjs")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_PLACEHOLDER = re.compile(r"%(?:%|s|\((\w+)\)s)")


class PgliteError(Exception):
    """What the database says against a statement, with its SQLSTATE."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


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
def database(node: Node, packages: Path, kept: Path | None = None) -> Iterator[Pglite]:
    """A database that has the extension: a new one, or as one was when `Pglite.keep` put it into a file."""
    arguments = [packages, kept] if kept else [packages]
    with subprocess.Popen(
        [node.path, _PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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

    def run(self, sql: str, parameters: Sequence[Any] | None = None, blob: bytes = b"") -> Answer:
        """Run a text of any number of statements, or one statement with parameters ($1 and so on).

        A COPY from '/dev/blob' reads ``blob``.

        One that must not be in a transaction stands alone. Raises PgliteError.
        """
        return self._step(sql, parameters=parameters, blob=base64.b64encode(blob).decode())

    def keep(self, file: Path) -> None:
        """Put all of it into a file, for `database` to begin with."""
        self._step("SELECT 1", keep=str(file))

    def _step(self, sql: str, **how: Any) -> Answer:
        assert self._process.stdin
        assert self._process.stdout
        step = {"sql": sql, **how}
        self._process.stdin.write(json.dumps(step) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise PgliteError(f"{answer['error']} ({answer.get('code')}): {sql[:2000]}", answer.get("code") or "")
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

    @asynccontextmanager
    async def cursor(self) -> AsyncIterator[_Connection]:
        yield self

    @asynccontextmanager
    async def copy(self, statement: sql.Composed) -> AsyncIterator[_Copy]:
        copy = _Copy()
        yield copy
        with _as_psycopg():
            self._database.run(statement.as_string().replace("STDIN", "'/dev/blob'"), [], copy.all())

    async def execute(
        self, query: str | bytes | sql.Composed, parameters: Any = None, *, prepare: bool = False
    ) -> _Cursor:
        del prepare
        with _as_psycopg():
            return self._execute(query, parameters)

    def _execute(self, query: str | bytes | sql.Composed, parameters: Any) -> _Cursor:
        text = query.decode() if isinstance(query, bytes) else query
        text = text if isinstance(text, str) else text.as_string()
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


class _Copy:
    """A binary COPY that is gathered before it begins: of rows, or of bytes that are whole."""

    def __init__(self) -> None:
        self._rows = bytearray()
        self._whole = b""
        self._formatter = BinaryFormatter(Transformer())

    def set_types(self, types: Sequence[str]) -> None:
        oids = [psycopg.adapters.types.get_oid(name) for name in types]
        self._formatter.transformer.set_dumper_types(oids, pq.Format.BINARY)

    async def write_row(self, row: Sequence[Any]) -> None:
        self._rows += self._formatter.write_row(row)

    async def write(self, data: bytes) -> None:
        self._whole += data

    def all(self) -> bytes:
        return self._whole or bytes(self._rows + self._formatter.end())


@contextmanager
def _as_psycopg() -> Iterator[None]:
    """What the database says, as psycopg says it."""
    try:
        yield
    except PgliteError as error:
        raise psycopg.errors.lookup(error.code)(str(error)) from error


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
