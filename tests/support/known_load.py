"""Records made of their numbers, sent as the agent sends: again until the receiver has acknowledged them.

What is not acknowledged comes again in other company. One acknowledgement in ten is not believed, as if it was lost on
its way.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_receivers.points import encode_attributes
from postel.otlp.signal import Signal

TIME = 1_768_471_200
"""Seconds; the first record's."""
TICK = 30
ZONES = 20
UNHEARD = 1 / 10
"""How often an acknowledgement is not believed."""


class Kind(IntEnum):
    """What a record is, by the rest of its number."""

    ATTEMPT = 0
    """Of Zone-MTA, told to the agent, which measures it."""
    MESSAGE = 1
    """Of Haraka, told to the agent, which counts it."""
    DELIVERY = 2
    """As an attempt, and sent to the Collector."""
    LOG = 3
    GAUGE = 4
    """A cell of a typed row."""
    COUNTER = 5
    """Another cell of a typed row, maybe of the same."""
    DELTA = 6
    """A point of a sum that no declaration names."""


KINDS = len(Kind)
FATES = (("accepted", "delivered", 250), ("deferred", "deferred", 451), ("rejected", "rejected", 550))
"""As events, deliveries and replies say it."""
_SECOND = 1_000_000_000
_INSTANCE = {"host.id": "node-1", "host.name": "mx1.example.org", "service.instance.id": "i"}
_ZONE_MTA, _HARAKA = (
    Resource(attributes=encode_attributes({**_INSTANCE, "service.name": service})) for service in ("zone-mta", "haraka")
)
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def uid(number: int) -> str:
    """The id of an event; ids have no order that times have."""
    return str(uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))


def at(number: int) -> int:
    """Milliseconds; when a log-event happened. A hundred thousand of them are in nearly three hours."""
    return TIME * 1000 + number * 100


