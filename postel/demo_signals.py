"""What an agent would tell of a moment of `postel demo`'s platform, through the declarations.

The events of the mail servers' plugins are :mod:`postel.demo_events`. All of it carries the resource attribute
``postel.demo`` = true, by which `postel demo --remove` knows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from opentelemetry.sdk.resources import Resource

from otel_receivers.node import Node
from otel_receivers.points import Attributes, Recorder
from otel_receivers.receiver import Batch, Target, Tick
from postel.demo_events import Events, nanoseconds
from postel.demo_inbound import SPAM
from postel.demo_traffic import Moment
from postel.settings import DEMO_NODE
from postel.signals import Declarations

MARK = {"postel.demo": True}
NODE = Node(id=DEMO_NODE, origin="setting", host="mail.demo.test", boot_id="demo", boot_time_unix_nano=0)
_PORTS = {"zone_mta": 12080, "haraka": 25, "rspamd": 11334, "wildduck": 8080}
_QUEUE_DURATION = "zonemta.message.queue.duration"
_MEMORY_BYTES = 8e9
_DISK_BYTES = 120e9
# As the agent asks WildDuck's API.
_USERS_SECONDS = 300


class Signals:
    """Makes the batches of moments.

    Args:
        declarations: all of them.
    """

    def __init__(self, declarations: Declarations) -> None:
        self._declarations = declarations
        self._columns = {(c.table, c.name): c for metric in declarations.metrics.values() for c in metric.columns}
        self._resources = {
            source: self._resource(source) for source in ("agent", "system", "zone_mta", "haraka", "rspamd", "wildduck")
        }
        self._events = Events(declarations, self._resources)

    @property
    def bounds(self) -> Sequence[float]:
        """Of the histogram of how long recipients were in the queue, seconds."""
        return self._declarations.metrics[_QUEUE_DURATION].bounds or ()

    def registration(self) -> Batch:
        """What an agent says when it starts."""
        recorder = Recorder(self._declarations["agent"], self._resources["agent"], Tick(time.time_ns()))
        recorder.event(
            "node_registered",
            f"The demo platform {NODE.host} is a computation; nothing of it exists.",
            {"postel.node.sources": ["system", *_PORTS], "postel.node.id.origin": "setting"},
        )
        return recorder.batch()

    def batches(self, moment: Moment, *, events: bool = True) -> Iterator[Batch]:
        """What is told of a moment; ``events``: also what happened since the one before."""
        second = round(moment.time.timestamp())
        yield self._host(moment)
        if not second % self._declarations.tables["metrics_zonemta"].interval:
            yield from (self._agent(moment), self._zone_mta(moment), self._haraka(moment))
            yield from (self._rspamd(moment), self._wildduck(moment))
        if events:
            yield from self._events.batches(moment)

    def _resource(self, source: str) -> Resource:
        target = Target("127.0.0.1", _PORTS[source]) if source in _PORTS else None
        queue = {"zonemta.queue.id": NODE.instance(target)} if source == "zone_mta" else {}
        return NODE.resource(self._declarations[source].service, target=target, extra={**MARK, **queue})

    def _recorder(self, source: str, moment: Moment) -> Recorder:
        return Recorder(self._declarations[source], self._resources[source], Tick(nanoseconds(moment)))

    def _fill(
        self, recorder: Recorder, table: str, moment: Moment, values: Mapping[str, float], zone: str = ""
    ) -> None:
        """Record the points that feed typed columns."""
        for name, value in values.items():
            column = self._columns[table, name]
            metric = self._declarations.metrics[column.metric]
            where = {**column.when, **({"zonemta.zone": zone} if zone else {})}
            start = _midnight(moment) if metric.monotonic else None
            recorder.number(metric.key, value, where, start_unix_nano=start)

    def _host(self, moment: Moment) -> Batch:
        recorder = self._recorder("system", moment)
        full = moment.disk / _DISK_BYTES
        self._fill(
            recorder,
            "metrics_system",
            moment,
            {
                "cpu_load": moment.cpu,
                "memory_percent": round(moment.memory / _MEMORY_BYTES * 100, 2),
                "memory_used": moment.memory,
                "disk_used": moment.disk,
                "disk_percent": round(full * 100, 2),
                "network_in": moment.network_in,
                "network_out": moment.network_out,
                "load_1m": moment.load,
                "process_count": moment.processes,
            },
        )
        mounted: Attributes = {
            "system.device": "/dev/vda1",
            "system.filesystem.mountpoint": "/",
            "system.filesystem.type": "ext4",
            "system.filesystem.mode": "rw",
        }
        for state, share in (("used", full), ("free", 1 - full)):
            recorder.number(
                "system_filesystem_utilization", round(share, 4), {**mounted, "system.filesystem.state": state}
            )
        return recorder.batch()

    def _agent(self, moment: Moment) -> Batch:
        recorder = self._recorder("agent", moment)
        every = self._declarations.tables["metrics_zonemta"].interval
        for number, (source, port) in enumerate(_PORTS.items(), 1):
            asked: Attributes = {"postel.receiver.name": source, "server.address": "127.0.0.1", "server.port": port}
            recorder.number("postel_receiver_up", 1, asked)
            recorder.number("postel_receiver_interval", every, asked)
            recorder.number("postel_scrape_duration", round(0.004 * number + moment.cpu / 10_000, 4), asked)
        # What a tick weighs, on its way.
        recorder.number("postel_spool_size", 6_000 + 400 * (len(moment.made) + len(moment.taken)))
        return recorder.batch()

    def _zone_mta(self, moment: Moment) -> Batch:
        recorder = self._recorder("zone_mta", moment)
        oldest = max(waiting.oldest for waiting in moment.waiting.values())
        whole = {"queue_size": moment.queued, "deferred_size": moment.deferred, "oldest_age": oldest}
        self._fill(recorder, "metrics_zonemta", moment, whole)
        for zone, waiting in moment.waiting.items():
            values = {"queue_size": waiting.queued, "deferred_size": waiting.deferred, "oldest_age": waiting.oldest}
            attempts = {f"{outcome}_total": count for (of, outcome), count in moment.attempts.items() if of == zone}
            self._fill(recorder, "metrics_zonemta", moment, {**values, **attempts}, zone)
        start = _midnight(moment)
        recorder.number(
            "zonemta_received_messages", moment.received, {"zonemta.received.result": "success"}, start_unix_nano=start
        )
        recorder.number("zonemta_generated_bounces", moment.bounces, start_unix_nano=start)
        recorder.number("zonemta_connection_pool_count", moment.connections)
        for (zone, outcome), times in moment.in_queue.items():
            recorder.histogram(
                "zonemta_message_queue_duration",
                bounds=times.bounds,
                counts=times.counts,
                total=round(times.total, 3),
                lowest=times.lowest,
                highest=times.highest,
                start_unix_nano=start,
                attributes={"zonemta.outcome": outcome, "zonemta.zone": zone},
            )
        return recorder.batch()

    def _haraka(self, moment: Moment) -> Batch:
        recorder, told = self._recorder("haraka", moment), moment.inbound
        values = {
            "inbound_total": sum(told.messages.values()),
            "rejected_count": told.messages["rejected"],
            "spam_count": sum(count for action, count in told.actions.items() if action in SPAM),
            # It hands all of it to WildDuck, and has no queue of its own.
            **dict.fromkeys(("delivered_count", "bounce_count", "deferred_count"), 0),
        }
        self._fill(recorder, "metrics_haraka", moment, values)
        start = _midnight(moment)
        for outcome in ("accepted", "deferred"):
            recorder.number(
                "haraka_messages", told.messages[outcome], {"haraka.outcome": outcome}, start_unix_nano=start
            )
        return recorder.batch()

    def _rspamd(self, moment: Moment) -> Batch:
        recorder, told = self._recorder("rspamd", moment), moment.inbound
        actions = {
            name: told.actions.get(str(column.when["rspamd.action"]), 0)
            for (table, name), column in self._columns.items()
            if table == "metrics_rspamd" and column.when
        }
        values = {
            "scanned_total": sum(told.actions.values()),
            "learned_total": told.learned,
            "scan_duration": told.scan,
        }
        self._fill(recorder, "metrics_rspamd", moment, {**values, **actions})
        for symbol, hits in told.hits.items():
            recorder.number("rspamd_symbol_hits", hits, {"rspamd.symbol": symbol}, start_unix_nano=_midnight(moment))
        return recorder.batch()

    def _wildduck(self, moment: Moment) -> Batch:
        recorder, told = self._recorder("wildduck", moment), moment.inbound
        values: dict[str, float] = {
            "imap_connections": told.imap,
            "pop3_connections": told.pop3,
            "lmtp_accepted_total": told.stored,
            "lmtp_rejected_total": 0,
            "lmtp_error_total": 0,
        }
        if not round(moment.time.timestamp()) % _USERS_SECONDS:
            stored = sum(told.users.values())
            values |= {
                "user_count": len(told.users),
                "storage_usage": stored,
                "storage_limit": told.quota * len(told.users),
                "near_quota_count": sum(used >= 0.9 * told.quota for used in told.users.values()),
                "over_quota_count": sum(used > told.quota for used in told.users.values()),
                "mailbox_count": 6 * len(told.users),
                "message_count": told.all_messages,
                "unseen_count": told.unseen,
                "mailbox_size": stored,
            }
        self._fill(recorder, "metrics_wildduck", moment, values)
        for (service, result), count in told.log_ins.items():
            recorder.number(
                "wildduck_auth_attempts",
                count,
                {"wildduck.service": service, "wildduck.auth.scope": service, "wildduck.result": result},
                start_unix_nano=_midnight(moment),
            )
        return recorder.batch()


def _midnight(moment: Moment) -> int:
    return round(moment.time.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()) * 10**9
