"""What the plugins of the mail servers would tell of a moment of `postel demo`'s platform, and what becomes of quotas.

Events have ids of their own content: a demo that tells one again tells nothing new.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from opentelemetry.sdk.resources import Resource

from otel_receivers.points import Recorder
from otel_receivers.receiver import Batch, Tick
from postel import demo_answers
from postel.demo_inbound import Received
from postel.demo_shapes import STEP_SECONDS
from postel.demo_traffic import HERE, Attempt, Moment, Recipient
from postel.signals import Declarations

# Users are told of once a day and where their figures change, here by the hour.
_HEARTBEAT_SECONDS = 60
_SNAPSHOT_SECONDS = 3600
# Plugin's server -> kinds of its processes with the plugin.
_PROCESSES = {"zone_mta": ("main", "sender"), "haraka": ("worker",)}


class Events:
    """Makes the events of moments.

    Args:
        declarations: all of them.
        resources: source -> who speaks.
    """

    def __init__(self, declarations: Declarations, resources: Mapping[str, Resource]) -> None:
        self._declarations = declarations
        self._resources = resources

    def batches(self, moment: Moment) -> Iterator[Batch]:
        """What happened in the step before a moment."""
        second = round(moment.time.timestamp())
        yield self._outbound(moment)
        yield self._inbound(moment)
        if not second % _HEARTBEAT_SECONDS:
            yield from self._heartbeats(moment)
        if not second % _SNAPSHOT_SECONDS:
            yield self._snapshots(moment)

    def _recorder(self, source: str, moment: Moment) -> Recorder:
        return Recorder(self._declarations[source], self._resources[source], Tick(nanoseconds(moment)))

    def _outbound(self, moment: Moment) -> Batch:
        recorder, zone_mta = self._recorder("zone_mta", moment), _Day(moment)
        for number, (zone, recipient) in enumerate(moment.taken, 1):
            recorder.event(
                "queued",
                f"{zone_mta.queue_id(recipient)} was taken into the queue.",
                {
                    **zone_mta.message(recipient),
                    "zonemta.interface": "bounce" if zone == "bounces" else "feeder",
                    "zonemta.recipient.count": 1,
                    "zonemta.message.body.size": 30_000,
                },
                time_unix_nano=zone_mta.within(0.3 * number / (len(moment.taken) + 1)),
                uid=zone_mta.uid("queued", recipient.number),
            )
        for number, attempt in enumerate(moment.made, 1):
            key, told = zone_mta.attempt(attempt)
            recorder.event(
                key,
                f"{zone_mta.queue_id(attempt.recipient)} to {attempt.recipient.domain}: {told['smtp.response.text']}",
                {**zone_mta.message(attempt.recipient), **told},
                time_unix_nano=zone_mta.within(0.3 + 0.7 * number / (len(moment.made) + 1)),
                uid=zone_mta.uid("attempt", attempt.recipient.number, attempt.number),
            )
        for recipient in moment.ended:
            recorder.event(
                "deleted",
                f"{zone_mta.queue_id(recipient)} was deleted: the demo's queue is emptied at midnight.",
                {
                    "zonemta.message.id": zone_mta.queue_id(recipient),
                    "zonemta.message.seq": "001",
                    "zonemta.reason": "the demo's queue is emptied at midnight",
                },
                time_unix_nano=zone_mta.within(1),
                uid=zone_mta.uid("deleted", recipient.number),
            )
        return recorder.batch()

    def _inbound(self, moment: Moment) -> Batch:
        recorder, haraka = self._recorder("haraka", moment), _Day(moment)
        for number, message in enumerate(moment.inbound.came, 1):
            recorder.event(
                message.outcome,
                f"A message from {message.sender} was {message.outcome}.",
                _message(haraka, message),
                time_unix_nano=haraka.within(number / (len(moment.inbound.came) + 1)),
                uid=haraka.uid("inbound", message.number),
            )
        return recorder.batch()

    def _heartbeats(self, moment: Moment) -> Iterator[Batch]:
        """In the scope and resource of a mail server's process, as its plugin sends them."""
        emitted = {"zone_mta": sum(moment.attempts.values()), "haraka": sum(moment.inbound.messages.values())}
        for source, kinds in _PROCESSES.items():
            for number, kind in enumerate(kinds):
                process = Resource({**self._resources[source].attributes, "process.pid": 4700 + number})
                recorder = Recorder(self._declarations["agent"], process, Tick(nanoseconds(moment)))
                told = emitted[source] if number == len(kinds) - 1 else moment.received
                recorder.event(
                    "plugin_heartbeat",
                    f"Postel's plugin in the {kind} process has delivered {told} events.",
                    {
                        "postel.plugin.process.kind": kind,
                        "postel.plugin.heartbeat.interval": _HEARTBEAT_SECONDS,
                        "postel.plugin.events.emitted": told,
                        "postel.plugin.events.delivered": told,
                        "postel.plugin.events.waiting": 0,
                        "postel.plugin.events.dropped": 0,
                    },
                    time_unix_nano=nanoseconds(moment),
                    uid=_Day(moment).uid("heartbeat", source, kind, nanoseconds(moment)),
                )
                batch = recorder.batch()
                for logs in batch.events:
                    logs.scope_logs[0].scope.name = self._declarations[source].scope
                yield batch

    def _snapshots(self, moment: Moment) -> Batch:
        recorder = self._recorder("wildduck", moment)
        for user, used in moment.inbound.users.items():
            recorder.event(
                "wildduck_quota_snapshot",
                f"{user} holds {used / moment.inbound.quota:.0%} of the quota.",
                {
                    "user.id": user,
                    "user.name": user,
                    "wildduck.quota.used": used,
                    "wildduck.quota.allowed": moment.inbound.quota,
                    "wildduck.quota.reason": "change",
                },
                time_unix_nano=nanoseconds(moment),
                uid=_Day(moment).uid("quota", user, nanoseconds(moment)),
            )
        return recorder.batch()


