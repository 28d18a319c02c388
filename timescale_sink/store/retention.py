"""How long what is kept: brings the settings into the database, where its jobs, the views and `db check` find them.

On TimescaleDB Community the extension's jobs drop chunks, store them in columns and refresh the rollups; rows that
shall be dropped sooner than before wait until their rollups are there (`retention.pending`), which the housekeeping
sees to, and so does a rollup that is made of others as far back as these go. Elsewhere the sink deletes what is too old
(:mod:`timescale_sink.store.housekeeping`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from postel.errors import DatabaseError
from postel.settings import Database
from postel.signals import Declarations
from timescale_sink.store.database import Connection, Tier, ask_server
from timescale_sink.store.migrate import SCHEMA_LOCK
from timescale_sink.store.rollup_views import filled_of, is_personal, names, rollups_of, stays_rows

# Of rows, not of rollups.
_FURTHER = ("otel_metric_point", "otel_log")
# How late a row may be for the jobs to see it; housekeeping looks further back.
REACH = timedelta(days=8)
# The job of days reaches nine days back.
_ROLLUPS_IN_COLUMNS = 10
_SETTINGS = {"raw_days", "rollup_days", "dead_letter_days", "columnstore_days", "event_columnstore_days"}


# By size: what is younger is read from the rows, for it still comes.
_BEHIND = {
    "5m": timedelta(minutes=10),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=1),
    "daily": timedelta(days=1),
    "weekly": timedelta(days=1),
}
# A table's own retention job, as the database says that it shall be.
_DROPPED = """
    SELECT keep_at_most(relation, CASE WHEN NOT pending THEN keep END) FROM retention WHERE relation = %s
"""


@dataclass(frozen=True, slots=True)
class Changes:
    """What `apply` changed, as names of tables and rollups.

    Attributes:
        first: nothing had been said before of how long they are kept.
        changed: they are kept for another time than before, or in columns.
        refreshed: their jobs that refresh were made anew.
    """

    first: list[str]
    changed: list[str]
    refreshed: list[str]


def tables(declarations: Declarations) -> list[str]:
    """The tables whose rows are kept for a time."""
    return [*rolled_up(declarations), *_FURTHER]


def rolled_up(declarations: Declarations) -> list[str]:
    """Those of them that have rollups."""
    return [*sorted(declarations.tables), *sorted(declarations.event_tables)]


async def apply(connection: Connection, settings: Database, declarations: Declarations) -> Changes:
    """Make the database keep things as long as the settings say; what is so already is not touched.

    What the settings leave to their defaults stays as the database has it: another sink may have been told.

    Raises:
        DatabaseError: what is set does not go with what the database has.
        psycopg.errors.InsufficientPrivilege: something has to change and the role may not.
    """
    community = (await ask_server(connection)).tier is Tier.COMMUNITY
    made = Changes([], [], [])
    async with connection.transaction():
        # Two that add one job would be one too many.
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
        known = await _known(connection)
        # Without TimescaleDB Community nothing was said of columns.
        said = community and not known.keys().isdisjoint(names(declarations))
        columns = await _in_columns(connection, declarations) if said else {}
        wanted = _wanted(settings, known, declarations, columns)
        for name, query, parameters in [
            *_kept(wanted, known, declarations, community=community),
            *(_jobs(wanted, declarations) if community else ()),
        ]:
            row = await (await connection.execute(query, parameters)).fetchone()
            if row and row[0]:
                (made.changed if name in known else made.first).append(name)
        if community:
            for table in rolled_up(declarations):
                row = await (await connection.execute(*_refreshed(table))).fetchone()
                if row and row[0]:
                    made.refreshed.append(table)
    return Changes(sorted(set(made.first)), sorted(set(made.changed)), made.refreshed)


async def end_filling(connection: Connection, rollup: str) -> None:
    """Let a rollup be read and be refreshed by its job, all of which is made."""
    await connection.execute("UPDATE retention SET pending = false WHERE relation = %s", (rollup,))


async def begin(connection: Connection, table: str) -> None:
    """Let the rows of a table be dropped, whose rollups were made first."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
        await connection.execute("UPDATE retention SET pending = false WHERE relation = %s", (table,))
        await connection.execute(_DROPPED, (table,))


Statement = tuple[str, bytes, tuple[object, ...]]


async def _known(connection: Connection) -> dict[str, int]:
    """For how many days the database keeps what; 0 for ever."""
    rows = await connection.execute(
        "SELECT relation, coalesce(extract(epoch FROM keep) / 86400, 0)::int FROM retention"
    )
    return dict(await rows.fetchall())


