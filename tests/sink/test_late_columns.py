"""A sink over rows in columns (TimescaleDB Community): what comes late, what is dropped, what began without."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, NumberDataPoint
from psycopg import conninfo

from otel_receivers.points import encode_attributes
from postel.otlp.answers import Outcome
from postel.otlp.signal import ExportRequest, Signal
from postel.settings import Database
from postel.signals import load_all
from support import mail_events
from support.postgres import fresh_database
from support.rollup_rows import inserts, made
from support.sink import ingesting, recount
from timescale_sink.store import retention
from timescale_sink.store.database import Tier, ask_server, connect
from timescale_sink.store.housekeeping import keep_house
from timescale_sink.store.migrate import migrate
from timescale_sink.store.rollup_views import names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DAY = timedelta(days=1)
STEP = timedelta(minutes=20)
TABLES = ("metrics_system", "email_events", "otel_log", "otel_metric_point")
# What is between a rollup of an hour and the rows that it is of.
_DIFFERENT = """
    SELECT bucket, node_id, 'metrics_system' FROM (
        SELECT date_trunc('hour', time, 'UTC') AS bucket, node_id, count(*) AS n, sum(load_1m) AS load,
            max(network_in) AS last, min(network_in) AS first
        FROM metrics_system GROUP BY 1, 2
    ) AS made FULL JOIN (
        SELECT bucket, node_id, row_count, load_1m_sum, network_in_last, network_in_first FROM metrics_system_1h
    ) AS kept USING (bucket, node_id)
    WHERE (n, load, last, first) IS DISTINCT FROM (row_count, load_1m_sum, network_in_last, network_in_first)
    UNION ALL
    SELECT bucket, node_id, 'email_events' FROM (
        SELECT date_trunc('hour', time, 'UTC') AS bucket, node_id, count(*) AS n FROM email_events GROUP BY 1, 2
    ) AS made FULL JOIN (
        SELECT bucket, node_id, sum(messages) AS kept_count FROM email_events_1h GROUP BY 1, 2
    ) AS kept USING (bucket, node_id) FULL JOIN (
        SELECT bucket, node_id, sum(messages) AS nodes_count FROM email_events_nodes_1h GROUP BY 1, 2
    ) AS nodes USING (bucket, node_id)
    WHERE n IS DISTINCT FROM kept_count OR n IS DISTINCT FROM nodes_count
"""


def _metrics(node: str, ticks: Iterable[datetime], begin: datetime, *, load: bool, network: bool) -> ExportRequest:
    """A gauge that has no table and one that has, and a counter: cells of one row each tick."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.extend(encode_attributes({"host.id": node}))
    metrics = resource.scope_metrics.add().metrics
    loads: Any = metrics.add(name="postel.host.cpu.load_average").gauge.data_points if load else []
    others: Any = metrics.add(name="late.gauge").gauge.data_points if load else []
    bytes_in: Any = []
    if network:
        counter = metrics.add(name="postel.host.network.io").sum
        counter.is_monotonic = True
        counter.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        bytes_in = counter.data_points
    way = encode_attributes({"network.io.direction": "receive"})
    for at in ticks:
        seconds, began = int(at.timestamp()), int(begin.timestamp())
        times: Any = {"time_unix_nano": seconds * 10**9, "start_time_unix_nano": began * 10**9}
        value = int((at - begin).total_seconds())
        loads.append(NumberDataPoint(as_double=value / 8, **times))
        others.append(NumberDataPoint(as_double=value / 8, **times))
        bytes_in.append(NumberDataPoint(as_int=value, attributes=way, **times))
    return request


def _events(node: str, ticks: Sequence[datetime]) -> ExportRequest:
    """An event of mail and another each tick."""
    records = []
    for at in ticks:
        for offset, name in enumerate(("zonemta.message.deleted", "late.event")):
            seconds = int(at.timestamp())
            # An id of the node's own, of no order.
            uid = mail_events.uid((seconds + offset * 7 + ord(node) * 13) * 2_654_435_761 % 2**64)
            records.append(mail_events.event(name, {}, uid=uid, time_unix_nano=seconds * 10**9))
    return mail_events.request(*records, resource={"host.id": node})


