"""What is counted of events, in the spool's file: the ids that were counted and the totals, in one transaction.

Every call is part of the transaction of its owner, :class:`otel_receivers.spool_file.SpoolFile`, which says when that
is on disk. So an event is stored, remembered and counted, or none of it, whenever the process is killed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otel_receivers import spool_seen
from otel_receivers.derived import Instance, Occurrence, Series
from otel_receivers.spool_seen import SeenIds
from otel_receivers.totals import Change, Sender, Total, Totals

SCHEMA = (
    spool_seen.SCHEMA
    + """
CREATE TABLE IF NOT EXISTS total (sender TEXT NOT NULL, series TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (sender, series)) STRICT, WITHOUT ROWID;
"""
)


@dataclass(frozen=True, slots=True)
class Told:
    """The totals of one sender as they are now.

    Attributes:
        instance: who it is.
        sender: since when it is counted.
        totals: by series.
        quiet: seconds since it was heard, or, where that is shorter, since the file was opened.
    """

    instance: Instance
    sender: Sender
    totals: Mapping[Series, Total]
    quiet: float


class CountedEvents:
    """The tables in an open database.

    Args:
        database: has the tables of `SCHEMA`.
        most_bytes: that ids of events may take.
    """

    def __init__(self, database: sqlite3.Connection, most_bytes: int) -> None:
        self._db = database
        self._seen = SeenIds(database, most_bytes // spool_seen.ID_BYTES)
        self._totals: Totals | None = None
        self._opened = time.monotonic()
        self._heard: dict[Instance, float] = {}

    def count(self, occurrences: Sequence[Occurrence], now: float) -> Change:
        """Count events that were not counted before.

        Args:
            occurrences: events; those that lead to no measurement are not remembered.
            now: seconds since 1970.

        Returns:
            For :meth:`keep`, once it is on disk.
        """
        # The same id twice in one request is one event.
        measured = {occurrence.uid: occurrence for occurrence in occurrences if occurrence.measurements}
        fresh = self._seen.add(list(measured), now) if measured else set()
        counted = [
            occurrence
            for occurrence in occurrences
            if not occurrence.measurements or (occurrence.uid in fresh and measured[occurrence.uid] is occurrence)
        ]
        return self._write(self._loaded().counted(counted, int(now * 1e9)))

    def keep(self, change: Change) -> None:
        """The transaction is on disk."""
        self._loaded().keep(change)
        self._heard |= dict.fromkeys(change.heard, time.monotonic())

    def rolled_back(self) -> None:
        """The transaction came to nothing."""
        self._totals = None

    def begin_anew(self, now: float) -> Change:
        """Senders that begin more than a day after ``now`` begin now, for :meth:`keep`; see :class:`Totals`."""
        return self._write(self._loaded().begun_anew(int(now * 1e9)))

    def forget(self, now: float) -> None:
        """Forget a piece of the ids that are due."""
        self._seen.forget(now)

    def told(self) -> list[Told]:
        """The totals of every sender."""
        totals, now = self._loaded(), time.monotonic()
        return [
            Told(instance, sender, dict(totals.totals[instance]), now - self._heard.get(instance, self._opened))
            for instance, sender in totals.senders.items()
        ]

    def _loaded(self) -> Totals:
        if self._totals is None:
            self._totals = Totals(self._db.execute("SELECT sender, series, state FROM total"))
        return self._totals

    def _write(self, change: Change) -> Change:
        self._db.executemany("DELETE FROM total WHERE sender = ?", [(sender,) for sender in change.gone()])
        self._db.executemany(
            "INSERT INTO total VALUES (?, ?, ?) ON CONFLICT (sender, series) DO UPDATE SET state = excluded.state",
            change.rows(),
        )
        return change