async def _in_columns(connection: Connection, declarations: Declarations) -> dict[str, int]:
    """After how many days rows and events are stored in columns, by setting; 0: never."""
    row = await (
        await connection.execute(
            """
            SELECT coalesce(max(days) FILTER (WHERE relation = ANY (%(rows)s)), 0),
                coalesce(max(days) FILTER (WHERE relation = ANY (%(events)s)), 0)
            FROM (
                SELECT hypertable_name::text AS relation,
                    (extract(epoch FROM (config ->> 'compress_after')::interval) / 86400)::int AS days
                FROM timescaledb_information.jobs
                WHERE proc_name = 'policy_compression' AND hypertable_schema = current_schema()
            ) AS job
            """,
            {
                "rows": [table for table in tables(declarations) if table not in declarations.event_tables],
                "events": [*declarations.event_tables],
            },
        )
    ).fetchone()
    return dict(zip(("columnstore_days", "event_columnstore_days"), row or (), strict=True))


def _wanted(
    settings: Database, known: Mapping[str, int], declarations: Declarations, columns: Mapping[str, int]
) -> Database:
    """What is set, and of the rest what the database has; the defaults where it has nothing."""
    raw = [known[table] for table in tables(declarations) if table in known]
    had = {
        "raw_days": (0 if 0 in raw else max(raw)) if raw else None,
        "rollup_days": known.get("ingest_ledger"),
        "dead_letter_days": known.get("dead_letter"),
        **columns,
    }
    left = {name: days for name, days in had.items() if days is not None and name not in settings.model_fields_set}
    wanted = settings.model_copy(update=left)
    if wanted.rollup_days and not 0 < wanted.raw_days <= wanted.rollup_days:
        said = ", ".join(f"{name} {getattr(wanted, name)}" for name in ("raw_days", "rollup_days"))
        own = ", ".join(f"[database] {name}" for name in sorted(_SETTINGS & settings.model_fields_set))
        raise DatabaseError(
            f"rollups are kept as long as rows or longer; with what the database has, {own} would make it {said} "
            "(0: for ever): set both"
        )
    return wanted


def _kept(
    settings: Database, known: Collection[str], declarations: Declarations, *, community: bool
) -> Iterator[Statement]:
    for table in tables(declarations):
        rolled_first = community and table not in _FURTHER
        query = b"SELECT keep(%s, %s::interval, rolled_first => %s)"
        yield table, query, (table, _days(settings.raw_days), rolled_first)
    for relation, days in (("dead_letter", settings.dead_letter_days), ("ingest_ledger", settings.rollup_days)):
        yield relation, b"SELECT keep(%s, %s::interval)", (relation, _days(days))
    if community:
        for table in rolled_up(declarations):
            filled = filled_of(table)
            for rolled, size in rollups_of(table):
                rollup = f"{rolled}_{size.name}"
                at_most = _rollup_days(settings, rolled)
                if rollup in filled:
                    query = b"SELECT keep(%s, %s::interval, kept_since(%s), rolled_first => %s)"
                    yield rollup, query, (rollup, at_most, filled[rollup], rollup not in known)
                else:
                    # What a table has lost before it had rollups they will never know.
                    query = b"SELECT keep(%s, %s::interval, refreshable_since(%s))"
                    yield rollup, query, (rollup, at_most, table)


def _jobs(settings: Database, declarations: Declarations) -> Iterator[Statement]:
    for table in tables(declarations):
        yield table, _DROPPED.encode(), (table,)
        days = settings.event_columnstore_days if table in declarations.event_tables else settings.columnstore_days
        yield table, b"SELECT keep_in_columns(%s, %s::interval)", (table, _days(days))
    for table in rolled_up(declarations):
        for rolled, size in rollups_of(table):
            rollup = f"{rolled}_{size.name}"
            yield (
                rollup,
                b"SELECT bool_or(keep_at_most(name, %s::interval)) FROM aggregates_of(%s) AS name",
                (_rollup_days(settings, rolled), rollup),
            )
            yield (
                rollup,
                b"SELECT bool_or(keep_in_columns(name, %s::interval)) FROM aggregates_of(%s) AS name",
                (None if stays_rows(rolled, size) else _behind_refreshes(settings.columnstore_days), rollup),
            )


def _rollup_days(settings: Database, rolled: str) -> timedelta | None:
    return _days(settings.raw_days if is_personal(rolled) else settings.rollup_days)


def _behind_refreshes(days: int) -> timedelta | None:
    """Of rollups: past what the jobs refresh, or TimescaleDB refuses it."""
    return timedelta(days=max(days, _ROLLUPS_IN_COLUMNS)) if days else None


def _refreshed(table: str) -> tuple[bytes, tuple[str, str]]:
    rollups = [
        {
            "name": f"{rolled}_{size.name}",
            # What is made of smaller buckets is refreshed where all of it lies within the reach.
            "reach": _minutes(REACH + (size.length if size.made_of else timedelta(0))),
            "behind": _minutes(_BEHIND[size.name]),
        }
        for rolled, size in rollups_of(table)
    ]
    return b"SELECT keep_refreshed(%s, %s::jsonb)", (table, json.dumps(rollups))


def _minutes(time: timedelta) -> str:
    return f"{time // timedelta(minutes=1)} minutes"


def _days(days: int) -> timedelta | None:
    return timedelta(days=days) if days else None