def fate(number: int) -> tuple[str, str, int]:
    """How an event ended."""
    return FATES[number // KINDS % len(FATES)]


def gauge_cell(number: int) -> tuple[int, str, str]:
    """Of a gauge: its tick, zone and queue state. Two cells are of one row."""
    row, column = divmod(number // KINDS, 2)
    return row // ZONES, f"z{row % ZONES}", ("queued", "deferred")[column]


def counter_cell(number: int) -> tuple[int, str, int]:
    """Of a counter: its tick, zone and value. The row may be one that a gauge is in as well."""
    tick, zone = divmod(number // KINDS, ZONES)
    return tick, f"z{zone}", 3 * tick + zone + 1


def delta_point(number: int) -> tuple[int, str]:
    """Of the sum: its tick and what tells its series apart."""
    tick, series = divmod(number // KINDS, 100)
    return tick, f"{series}"


def _log(number: int) -> LogRecord:
    attributes: dict[str, Any] = {"log.record.uid": uid(number)}
    event, _, code = fate(number)
    match number % KINDS:
        case Kind.LOG:
            record = LogRecord(event_name="known.load", body=AnyValue(int_value=number))
        case Kind.MESSAGE:
            record = LogRecord(event_name=f"haraka.message.{event}")
            attributes |= {
                "haraka.transaction.id": f"{number:016x}",
                "haraka.data.size": number,
                "email.direction": "inbound",
                "email.from.address": f"someone@d{number % 7}.example",
            }
        case _:
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


def logs(numbers: Sequence[int]) -> ExportLogsServiceRequest:
    """A request of events with these numbers, all of them messages or none."""
    request = ExportLogsServiceRequest()
    of_haraka = numbers[0] % KINDS == Kind.MESSAGE
    scope = request.resource_logs.add(resource=_HARAKA if of_haraka else _ZONE_MTA).scope_logs.add()
    scope.scope.name = "postel.haraka" if of_haraka else "postel.zone_mta"
    scope.log_records.extend(map(_log, numbers))
    return request


def _point(tick: int, value: int, **attributes: str) -> NumberDataPoint:
    named = {f"zonemta.{key.replace('__', '.')}": each for key, each in attributes.items()}
    return NumberDataPoint(
        time_unix_nano=(TIME + tick * TICK) * _SECOND, as_int=value, attributes=encode_attributes(named)
    )


def metrics(numbers: Sequence[int]) -> ExportMetricsServiceRequest:
    """A request of points with these numbers."""
    gauge, counter, delta = (Metric(name=n) for n in ("zonemta.queue.message.count", "zonemta.delivery.attempts", "d"))
    counter.sum.aggregation_temporality, counter.sum.is_monotonic = _CUMULATIVE, True
    delta.sum.aggregation_temporality = _DELTA
    for number in numbers:
        match number % KINDS:
            case Kind.GAUGE:
                tick, zone, state = gauge_cell(number)
                gauge.gauge.data_points.append(_point(tick, number, zone=zone, queue__state=state))
            case Kind.COUNTER:
                tick, zone, value = counter_cell(number)
                point = _point(tick, value, zone=zone, outcome="delivered")
                point.start_time_unix_nano = (TIME - 1) * _SECOND
                counter.sum.data_points.append(point)
            case _:
                tick, series = delta_point(number)
                delta.sum.data_points.append(_point(tick, number, of=series))
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add(resource=_ZONE_MTA).scope_metrics.add()
    scope.scope.name = "postel.zone_mta"
    scope.metrics.extend(
        metric
        for metric, points in ((gauge, gauge.gauge), (counter, counter.sum), (delta, delta.sum))
        if points.data_points
    )
    return request


@dataclass
class Route:
    """Where records of these kinds go, and those that wait for it."""

    url: str
    signal: Signal
    kinds: tuple[Kind, ...]
    waiting: list[int] = field(default_factory=list)


def routes(agent: str, collector: str) -> list[Route]:
    """The ways of all kinds; both are the URLs of OTLP/HTTP."""
    return [
        Route(agent, Signal.LOGS, (Kind.ATTEMPT,)),
        Route(agent, Signal.LOGS, (Kind.MESSAGE,)),
        Route(collector, Signal.LOGS, (Kind.DELIVERY, Kind.LOG)),
        Route(collector, Signal.METRICS, (Kind.GAUGE, Kind.COUNTER, Kind.DELTA)),
    ]


@dataclass
class Load:
    """Makes records and sends them.

    Attributes:
        routes: of all kinds.
        chance: decides who travels with whom, and whose acknowledgement is not believed.
        made: records that there are.
        sent: records in requests that went out, each time counted.
        unheard: records whose acknowledgement was not believed; they come again.
        answers: what became of the requests.
    """

    routes: Sequence[Route]
    chance: random.Random
    made: int = 0
    sent: int = 0
    unheard: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    _travelling: int = 0

    @property
    def left(self) -> int:
        """Records that are not acknowledged."""
        return self._travelling + sum(len(route.waiting) for route in self.routes)

    async def make(self, rate: float) -> None:
        """Make so many a second, until cancelled."""
        ways = {kind: route.waiting for route in self.routes for kind in route.kinds}
        began, before = time.monotonic(), self.made
        while True:
            until = before + int((time.monotonic() - began) * rate)
            for number in range(self.made, until):
                ways[Kind(number % KINDS)].append(number)
            self.made = until
            await asyncio.sleep(0.05)

    async def send(self) -> None:
        """Send what there is until cancelled, several requests at once."""
        async with httpx.AsyncClient(timeout=35) as client, asyncio.TaskGroup() as senders:
            for route in self.routes:
                for _ in range(2):
                    senders.create_task(self._send(client, route))

    async def _send(self, client: httpx.AsyncClient, route: Route) -> None:
        while True:
            if not (numbers := self._taken(route.waiting)):
                await asyncio.sleep(0.05)
                continue
            answer = await self._post(client, route, numbers)
            if answer == "200" and self.chance.random() < UNHEARD:
                answer = "200, unheard"
                self.unheard += len(numbers)
            self.answers[answer] += 1
            if answer != "200":
                route.waiting += numbers
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

    async def _post(self, client: httpx.AsyncClient, route: Route, numbers: Sequence[int]) -> str:
        request = logs(numbers) if route.signal is Signal.LOGS else metrics(numbers)
        try:
            answer = await client.post(
                f"{route.url}{route.signal.path}",
                content=request.SerializeToString(),
                headers={"content-type": "application/x-protobuf"},
            )
        except httpx.ConnectError:
            return "away"
        except httpx.TransportError as error:
            # Nobody knows whether it was taken.
            self.sent += len(numbers)
            return type(error).__name__
        self.sent += len(numbers)
        return str(answer.status_code)