class _Sent:
    """Ticks of two nodes of which some come in time, some in halves, and some late as a whole."""

    def __init__(self, begin: datetime, end: datetime) -> None:
        self._begin = begin
        chance = random.Random(4)  # noqa: S311 - repeatable
        ticks = [begin + number * STEP for number in range(int((end - begin) / STEP))]
        self._ways = {node: {at: chance.choice(("whole", "whole", "half", "late")) for at in ticks} for node in "ab"}

    def in_time(self) -> Iterable[tuple[Signal, ExportRequest]]:
        for node in self._ways:
            whole, half = self._ticks(node, "whole"), self._ticks(node, "half")
            yield Signal.METRICS, _metrics(node, whole, self._begin, load=True, network=True)
            yield Signal.METRICS, _metrics(node, half, self._begin, load=True, network=False)
            yield Signal.LOGS, _events(node, whole)

    def late(self) -> Iterable[tuple[Signal, ExportRequest]]:
        for node in self._ways:
            half, late = self._ticks(node, "half"), self._ticks(node, "late")
            yield Signal.METRICS, _metrics(node, half, self._begin, load=False, network=True)
            yield Signal.METRICS, _metrics(node, late, self._begin, load=True, network=True)
            # Some of what was in time comes again.
            yield Signal.LOGS, _events(node, [*half, *late, *self._ticks(node, "whole")[:50]])

    def _ticks(self, node: str, way: str) -> list[datetime]:
        return [at for at, found in self._ways[node].items() if found == way]


async def _send(url: str, requests: Iterable[tuple[Signal, ExportRequest]]) -> None:
    async with ingesting(url) as ingest:
        assert set(await asyncio.gather(*(ingest(*request) for request in requests))) == {Outcome()}


def _ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        return connection.execute(query.encode()).fetchall()


def _run_jobs(url: str, kind: str) -> None:
    jobs = f"SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = '{kind}' ORDER BY 1"
    for (job,) in _ask(url, jobs):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CALL run_job({job})".encode())


async def _refresh(url: str) -> None:
    _run_jobs(url, "refresh_rollups")
    assert await keep_house(url, load_all())


async def _migrate(url: str) -> list[str]:
    connection = await connect(url)
    try:
        return await migrate(connection)
    finally:
        await connection.close()


async def _apply(url: str, settings: Database) -> retention.Changes:
    connection = await connect(url)
    try:
        return await retention.apply(connection, settings, load_all())
    finally:
        await connection.close()


def _unpacked(url: str, table: str, until: datetime) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timescaledb.enable_transparent_decompression = off")
        row = connection.execute(f"SELECT count(*) FROM {table} WHERE time < %s".encode(), (until,)).fetchone()
    assert row
    return int(row[0])


@pytest.mark.soak
async def test_what_comes_late_into_columns_is_in_the_rollups_and_goes_with_retention(timescale: str) -> None:
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    begin = today - 13 * DAY
    sent = _Sent(begin, today)
    with fresh_database(timescale) as url:
        await _migrate(url)
        await _apply(url, Database(event_columnstore_days=9))
        await _send(url, sent.in_time())
        await _refresh(url)
        _run_jobs(url, "policy_compression")
        # The job's: what is older than nine days. And by hand, so that what is a week late is taken there too.
        for table in TABLES:
            assert _unpacked(url, table, today - 9 * DAY) == 0
            assert _ask(url, f"SELECT count(*) > 0 FROM {table}") == [(True,)]
            older = f"show_chunks('{table}', older_than => now() - interval '2 days')"
            _ask(url, f"SELECT compress_chunk(chunk) FROM {older} AS chunk")
        # And the rollups, of any age.
        for rollup in names(load_all()):
            aggregates = f"aggregates_of('{rollup}') AS aggregate, show_chunks(aggregate::regclass) AS chunk"
            _ask(url, f"SELECT compress_chunk(chunk) FROM {aggregates}")
        await _send(url, sent.late())
        assert await recount(url) == []
        ledger = "SELECT sum(duplicate)::int, sum(conflicting)::int, sum(dead_lettered)::int FROM ingest_ledger"
        assert _ask(url, ledger) == [(2 * 2 * 50, 0, 0)]
        ticks = int(13 * DAY / STEP)
        assert _ask(url, "SELECT count(load_1m)::int, count(network_in)::int FROM metrics_system") == [(2 * ticks,) * 2]
        for table in TABLES:
            assert _ask(url, f"SELECT count(*)::int FROM {table}") == [(2 * ticks,)]
            assert _unpacked(url, table, today - 9 * DAY) > 0
        await _refresh(url)
        assert _ask(url, _DIFFERENT) == []
        seconds = int((13 * DAY - STEP).total_seconds())
        for size in ("5m", "1h", "daily"):
            assert _ask(url, f"SELECT sum(network_in)::int FROM metrics_system_{size}") == [(2 * seconds,)]
        # What was unpacked is packed again.
        _run_jobs(url, "policy_compression")
        assert [_unpacked(url, table, today - 9 * DAY) for table in TABLES] == [0] * len(TABLES)
        assert await recount(url) == []
        await _send(url, sent.late())
        assert [_unpacked(url, table, today - 9 * DAY) for table in TABLES] == [0] * len(TABLES)
        assert await recount(url) == []
        # And what is too old goes, in columns or not; its rollups stay.
        assert (await _apply(url, Database(raw_days=11))).changed
        await _refresh(url)
        _run_jobs(url, "policy_retention")
        await _refresh(url)
        assert await recount(url) == []
        assert _ask(url, "SELECT min(time) FROM metrics_system") == [(today - 11 * DAY,)]
        assert _ask(url, "SELECT min(bucket) FROM metrics_system_1h") == [(begin,)]
        assert _ask(url, "SELECT sum(network_in)::int FROM metrics_system_daily") == [(2 * seconds,)]


