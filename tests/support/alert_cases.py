"""What makes each shipped rule fire, minute by minute, and what makes it fine again: rows as the sink writes them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from timescale_sink.alerts import rules

MINUTE = timedelta(minutes=1)
# Not the present: a rule looks at the moment that it is asked for.
T0 = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0) - timedelta(days=1)
RULES = {rule.name: rule for rule in rules.shipped()}
NODE = "mx1"


class Platform:
    """A database that is told what a platform does in a minute."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.totals: dict[str, int] = {}

    def insert(self, table: str, **values: Any) -> None:
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        )
        self.connection.execute(statement, [Jsonb(v) if isinstance(v, dict | list) else v for v in values.values()])

    def node(self, moment: datetime, id_: str = NODE) -> None:
        self.connection.execute(
            "INSERT INTO node (id, host, first_seen, last_seen, sources, versions, demo, attributes)"
            " VALUES (%s, %s, %s, %s, '[]', '{}', false, '{}')"
            " ON CONFLICT (id) DO UPDATE SET last_seen = excluded.last_seen",
            (id_, f"{id_}.example.org", moment, moment),
        )

    def system(self, moment: datetime, **columns: float) -> None:
        self.insert("metrics_system", time=moment, node_id=NODE, instance=NODE, zone="", **columns)

    def zonemta(self, moment: datetime, zone: str = "", queue: str = "", **columns: Any) -> None:
        self.insert(
            "metrics_zonemta",
            time=moment,
            node_id=NODE,
            instance=f"{NODE}:12080",
            zone=zone,
            started_at=T0 - timedelta(days=9),
            queue_id=queue,
            **columns,
        )

    def count(self, name: str, more: int) -> int:
        """A counter that rose by so much."""
        self.totals[name] = self.totals.get(name, 0) + more
        return self.totals[name]

    def attempts(
        self,
        moment: datetime,
        domain: str = "there.test",
        zone: str | None = "default",
        mx: str | None = None,
        **statuses: int,
    ) -> None:
        """So many attempts of each status, within the minute before; those of Haraka have no zone."""
        for status, count in statuses.items():
            self.connection.execute(
                "INSERT INTO delivery_events"
                " (time, event_id, node_id, instance, event_name, status, zone, to_domain, mx, attributes)"
                " SELECT %s, gen_random_uuid(), %s, %s, %s, %s, %s, %s, %s, '{}' FROM generate_series(1, %s)",
                (
                    moment - MINUTE / 2,
                    NODE,
                    f"{NODE}:{12080 if zone else 25}",
                    f"{'zonemta' if zone else 'haraka'}.delivery",
                    status,
                    zone,
                    domain,
                    mx,
                    count,
                ),
            )

    def mail(self, moment: datetime, count: int, spam_action: str | None = None) -> None:
        self.connection.execute(
            "INSERT INTO email_events"
            " (time, event_id, node_id, instance, event_name, direction, outcome, spam_action, attributes)"
            " SELECT %s, gen_random_uuid(), %s, %s, 'haraka.message.accepted', 'inbound', 'accepted', %s, '{}'"
            " FROM generate_series(1, %s)",
            (moment - MINUTE / 2, NODE, f"{NODE}:25", spam_action, count),
        )

    def point(self, moment: datetime, metric: str, attributes: Mapping[str, Any], **values: Any) -> None:
        """A point of a metric without a typed column."""
        key = f"{metric} {sorted(attributes.items())}"
        series = uuid.uuid5(uuid.NAMESPACE_DNS, key)
        if self.count(key, 1) == 1:
            self.insert(
                "otel_series",
                series_id=series,
                node_id=NODE,
                instance=NODE,
                metric=metric,
                unit="1",
                kind="gauge",
                temporality="unspecified",
                monotonic=False,
                description="",
                resource={},
                scope={},
                attributes=dict(attributes),
            )
        self.insert("otel_metric_point", time=moment, series_id=series, started_at=T0 - timedelta(minutes=30), **values)

    def up(self, moment: datetime, receiver: str, value: int, interval: int = 60) -> None:
        attributes = self.asked(moment, receiver, interval)
        self.point(moment, "postel.receiver.up", attributes, value_int=value)

    def asked(self, moment: datetime, receiver: str, interval: int) -> Mapping[str, Any]:
        """So often from now on, as the agent says when it begins; what tells the source apart."""
        attributes = {"postel.receiver.name": receiver, "server.address": "127.0.0.1", "server.port": 11334}
        self.point(moment, "postel.receiver.interval", attributes, value_int=interval)
        return attributes

    def dead_letter(self, moment: datetime) -> None:
        self.insert(
            "dead_letter",
            record_id=uuid.uuid4(),
            received_at=moment,
            hour=moment.replace(minute=0),
            destination="email_events",
            reason="it has no time",
            record={},
        )


