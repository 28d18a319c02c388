"""Brings a database to this version's schema.

``sql/migrations/NNNN_name.sql`` are applied once, in order, each in a transaction of its own, and never change: the
hash of an applied one is kept and compared. ``NNNN_name.timescale.sql`` are for servers with TimescaleDB,
``NNNN_name.community.sql`` for those with its Community features, ``NNNN_name.rows.sql`` for those without, whose
rollups are views of the rows. ``sql/views/*.sql`` are applied again, and the views that are made of the declarations
made again (:mod:`timescale_sink.store.increase` and ``rollup_views``), whenever one of them differs from what was
applied last; so is the list of public suffixes (``suffixes``), which is renewed with its package. An advisory lock lets
one program at a time do this.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files

import psycopg
import structlog
from psycopg import sql

from postel.errors import DatabaseError
from postel.signals import Declarations, load_all
from timescale_sink.store import increase, roles, rollup_views, suffixes
from timescale_sink.store.database import Connection, Tier, ask_server

# Any number that no other program uses for an advisory lock: "postel" in ASCII.
SCHEMA_LOCK = 0x706F7374656C
_VIEWS = "views"
_MADE = re.compile(r"\bCREATE (?:TABLE|(?:OR REPLACE |MATERIALIZED )?VIEW) (\w+)")
_log = structlog.get_logger()

Begin = Callable[[str], Awaitable[None]]
"""Is told the name of each script before it is applied."""


@dataclass(frozen=True, slots=True)
class Script:
    """A file of ``sql/``, with its name and text."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fits(self, tier: Tier) -> bool:
        """Whether it is for such a server, as its name says."""
        if self.name.endswith(".community.sql"):
            return tier is Tier.COMMUNITY
        if self.name.endswith(".rows.sql"):
            return tier is not Tier.COMMUNITY
        return tier is not Tier.PLAIN or not self.name.endswith(".timescale.sql")


def scripts(folder: str) -> Sequence[Script]:
    """The files of ``sql/migrations`` or ``sql/views``, in order."""
    found = [entry for entry in files(__package__).joinpath("sql", folder).iterdir() if entry.name.endswith(".sql")]
    return [Script(entry.name, entry.read_text("utf-8")) for entry in sorted(found, key=lambda entry: entry.name)]


async def migrate(connection: Connection) -> list[str]:
    """Apply what is missing.

    Returns:
        The names of what was applied; empty when the schema was up to date.

    Raises:
        DatabaseError: an applied migration was edited, the database is newer than this program, the role lacks a
            right, or there is no schema.
    """
    async with changing(connection):
        return await apply_missing(connection)


@asynccontextmanager
async def changing(connection: Connection) -> AsyncIterator[None]:
    """Nobody else changes the schema meanwhile.

    Raises:
        DatabaseError: the role lacks a right, or there is no schema.
    """
    try:
        async with _locked(connection):
            yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            f"the database role may not change the schema ({error.diag.message_primary}); "
            "grant it CREATE on the database's schema, or run `postel db migrate` as its owner"
        ) from None
    except psycopg.errors.InvalidSchemaName:
        raise DatabaseError(
            "the database has none of the schemas of the search_path: create one, or correct the search_path "
            "(of the role, or in the options of [database] url)"
        ) from None


async def applied(connection: Connection) -> dict[str, str]:
    """Name -> checksum of what was applied; empty before the first migration."""
    row = await (await connection.execute("SELECT to_regclass('postel_migration') IS NOT NULL")).fetchone()
    if row is None or not row[0]:
        return {}
    rows = await (await connection.execute("SELECT name, checksum FROM postel_migration")).fetchall()
    return dict(rows)


async def missing(connection: Connection, tier: Tier) -> list[str]:
    """The names of the migrations that are still to be applied."""
    known = await applied(connection)
    return [script.name for script in scripts("migrations") if script.name not in known and script.fits(tier)]


async def require_current(connection: Connection) -> None:
    """See that nothing has to be applied any more.

    Raises:
        DatabaseError: something has, or as `migrate`.
    """
    known = await applied(connection)
    check_applied(known, scripts("migrations"))
    if _VIEWS not in known or await missing(connection, (await ask_server(connection)).tier):
        raise DatabaseError("the database is not migrated: a sink that runs does it, or `postel db migrate`")


async def _unheard(_name: str) -> None:
    """Nobody wants to know."""


async def apply_missing(connection: Connection, begin: Begin = _unheard) -> list[str]:
    """Do what `migrate` does, while nobody else changes the schema."""
    known = await applied(connection)
    migrations = scripts("migrations")
    check_applied(known, migrations)
    if not known:
        # Asked only where it is needed: a sink whose role may not change the schema runs on one that is up to date.
        await connection.execute(
            """
            CREATE TABLE IF NOT EXISTS postel_migration (
                name text PRIMARY KEY,
                checksum text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now()
            )
            """
        )
    await _offer_timescale(connection)
    tier = (await ask_server(connection)).tier
    done = []
    for script in migrations:
        if script.name not in known and script.fits(tier):
            await begin(script.name)
            await _apply(connection, script.name, script.checksum, [script.text])
            done.append(script.name)
    await _renew_suffixes(connection, begin)
    if await _make_views(connection, begin, known.get(_VIEWS), load_all(), anew=bool(done), tier=tier):
        done.append(_VIEWS)
    if done:
        # Tables that are new, and views that were made anew.
        await roles.renew(connection, load_all(), relations(load_all()))
    return done