async def test_two_sinks_fill_rows_in_columns_at_the_same_time(timescale: str) -> None:
    """Each cell is counted as stored by one of them, and neither is told to come again."""
    begin = datetime(2026, 1, 14, tzinfo=UTC)
    ticks = [begin + number * STEP for number in range(700)]
    with fresh_database(timescale) as url:
        await _migrate(url)
        halves = [(Signal.METRICS, _metrics(node, ticks, begin, load=True, network=False)) for node in "abcd"]
        await _send(url, halves)
        _ask(url, "SELECT compress_chunk(chunk) FROM show_chunks('metrics_system') AS chunk")
        chance = random.Random(1)  # noqa: S311 - repeatable
        rest = [
            (Signal.METRICS, _metrics(node, chance.sample(ticks, 60), begin, load=True, network=True))
            for node in "abcd"
            for _ in range(10)
        ]
        async with ingesting(url, "one") as one, ingesting(url, "two") as two:
            answers = await asyncio.gather(
                *(sink(*request) for sink in (one, two) for request in chance.sample(rest, len(rest)))
            )
        assert set(answers) == {Outcome()}
        assert await recount(url) == []
        assert _ask(url, "SELECT sum(conflicting)::int FROM ingest_ledger") == [(0,)]
        assert _ask(url, "SELECT count(*)::int, bool_and(load_1m IS NOT NULL) FROM metrics_system") == [(2800, True)]


@pytest.mark.soak
async def test_a_database_that_began_without_the_extension_becomes_one_with_columns(timescale: str) -> None:
    """Its owner may not install it, and later may: rows, rollups and ledger are the same."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    data = made(load_all(), begin=now - 12 * DAY, end=now, step=timedelta(minutes=47), seed=3)
    rollups = [f"SELECT whole::text FROM {name} AS whole ORDER BY 1" for name in names(load_all())]
    with fresh_database(timescale) as admin:
        name = str(conninfo.conninfo_to_dict(admin)["dbname"])
        role = f"{name}_owner"
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
            connection.execute(f"CREATE SCHEMA own AUTHORIZATION {role}".encode())
        url = conninfo.make_conninfo(admin, user=role, options="-c search_path=own,public")
        try:
            assert not any("timescale" in script or "community" in script for script in await _migrate(url))
            assert await _tier(url) is Tier.PLAIN
            await _apply(url, Database())
            _ask_nothing(url, inserts(data.rows))
            before = [_ask(url, query) for query in rollups]
            _ask_nothing(admin, f"GRANT CREATE ON DATABASE {name} TO {role}")
            assert "0027_event_columns.community.sql" in await _migrate(url)
            assert await _tier(url) is Tier.COMMUNITY
            assert (await _apply(url, Database())).first
            await _refresh(url)
            _run_jobs(url, "policy_compression")
            assert _unpacked(url, "metrics_system", now - 11 * DAY) == 0
            assert [_ask(url, query) for query in rollups] == before
            assert await _migrate(url) == []
        finally:
            with psycopg.connect(admin, autocommit=True) as connection:
                connection.execute(f"DROP OWNED BY {role} CASCADE".encode())
                connection.execute(f"DROP ROLE {role}".encode())


async def _tier(url: str) -> Tier:
    connection = await connect(url)
    try:
        return (await ask_server(connection)).tier
    finally:
        await connection.close()


def _ask_nothing(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
