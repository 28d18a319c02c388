"""Records made of their numbers, sent as the agent sends: again until the receiver has acknowledged them.

What is not acknowledged comes again in other company. One acknowledgement in twenty is not believed, as if it had been
lost on its way.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_receivers.points import encode_attributes
from postel.otlp.signal import ExportRequest, Signal

TIME = 1_768_471_200
"""Seconds; the first record's."""
TICK = 30
ZONES = 20
KINDS = 6
"""Of six records two are deliveries, one each a gauge's cell, a counter's cell, a point of a delta sum, and a log."""
UNHEARD = 1 / 20
"""How often an acknowledgement is not believed."""
STATUS = (("accepted", "delivered", 250), ("deferred", "deferred", 451), ("rejected", "rejected", 550))
_SECOND = 1_000_000_000
_RESOURCE = Resource(
    attributes=encode_attributes(
        {"host.id": "node-1", "host.name": "mx1.example.org", "service.name": "zone-mta", "service.instance.id": "i"}
    )
)
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def signal_of(number: int) -> Signal:
    """As what a record is sent."""
    return Signal.LOGS if number % KINDS in (0, 1, 5) else Signal.METRICS


def uid(number: int) -> str:
    """The id of an event; ids have no order that times have."""
    return str(uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))


def at(number: int) -> int:
    """Milliseconds; when a log-event happened. A hundred thousand of them are in nearly three hours."""
    return TIME * 1000 + number * 100


def gauge_cell(number: int) -> tuple[int, str, str]:
    """Of a gauge: its tick, zone and queue state. Two cells are of one row."""
    row, column = divmod(number // KINDS, 2)
    return row // ZONES, f"z{row % ZONES}", ("queued", "deferred")[column]


def counter_cell(number: int) -> tuple[int, str, int]:
    """Of a counter: its tick, zone and value. The row may be one that a gauge is in as well."""
    tick, zone = divmod(number // KINDS, ZONES)
    return tick, f"z{zone}", 3 * tick + zone + 1


def _log(number: int) -> LogRecord:
    attributes: dict[str, Any] = {"log.record.uid": uid(number)}
    if number % KINDS == KINDS - 1:
        record = LogRecord(event_name="known.load", body=AnyValue(int_value=number))
    else:
        event, _, code = STATUS[number // KINDS % 3]
        record = LogRecord(event_name=f"zonemta.delivery.{event}")
        attributes |= {
            "zonemta.message.id": f"{number:016x}",
            "zonemta.zone": f"z{number % ZONES}",
            "zonemta.attempt.number": number % 5 + 1,
            "zonemta.attempt.duration": number / 8,
            "smtp.response.status_code": code,
            "smtp.response.text": f"{code} said to {number}",
            "email.to.address": [f"someone@d{number % 7}.example"],
        }
    record.time_unix_nano = at(number) * 1_000_000
    record.attributes.extend(encode_attributes(attributes))
    return record


def _point(tick: int, value: int, **attributes: str) -> NumberDataPoint:
    named = {f"zonemta.{key.replace('__', '.')}": each for key, each in attributes.items()}
    return NumberDataPoint(
        time_unix_nano=(TIME + tick * TICK) * _SECOND, as_int=value, attributes=encode_attributes(named)
    )


def request(numbers: Sequence[int]) -> ExportRequest:
    """One of these records, all of one signal, in this order."""
    if signal_of(numbers[0]) is Signal.LOGS:
        logs = ExportLogsServiceRequest()
        scope = logs.resource_logs.add(resource=_RESOURCE).scope_logs.add()
        scope.scope.name = "postel.zone_mta"
        scope.log_records.extend(map(_log, numbers))
        return logs
    metrics = ExportMetricsServiceRequest()
    into = metrics.resource_metrics.add(resource=_RESOURCE).scope_metrics.add()
    into.scope.name = "postel.zone_mta"
    gauge, counter, delta = (Metric(name=n) for n in ("zonemta.queue.message.count", "zonemta.delivery.attempts", "d"))
    counter.sum.aggregation_temporality, counter.sum.is_monotonic = _CUMULATIVE, True
    delta.sum.aggregation_temporality = _DELTA
    for number in numbers:
        if number % KINDS == 2:
            tick, zone, state = gauge_cell(number)
            gauge.gauge.data_points.append(_point(tick, number, zone=zone, queue__state=state))
        elif number % KINDS == 3:
            tick, zone, value = counter_cell(number)
            point = _point(tick, value, zone=zone, outcome="delivered")
            point.start_time_unix_nano = (TIME - 1) * _SECOND
            counter.sum.data_points.append(point)
        else:
            delta.sum.data_points.append(_point(number // 600, number, of=f"{number // KINDS % 100}"))
    into.metrics.extend(
        metric
        for metric, points in ((gauge, gauge.gauge), (counter, counter.sum), (delta, delta.sum))
        if points.data_points
    )
    return metrics


@dataclass
class Load:
    """Makes records and sends them.

    Attributes:
        url: of the receiver's OTLP/HTTP.
        chance: decides who travels with whom, and whose acknowledgement is lost.
        made: records that there are.
        sent: records in requests that went out, each time counted.
        answers: what became of the requests.
        unheard: records whose acknowledgement was lost; they come again.
    """

    url: str
    chance: random.Random
    made: int = 0
    sent: int = 0
    unheard: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    waiting: dict[Signal, list[int]] = field(default_factory=lambda: {signal: [] for signal in Signal})
    _travelling: int = 0

    @property
    def left(self) -> int:
        """Records that are not acknowledged."""
        return self._travelling + sum(map(len, self.waiting.values()))

    async def make(self, rate: float) -> None:
        """Make so many a second, until cancelled."""
        began, before = time.monotonic(), self.made
        while True:
            until = before + int((time.monotonic() - began) * rate)
            for number in range(self.made, until):
                self.waiting[signal_of(number)].append(number)
            self.made = max(self.made, until)
            await asyncio.sleep(0.05)

    async def send(self) -> None:
        """Send what there is until cancelled, several requests at once."""
        async with httpx.AsyncClient(base_url=self.url, timeout=35) as client, asyncio.TaskGroup() as senders:
            for signal in Signal:
                for _ in range(2):
                    senders.create_task(self._send(client, signal))

    async def _send(self, client: httpx.AsyncClient, signal: Signal) -> None:
        while True:
            if not (numbers := self._taken(self.waiting[signal])):
                await asyncio.sleep(0.05)
                continue
            answer = await self._post(client, signal, numbers)
            if answer == "200" and self.chance.random() < UNHEARD:
                answer = "200, unheard"
                self.unheard += len(numbers)
            self.answers[answer] += 1
            if answer != "200":
                self.waiting[signal] += numbers
                await asyncio.sleep(0.2)
            self._travelling -= len(numbers)

    def _taken(self, waiting: list[int]) -> list[int]:
        """Some that wait, no matter since when."""
        self.chance.shuffle(waiting)
        size = self.chance.randint(1, 300)
        numbers = waiting[-size:]
        del waiting[-size:]
        self._travelling += len(numbers)
        return numbers

    async def _post(self, client: httpx.AsyncClient, signal: Signal, numbers: Sequence[int]) -> str:
        body = request(numbers).SerializeToString()
        try:
            answer = await client.post(signal.path, content=body, headers={"content-type": "application/x-protobuf"})
        except httpx.ConnectError:
            return "away"
        except httpx.TransportError as error:
            # Nobody knows whether it was taken.
            self.sent += len(numbers)
            return type(error).__name__
        self.sent += len(numbers)
        return str(answer.status_code)