def relations(declarations: Declarations) -> frozenset[str]:
    """The names of all tables and views that are Postel's, on whatever server: others may stand beside them."""
    texts = [script.text for folder in ("migrations", _VIEWS) for script in scripts(folder)]
    made = {found[1] for text in (*texts, *_increases(declarations)) for found in _MADE.finditer(text)}
    return frozenset({"postel_migration", *made, *rollup_views.names(declarations)})


def _increases(declarations: Declarations) -> list[str]:
    return [increase.view(table, counters) for table, counters in increase.counters_of(declarations).items()]


async def _make_views(
    connection: Connection, begin: Begin, known: str | None, declarations: Declarations, *, anew: bool, tier: Tier
) -> bool:
    """Apply the files of ``sql/views`` and make the views of the declarations, where that is due."""
    views = [script.text for script in scripts(_VIEWS) if script.fits(tier)]
    tables = increase.counters_of(declarations)
    made = [*_increases(declarations), rollup_views.declared(declarations)]
    checksum = hashlib.sha256("".join([*views, *made]).encode()).hexdigest()
    if not anew and known == checksum:
        return False
    await begin(_VIEWS)
    async with connection.transaction():
        await _apply(connection, _VIEWS, checksum, views)
        await increase.make_views(connection, tables)
        await rollup_views.make_views(connection, declarations, aggregated=tier is Tier.COMMUNITY)
        await _comment(connection, declarations)
    return True


async def _renew_suffixes(connection: Connection, begin: Begin) -> None:
    """Write the list of public suffixes where it is another one; an older one does where the role may not."""
    is_of = f"Public Suffix List, {suffixes.digest()}"
    found = await connection.execute("SELECT obj_description(to_regprocedure('public_suffixes()'), 'pg_proc')")
    known = (await found.fetchone() or (None,))[0]
    if known == is_of:
        return
    await begin("public suffixes")
    try:
        async with connection.transaction():
            await connection.execute(suffixes.function().encode(), prepare=False)
            await _comment_on(connection, "FUNCTION public_suffixes()", is_of)
    except psycopg.errors.InsufficientPrivilege:
        if known is None:
            raise
        _log.info("the public suffixes stay as they are: the database role may not renew them")


def check_applied(known: Mapping[str, str], migrations: Sequence[Script]) -> None:
    """Whether what was applied is what this program knows.

    Raises:
        DatabaseError: it was edited, or the database is newer.
    """
    ours = {script.name: script.checksum for script in migrations}
    for name, checksum in known.items():
        if name == _VIEWS:
            continue
        if name not in ours:
            raise DatabaseError(
                f"the database has the migration {name}, which this Postel does not know: update Postel"
            )
        if ours[name] != checksum:
            raise DatabaseError(
                f"the migration {name} was applied with another text: migrations never change once applied; "
                "restore the file, and put the change into a new one"
            )


async def _offer_timescale(connection: Connection) -> None:
    """Install TimescaleDB into the database where the server has it and the role may; else go on without."""
    row = await (
        await connection.execute("SELECT installed_version FROM pg_available_extensions WHERE name = 'timescaledb'")
    ).fetchone()
    if row is None or row[0] is not None:
        return
    try:
        async with connection.transaction():
            await connection.execute("CREATE EXTENSION timescaledb")
    except psycopg.Error as error:
        _log.warning("TimescaleDB is there but cannot be used; going on without", reason=str(error).splitlines()[0])


async def _apply(connection: Connection, name: str, checksum: str, texts: Sequence[str]) -> None:
    async with connection.transaction():
        for text in texts:
            # The text is a file of this package; it holds several statements, so it goes without parameters.
            await connection.execute(text.encode(), prepare=False)
        await connection.execute(
            """
            INSERT INTO postel_migration (name, checksum) VALUES (%s, %s)
            ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, applied_at = now()
            """,
            (name, checksum),
        )


async def _comment(connection: Connection, declarations: Declarations) -> None:
    """Write unit and origin of each typed column into the database."""
    async with connection.transaction():
        for table in declarations.tables.values():
            await _comment_on(connection, f"TABLE {table.name}", table.description)
            for column in declarations.columns_of(table.name):
                metric = declarations.metrics[column.metric]
                text = f"{metric.description} {metric.name}, unit {metric.unit}"
                await _comment_on(connection, f"COLUMN {table.name}.{column.name}", text)


async def _comment_on(connection: Connection, what: str, text: str) -> None:
    # Names come from the declarations, whose loader takes plain identifiers only; COMMENT takes no parameters.
    statement = f"COMMENT ON {what} IS {sql.Literal(text).as_string(connection)}"
    await connection.execute(statement.encode())


@asynccontextmanager
async def _locked(connection: Connection) -> AsyncIterator[None]:
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (SCHEMA_LOCK,))).fetchone()
    if row and not row[0]:
        _log.info("another program changes the schema now; waiting for its end")
        await connection.execute("SELECT pg_advisory_lock(%s)", (SCHEMA_LOCK,))
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute("SELECT pg_advisory_unlock(%s)", (SCHEMA_LOCK,))
