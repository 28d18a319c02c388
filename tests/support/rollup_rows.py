"""Rows of every typed and event table as they come over days, and a tally of what the counters rose by beside them.

Restarts (another start time), restarts that nobody told of (no start time, and a value that falls), gaps, cells that
are missing, rows from before their epoch's start, an instance whose queue is named in some rows. Doubles are multiples
of 1/8, so that their sums are the same in any order.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from postel.signals import Declarations

Row = dict[str, Any]
_DOMAINS = ("a.example", "b.example", None)


@dataclass
class Rises:
    """(table, counter) -> (time of the row that shows it, how much), by the rule of the raw view."""

    found: dict[tuple[str, str], list[tuple[datetime, int]]] = field(default_factory=lambda: defaultdict(list))

    def over(self, table: str, counter: str, begin: datetime, end: datetime) -> int:
        """The increase over a window, all series together."""
        return sum(rise for at, rise in self.found[table, counter] if begin <= at < end)


@dataclass
class Data:
    """Table -> rows, and the tally of the typed ones."""

    rows: dict[str, list[Row]]
    rises: Rises


def made(declarations: Declarations, *, begin: datetime, end: datetime, step: timedelta, seed: int) -> Data:
    """Data of the time from ``begin`` to ``end``, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    data = Data({}, Rises())
    for table in sorted(declarations.tables):
        rows = data.rows[table] = []
        columns = declarations.columns_of(table)
        counters = [column.name for column in columns if column.counter]
        gauges = {column.name: column.type for column in columns if not column.counter}
        labels = sorted(declarations.tables[table].labels)
        for zone, starts in (("", True), ("z", True), ("silent", False)):
            series = list(_series(chance, begin, end, step, counters, starts=starts))
            for row in series:
                row |= {"zone": zone, "node_id": "n1" if zone else "n2", "instance": "i"}
                row |= {name: _gauge(chance, type_) for name, type_ in gauges.items()}
                row |= {label: chance.choice(("q1", "q1", "q2", None)) for label in labels}
            _count(data.rises, table, series, counters)
            rows += series
        chance.shuffle(rows)
    for table in sorted(declarations.event_tables):
        data.rows[table] = [_event(chance, table, begin, end) for _ in range(400)]
    return data


def inserts(rows: Mapping[str, Sequence[Row]]) -> str:
    """Statements that insert the rows."""
    return ";\n".join(
        f"INSERT INTO {table} ({', '.join(some[0])}) VALUES\n" + ",\n".join(map(_literals, some))
        for table, some in rows.items()
        if some
    )


def _series(
    chance: random.Random, begin: datetime, end: datetime, step: timedelta, counters: Sequence[str], *, starts: bool
) -> Iterator[Row]:
    at, started = begin, begin - timedelta(seconds=7)
    values = dict.fromkeys(counters, 0 if starts else 500)
    while at < end:
        for name in counters:
            values[name] += chance.choice((0, 1, 3, 40))
        row: Row = {"time": at, "started_at": started if starts else None}
        yield row | {name: None if chance.random() < 0.2 else value for name, value in values.items()}
        at += step * chance.choice((1, 1, 1, 1, 2, 9))
        if chance.random() < 0.05:
            # The last value stays unseen now and then. Its epoch begins with the first row, before or after it: where
            # a clock was set back, there are rows from before their epoch, which are in no increase.
            started = at + chance.choice((timedelta(), timedelta(), -timedelta(seconds=11), 1.5 * step))
            values = {name: chance.choice((0, 0, 2)) for name in counters}


def _count(rises: Rises, table: str, series: Sequence[Row], counters: Sequence[str]) -> None:
    for name in counters:
        last: dict[datetime | None, int] = {}
        for row in series:
            value, epoch, at = row[name], row["started_at"], row["time"]
            if value is None or (epoch is not None and at < epoch):
                continue
            before = last.get(epoch)
            if before is not None:
                rise = value - before if value >= before else value
            else:
                rise = 0 if epoch is None or epoch == at else value
            last[epoch] = value
            rises.found[table, name].append((at, rise))


def _gauge(chance: random.Random, type_: str) -> float | None:
    if chance.random() < 0.2:
        return None
    number = chance.randrange(800)
    return number if type_ == "bigint" else number / 8


def _event(chance: random.Random, table: str, begin: datetime, end: datetime) -> Row:
    row: Row = {
        "time": begin + chance.random() * (end - begin),
        "event_id": UUID(int=chance.getrandbits(128)),
        "node_id": chance.choice(("n1", "n2")),
        "instance": "i",
        "event_name": "e",
        # Whoever sends, to several.
        "attributes": chance.choice(("{}", '{"user.name": "ann", "email.to.address": ["x@a.example", "y@a.example"]}')),
        "to_domain": chance.choice(_DOMAINS),
    }
    if table == "delivery_events":
        return row | {
            "zone": chance.choice(("default", "bulk")),
            "status": chance.choice(("delivered", "rejected", "deferred")),
            "category": chance.choice(("spam", None)),
            "attempt": chance.choice((1, 2, None)),
            "duration": chance.choice((None, chance.randrange(80) / 8)),
        }
    return row | {
        "direction": chance.choice(("inbound", "outbound")),
        "from_user": chance.choice(("bob", None)),
        "from_domain": chance.choice(_DOMAINS),
        "outcome": chance.choice(("accepted", "rejected")),
        "spam_action": chance.choice(("reject", None)),
        "size_bytes": chance.choice((None, chance.randrange(10_000))),
        "recipients_accepted": chance.choice((None, 1, 2)),
        "recipients_refused": chance.choice((None, 0)),
        "spam_score": chance.choice((None, chance.randrange(-80, 80) / 8)),
    }


def _literals(row: Row) -> str:
    return f"({', '.join(map(_literal, row.values()))})"


def _literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case int() | float():
            return repr(value)
        case datetime():
            return f"'{value.isoformat()}'"
        case _:
            return f"'{value}'"
