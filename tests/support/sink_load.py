"""What a sink is measured with: requests of points and of events made beforehand, and raw COPY of the rows they became.

A point has three attributes; an event has eleven, as a delivery has them, in about 370 bytes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from grpc import StatusCode, aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from psycopg import sql

from postel.otlp.signal import Signal
from support.node_observer import cpu_seconds

TIME = 1_768_471_200_000_000_000
TICK = 15_000_000_000
IN_REQUEST = 4000
"""Records: what a batch of the Collector's, of up to 2 MiB, holds."""
SERIES = 4000
AT_ONCE = 4
"""Requests under way: the Collector's exporter has as many senders."""


def _pairs(**values: str | int) -> list[KeyValue]:
    """Attributes; `__` in a name stands for a dot."""
    return [
        KeyValue(
            key=key.replace("__", "."),
            value=AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value),
        )
        for key, value in values.items()
    ]


def points(first: int, count: int) -> Iterator[bytes]:
    """Requests of so many points of one cumulative sum, a tick of all series after the other, from this one on."""
    attributes = [
        _pairs(zone=f"zone-{number % 20}", destination=f"mx{number}.example.net", state="accepted")
        for number in range(SERIES)
    ]
    for start in range(first, first + count, IN_REQUEST):
        request = ExportMetricsServiceRequest()
        above = request.resource_metrics.add()
        above.resource.attributes.extend(_pairs(host__id="n1", service__name="load", service__instance__id="load-1"))
        scope = above.scope_metrics.add()
        scope.scope.name = "load"
        data = scope.metrics.add(name="load.attempts", unit="{attempt}").sum
        data.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        data.is_monotonic = True
        for number in range(start, min(start + IN_REQUEST, first + count)):
            tick, series = divmod(number, SERIES)
            point = data.data_points.add(
                start_time_unix_nano=TIME, time_unix_nano=TIME + (tick + 1) * TICK, as_int=3 * tick + series
            )
            point.attributes.extend(attributes[series])
        yield request.SerializeToString()


def events(first: int, count: int) -> Iterator[bytes]:
    """Requests of so many events of attempts to deliver, 2,000 a second of their own time, from this one on."""
    for start in range(first, first + count, IN_REQUEST):
        request = ExportLogsServiceRequest()
        above = request.resource_logs.add()
        above.resource.attributes.extend(
            _pairs(host__id="n1", service__name="zone-mta", service__instance__id="zone-mta-1")
        )
        scope = above.scope_logs.add()
        scope.scope.name = "postel.zone_mta"
        for number in range(start, min(start + IN_REQUEST, first + count)):
            at = TIME + number * 500_000
            record = scope.log_records.add(
                time_unix_nano=at,
                observed_time_unix_nano=at + 1_000_000,
                severity_number=9,
                severity_text="INFO",
                event_name="zonemta.delivery.accepted",
            )
            record.attributes.extend(
                _pairs(
                    log__record__uid=_uuid7(at // 1_000_000, number),
                    zonemta__message__id=f"19bc{number:014x}",
                    zonemta__message__seq="001",
                    zonemta__zone=f"zone-{number % 20}",
                    email__from__address=f"sender{number % 1000}@sender.test",
                    smtp__response__status_code=250,
                    smtp__response__text="250 2.0.0 Ok: queued",
                    network__peer__address="192.0.2.17",
                    server__address=f"mx{number % 500}.example.net",
                    email__message_id=f"<{number}@sender.test>",
                    zonemta__delivery__attempt=1,
                )
            )
        yield request.SerializeToString()


def _uuid7(milliseconds: int, number: int) -> str:
    """Of the kind that Postel's plugins give: nearly in the order of time."""
    scattered = number * 0x9E3779B97F4A7C15 & (1 << 62) - 1
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | (number & 0xFFF) << 64 | 2 << 62 | scattered))


@dataclass(frozen=True)
class Load:
    """Records of one kind.

    Args:
        make: requests of so many from a number on.
        time: of the record of a number, in nanoseconds.
        table: where they are stored.
        bound: CPU of the sink, by that of the database for COPY.
    """

    signal: Signal
    make: Callable[[int, int], Iterator[bytes]]
    time: Callable[[int], int]
    table: str
    bound: float

    def until(self, number: int) -> str:
        """The time of a record."""
        return datetime.fromtimestamp(self.time(number) / 1e9, UTC).isoformat()