Minute = Callable[[Platform, datetime], None]


@dataclass(frozen=True)
class Case:
    """What makes a rule fire.

    Attributes:
        wrong: what happens in each minute of trouble; fine: in each after it.
        labels: of the alert.
        minutes: of trouble until it has to fire; recovery: of peace until it has to be resolved.
        before: what was before, given `T0`.
    """

    rule: str
    wrong: Minute
    fine: Minute
    labels: Mapping[str, str] = field(default_factory=dict)
    minutes: int = 10
    recovery: int = 15
    before: Minute = lambda platform, moment: platform.node(moment)

    def __str__(self) -> str:
        return self.rule


def queue(size: int) -> Minute:
    return lambda platform, moment: platform.zonemta(moment, queue="q", queue_size=size, deferred_size=0)


def host(column: str, value: float) -> Minute:
    return lambda platform, moment: platform.system(moment, **{column: value})


def zone(attempts: int) -> Minute:
    def minute(platform: Platform, moment: datetime) -> None:
        total = platform.count("delivered", attempts)
        platform.zonemta(moment, "default", "q", queue_size=5, delivered_total=total)

    return minute


def accounted(counted: int, told: int) -> Minute:
    def minute(platform: Platform, moment: datetime) -> None:
        platform.zonemta(moment, "default", delivered_total=platform.count("delivered", counted))
        platform.attempts(moment, delivered=told)

    return minute


def attempts(domain: str = "there.test", **statuses: int) -> Minute:
    return lambda platform, moment: platform.attempts(moment, domain, "default", None, **statuses)


def hosted(**statuses: int) -> Minute:
    """So many attempts of each status to customers of one provider, each with a host of its own there."""

    def minute(platform: Platform, moment: datetime) -> None:
        for status, count in statuses.items():
            for _ in range(count):
                customer = platform.count("customer", 1) % 40
                host = f"customer{customer}-test.MX.Big.co.uk"
                platform.attempts(moment, f"customer{customer}.test", "default", host, **{status: 1})
        # Another company's whose domain ends alike takes all.
        platform.attempts(moment, "there.test", mx="mx.small.co.uk", delivered=10)

    return minute


def quotas(near: int, over: int = 0, users: int = 4000) -> Minute:
    """So many of a WildDuck's users are near and over their quota."""
    counts = {"user_count": users, "near_quota_count": near, "over_quota_count": over}
    return lambda platform, moment: platform.insert(
        "metrics_wildduck", time=moment, node_id=NODE, instance="w", zone="", **counts
    )


def week_of_quotas(platform: Platform, moment: datetime) -> None:
    """Sixty of four thousand, as it was for a week."""
    platform.node(moment)
    for hour in range(1, 8 * 24):
        quotas(60)(platform, moment - timedelta(hours=hour))


def spam(share: int) -> Minute:
    def minute(platform: Platform, moment: datetime) -> None:
        platform.mail(moment, share, spam_action="reject")
        platform.mail(moment, 100 - share, spam_action="no action")

    return minute


def queued_for(seconds: float) -> Minute:
    def minute(platform: Platform, moment: datetime) -> None:
        totals = {"count": platform.count("delivered", 10), "sum": platform.count("queued", round(10 * seconds))}
        attributes = {"zonemta.outcome": "delivered", "zonemta.zone": "default"}
        platform.point(moment, "zonemta.message.queue.duration", attributes, **totals)

    return minute


def counted(metric: str, more: int, **attributes: str) -> Minute:
    """A counter that rises by so much; its first point stands a while before the trouble."""
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    return lambda platform, moment: platform.point(moment, metric, named, value_int=platform.count(metric, more))


def refused_by_kafka(platform: Platform, moment: datetime) -> None:
    """What a gateway keeps, and the vendor lacks nothing."""
    counted("otelcol_exporter_send_failed_log_records", 7, exporter="kafka")(platform, moment)
    counted("otelcol_exporter_enqueue_failed_log_records", 0, exporter="otlp_http/vendor")(platform, moment)


