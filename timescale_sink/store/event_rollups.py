"""The rollups of the event tables: how many by node, zone or direction, domain, outcome, category; what they sum to.

Beside them stand those by node, ``<table>_nodes_<size>``, the same whatever the domain: there are as many rows of a
bucket as domains in it, and what asks for all of them would read nearly as much as there are events. Those by domain,
``<table>_domains_<size>``, are the same whatever the node: of a large domain there is a row of each node else. Those
whatever both, ``<table>_totals_<size>``, have a few rows of each bucket, however many nodes and domains there are. The
domains with most attempts to deliver in each hour and day are listed in ``delivery_events_leaders_<size>``. Who sent
how much is in ``email_events_senders_1h``, of hours alone: of five minutes there would be nearly as many rows as
messages.

As for the typed tables (:mod:`timescale_sink.store.rollups`) the public names are views, over continuous aggregates on
TimescaleDB Community and over the raw rows elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from timescale_sink.store import rollups
from timescale_sink.store.rollups import Size, stepping

SIZES = tuple(size for size in rollups.SIZES if not size.later)
"""Of the event tables, the smallest first."""


@dataclass(frozen=True, slots=True)
class Events:
    """How an event table is rolled up.

    Attributes:
        name: what the rollups' names begin with.
        table: the event table.
        by: column of the rollup -> the expression that the events of a bucket are told apart by.
        counts: column -> what is counted.
        sums: columns of which ``_sum``, ``_count``, ``_min`` and ``_max`` are kept.
        where: which events count; '' for all.
        sizes: of the buckets that there are.
        personal: it names people, so that it is kept no longer than the events are.
        merged: column -> how it is made of smaller buckets or of others, where it is no sum of counts.
        made_of: what the names of the rollups begin with that these are made of, size by size, as far back as there
            are any: they came when there were some of a year; '' for what is made as the events come.
    """

    name: str
    table: str
    by: Mapping[str, str]
    counts: Mapping[str, str]
    sums: Sequence[str] = ()
    where: str = ""
    sizes: Sequence[Size] = SIZES
    personal: bool = False
    merged: Mapping[str, str] = field(default_factory=dict)
    made_of: str = ""

    def by_node(self) -> Events:
        """The same whatever the domain."""
        return replace(self, name=f"{self.name}_nodes", by=self._without("domain"))

    def by_domain(self) -> Events:
        """The same whatever the node and instance."""
        by = self._without("node_id", "instance")
        return replace(self, name=f"{self.name}_domains", by=by, made_of=self.name)

    def in_all(self) -> Events:
        """The same whatever the domain, node and instance; made of those by node, which are the fewest."""
        by = self._without("domain", "node_id", "instance")
        return replace(self, name=f"{self.name}_totals", by=by, made_of=self.by_node().name)

    @property
    def columns(self) -> list[str]:
        """All columns of the rollup behind the bucket."""
        return [*self.by, *self._measures(merging=False)]

    def of_events(self) -> str:
        """The columns behind the bucket, as a query over the events makes them."""
        keys = [key if expression == key else f"{expression} AS {key}" for key, expression in self.by.items()]
        return ",\n    ".join([*keys, *self._made(merging=False)])

    def of_buckets(self) -> str:
        """The same, as a query over smaller buckets makes them."""
        return ",\n    ".join([*self.by, *self._made(merging=True)])

    def _without(self, *left_out: str) -> Mapping[str, str]:
        return {name: expression for name, expression in self.by.items() if name not in left_out}

    def _made(self, *, merging: bool) -> list[str]:
        return [f"{expression} AS {name}" for name, expression in self._measures(merging=merging).items()]

    def _measures(self, *, merging: bool) -> dict[str, str]:
        made = {
            name: self.merged.get(name, f"sum({name})::bigint") if merging else expression
            for name, expression in self.counts.items()
        }
        for column in self.sums:
            kept = {"sum": "sum", "count": "count", "min": "min", "max": "max"}
            for name, function in kept.items():
                own = f"{column}_{name}"
                made[own] = f"{function}({column})"
                if merging:
                    made[own] = f"sum({own})::bigint" if name == "count" else f"{function}({own})"
        return made


_TABLES = (
    Events(
        "email_events",
        "email_events",
        by={
            "node_id": "node_id",
            "instance": "instance",
            "direction": "direction",
            # Of the other side: who sent what came in, where to what goes out.
            "domain": "CASE WHEN direction = 'outbound' THEN to_domain ELSE from_domain END",
            "outcome": "outcome",
            "spam_action": "spam_action",
        },
        counts={"messages": "count(*)"},
        sums=("size_bytes", "recipients_accepted", "recipients_refused", "spam_score"),
    ),
    Events(
        "delivery_events",
        "delivery_events",
        by={
            "node_id": "node_id",
            "instance": "instance",
            "zone": "zone",
            "domain": "to_domain",
            "status": "status",
            "category": "category",
        },
        counts={"attempts": "count(*)", "first_attempts": "count(*) FILTER (WHERE attempt = 1)"},
        sums=("duration",),
    ),
)
EVENTS: Mapping[str, Events] = MappingProxyType({events.name: events for events in _TABLES})
"""Event table -> its rollups that have everything."""
NODES: Mapping[str, Events] = MappingProxyType({events.name: events.by_node() for events in _TABLES})
"""Event table -> its rollups whatever the domain, made of the others."""
DOMAINS: Mapping[str, Events] = MappingProxyType({events.name: events.by_domain() for events in _TABLES})
"""Event table -> its rollups whatever the node, made of those that have everything, size by size."""
TOTALS: Mapping[str, Events] = MappingProxyType({events.name: events.in_all() for events in _TABLES})
"""Event table -> its rollups whatever the domain and the node, made of those by node, size by size."""

LED = 500
"""So many domains with most events of a bucket are in its list; fewer are all."""


def _led(names: str, counts: str) -> Mapping[str, str]:
    return {kind: f"leading_{kind}(array_agg({names}), array_agg({counts}), {LED})" for kind in ("names", "counts")}


LEADERS: Mapping[str, Events] = MappingProxyType(
    {
        "delivery_events": Events(
            "delivery_events_leaders",
            "delivery_events",
            by={},
            counts=_led("to_domain", "1::bigint"),
            # Of five minutes there are not many more domains.
            sizes=[size for size in SIZES if size.name != "5m"],
            merged=_led("domain", "attempts"),
            made_of=DOMAINS["delivery_events"].name,
        )
    }
)
"""Event table -> its lists of the domains with most events in each bucket, made of those by domain."""

# Who authenticated, else the envelope sender as far as it is told; NULL: the null sender.
_SENDER = "coalesce(attributes ->> 'user.name', coalesce(from_user || '@', '') || from_domain)"
_RECIPIENTS = """sum(
        CASE WHEN jsonb_typeof(attributes -> 'email.to.address') = 'array'
            THEN jsonb_array_length(attributes -> 'email.to.address') ELSE 1 END
    )"""
SENDERS: Mapping[str, Events] = MappingProxyType(
    {
        "email_events": Events(
            "email_events_senders",
            "email_events",
            by={"node_id": "node_id", "instance": "instance", "sender": _SENDER},
            counts={"messages": "count(*)", "recipients": _RECIPIENTS},
            where="direction = 'outbound' AND outcome IN ('queued', 'accepted')",
            sizes=[size for size in SIZES if size.name == "1h"],
            personal=True,
        )
    }
)
"""Event table -> its rollup of what was taken for delivery, by who sent it."""


def rolled(tables: Collection[str]) -> list[Events]:
    """All rollups of some event tables, those that others are made of first."""
    return [
        made[table]
        for table in sorted(tables)
        for made in (EVENTS, NODES, DOMAINS, TOTALS, LEADERS, SENDERS)
        if table in made
    ]


def view(events: Events, size: Size, aggregates: Sequence[str]) -> str:
    """The statement that makes the public view or replaces it; ``aggregates`` is empty where the raw rows are read."""
    source = aggregates[0] if aggregates else _stepping(events, size)
    columns = ", ".join(f"state.{column}" for column in ["bucket", *events.columns])
    return f"CREATE OR REPLACE VIEW {events.name}_{size.name} AS SELECT {columns}\nFROM {source} AS state"


def _stepping(events: Events, size: Size) -> str:
    group = ", ".join(str(position) for position in range(1, len(events.by) + 1))
    only = f"AND {events.where}\n" if events.where else ""
    # Without a group there is a row of nothing too.
    grouped = f"GROUP BY {group}" if events.by else "HAVING count(*) > 0"
    return stepping(events.table, size, f"SELECT\n    {events.of_events()}", f"{only}{grouped}")
