"""The ids of events that were counted, in the spool's file: for 24 hours, so that what comes again counts once.

Ids are kept by the time of their arrival, in periods of four hours, in one B-tree with the period in front. Plugins'
ids ascend (UUID version 7), so that asking for one touches the last page of each period, and old ones go in pieces
from its begin. What exceeds the bound makes an id be remembered for less than a day, the oldest first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import structlog

from otel_receivers.derived import UID_BYTES

SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (period INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (period, id))
    STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen_period (period INTEGER PRIMARY KEY, ids INTEGER NOT NULL) STRICT;
"""
PERIOD_SECONDS = 4 * 3600
REMEMBERED_SECONDS = 86_400
# What an id takes on disk at most, the unused part of its page included: 29 were measured where ids ascend, as those of
# plugins do, and pages are two thirds full where they are digests in no order.
ID_BYTES = 48
# Forgotten in one piece at most, beside twice as many as were added.
_PIECE = 2_000
_log = structlog.get_logger()


class SeenIds:
    """The memory in an open database; every call is part of its owner's transaction.

    Args:
        database: has the tables of `SCHEMA`.
        most: ids that are kept at most, up to a piece.
    """

    def __init__(self, database: sqlite3.Connection, most: int) -> None:
        self._db = database
        self._most = most
        self._full = False

    def add(self, ids: list[bytes], now: float) -> set[bytes]:
        """Remember ids.

        Args:
            ids: each once.
            now: seconds since 1970.

        Returns:
            Those that were not known.
        """
        current = int(now // PERIOD_SECONDS)
        known = ",".join(str(period) for period, _ in self._periods())
        # The numbers stand in the statement: with a parameter for each, SQLite would prepare it as often.
        statement = (
            f"INSERT INTO seen SELECT {current}, ?1"  # noqa: S608 - numbers
            f" WHERE NOT EXISTS (SELECT 1 FROM seen WHERE period IN ({known}) AND id = ?1)"
            " ON CONFLICT DO NOTHING"
        )
        added = {each for each in ids if self._db.execute(statement, (each,)).rowcount}
        self._count(current, len(added))
        self.forget(now, _PIECE + 2 * len(added))
        return added

    def forget(self, now: float, most: int = 4 * _PIECE) -> None:
        """Forget what is due, the oldest first.

        Args:
            now: seconds since 1970.
            most: ids at most.
        """
        periods = list(self._periods())
        current, remembered = int(now // PERIOD_SECONDS), REMEMBERED_SECONDS // PERIOD_SECONDS
        # A period that is further ahead than a day is of a clock that was wrong.
        due = [period for period, _ in periods if abs(period - current) > remembered]
        surplus = sum(ids for _, ids in periods) - self._most
        if not due and surplus > 0:
            if not self._full:
                _log.warning("ids of events are remembered for less than a day: too many come", kept=self._most)
            self._full = True
            due, most = [periods[0][0]], min(most, surplus)
        if due:
            self._forget(due[0], most)

    def _forget(self, period: int, most: int) -> None:
        gone = self._db.execute(
            "DELETE FROM seen WHERE period = ?1"
            " AND id <= coalesce((SELECT id FROM seen WHERE period = ?1 ORDER BY id LIMIT 1 OFFSET ?2), ?3)",
            (period, most - 1, b"\xff" * UID_BYTES),
        ).rowcount
        self._count(period, -gone)
        self._db.execute("DELETE FROM seen_period WHERE period = ? AND ids <= 0", (period,))

    def _count(self, period: int, ids: int) -> None:
        if ids:
            self._db.execute(
                "INSERT INTO seen_period VALUES (?1, ?2) ON CONFLICT (period) DO UPDATE SET ids = ids + ?2",
                (period, ids),
            )

    def _periods(self) -> Iterator[tuple[int, int]]:
        yield from self._db.execute("SELECT period, ids FROM seen_period ORDER BY period")