def scanned(by_rspamd: int, by_haraka: int) -> Minute:
    def minute(platform: Platform, moment: datetime) -> None:
        platform.insert(
            "metrics_rspamd",
            time=moment,
            node_id=NODE,
            instance=f"{NODE}:11334",
            zone="",
            started_at=T0 - timedelta(days=1),
            scanned_total=platform.count("scanned", by_rspamd),
        )
        platform.mail(moment, by_haraka, spam_action="no action")

    return minute


def only_node(platform: Platform, moment: datetime) -> None:
    """The agent is heard of, and one of its sources is not."""
    platform.node(moment)


def sent(messages: int, recipients: int, user: str = "ann") -> Minute:
    """So many messages of a user's, each to so many."""

    def minute(platform: Platform, moment: datetime) -> None:
        to = [f"r{number}@there.test" for number in range(recipients)]
        platform.connection.execute(
            "INSERT INTO email_events (time, event_id, node_id, instance, event_name, direction, outcome, from_user,"
            " from_domain, attributes) SELECT %s, gen_random_uuid(), %s, %s, 'zonemta.message.queued', 'outbound',"
            " 'queued', 'a', 'here.test', %s FROM generate_series(1, %s)",
            (moment - MINUTE / 2, NODE, f"{NODE}:12080", Jsonb({"user.name": user, "email.to.address": to}), messages),
        )

    return minute


def days_of_sending(platform: Platform, moment: datetime) -> None:
    """Ann sends to 30 in two hours of each day."""
    platform.node(moment)
    for day in range(9, 0, -1):
        for hour in (0, 4):
            sent(10, 3)(platform, moment - timedelta(days=day, hours=hour))


def certificate(days: float, name: str = "mx.test") -> Minute:
    """What a listener shows ends so many days later."""

    def minute(platform: Platform, moment: datetime) -> None:
        attributes = {"server.address": "127.0.0.1", "server.port": 993, "tls.certificate.name": name}
        platform.point(moment, "tls.certificate.time_left", attributes, value_int=round(days * 86400))

    return minute


def told(platform: Platform, moment: datetime) -> None:
    platform.node(moment)
    platform.up(moment, "wildduck", 1)


def told_before(platform: Platform, moment: datetime) -> None:
    told(platform, moment - MINUTE)


def days_before(minute: Minute) -> Minute:
    """The same traffic around the hour on the seven days before, and until the trouble begins."""

    def before(platform: Platform, moment: datetime) -> None:
        platform.node(moment)
        for day in range(1, 8):
            for number in range(-60, 180, 5):
                minute(platform, moment - timedelta(days=day) + number * MINUTE)
        for number in range(-60, 0):
            minute(platform, moment + number * MINUTE)

    return before


def filling(percent_a_minute: float) -> Minute:
    def minute(platform: Platform, moment: datetime) -> None:
        filled = platform.count("disk", round(percent_a_minute * 1000)) / 1000
        platform.system(moment, disk_percent=50 + filled)

    return minute


def small_queue_before(platform: Platform, moment: datetime) -> None:
    for number in range(1, 81):
        queue(100)(platform, moment - number * MINUTE)


def nothing(_platform: Platform, _moment: datetime) -> None:
    """Nothing happens."""


