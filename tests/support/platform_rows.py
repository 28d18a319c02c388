"""The signals of a whole platform of two hours up to now, as the agents, plugins and the sink record them.

What `postel demo` does not send is here: Haraka, Rspamd, WildDuck, mail events, what Postel says of itself, and a point
that no column holds. All goes through the declarations, so that nothing of it can be undeclared.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_receivers.node import Node
from otel_receivers.points import Attributes, Recorder
from otel_receivers.receiver import Batch, Target, Tick
from postel.signals import Column, Declarations
from support.mail_events import HARAKA, event, request

NODE = Node(id="7f2c", origin="setting", host="mx1.example.org", boot_id="b", boot_time_unix_nano=0)
ZONE = "marketing"
LONG = timedelta(hours=2)
_STEP = timedelta(minutes=1)
_PORTS = {"haraka": 25, "rspamd": 11334, "wildduck": 8080, "zone_mta": 12080}
_DOMAINS = ("a.example", "b.example", "c.example")


def batches(declarations: Declarations, end: datetime) -> Iterator[Batch]:
    """All of it, up to ``end``."""
    last = end.replace(second=0, microsecond=0)
    begin = last - LONG
    yield _registered(declarations, begin)
    for step in range(int(LONG / _STEP) + 1):
        moment = begin + step * _STEP
        for source in ("haraka", "rspamd", "wildduck", "zone_mta"):
            yield _typed(declarations, source, moment, begin, step)
        yield from _untyped(declarations, moment, begin, step)
        yield from _events(declarations, moment, step)
    yield _unfit(declarations, last)


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp()) * 10**9


def _recorder(declarations: Declarations, source: str, moment: datetime) -> Recorder:
    target = Target("127.0.0.1", _PORTS[source]) if source in _PORTS else None
    resource = NODE.resource(declarations[source].service, target=target)
    return Recorder(declarations[source], resource, Tick(_nanoseconds(moment)))


def _typed(declarations: Declarations, source: str, moment: datetime, begin: datetime, step: int) -> Batch:
    """A point for every typed column: gauges stay near a value, counters rise."""
    recorder = _recorder(declarations, source, moment)
    for metric in declarations[source].metrics.values():
        for number, column in enumerate(metric.columns):
            zone = {"zonemta.zone": ZONE} if source == "zone_mta" and column.counter else {}
            value = 10 * step * (number + 1) if column.counter else 50 + step % 7 + number
            _record(recorder, declarations, column, value, start=_nanoseconds(begin), more=zone)
    if source == "zone_mta":
        for key, state in (("queued", 30), ("deferred", 12)):
            where = {"zonemta.queue.state": key, "zonemta.zone": ZONE}
            recorder.number("zonemta_queue_message_count", state, where)
        recorder.number("zonemta_queue_oldest_message_age", 95.5, {"zonemta.zone": ZONE})
        recorder.number("zonemta_connection_pool_count", 4)
    return recorder.batch()


def _record(
    recorder: Recorder,
    declarations: Declarations,
    column: Column,
    value: float,
    *,
    start: int,
    more: Mapping[str, str],
) -> None:
    metric = declarations.metrics[column.metric]
    recorder.number(metric.key, value, {**column.when, **more}, start_unix_nano=start if metric.monotonic else None)


def _untyped(declarations: Declarations, moment: datetime, begin: datetime, step: int) -> Iterator[Batch]:
    start = _nanoseconds(begin)
    agent = _recorder(declarations, "agent", moment)
    asked: Attributes = {"postel.receiver.name": "rspamd", "server.address": "127.0.0.1", "server.port": 11334}
    agent.number("postel_receiver_up", 1, asked)
    agent.number("postel_scrape_duration", 0.02, asked)
    agent.number("postel_spool_size", 4096 + step)
    yield agent.batch()

    sink = _recorder(declarations, "sink", moment)
    sink.number(
        "postel_sink_records",
        40 * step,
        {"postel.sink.table": "metrics_system", "postel.sink.fate": "stored"},
        start_unix_nano=start,
    )
    sink.number("postel_sink_queue_size", 2048)
    _histogram(sink, "postel_sink_commit_duration", step, start)
    yield sink.batch()

    rspamd = _recorder(declarations, "rspamd", moment)
    rspamd.number("rspamd_symbol_hits", 3 * step, {"rspamd.symbol": "BAYES_SPAM"}, start_unix_nano=start)
    yield rspamd.batch()

    wildduck = _recorder(declarations, "wildduck", moment)
    tried = {"wildduck.service": "imap", "wildduck.auth.scope": "imap", "wildduck.result": "fail"}
    wildduck.number("wildduck_auth_attempts", 2 * step, tried, start_unix_nano=start)
    yield wildduck.batch()

    zone_mta = _recorder(declarations, "zone_mta", moment)
    waited = {"zonemta.outcome": "delivered", "zonemta.zone": ZONE}
    _histogram(zone_mta, "zonemta_message_queue_duration", step, start, waited)
    yield zone_mta.batch()

    system = _recorder(declarations, "system", moment)
    for state, value in (("used", 0.61), ("free", 0.39)):
        mounted = {
            "system.device": "/dev/vda1",
            "system.filesystem.mountpoint": "/",
            "system.filesystem.type": "ext4",
            "system.filesystem.mode": "rw",
            "system.filesystem.state": state,
        }
        system.number("system_filesystem_utilization", value, mounted)
    yield system.batch()


def _histogram(
    recorder: Recorder, key: str, step: int, start: int, attributes: Mapping[str, Any] | None = None
) -> None:
    recorder.histogram(
        key,
        bounds=[0.1, 1],
        counts=[step, 2 * step, 0],
        total=0.5 * step,
        lowest=0.01,
        highest=0.9,
        start_unix_nano=start,
        attributes=attributes,
    )


def _events(declarations: Declarations, moment: datetime, step: int) -> Iterator[Batch]:
    chance = random.Random(step)  # noqa: S311 - repeatable
    domain = _DOMAINS[step % len(_DOMAINS)]
    at = _nanoseconds(moment)
    records = []
    for key, action in (("accepted", "no action"), ("rejected", "reject")):
        about = {
            "email.from.address": f"someone@{domain}",
            "email.to.address": ["user@here.example"],
            "email.direction": "inbound",
            "haraka.data.size": 2000 + step,
            "haraka.transaction.id": f"H{step}",
            "rspamd.action": action,
            "rspamd.score": 3.5 if action == "no action" else 17.25,
        }
        name = declarations["haraka"].event(key).name
        record = event(name, about, uid=str(uuid4()), time_unix_nano=at)
        # A map, which the agent's own recorder makes none of.
        symbols = [KeyValue(key=symbol, value=AnyValue(double_value=5.25)) for symbol in ("BAYES_SPAM", "DKIM_REJECT")]
        record.attributes.append(
            KeyValue(key="rspamd.symbols", value=AnyValue(kvlist_value=KeyValueList(values=symbols)))
        )
        records.append(record)
    sent = request(*records, resource={**HARAKA, "host.id": NODE.id}, scope=declarations["haraka"].scope)
    yield Batch(events=tuple(sent.resource_logs))

    zone_mta = _recorder(declarations, "zone_mta", moment)
    for key, code, enhanced, text in (
        ("accepted", 250, "2.0.0", "250 2.0.0 OK"),
        ("deferred", 421, "4.7.0", "421 4.7.0 Try again later"),
        ("rejected", 550, "5.1.1", "550 5.1.1 No such user"),
    ):
        told: dict[str, Any] = {
            "zonemta.message.id": f"{key}{step}",
            "zonemta.message.seq": "001",
            "zonemta.zone": ZONE,
            "zonemta.attempt.number": 1,
            "zonemta.attempt.duration": round(chance.uniform(0.1, 2), 3),
            "email.message_id": f"<{step}@here.example>",
            "email.to.address": [f"someone@{domain}"],
            "email.direction": "outbound",
            "smtp.response.status_code": code,
            "smtp.response.enhanced_code": enhanced,
            "smtp.response.text": text,
            "server.address": f"mx.{domain}",
        }
        if key != "accepted":
            told["zonemta.category"] = "greylist" if key == "deferred" else "recipient"
        zone_mta.event(key, "", told, time_unix_nano=at)
    yield zone_mta.batch()

    wildduck = _recorder(declarations, "wildduck", moment)
    wildduck.event(
        "wildduck_quota_snapshot",
        "",
        {
            "user.id": f"u{step % 5}",
            "wildduck.quota.used": 900 + step,
            "wildduck.quota.allowed": 2000,
            "wildduck.quota.reason": "change",
        },
        time_unix_nano=at,
    )
    yield wildduck.batch()


def _registered(declarations: Declarations, moment: datetime) -> Batch:
    recorder = _recorder(declarations, "agent", moment)
    found = {"postel.node.sources": ["system", "zone_mta"], "postel.node.id.origin": "setting"}
    # The last hour is looked at.
    late = _nanoseconds(moment + LONG - timedelta(minutes=5))
    recorder.event("node_registered", "", found, time_unix_nano=late)
    recorder.event(
        "plugin_heartbeat",
        "",
        {
            "postel.plugin.process.kind": "main",
            "postel.plugin.events.delivered": 12,
            "postel.plugin.events.waiting": 0,
            "postel.plugin.events.dropped": 0,
        },
        time_unix_nano=late,
    )
    return recorder.batch()


def _unfit(declarations: Declarations, moment: datetime) -> Batch:
    """A point that its typed column does not hold: half a process."""
    metric = declarations.metrics["postel.host.process.count"]
    point = NumberDataPoint({}, 0, _nanoseconds(moment), 1.5)
    scope = InstrumentationScope(declarations["system"].scope)
    made = Metric(metric.name, "", metric.unit, Gauge([point]))
    resource = Resource({"host.id": NODE.id, "host.name": NODE.host, "service.name": "host"})
    return Batch(metrics=(ResourceMetrics(resource, [ScopeMetrics(scope, [made], "")], ""),))
