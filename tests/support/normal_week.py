"""A week of a small platform where nothing is wrong, minute by minute: rows as the sink writes them, when they come.

Two nodes, each with Haraka, Rspamd and a Zone-MTA, all on one queue; a WildDuck on the first. Mail follows the hours of
a day and the days of a week, on Tuesdays and Thursdays a newsletter goes out. What is ordinary and looks like trouble
happens too: greylisting, unknown users, a dead destination whose mail is deferred for two days, spam all night, a
backup that takes all CPU and a tenth of the disk each night, a Zone-MTA, a Rspamd and a host that are restarted, a
Collector that is away for three minutes, a certificate that is renewed. Repeatable: the same for the same seed.

Rows come when they would: metrics 45 seconds after their tick, events 5 after they happened.
"""

from __future__ import annotations

import heapq
import itertools
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from postel.demo_shapes import hump, poisson

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
TICK, MINUTE, HOUR, DAY = timedelta(seconds=30), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NODES = ("mx1", "mx2")
BIG = "bigmail.test"
# Share of the mail, of it rejected, and of first attempts deferred.
_DESTINATIONS = {
    BIG: (0.45, 0.015, 0.02),
    "mailbox.test": (0.20, 0.02, 0.03),
    "office.test": (0.15, 0.02, 0.04),
    "campus.test": (0.08, 0.02, 0.35),
    "small.test": (0.12, 0.05, 0.30),
}
# Zone-MTA's own, in minutes (DEFAULT_DEFER_TIMES of lib/sender.js); after the last it gives up.
_RETRIES = (5, 7, 8, 25, 75, 120, *[240] * 11)
_METRICS_COME_AFTER, _EVENTS_COME_AFTER = timedelta(seconds=45), timedelta(seconds=5)
_EVENTS = {"email_events", "delivery_events"}
_USERS = 40


def _moment(day: int, hour: int, minute: int = 0) -> datetime:
    """Of the week: day 0 is Monday."""
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


# Of each what is away, from when to when.
_AWAY = {
    ("zone_mta", "mx1"): (_moment(2, 3, 10), _moment(2, 3, 11)),
    ("rspamd", "mx2"): (_moment(0, 12), _moment(0, 12, 1)),
    ("host", "mx2"): (_moment(6, 4), _moment(6, 4, 4)),
    ("collector", ""): (_moment(4, 15), _moment(4, 15, 3)),
}
_RENEWED = _moment(3, 5)


@dataclass(frozen=True, slots=True, order=True)
class _Recipient:
    """A recipient that waits: an attempt is made at ``due``."""

    due: datetime
    number: int
    queued: datetime = field(compare=False)
    domain: str = field(compare=False)
    zone: str = field(compare=False)
    node: str = field(compare=False)
    attempts: int = field(compare=False, default=0)