POINTS = Load(Signal.METRICS, points, lambda number: TIME + (number // SERIES + 1) * TICK, "otel_metric_point", 1.0)
EVENTS = Load(Signal.LOGS, events, lambda number: TIME + number * 500_000, "delivery_events", 1.5)


# A response without a partial success, and one with one of no records, which some programs give.
_TAKEN = (b"", b"\x0a\x00")


async def send(address: str, signal: Signal, bodies: Sequence[bytes]) -> tuple[float, int]:
    """Send all by OTLP/gRPC; seconds until the last is answered, and how often one was to be sent again.

    Raises:
        AssertionError: one is not taken whole.
    """
    waiting = iter(bodies)
    repeated = 0
    async with aio.insecure_channel(address, options=[("grpc.max_send_message_length", 16 << 20)]) as channel:
        call: Any = channel.unary_unary(signal.method)

        async def sender() -> None:
            nonlocal repeated
            for body in waiting:
                while True:
                    try:
                        assert await call(body, timeout=30) in _TAKEN
                        break
                    except aio.AioRpcError as error:
                        # A busy machine does not commit in time; what it did until then is counted.
                        if error.code() is not StatusCode.UNAVAILABLE:
                            raise
                        repeated += 1

        begun = time.monotonic()
        await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
        return time.monotonic() - begun, repeated


@dataclass(frozen=True)
class Copied:
    """Rows that went by COPY; seconds.

    Args:
        cpu: of the server's process.
        taken: until the last commit.
    """

    rows: int
    cpu: float
    taken: float


def copy_again(url: str, table: str, since: str, until: str, *, together: int) -> Copied:
    """Copy a table's rows of a range of time into an empty twin that has its indexes, as psycopg does it fastest.

    The twin of a hypertable is one, without the continuous aggregates that a sink's rows have to be noted for.

    Args:
        url: of the database; the twin is dropped again.
        table: its name.
        since, until: the range, until excluded.
        together: rows in a transaction, in the order of their time.
    """
    name, twin = sql.Identifier(table), sql.Identifier(f"{table}_twin")
    with psycopg.connect(url, autocommit=True) as reader, psycopg.connect(url, autocommit=True) as writer:
        writer.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(twin, name))
        if chunk := _chunk(reader, table):
            writer.execute(
                "SELECT create_hypertable(%s, by_range('time', %s::interval), create_default_indexes => false)",
                (f"{table}_twin", chunk),
            )
        select = sql.SQL("SELECT * FROM {} WHERE time >= {} AND time < {} ORDER BY time").format(
            name, sql.Literal(since), sql.Literal(until)
        )
        reader.execute(sql.SQL("CREATE TEMPORARY TABLE wanted AS {}").format(select))
        (rows,) = reader.execute("SELECT count(*) FROM wanted").fetchone() or (0,)
        reader.execute("ALTER TABLE wanted ADD COLUMN place bigint GENERATED ALWAYS AS IDENTITY")
        columns = [
            column.name for column in reader.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(name)).description or ()
        ]
        named = sql.SQL(", ").join(map(sql.Identifier, columns))
        bodies = [
            b"".join(
                _copied_out(
                    reader,
                    sql.SQL("SELECT {} FROM wanted WHERE place > {} AND place <= {}").format(
                        named, sql.Literal(first), sql.Literal(first + together)
                    ),
                )
            )
            for first in range(0, rows, together)
        ]
        pid = writer.info.backend_pid
        begun, used = time.monotonic(), cpu_seconds([pid])
        for body in bodies:
            with (
                writer.cursor() as cursor,
                cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(twin, named)) as copy,
            ):
                copy.write(body)
        taken, cpu = time.monotonic() - begun, cpu_seconds([pid]) - used
        writer.execute(sql.SQL("DROP TABLE {}").format(twin))
    return Copied(rows, cpu, taken)


def _chunk(reader: psycopg.Connection[Any], table: str) -> str | None:
    """The range of time of a hypertable's chunks; None where the table is none."""
    if reader.execute("SELECT to_regclass('timescaledb_information.dimensions')").fetchone() == (None,):
        return None
    found = reader.execute(
        "SELECT time_interval::text FROM timescaledb_information.dimensions WHERE hypertable_name = %s", (table,)
    ).fetchone()
    return None if found is None else str(found[0])


def _copied_out(reader: psycopg.Connection[Any], select: sql.Composed) -> Iterator[bytes]:
    with reader.cursor() as cursor, cursor.copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(select)) as copy:
        for part in copy:
            yield bytes(part)


def backends(url: str) -> list[int]:
    """The processes of the server that serve this database's clients."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        return [pid for (pid,) in found]
