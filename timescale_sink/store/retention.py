"""How long what is kept: brings the settings into the database, where its jobs, the views and `db check` find them.

On TimescaleDB Community the extension's jobs drop chunks, store them in columns and refresh the rollups. Elsewhere the
sink deletes what is too old (:mod:`timescale_sink.store.housekeeping`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from postel.settings import Database
from postel.signals import Declarations
from timescale_sink.store.database import Connection, Tier, ask_server
from timescale_sink.store.migrate import SCHEMA_LOCK
from timescale_sink.store.rollup_views import sources
from timescale_sink.store.rollups import SIZES

# Of rows, not of rollups.
_FURTHER = ("otel_metric_point", "otel_log")
# How late a row may be for the jobs to see it; housekeeping looks further back.
REACH = timedelta(days=8)
# The job of days reaches nine days back.
_ROLLUPS_IN_COLUMNS = 10


@dataclass(frozen=True, slots=True)
class _Refresh:
    """The job of a size of buckets.

    Attributes:
        further: than `REACH`, because a bucket is refreshed where all of it lies within what is.
        behind: what is younger is read from the rows: it still comes.
        batch: buckets in a transaction, a day of them.
    """

    further: timedelta
    behind: timedelta
    batch: int


_REFRESHES = {
    "5m": _Refresh(timedelta(0), timedelta(minutes=10), 288),
    "1h": _Refresh(timedelta(hours=1), timedelta(hours=1), 24),
    "daily": _Refresh(timedelta(days=1), timedelta(days=1), 1),
}


def tables(declarations: Declarations) -> list[str]:
    """The tables whose rows are kept for a time."""
    return [*sorted(declarations.tables), *sorted(declarations.event_tables), *_FURTHER]


async def apply(connection: Connection, settings: Database, declarations: Declarations) -> list[str]:
    """Make the database keep things as long as the settings say; what is so already is not touched.

    Returns:
        The names of what changed.

    Raises:
        psycopg.errors.InsufficientPrivilege: something has to change and the role may not.
    """
    community = (await ask_server(connection)).tier is Tier.COMMUNITY
    changed = []
    async with connection.transaction():
        # Two that add one job would be one too many.
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
        for name, query, parameters in [
            *_kept(settings, declarations, community=community),
            *(_jobs(settings, declarations) if community else ()),
        ]:
            row = await (await connection.execute(query, parameters)).fetchone()
            if row and row[0]:
                changed.append(name)
    return sorted(set(changed))


Statement = tuple[str, bytes, tuple[object, ...]]


def _kept(settings: Database, declarations: Declarations, *, community: bool) -> Iterator[Statement]:
    relations = dict.fromkeys(tables(declarations), _days(settings.raw_days))
    relations |= {"dead_letter": _days(settings.dead_letter_days), "ingest_ledger": _days(settings.rollup_days)}
    for relation, keep in relations.items():
        yield relation, b"SELECT keep(%s, %s::interval)", (relation, keep)
    if community:
        for rolled, table in sources(declarations).items():
            for size in SIZES:
                rollup = f"{rolled}_{size.name}"
                # What a table has lost before it had rollups they will never know.
                query = b"SELECT keep(%s, %s::interval, refreshable_since(%s))"
                yield rollup, query, (rollup, _days(settings.rollup_days), table)


def _jobs(settings: Database, declarations: Declarations) -> Iterator[Statement]:
    for table in tables(declarations):
        yield table, b"SELECT keep_at_most(%s, %s::interval)", (table, _days(settings.raw_days))
        days = settings.event_columnstore_days if table in declarations.event_tables else settings.columnstore_days
        yield table, b"SELECT keep_in_columns(%s, %s::interval)", (table, _days(days))
    for rolled in sources(declarations):
        for size in SIZES:
            rollup, job = f"{rolled}_{size.name}", _REFRESHES[size.name]
            yield (
                rollup,
                b"SELECT bool_or(keep_refreshed(name, %s, %s, %s)) FROM aggregates_of(%s) AS name",
                (REACH + job.further, job.behind, job.batch, rollup),
            )
            yield (
                rollup,
                b"SELECT bool_or(keep_at_most(name, %s::interval)) FROM aggregates_of(%s) AS name",
                (_days(settings.rollup_days), rollup),
            )
            yield (
                rollup,
                b"SELECT bool_or(keep_in_columns(name, %s::interval)) FROM aggregates_of(%s) AS name",
                (_behind_refreshes(settings.columnstore_days), rollup),
            )


def _behind_refreshes(days: int) -> timedelta | None:
    """Of rollups: past what the jobs refresh, or TimescaleDB refuses it."""
    return timedelta(days=max(days, _ROLLUPS_IN_COLUMNS)) if days else None


def _days(days: int) -> timedelta | None:
    return timedelta(days=days) if days else None