class Week:
    """The platform, from a moment on.

    Args:
        begin: its first moment; counters and queue begin at nothing.
        trouble: an hour in which the large destination defers all, the Rspamd of mx1 is down, and someone has got hold
            of a user's password; None: nothing of it.
        share: of the mail of a usual week that there is.
        seed: of all chance.
    """

    def __init__(self, begin: datetime, trouble: datetime | None = None, *, share: float = 1.0, seed: int = 7) -> None:
        self.now = begin
        self._share = share
        self._trouble = trouble
        self._chance = random.Random(seed)  # noqa: S311 - repeatable
        self._numbers = itertools.count()
        self._waiting: list[_Recipient] = []
        self._sizes: Counter[tuple[str, bool]] = Counter()
        self._totals: Counter[tuple[str, ...]] = Counter()
        self._started = {(what, node): begin - DAY for what in ("zone_mta", "haraka", "rspamd") for node in NODES}
        self._series: dict[str, uuid.UUID] = {}
        self._new_series: list[dict[str, Any]] = []
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def go_on(self, until: datetime, *, metrics: bool = True) -> None:
        """Let the time pass; without metrics there are only events."""
        while self.now < until:
            self.now += TICK
            self._send()
            self._attempt()
            self._receive()
            if metrics:
                self._measure()

    def write(self, database: psycopg.Connection[Any], *, everything: bool = False) -> None:
        """Store what has come until now."""
        begin, end = _AWAY["collector", ""]
        if begin <= self.now < end and not everything:
            return
        for series in self._new_series:
            names = sql.SQL(", ").join(map(sql.Identifier, series))
            holes = sql.SQL(", ").join(sql.Placeholder() * len(series))
            database.execute(
                sql.SQL("INSERT INTO otel_series ({}) VALUES ({})").format(names, holes), list(series.values())
            )
        self._new_series.clear()
        for table, rows in self._rows.items():
            delay = _EVENTS_COME_AFTER if table in _EVENTS else _METRICS_COME_AFTER
            come = rows if everything else [row for row in rows if row["time"] <= self.now - delay]
            self._rows[table] = [] if everything else [row for row in rows if row["time"] > self.now - delay]
            _copy(database, table, come)
        for node in NODES:
            if not self._is_away("host", node):
                database.execute(
                    "INSERT INTO node (id, host, first_seen, last_seen, sources, versions, demo, attributes)"
                    " VALUES (%s, %s, %s, %s, '[]', '{}', false, '{}')"
                    " ON CONFLICT (id) DO UPDATE SET last_seen = excluded.last_seen",
                    (node, f"{node}.example.org", self.now, self.now - _METRICS_COME_AFTER),
                )

    def _is_away(self, what: str, node: str) -> bool:
        begin, end = _AWAY.get((what, node), (self.now, self.now))
        return begin <= self.now < end or (what != "host" and self._is_away("host", node))

    def _in_trouble(self) -> bool:
        return self._trouble is not None and self._trouble <= self.now < self._trouble + HOUR

    def _business(self) -> float:
        """How much of the busiest hour's mail there is."""
        hour = (self.now - self.now.replace(hour=0, minute=0, second=0)) / HOUR
        day = 0.08 + 0.9 * hump(hour, 10.5, 2.6) + 0.75 * hump(hour, 15, 2.6) + 0.15 * hump(hour, 20, 2)
        return day * (0.3 if self.now.weekday() >= 5 else 1)

    def _some(self, values: Sequence[str], weights: Sequence[float] | None = None) -> str:
        return self._chance.choices(values, weights)[0]

    def _send(self) -> None:
        """Mail of users, of a nightly job, of the newsletter, and in trouble of who is no user."""
        for _ in range(poisson(self._chance, 8 * self._share * self._business())):
            # Some send much more than others.
            user = f"user{int(_USERS * self._chance.random() ** 2)}"
            self._queue(user, "default", self._chance.choices((1, 2, 8), (85, 12, 3))[0])
        if self.now.hour == 2 and self.now.minute < 15:
            self._queue("reports", "default", 8)
        if self.now.weekday() in (1, 3) and self.now.hour == 10 and self.now.minute < 40:
            self._queue("news", "bulk", 20)
        if self._in_trouble():
            for _ in range(8):
                self._queue("user39", "default", 5)

    def _queue(self, user: str, zone: str, recipients: int) -> None:
        node = self._some(NODES)
        if self._is_away("zone_mta", node):
            node = next(other for other in NODES if other != node)
        at = self.now - TICK * self._chance.random()
        to = self._chance.choices([*_DESTINATIONS], [share for share, _, _ in _DESTINATIONS.values()], k=recipients)
        if self._chance.random() < 0.002:
            to[0] = "dead.test"
        self._event(
            "email_events",
            at,
            node,
            12080,
            event_name="zonemta.message.queued",
            direction="outbound",
            outcome="queued",
            from_user=user,
            from_domain="example.org",
            attributes={"user.name": user, "email.to.address": [f"someone@{domain}" for domain in to]},
        )
        for domain in to:
            due = at + timedelta(seconds=self._chance.expovariate(1 / 15))
            heapq.heappush(self._waiting, _Recipient(due, next(self._numbers), at, domain, zone, node))
            self._sizes[zone, False] += 1

    def _attempt(self) -> None:
        while self._waiting and self._waiting[0].due <= self.now:
            one = heapq.heappop(self._waiting)
            if self._is_away("zone_mta", one.node):
                later = self.now + TICK
                heapq.heappush(self._waiting, _Recipient(later, *_rest(one)))
                continue
            self._sizes[one.zone, one.attempts > 0] -= 1
            status = self._outcome(one)
            self._event(
                "delivery_events",
                one.due,
                one.node,
                12080,
                event_name=f"zonemta.delivery.{'accepted' if status == 'delivered' else status}",
                direction=None,
                status=status,
                zone=one.zone,
                to_domain=one.domain,
                # At the dead one no exchanger is reached.
                mx=None if one.domain == "dead.test" else f"mx1.{one.domain}",
                attempt=one.attempts + 1,
                attributes={},
            )
            self._totals["zone_mta", one.node, one.zone, status] += 1
            if status == "delivered":
                self._totals["took", one.node, one.zone] += 1
                self._totals["seconds", one.node, one.zone] += round((one.due - one.queued).total_seconds())
            elif status == "deferred":
                due = one.due + timedelta(minutes=_RETRIES[one.attempts])
                number, queued, domain, zone, node, attempts = _rest(one)
                heapq.heappush(self._waiting, _Recipient(due, number, queued, domain, zone, node, attempts + 1))
                self._sizes[one.zone, True] += 1

    def _outcome(self, one: _Recipient) -> str:
        if one.domain == "dead.test" or (one.domain == BIG and self._in_trouble()):
            return "deferred" if one.attempts < len(_RETRIES) else "rejected"
        _, rejected, deferred = _DESTINATIONS[one.domain]
        if self._chance.random() < (deferred if one.attempts == 0 else 0.05):
            return "deferred"
        return "rejected" if self._chance.random() < rejected else "delivered"

    def _receive(self) -> None:
        """Mail that people want, by the hour, and spam, at all of them."""
        ham = poisson(self._chance, 10 * self._share * self._business())
        for number in range(ham + poisson(self._chance, 1.6 * self._share)):
            node = self._some([node for node in NODES if not self._is_away("host", node)])
            scanned = not (self._is_away("rspamd", node) or (node == "mx1" and self._in_trouble()))
            action = "no action" if number < ham else self._some(("reject", "add header"))
            outcome = "rejected" if scanned and action == "reject" else "accepted"
            self._event(
                "email_events",
                self.now - TICK * self._chance.random(),
                node,
                25,
                event_name=f"haraka.message.{outcome}",
                direction="inbound",
                outcome=outcome,
                from_domain="small.test",
                spam_action=action if scanned else None,
                attributes={},
            )
            self._totals["inbound", node] += 1
            self._totals["spam", node] += scanned and number >= ham
            self._totals["scanned", node] += scanned

    def _measure(self) -> None:
        """A tick of all that is asked."""
        for node in NODES:
            if self._is_away("host", node):
                self._restart(node, "zone_mta", "haraka")
                continue
            self._measure_host(node)
            self._measure_zone_mta(node)
            self._row("metrics_haraka", node, 25, started="haraka",
                      inbound_total=self._totals["inbound", node], spam_count=self._totals["spam", node])  # fmt: skip
            is_up = not (self._is_away("rspamd", node) or (node == "mx1" and self._in_trouble()))
            if is_up:
                self._row("metrics_rspamd", node, 11334, started="rspamd", scanned_total=self._totals["scanned", node])
            self._up(node, "rspamd", 11334, is_up=is_up)
            self._up(node, "system", 0, is_up=True)
            if self.now.minute == 0 and self.now.second == 0 and self.now.hour % 2 == 0:
                self._up(node, "slow", 4000, is_up=True, interval=2 * 3600)
            self._point(node, "postel.spool.size", {}, value_int=self._chance.randrange(50_000, 900_000))
            for reason in ("size", "age", "refused"):
                self._point(node, "postel.spool.dropped.requests", {"postel.spool.drop.reason": reason}, value_int=0)
        if self.now.minute % 5 == 0 and self.now.second == 0:
            self._measure_wildduck()

    def _measure_host(self, node: str) -> None:
        hour = (self.now - self.now.replace(hour=0, minute=0, second=0)) / HOUR
        backup = 3 <= hour < 3.2
        # Logs are rotated at midnight; the backup of a night is taken away when it was copied.
        held = 10 * min(1, (hour - 3) / 0.2) if 3 <= hour < 4.5 else 0
        self._row(
            "metrics_system",
            node,
            0,
            cpu_load=96 if backup else min(99, 12 + 40 * self._business() + self._chance.gauss(0, 4)),
            memory_percent=64 + self._chance.gauss(0, 1.5),
            disk_percent=52 + 2 * hour / 24 + held,
        )
        end = _RENEWED + 28 * DAY if self.now < _RENEWED else _RENEWED + 90 * DAY
        if node == "mx1" and self.now.minute % 5 == 0 and self.now.second == 0:
            name = {"server.address": "127.0.0.1", "server.port": 993, "tls.certificate.name": "mail.example.org"}
            left = int((end - self.now).total_seconds())
            self._point(node, "tls.certificate.time_left", name, value_int=left)

    def _measure_zone_mta(self, node: str) -> None:
        is_up = not self._is_away("zone_mta", node)
        self._up(node, "zone_mta", 12080, is_up=is_up)
        if not is_up:
            self._restart(node, "zone_mta")
            return
        zones = ("default", "bulk")
        oldest = dict.fromkeys(zones, 0.0)
        for one in self._waiting:
            oldest[one.zone] = max(oldest[one.zone], (self.now - one.queued).total_seconds())
        for zone in ("", *zones):
            these = zones if not zone else (zone,)
            counted = {
                f"{status}_total": sum(self._totals["zone_mta", node, each, status] for each in these)
                for status in ("delivered", "rejected", "deferred")
            }
            self._row(
                "metrics_zonemta",
                node,
                12080,
                zone=zone,
                started="zone_mta",
                queue_id="shared",
                queue_size=sum(self._sizes[each, False] for each in these),
                deferred_size=sum(self._sizes[each, True] for each in these),
                oldest_age=max(oldest[each] for each in these),
                **counted,
            )
        for zone in zones:
            self._point(
                node,
                "zonemta.message.queue.duration",
                {"zonemta.outcome": "delivered", "zonemta.zone": zone},
                count=self._totals["took", node, zone],
                sum=float(self._totals["seconds", node, zone]),
            )

    def _measure_wildduck(self) -> None:
        # Of many somebody is near it at any time, now more of them and now fewer.
        near = 60 + round(20 * self._business())
        self._row("metrics_wildduck", "mx1", 8080, user_count=4000, over_quota_count=0, near_quota_count=near)
        self._up("mx1", "wildduck", 8080, is_up=True, interval=300)
        # Somebody always tries.
        self._totals[("failed",)] += poisson(self._chance, 40)
        failed = {"wildduck.service": "imap", "wildduck.result": "fail"}
        self._point("mx1", "wildduck.auth.attempts", failed, value_int=self._totals[("failed",)])

    def _restart(self, node: str, *programs: str) -> None:
        """What counted begins anew; Rspamd keeps what it counted."""
        for program in programs:
            self._started[program, node] = self.now + TICK / 2
            for key in [key for key in self._totals if node in key and key[0] == program]:
                del self._totals[key]
        if "haraka" in programs:
            del self._totals["inbound", node], self._totals["spam", node]

    def _event(self, table: str, at: datetime, node: str, port: int, **cells: Any) -> None:
        if table == "delivery_events":
            del cells["direction"]
        key = uuid.UUID(int=self._chance.getrandbits(128))
        cells["attributes"] = Jsonb(cells["attributes"])
        self._rows[table].append({"time": at, "event_id": key, "node_id": node, "instance": f"{node}:{port}", **cells})

    def _row(self, table: str, node: str, port: int, *, zone: str = "", started: str = "", **cells: Any) -> None:
        self._rows[table].append(
            {
                "time": self.now,
                "node_id": node,
                "instance": f"{node}:{port}" if port else node,
                "zone": zone,
                "started_at": self._started[started, node] if started else None,
                **cells,
            }
        )

    def _up(self, node: str, receiver: str, port: int, *, is_up: bool, interval: int = 30) -> None:
        asked = {"postel.receiver.name": receiver, "server.address": "127.0.0.1", "server.port": port}
        self._point(node, "postel.receiver.up", asked, value_int=int(is_up))
        self._point(node, "postel.receiver.interval", asked, value_int=interval)

    def _point(self, node: str, metric: str, attributes: dict[str, Any], **values: Any) -> None:
        key = f"{node} {metric} {attributes}"
        if key not in self._series:
            self._series[key] = uuid.uuid5(uuid.NAMESPACE_DNS, key)
            self._new_series.append(
                {
                    "series_id": self._series[key],
                    "node_id": node,
                    "instance": node,
                    "metric": metric,
                    "unit": "1",
                    "kind": "gauge",
                    "temporality": "unspecified",
                    "monotonic": False,
                    "description": "",
                    "resource": Jsonb({}),
                    "scope": Jsonb({}),
                    "attributes": Jsonb(attributes),
                }
            )
        point = {"value_int": None, "count": None, "sum": None, **values}
        started = MONDAY - 30 * DAY
        self._rows["otel_metric_point"].append(
            {"time": self.now, "series_id": self._series[key], "started_at": started, **point}
        )


def _rest(one: _Recipient) -> tuple[int, datetime, str, str, str, int]:
    return one.number, one.queued, one.domain, one.zone, one.node, one.attempts


def _copy(database: psycopg.Connection[Any], table: str, rows: Sequence[dict[str, Any]]) -> None:
    for names, alike in _by_columns(rows):
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
        with database.cursor() as cursor, cursor.copy(statement) as copy:
            for row in alike:
                copy.write_row([*row.values()])


def _by_columns(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    found: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[tuple(row)].append(row)
    yield from found.items()