QUEUE = {"queue": "q"}
ON_NODE = {"node": NODE}
CASES = [
    Case("queue-depth", queue(10001), queue(9999), QUEUE, 11),
    Case("queue-growth", queue(2500), queue(300), QUEUE, 16, 90, small_queue_before),
    Case(
        "oldest-message",
        lambda p, t: p.zonemta(t, queue="q", oldest_age=187201),
        lambda p, t: p.zonemta(t, queue="q", oldest_age=10),
        QUEUE,
        11,
    ),
    Case("zone-stuck", zone(0), zone(1), {**QUEUE, "zone": "default"}, 12),
    Case("bounce-rate", attempts(delivered=94, rejected=6), attempts(delivered=100), {}, 16, 80),
    Case("bounce-rate-high", attempts(delivered=89, rejected=11), attempts(delivered=95, rejected=5), {}, 14, 90),
    Case("deferral-rate", attempts(delivered=60, deferred=40), attempts(delivered=100), {}, 17, 90),
    Case("provider-blocking", hosted(delivered=4, rejected=6), hosted(delivered=10), {"provider": "big.co.uk"}, 20, 90),
    Case("spam-share", spam(85), spam(10), {}, 18, 90),
    Case(
        "rspamd-down",
        lambda p, t: p.up(t, "rspamd", 0),
        lambda p, t: p.up(t, "rspamd", 1),
        {**ON_NODE, "server": "127.0.0.1:11334"},
        3,
    ),
    Case(
        "source-unreachable",
        lambda p, t: p.up(t, "wildduck", 0),
        lambda p, t: p.up(t, "wildduck", 1),
        {**ON_NODE, "receiver": "wildduck", "server": "127.0.0.1:11334"},
        6,
    ),
    Case(
        "attempts-unaccounted",
        accounted(100, 90),
        accounted(100, 100),
        {**ON_NODE, "instance": f"{NODE}:12080", "zone": "default"},
        40,
        100,
    ),
    Case("delivery-slow", queued_for(1000), queued_for(2), {**ON_NODE, "instance": NODE, "zone": "default"}, 20, 100),
    Case(
        "auth-failures",
        counted("wildduck.auth.attempts", 60, wildduck__service="imap", wildduck__result="fail"),
        counted("wildduck.auth.attempts", 1, wildduck__service="imap", wildduck__result="fail"),
        {**ON_NODE, "instance": NODE, "service": "imap"},
        12,
        30,
    ),
    Case(
        "source-silent",
        only_node,
        told,
        {**ON_NODE, "receiver": "wildduck", "server": "127.0.0.1:11334"},
        17,
        2,
        told_before,
    ),
    Case(
        "spool-filling",
        lambda p, t: p.point(t, "postel.spool.size", {}, value_int=100_000_001),
        lambda p, t: p.point(t, "postel.spool.size", {}, value_int=1000),
        ON_NODE,
        11,
        7,
    ),
    Case(
        "telemetry-dropped",
        counted("postel.spool.dropped.requests", 1, postel__spool__drop__reason="age"),
        counted("postel.spool.dropped.requests", 0, postel__spool__drop__reason="age"),
        ON_NODE,
        2,
        70,
    ),
    Case(
        "backend-dropped",
        counted("otelcol_exporter_enqueue_failed_log_records", 1, exporter="otlp_http/vendor"),
        refused_by_kafka,
        {**ON_NODE, "exporter": "otlp_http/vendor"},
        12,
        75,
    ),
    Case("scans-unaccounted", scanned(100, 90), scanned(100, 100), {}, 40, 100),
    Case(
        "users-near-quota",
        quotas(90, 11),
        quotas(98, 2),
        {**ON_NODE, "instance": "w"},
        11,
        7,
        week_of_quotas,
    ),
    Case("inbound-stopped", nothing, lambda p, t: p.mail(t, 5), {}, 66, 10, days_before(lambda p, t: p.mail(t, 5))),
    Case(
        "outbound-stopped",
        nothing,
        attempts(delivered=5),
        {},
        66,
        10,
        days_before(attempts(delivered=5)),
    ),
    Case(
        "users-over-quota",
        quotas(60, 1),
        quotas(60),
        {**ON_NODE, "instance": "w"},
        1,
        7,
    ),
    Case("host-cpu", host("cpu_load", 95), host("cpu_load", 50), ON_NODE, 16),
    Case("host-memory", host("memory_percent", 96), host("memory_percent", 50), ON_NODE, 11),
    Case("host-disk", host("disk_percent", 91), host("disk_percent", 80), ON_NODE, 6),
    Case("host-disk-time", filling(0.06), filling(0), ON_NODE, 215, 400),
    Case("node-silent", nothing, lambda p, t: p.node(t), ON_NODE, 11, 1),
    # 30 an hour is usual: 10 times that is reached in the tenth minute.
    Case("sender-volume", sent(10, 3), sent(1, 1), {"sender": "ann"}, 11, 125, days_of_sending),
    Case(
        "certificate-expiring",
        certificate(20.8),
        certificate(90),
        {**ON_NODE, "server": "127.0.0.1:993"},
        1,
        1,
    ),
    Case("certificate-expiring-soon", certificate(-1), certificate(20.8), {**ON_NODE, "server": "127.0.0.1:993"}, 1, 1),
    Case("dead-letters", lambda p, t: p.dead_letter(t), nothing, {"destination": "email_events"}, 1, 62),
]
