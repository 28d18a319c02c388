"""Stands between the Collector and the sink, and swallows each tenth acknowledgement: the sink has committed, and the
connection ends before the Collector hears of it.

It reads the frames of HTTP/2 (RFC 9113, section 4.1) and the messages of gRPC in them, so that it knows which records
came, which came again, and whether they came again in the same batch.
"""

from __future__ import annotations

import asyncio
import gzip
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from support.listening import listening

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first (section 3.4)."""
DATA = 0
END_STREAM = 0x1
PADDED = 0x8
SWALLOWS = 10
"""Of so many acknowledgements one."""
_Frame = tuple[int, int, int, bytes]


@dataclass
class Passed:
    """What passed so far.

    Attributes:
        port: where the Collector sends.
        requests: that came whole.
        records: in them.
        again: of these, those that had come before.
        recut: of these, those that came in a batch of other records than the time before.
        committed_again: of those that came before, those that the sink had acknowledged.
        committed_recut: of these, those that came in a batch of other records.
        acknowledged: answers of the sink that say that a request is committed.
        swallowed: of these, those that nobody heard.
        faults: what the proxy did not understand.
    """

    port: int = 0
    requests: int = 0
    records: int = 0
    again: int = 0
    recut: int = 0
    committed_again: int = 0
    committed_recut: int = 0
    acknowledged: int = 0
    swallowed: int = 0
    faults: list[Exception] = field(default_factory=list)
    _batches: dict[int, int] = field(default_factory=dict, repr=False)
    _committed: set[int] = field(default_factory=set, repr=False)

    def came(self, message: bytes) -> frozenset[int]:
        """A request came whole; its records, each by what it says."""
        records = frozenset(_records(message))
        batch = hash(records)
        before = {record: self._batches[record] for record in records if record in self._batches}
        recut = {record for record, earlier in before.items() if earlier != batch}
        committed = self._committed & before.keys()
        self.requests += 1
        self.records += len(records)
        self.again += len(before)
        self.recut += len(recut)
        self.committed_again += len(committed)
        self.committed_recut += len(committed & recut)
        self._batches.update(dict.fromkeys(records, batch))
        return records

    def is_swallowed(self, records: frozenset[int]) -> bool:
        """The sink acknowledged these; whether nobody is to hear it."""
        self.acknowledged += 1
        self._committed |= records
        swallowed = self.acknowledged % SWALLOWS == 0
        self.swallowed += swallowed
        return swallowed


def _records(message: bytes) -> Iterator[int]:
    metrics = ExportMetricsServiceRequest()
    with suppress(DecodeError):
        metrics.ParseFromString(message)
    # Every field of one kind of request is another's unknown field, or no text.
    found = [m for r in metrics.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name]
    for metric in found:
        for point in getattr(metric, metric.WhichOneof("data") or "").data_points:
            yield hash((metric.name, point.SerializeToString(deterministic=True)))
    if not found:
        for resource in ExportLogsServiceRequest.FromString(message).resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    yield hash(record.SerializeToString(deterministic=True))


def _message(framed: bytes) -> bytes:
    """A gRPC message of its prefix and bytes ("gRPC over HTTP2", Length-Prefixed-Message)."""
    assert int.from_bytes(framed[1:5], "big") == len(framed) - 5
    return gzip.decompress(framed[5:]) if framed[0] else framed[5:]


async def _frame(reader: asyncio.StreamReader) -> tuple[bytes, _Frame]:
    """The next frame: its bytes, and its type, flags, stream and payload without padding."""
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
    stream = int.from_bytes(head[5:], "big") & 0x7FFF_FFFF
    own = payload[1 : len(payload) - payload[0]] if head[3] == DATA and head[4] & PADDED else payload
    return head + payload, (head[3], head[4], stream, own)


class _Connection:
    """One connection of the Collector's, and the one to the sink behind it."""

    def __init__(self, passed: Passed, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._passed, self._near, self._far = passed, near, far
        self._bodies: dict[int, bytes] = defaultdict(bytes)
        self._requests: dict[int, frozenset[int]] = {}

    async def ask(self, reader: asyncio.StreamReader) -> None:
        """The Collector's frames to the sink."""
        self._far.write(await reader.readexactly(len(PREFACE)))
        while True:
            whole, (kind, flags, stream, payload) = await _frame(reader)
            if kind == DATA:
                self._bodies[stream] += payload
            if flags & END_STREAM and stream in self._bodies:
                self._requests[stream] = self._passed.came(_message(self._bodies.pop(stream)))
            self._far.write(whole)
            await self._far.drain()

    async def answer(self, reader: asyncio.StreamReader) -> None:
        """The sink's frames to the Collector, until one is swallowed. Only who has committed sends a message."""
        while True:
            whole, (kind, _, stream, payload) = await _frame(reader)
            if kind == DATA and payload and self._passed.is_swallowed(self._requests.pop(stream)):
                return
            self._near.write(whole)
            await self._near.drain()


@asynccontextmanager
async def swallowing_proxy(port: int) -> AsyncIterator[Passed]:
    """A port of loopback behind which is this one."""
    passed = Passed()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ways: list[asyncio.Task[None]] = []
        writers = [writer]
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
            writers.append(there[1])
            connection = _Connection(passed, *writers)
            ways += [asyncio.create_task(connection.ask(reader)), asyncio.create_task(connection.answer(there[0]))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # the sink is away, or the test at its end
        finally:
            for way in ways:
                way.cancel()
            # At once, as a connection that breaks: what is in its buffers goes with it.
            for each in writers:
                each.transport.abort()
            for error in await asyncio.gather(*ways, return_exceptions=True):
                if isinstance(error, Exception) and not isinstance(error, (OSError, asyncio.IncompleteReadError)):
                    passed.faults.append(error)

    async with listening(handle) as passed.port:
        yield passed
