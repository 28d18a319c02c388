"""What a sink is measured with: requests of points and of events made beforehand, and raw COPY of the rows they became.

A point has three attributes; an event has eleven, as a delivery has them, in about 370 bytes. They are sent by gRPC, or
as protobuf by HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
from grpc import StatusCode, aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from psycopg import sql

from postel.otlp.codec import PROTOBUF
from postel.otlp.signal import Signal
from support.node_observer import cpu_seconds

TIME = (int(time.time()) // 3600 - 24) * 3600 * 10**9
"""A day ago. What is older goes into columns meanwhile, and a new row is looked for there: another measurement."""
TICK = 15_000_000_000
IN_REQUEST = 4000
"""Records: what a batch of the Collector's, of up to 2 MiB, holds."""
SERIES = 4000
_ODD = 0x9E3779B97F4A7C15
"""Times this, modulo a power of two, numbers are as scattered as they can be (Knuth, volume 3, section 6.4)."""
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


def events(first: int, count: int, *, scattered: bool = False) -> Iterator[bytes]:
    """Requests of so many events of attempts to deliver, 2,000 a second of their own time, from this one on.

    Their Message-IDs come in their order, or ``scattered`` as those of senders do, so that an index of them is written
    everywhere.
    """
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
                    email__message_id=f"<{number * _ODD % 2**64 if scattered else number}@sender.test>",
                    zonemta__delivery__attempt=1,
                )
            )
        yield request.SerializeToString()


def _uuid7(milliseconds: int, number: int) -> str:
    """Of the kind that Postel's plugins give: nearly in the order of time."""
    scattered = number * _ODD & (1 << 62) - 1
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


REPEATED = 10
"""Of so many requests one comes a second time, as one does whose acknowledgement was lost."""


def repeating(bodies: Sequence[bytes], taken: Sequence[bytes]) -> Iterator[bytes]:
    """Bodies that are new, and between them each `REPEATED`th of those that were taken before."""
    for number, body in enumerate(bodies):
        yield body
        if number % REPEATED == 0 and number < len(taken):
            yield taken[number]


# A response without a partial success, and one with one of no records, which some programs give.
_TAKEN = (b"", b"\x0a\x00")


async def send(address: str, signal: Signal, bodies: Sequence[bytes]) -> tuple[float, int]:
    """Send all by OTLP/gRPC; seconds until the last is answered, and how often one was to be sent again.

    Raises:
        AssertionError: one is not taken whole.
    """
    async with aio.insecure_channel(address, options=[("grpc.max_send_message_length", 16 << 20)]) as channel:
        call: Any = channel.unary_unary(signal.method)
        begun = time.monotonic()
        repeated = await send_by(lambda body: call(body, timeout=30), bodies)
        return time.monotonic() - begun, repeated


async def post(url: str, signal: Signal, bodies: Sequence[bytes]) -> tuple[float, int]:
    """Send all by OTLP/HTTP, as protobuf; gives and raises what `send` does.

    Args:
        url: of the sink, without a path.
        signal, bodies: as of `send`.
    """
    headers = {"content-type": PROTOBUF}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:

        async def call(body: bytes) -> bytes:
            return (await client.post(signal.path, content=body)).raise_for_status().content

        begun = time.monotonic()
        repeated = await send_by(call, bodies)
        return time.monotonic() - begun, repeated


