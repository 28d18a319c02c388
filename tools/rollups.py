"""Writes the migration of a table's continuous aggregates, under the next number: `python -m tools.rollups TABLE`.

The file is frozen with the commit that brings it, as every migration is (`tools.freeze`); what is made of the
declarations later is not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from postel.signals import load_all
from timescale_sink.store import event_rollups, rollups
from timescale_sink.store.event_rollups import Events
from timescale_sink.store.rollups import KEY, Size
from tools.freeze import MIGRATIONS

# Of ten days, as TimescaleDB has it, a chunk would hold a week or two, and planning a year take as long as reading it.
_CHUNKS = {"weekly": "70 days"}


def migration(table: str) -> str:
    """The text: the table in columns once it is old, and an aggregate for each size of buckets.

    Raises:
        KeyError: no such table is declared.
    """
    return "\n".join(
        [f"-- On TimescaleDB Community: {table} in columns once it is old, and its rollups.\n", *_made(table)]
    )


def _made(table: str) -> Iterator[str]:
    events = event_rollups.EVENTS.get(table)
    if events:
        # An event is told from the others by its id, which makes no segment, and looked for where its time is: by
        # segments of nodes, in a batch of every node.
        yield columnstore(table, "", "time")
        sizes, rows, states, keys = event_rollups.SIZES, events.of_events(), events.of_buckets(), list(events.by)
        # One domain's buckets are asked for, or all of them.
        segments, order = "", "domain, bucket"
    else:
        typed = {found.name: found for found in rollups.typed_tables(load_all())}[table]
        yield columnstore(table, "node_id, instance, zone", "time")
        head = f"{', '.join(KEY)},\n    "
        sizes, rows, states = rollups.SIZES, head + rollups.state_of_rows(typed), head + rollups.state_of_states(typed)
        keys = list(KEY)
        segments, order = "node_id, instance, zone", "bucket"
    for size in sizes:
        yield from _sized(table, size, rows, states, keys, segments=segments, order=order)
    if events:
        yield from by_node(event_rollups.NODES[table])
        yield from by_domain(event_rollups.DOMAINS[table])
        yield from of_same_size(event_rollups.TOTALS[table])
        if table in event_rollups.LEADERS:
            yield from of_same_size(event_rollups.LEADERS[table])
        if table in event_rollups.SENDERS:
            yield from by_sender(event_rollups.SENDERS[table])


def _sized(
    table: str, size: Size, rows: str, states: str, keys: Sequence[str], *, segments: str, order: str
) -> Iterator[str]:
    name = f"{table}_{size.name}_1"
    source, time, columns = (f"{table}_{size.made_of}_1", "bucket", states) if size.made_of else (table, "time", rows)
    yield _aggregate(name, size.interval, source=source, time=time, columns=columns, keys=len(keys))
    yield _index(name, keys)
    yield columnstore(name, segments, order)
    if size.name in _CHUNKS:
        yield f"SELECT set_chunk_time_interval('{name}', interval '{_CHUNKS[size.name]}');\n"


def by_node(events: Events) -> Iterator[str]:
    """The rollups of an event table whatever the domain, made of those that have it."""
    source = f"{events.table}_{events.sizes[0].name}_1"
    for size in events.sizes:
        name = f"{events.name}_{size.name}_1"
        yield _aggregate(
            name, size.interval, source=source, time="bucket", columns=events.of_buckets(), keys=len(events.by)
        )
        yield f"CREATE INDEX {name}_key ON {name} (node_id, bucket);\n"
        yield columnstore(name, "node_id", "bucket")
        source = name


def by_domain(events: Events) -> Iterator[str]:
    """The rollups of an event table whatever the node, each made of that which has everything of the same size.

    Of the smaller one of their own, those of a year's days would come only once all its five minutes were made anew.
    """
    for size in events.sizes:
        name = f"{events.name}_{size.name}_1"
        yield _aggregate(
            name,
            size.interval,
            source=f"{events.made_of}_{size.name}_1",
            time="bucket",
            columns=events.of_buckets(),
            keys=len(events.by),
        )
        yield _index(name, [])
        # Five minutes are read at the ends of a range and of a day at most, of all domains: by the domain first, a
        # slice of an hour took 50 ms, all of its ten days being unpacked.
        yield columnstore(name, "", "bucket, domain" if size.name == "5m" else "domain, bucket")


def of_same_size(events: Events) -> Iterator[str]:
    """Rollups each made of one of the same size, and read whole: what all nodes did, and lists of domains."""
    for size in events.sizes:
        name, source = f"{events.name}_{size.name}_1", f"{events.made_of}_{size.name}_1"
        columns, keys = events.of_buckets(), len(events.by)
        yield _aggregate(name, size.interval, source=source, time="bucket", columns=columns, keys=keys) + "\n"
        yield columnstore(name, "", "bucket")


def by_sender(events: Events) -> Iterator[str]:
    """The rollup of an event table by who sent it, made of the events."""
    for size in events.sizes:
        name = f"{events.name}_{size.name}_1"
        yield _aggregate(
            name,
            size.interval,
            source=events.table,
            time="time",
            columns=events.of_events(),
            keys=len(events.by),
            where=events.where,
        )
        yield f"CREATE INDEX {name}_key ON {name} (sender, bucket);\n"
        yield columnstore(name, "", "sender, bucket")


def columnstore(relation: str, segments: str, order: str) -> str:
    """The statement by which chunks of a table or aggregate may be stored in columns."""
    kind = "MATERIALIZED VIEW" if relation.endswith("_1") else "TABLE"
    return (
        f"ALTER {kind} {relation} SET (\n    timescaledb.enable_columnstore, timescaledb.segmentby = '{segments}', "
        f"timescaledb.orderby = '{order}'\n);\n"
    )


def _aggregate(name: str, interval: str, *, source: str, time: str, columns: str, keys: int, where: str = "") -> str:
    group = ", ".join(str(position) for position in range(1, keys + 2))
    return f"""CREATE MATERIALIZED VIEW {name} WITH (
    timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false
) AS SELECT
    time_bucket('{interval}', {time}) AS bucket,
    {columns}
FROM {source}{f"{chr(10)}WHERE {where}" if where else ""}
GROUP BY {group}
WITH NO DATA;"""


def _index(name: str, keys: Sequence[str]) -> str:
    # The neighbour of a bucket is the one before it; of events, what happens to a domain is asked for.
    wanted = [key for key in keys if key != "started_at"] if "started_at" in keys else ["domain"]
    return f"CREATE INDEX {name}_key ON {name} ({', '.join([*wanted, 'bucket'])});\n"


def main() -> None:
    """Write the file of the table that the command line names."""
    (table,) = sys.argv[1:]
    number = 1 + max(int(path.name[:4]) for path in MIGRATIONS.glob("*.sql"))
    path = MIGRATIONS / f"{number:04}_{table.removeprefix('metrics_')}_rollups.community.sql"
    path.write_text(migration(table), "utf-8")
    print(path.relative_to(Path.cwd()))


if __name__ == "__main__":
    main()
