"""``postel doctor``: checks every connection and permission on the way of the data, and says how to mend what is wrong.

It changes nothing: it starts no server, writes no row, and what it sends by OTLP is an empty request. What stops one
check is that check's result; the others go on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import click
import fasteners
import httpx
import psycopg

from otel_receivers.discovery import Finding, look_everywhere, places
from otel_receivers.node import identify
from postel.collector import find_collector, turned_off
from postel.errors import DatabaseAwayError, DatabaseError, PostelError, SettingsError
from postel.listening import listen, reachable
from postel.otlp.client import sender_of
from postel.otlp.errors import Malformed, Refused, Retryable, Unauthenticated
from postel.otlp.signal import Signal
from postel.settings import Otlp, Settings
from postel.up import runs_collector
from timescale_sink.store import embedded
from timescale_sink.store.database import Connection, ask_server, check_rights, connect, database_url
from timescale_sink.store.migrate import applied, check_applied, scripts

_HTTP_SECONDS = 3.0
_LOW_DISK_BYTES = 1 << 30
# A sample may take this many intervals to arrive before it counts as missing: sending and batching take up to two.
_INTERVALS_LATE = 4
_SPOOL_LATE_SECONDS = 300.0


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the doctor's.

    Attributes:
        subject: what was looked at.
        text: what was seen.
        mend: what to do about it; '' where there is nothing to do.
    """

    verdict: Verdict
    subject: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict.value:<4}  {self.subject}: {self.text}"
        return f"{line}\n      mend: {self.mend}" if self.mend else line


Check = Callable[[Settings], AsyncIterator[Result]]


async def run(settings: Settings) -> int:
    """Print every result.

    Returns:
        The exit code: 0, or 1 when a check failed.
    """
    checks: dict[str, Check] = {
        "data folder": _folder,
        "database": _database,
        "sink": _sink,
        "collector": _collector,
        "endpoint": _endpoint,
        "agent": _agent,
        "page": _page,
        "mail servers": _servers,
    }
    failed = False
    for subject, check in checks.items():
        async for result in _guarded(subject, check, settings):
            click.echo(str(result))
            failed = failed or result.verdict is Verdict.FAIL
    return 1 if failed else 0


async def _guarded(subject: str, check: Check, settings: Settings) -> AsyncIterator[Result]:
    try:
        async for result in check(settings):
            yield result
    except PostelError as error:
        # Its message says already how to mend it.
        yield Result(Verdict.FAIL, subject, str(error))
    except Exception as error:  # noqa: BLE001 - who asks what is wrong gets an answer on everything else
        yield Result(
            Verdict.FAIL,
            subject,
            f"cannot be checked: {type(error).__name__}: {error}",
            "mend what it names; if it is nothing of yours, it is a fault of Postel's to be reported",
        )


async def _folder(settings: Settings) -> AsyncIterator[Result]:
    folder = settings.data_dir
    there = _nearest(folder)
    if not there.is_dir():
        yield Result(Verdict.FAIL, "data folder", f"{there} is no folder", "set data_dir to a folder")
        return
    if not _allowed(there, os.X_OK):
        yield Result(
            Verdict.FAIL,
            "data folder",
            f"{there} keeps user {os.geteuid()} out, and with it from {folder}",
            f"give this user the right to pass through {there}, or set data_dir to a folder of its own",
        )
        return
    if not _allowed(there, os.W_OK):
        yield Result(
            Verdict.FAIL,
            "data folder",
            f"{folder} cannot be written by user {os.geteuid()}",
            f"give this user the right to write {there}, or set data_dir to a folder of its own",
        )
        return
    free = shutil.disk_usage(there).free
    if free < _LOW_DISK_BYTES:
        yield Result(
            Verdict.FAIL,
            "data folder",
            f"{folder} has {free >> 20} MiB left",
            "free space: the spool, the Collector's queue and the embedded database live there",
        )
        return
    yield Result(Verdict.OK, "data folder", f"{folder}, {free >> 30} GiB free")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that can be looked at."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            place.stat()
            return place
    return Path(folder.anchor)


def _allowed(folder: Path, mode: int) -> bool:
    return os.access(folder, mode, effective_ids=os.access in os.supports_effective_ids)