class _Day:
    """Names what happened on a day, and says when in the step before a moment it did."""

    def __init__(self, moment: Moment) -> None:
        self._time = moment.time
        self._day = f"{moment.time:%y%m%d}"

    def queue_id(self, recipient: Recipient) -> str:
        return f"demo{self._day}{recipient.number:06x}"

    def uid(self, *of: object) -> str:
        named = hashlib.blake2b(repr(("postel demo", self._day, *of)).encode(), digest_size=16)
        return str(uuid.UUID(bytes=named.digest()))

    def within(self, share: float) -> int:
        """Nanoseconds since 1970 of what happened when so much of the step was over."""
        return round(self._time.timestamp()) * 10**9 - round((1 - share) * STEP_SECONDS * 10**9)

    def message(self, recipient: Recipient) -> dict[str, Any]:
        return {
            "zonemta.message.id": self.queue_id(recipient),
            "email.message_id": f"<{self._day}.{recipient.number}@{HERE}>",
            "email.from.address": f"news@{HERE}",
            "email.to.address": [f"reader{recipient.number % 997}@{recipient.domain}"],
            "email.direction": "outbound",
        }

    def attempt(self, attempt: Attempt) -> tuple[str, dict[str, Any]]:
        """The event's key in the declaration, and what is told beside the message."""
        answer = demo_answers.of(attempt)
        told: dict[str, Any] = {
            "zonemta.message.seq": "001",
            "zonemta.zone": attempt.zone,
            "zonemta.attempt.number": attempt.number,
            "zonemta.attempt.duration": attempt.duration,
            "smtp.response.status_code": answer.code,
            "smtp.response.enhanced_code": answer.enhanced_code,
            "smtp.response.text": answer.text,
            "server.address": answer.mx,
            "network.peer.address": answer.address,
            "tls.established": True,
        }
        if attempt.outcome == "delivered":
            key = "accepted"
        else:
            key = attempt.outcome
            told |= {"zonemta.category": answer.category, "error.type": str(answer.code)}
        if attempt.outcome == "deferred":
            # The next is within the time that Zone-MTA's first retries are apart.
            told["zonemta.next_attempt.time"] = f"{self._time + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
        else:
            waited = self._time.timestamp() % 86_400 - attempt.recipient.step * STEP_SECONDS
            told["zonemta.queue.duration"] = round(waited + attempt.duration, 3)
        return key, told


def _message(day: _Day, message: Received) -> dict[str, Any]:
    code, enhanced_code, text = demo_answers.INBOUND[message.outcome]
    stored = {"haraka.storage.status": "forwarded", "haraka.storage.plugin": "queue/lmtp"}
    return {
        "haraka.transaction.id": f"{day.uid('connection', message.number).upper()}.1",
        "haraka.data.size": message.size,
        "haraka.recipient.accepted.count": 1,
        "haraka.recipient.refused.count": 0,
        "email.message_id": f"<{day.uid('message', message.number)}@{message.sender}>",
        "email.from.address": f"someone@{message.sender}",
        "email.to.address": [f"{message.user}@{HERE}"],
        "email.direction": "inbound",
        "rspamd.score": message.score,
        "rspamd.required_score": 15.0,
        "rspamd.action": message.action,
        "rspamd.symbols": message.symbols,
        "rspamd.scan.time": message.scan,
        "rspamd.origin": "result",
        "client.address": "192.0.2.25",
        "tls.established": True,
        "tls.protocol.version": "1.3",
        "smtp.response.status_code": code,
        "smtp.response.enhanced_code": enhanced_code,
        "smtp.response.text": text,
        **(stored if message.outcome == "accepted" else {"error.type": str(code)}),
    }


def nanoseconds(moment: Moment) -> int:
    """Since 1970."""
    return round(moment.time.timestamp()) * 10**9
