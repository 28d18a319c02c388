"""``postel db check``: counts what the tables hold and compares it with what the ledger says was stored.

The recount looks at the rows themselves, hour by hour of their own time, and never at the ledger's own figures. Hours
of which retention may have taken rows are passed over; what it takes of dead letters the ledger notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from postel.signals import Declarations
from timescale_sink.store.database import Connection


@dataclass(frozen=True, slots=True)
class Difference:
    """An hour in which a table does not hold what the ledger says."""

    hour: datetime
    destination: str
    what: str
    ledger: int
    counted: int

    def __str__(self) -> str:
        return (
            f"{self.hour:%Y-%m-%d %H}:00 UTC {self.destination}: the ledger says {self.ledger} {self.what}, "
            f"the tables hold {self.counted}"
        )


async def differences(connection: Connection, declarations: Declarations) -> list[Difference]:
    """Compare every hour of every destination, in one snapshot."""
    # Identifiers of the declarations, whose loader takes plain ones only.
    counts = [
        f"SELECT date_trunc('hour', time, 'UTC') AS hour, '{table}' AS destination, 'stored' AS what, {weight} AS n "
        f"FROM {table} WHERE time >= kept_since('{table}') GROUP BY 1"
        for table, weight in _weights(declarations).items()
    ]
    counts.append(
        "SELECT hour, destination, 'dead-lettered' AS what, count(*) AS n FROM dead_letter GROUP BY hour, destination"
    )
    query = f"""
        WITH counted AS ({" UNION ALL ".join(counts)}),
        said AS (
            SELECT hour, destination, 'stored' AS what, sum(stored - removed) AS n
            FROM ingest_ledger WHERE hour >= kept_since(destination) GROUP BY 1, 2
            UNION ALL
            SELECT hour, destination, 'dead-lettered', sum(dead_lettered - letters_removed)
            FROM ingest_ledger GROUP BY 1, 2
        )
        SELECT hour, destination, what, coalesce(said.n, 0)::bigint, coalesce(counted.n, 0)::bigint
        FROM said FULL JOIN counted USING (hour, destination, what)
        WHERE coalesce(said.n, 0) <> coalesce(counted.n, 0)
        ORDER BY hour, destination, what
    """
    rows = await (await connection.execute(query.encode())).fetchall()
    return [Difference(*row) for row in rows]


def _weights(declarations: Declarations) -> dict[str, str]:
    """Table -> how many points or records a row stands for, summed."""
    weights = {
        table: f"sum(num_nonnulls({', '.join(column.name for column in declarations.columns_of(table))}))"
        for table in declarations.tables
    }
    whole = ("otel_metric_point", "otel_log", *declarations.event_tables)
    return {**weights, **dict.fromkeys(whole, "count(*)")}