async def _database(settings: Settings) -> AsyncIterator[Result]:
    if settings.database.url is None and not embedded.runs(settings.data_dir):
        yield Result(
            Verdict.FAIL,
            "database",
            f"the embedded PostgreSQL in {settings.data_dir / 'postgres'} does not run",
            "`postel up` starts it; for one of your own set [database] url",
        )
        return
    try:
        connection = await connect(await database_url(settings, leave_running=True))
    except DatabaseError as error:
        away = "start the server, or " if isinstance(error, DatabaseAwayError) else ""
        yield Result(Verdict.FAIL, "database", str(error), f"{away}correct [database] url")
        return
    try:
        async for result in _schema(connection):
            yield result
        if await applied(connection):
            for check in (_samples(settings, connection), _letters(connection)):
                async for result in check:
                    yield result
    except psycopg.errors.InsufficientPrivilege as error:
        yield Result(
            Verdict.FAIL, "schema", _first_line(error), "GRANT the role of [database] url SELECT on the tables"
        )
    except psycopg.errors.UndefinedTable as error:
        yield Result(
            Verdict.FAIL, "schema", _first_line(error), "a table was dropped by hand: restore it from a backup"
        )
    except psycopg.Error as error:
        yield Result(Verdict.FAIL, "database", _first_line(error), "the database's own log says more")
    finally:
        await connection.close()


async def _schema(connection: Connection) -> AsyncIterator[Result]:
    server = await ask_server(connection)
    yield Result(Verdict.OK, "database", f"PostgreSQL {server.version}, {server.tier.value}")
    row = await (
        await connection.execute(
            "SELECT has_schema_privilege(current_schema(), 'CREATE'), current_schema()::text, current_user::text"
        )
    ).fetchone()
    may_create, schema, role = row or (False, "public", "the role")
    grant = f"GRANT CREATE ON SCHEMA {schema} TO {role}"
    known = await applied(connection)
    migrations = scripts("migrations")
    missing = [
        script.name
        for script in migrations
        if script.name not in known and not (script.timescale and server.timescale_version is None)
    ]
    try:
        check_applied(known, migrations)
        if missing:
            mend = "run `postel db migrate`, or start the sink" if may_create else f"{grant}; then `postel db migrate`"
            yield Result(Verdict.FAIL, "schema", f"not applied: {', '.join(missing)}", mend)
            return
        await check_rights(connection)
    except DatabaseError as error:
        text, _, mend = str(error).partition(": ")
        yield Result(Verdict.FAIL, "schema", text, mend)
        return
    if may_create:
        yield Result(Verdict.OK, "schema", "up to date, and the role may write it")
    else:
        yield Result(Verdict.NOTE, "schema", "up to date; the role cannot apply later migrations", f"later: {grant}")


async def _samples(settings: Settings, connection: Connection) -> AsyncIterator[Result]:
    try:
        node = identify(settings.data_dir, setting=settings.node.id)
    except PostelError as error:
        yield Result(Verdict.FAIL, "node", str(error))
        return
    row = await (
        await connection.execute(
            "SELECT extract(epoch FROM now() - max(time))::float8 FROM metrics_system WHERE node_id = %s", (node.id,)
        )
    ).fetchone()
    age = row[0] if row else None
    limit = _INTERVALS_LATE * settings.intervals.system_metrics + settings.intervals.send_metrics
    if age is None:
        yield Result(
            Verdict.FAIL, "samples", f"none of this node ({node.id}) yet", "is the agent running? See the checks below"
        )
    elif age > limit:
        yield Result(
            Verdict.FAIL,
            "samples",
            f"the newest of this node ({node.id}) is {age:.0f} s old",
            "the first check below that fails is where the data stops",
        )
    else:
        yield Result(Verdict.OK, "samples", f"the newest of this node ({node.id}) is {age:.0f} s old")


async def _letters(connection: Connection) -> AsyncIterator[Result]:
    row = await (await connection.execute("SELECT count(*), max(received_at)::text FROM dead_letter")).fetchone()
    if row and row[0]:
        yield Result(
            Verdict.NOTE,
            "dead letters",
            f"{row[0]} records could not be stored, the newest at {row[1]}",
            "SELECT reason, count(*) FROM dead_letter GROUP BY reason",
        )


async def _sink(settings: Settings) -> AsyncIterator[Result]:
    yield await _ask(
        "sink",
        settings.sink.http_address,
        "/readyz",
        "[sink] http_address",
        "start it with `postel up` or `postel sink`; if it runs, its log says why it is not ready",
    )


async def _collector(settings: Settings) -> AsyncIterator[Result]:
    if not runs_collector(settings):
        return
    if turned_off():
        yield Result(Verdict.NOTE, "collector", "POSTEL_COLLECTOR is none; the agent sends straight to the sink")
        return
    if find_collector() is None:
        yield Result(
            Verdict.NOTE,
            "collector",
            "none is built; `postel up` lets the agent send straight to the sink",
            "`make collector` builds it, or says what it lacks",
        )
        return
    yield await _ask(
        "collector",
        settings.otlp.collector_health_address,
        "/",
        "[otlp] collector_health_address",
        "start it with `postel up`; if it runs, its lines in the log say what is wrong",
    )


async def _endpoint(settings: Settings) -> AsyncIterator[Result]:
    try:
        straight = runs_collector(settings) and find_collector() is None
    except SettingsError:
        # The Collector's check says it. An agent of its own sends to the endpoint all the same.
        straight = False
    if not straight:
        yield await _export(settings.otlp)