def _is_passing(error: aio.AioRpcError | httpx.HTTPStatusError) -> bool:
    """Whether the sink asks for the same once more: a busy machine does not commit in time, and a queue may be full."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == httpx.codes.SERVICE_UNAVAILABLE
    return error.code() is StatusCode.UNAVAILABLE


async def send_by(call: Callable[[bytes], Awaitable[bytes]], bodies: Iterable[bytes], pause: float = 0) -> int:
    """Make calls, several at once, until each body is answered with success; how often one was to be sent again.

    Args:
        call: of OTLP/gRPC or OTLP/HTTP; raises what its client raises of an answer that is no success.
        bodies: encoded requests.
        pause: seconds before what was refused is sent again.

    Raises:
        AssertionError: one is not taken whole.
    """
    waiting = iter(bodies)
    repeated = 0

    async def sender() -> None:
        nonlocal repeated
        for body in waiting:
            while True:
                try:
                    assert await call(body) in _TAKEN
                    break
                except (aio.AioRpcError, httpx.HTTPStatusError) as error:
                    if not _is_passing(error):
                        raise
                    repeated += 1
                    await asyncio.sleep(pause)

    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return repeated


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


class Twin:
    """An empty twin of a table, with its indexes, into which the table's rows go by COPY, as psycopg does it fastest.

    Those of a transaction go in the order of the unique index, as the sink writes them.

    It grows as the table does, so that both have indexes of one size. The twin of a hypertable is one, without the
    continuous aggregates that a sink's rows have to be noted for.

    Args:
        url: of the database.
        table: its name.
    """

    def __init__(self, url: str, table: str) -> None:
        self._url = url
        self._table = sql.Identifier(table)
        self._twin = sql.Identifier(f"{table}_twin")
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(self._twin, self._table))
            if chunk := _chunk(database, table):
                database.execute(
                    "SELECT create_hypertable(%s, by_range('time', %s::interval), create_default_indexes => false)",
                    (f"{table}_twin", chunk),
                )
            self._key = sql.SQL(", ").join(map(sql.Identifier, _key(database, table)))
            found = database.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(self._table)).description or ()
        self._columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in found)

    def copy(self, since: str, until: str, *, together: int) -> Copied:
        """Copy the table's rows of a range of time.

        Args:
            since, until: the range, until excluded.
            together: rows in a transaction; of the first go those whose time is first.
        """
        with (
            psycopg.connect(self._url, autocommit=True) as reader,
            psycopg.connect(self._url, autocommit=True) as writer,
        ):
            rows, bodies = self._bodies(reader, since, until, together)
            into = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(self._twin, self._columns)
            pid = writer.info.backend_pid
            begun, used = time.monotonic(), cpu_seconds([pid])
            for body in bodies:
                with writer.cursor() as cursor, cursor.copy(into) as copy:
                    copy.write(body)
            return Copied(rows, cpu_seconds([pid]) - used, time.monotonic() - begun)

    def _bodies(
        self, reader: psycopg.Connection[Any], since: str, until: str, together: int
    ) -> tuple[int, Sequence[bytes]]:
        """How many rows there are, and what COPY takes of each transaction."""
        select = sql.SQL("SELECT * FROM {} WHERE time >= {} AND time < {} ORDER BY time").format(
            self._table, sql.Literal(since), sql.Literal(until)
        )
        reader.execute(sql.SQL("CREATE TEMPORARY TABLE wanted AS {}").format(select))
        (rows,) = reader.execute("SELECT count(*) FROM wanted").fetchone() or (0,)
        reader.execute("ALTER TABLE wanted ADD COLUMN place bigint GENERATED ALWAYS AS IDENTITY")
        part = sql.SQL("SELECT {} FROM wanted WHERE place > {} AND place <= {} ORDER BY {}")
        parts = (
            part.format(self._columns, sql.Literal(first), sql.Literal(first + together), self._key)
            for first in range(0, rows, together)
        )
        return rows, [b"".join(_copied_out(reader, select)) for select in parts]


def _key(reader: psycopg.Connection[Any], table: str) -> list[str]:
    """The columns of a table's primary key, in their order."""
    found = reader.execute(
        """
        SELECT attname FROM pg_index, unnest(indkey) WITH ORDINALITY AS of_key (attnum, place)
        JOIN pg_attribute USING (attnum)
        WHERE indrelid = %(table)s::regclass AND indisprimary AND attrelid = indrelid ORDER BY place
        """,
        {"table": table},
    )
    return [name for (name,) in found]


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


def backend_seconds(url: str) -> float:
    """Seconds of CPU of the server's processes that serve this database's clients now."""
    return sum(seconds_by_backend(url).values())


def seconds_by_backend(url: str) -> dict[int, float]:
    """Of each of them: process id -> seconds."""
    found = {}
    for pid in _backends(url):
        # One that has ended since: the bench's own look at the rows.
        with contextlib.suppress(FileNotFoundError):
            found[pid] = cpu_seconds([pid])
    return found


def _backends(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        return [pid for (pid,) in found]