async def _export(otlp: Otlp) -> Result:
    """What the agent's receiver says of a request like the agent's own, with nothing in it."""
    impatient = otlp.model_copy(update={"timeout": _HTTP_SECONDS})
    try:
        sender = sender_of(impatient)
    except SettingsError as error:
        text, _, mend = str(error).partition("; accepted: ")
        return Result(Verdict.FAIL, "endpoint", text, mend or "correct what it names")
    try:
        await sender.send(Signal.METRICS, b"")
    except Malformed as error:
        # It read the request as OTLP, and let it in; a request that has something in it may well be taken.
        return Result(Verdict.NOTE, "endpoint", f"{otlp.endpoint} takes no empty request: {error}")
    except Unauthenticated as error:
        return Result(
            Verdict.FAIL,
            "endpoint",
            f"{otlp.endpoint} lets nobody in: {error}",
            "correct [otlp] headers, the token in it",
        )
    except (Retryable, Refused) as error:
        return Result(
            Verdict.FAIL,
            "endpoint",
            f"{otlp.endpoint} takes no OTLP by {otlp.protocol}: {error}",
            "start what listens there, or correct [otlp] endpoint and protocol",
        )
    finally:
        await sender.close()
    return Result(Verdict.OK, "endpoint", f"{otlp.endpoint} takes OTLP by {otlp.protocol}")


async def _agent(settings: Settings) -> AsyncIterator[Result]:
    try:
        held = _held(settings)
    except OSError as error:
        yield Result(
            Verdict.FAIL,
            "agent",
            f"whether one runs cannot be seen: {error.filename}: {error.strerror}",
            "run the doctor as the agent's user, or mend the data folder",
        )
        return
    if not held:
        yield Result(
            Verdict.FAIL, "agent", "none runs on this data folder", "start it with `postel up` or `postel agent`"
        )
    else:
        yield Result(Verdict.OK, "agent", "runs")
    spool = settings.data_dir / "spool.db"
    if not spool.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            waiting, size, oldest = database.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0), min(created) FROM request"
            ).fetchone()
    except sqlite3.Error as error:
        yield Result(
            Verdict.FAIL, "spool", f"{spool} cannot be read: {error}", "is it this user's? Move it away if damaged"
        )
        return
    age = time.time() - oldest if oldest else 0.0
    text = f"{waiting} requests, {size >> 10} KiB wait, the oldest for {age:.0f} s"
    if age > _SPOOL_LATE_SECONDS + settings.intervals.send_metrics:
        yield Result(
            Verdict.FAIL, "spool", text, f"nobody takes what the agent sends to {settings.otlp.endpoint}: see above"
        )
    else:
        yield Result(Verdict.OK, "spool", text)


def _held(settings: Settings) -> bool:
    path = settings.data_dir / "agent.lock"
    if not path.exists():
        return False
    lock = fasteners.InterProcessLock(path)
    if lock.acquire(blocking=False):
        lock.release()
        return False
    return True


async def _page(settings: Settings) -> AsyncIterator[Result]:
    yield await _ask(
        "page",
        settings.serve.address,
        "/healthz",
        "[serve] address",
        "start it with `postel up` or `postel serve`",
    )


async def _servers(settings: Settings) -> AsyncIterator[Result]:
    for finding in await look_everywhere(places(settings.discovery)):
        yield _server(finding)


def _server(finding: Finding) -> Result:
    version = f" {finding.version}" if finding.version else ""
    if finding.found:
        return Result(Verdict.OK, finding.source, f"{finding.target}{version}, {finding.how}")
    if finding.listening:
        return Result(
            Verdict.NOTE,
            finding.source,
            f"not at {finding.target}: {finding.how}",
            "if it runs elsewhere, set its host and port in [discovery]",
        )
    return Result(Verdict.NOTE, finding.source, f"not at {finding.target}: {finding.how}")


def _first_line(error: psycopg.Error) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


async def _ask(subject: str, address: str, path: str, setting: str, mend: str) -> Result:
    """What a program of Postel's says of itself; where nobody answers, whether it could listen there at all."""
    url = f"http://{reachable(address)}{path}"
    try:
        async with httpx.AsyncClient(timeout=_HTTP_SECONDS, trust_env=False) as client:
            answer = await client.get(url)
    except (httpx.ConnectError, UnicodeError) as error:
        try:
            listen(address, setting).close()
        except PostelError as obstacle:
            mend = str(obstacle)
        return Result(Verdict.FAIL, subject, f"{url}: {error}", mend)
    except httpx.HTTPError as error:
        return Result(Verdict.FAIL, subject, f"{url}: {str(error) or type(error).__name__}", mend)
    if answer.is_success:
        return Result(Verdict.OK, subject, f"{url} answers")
    return Result(Verdict.FAIL, subject, f"{url} answers {answer.status_code} {answer.text[:200]}", mend)
