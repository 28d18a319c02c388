"""Two sinks lock the same rows in the same order, also where the database sorts texts as a language does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from postel.otlp.answers import Outcome
from postel.otlp.signal import Signal
from support.eventually import eventually
from support.postgres import fresh_database, migrate_now, waited_for
from support.sink import ingesting, recount

TIME = 1_768_471_200_000_000_000
_ZONE_LOCKED = "SELECT FROM metrics_zonemta WHERE zone = %s FOR UPDATE"
_ZONE_ADDED = "INSERT INTO metrics_zonemta (time, node_id, instance, zone) VALUES (to_timestamp(%s), 'n1', '', %s)"


@pytest.fixture
def english(old_postgres: str) -> Iterator[str]:
    """A database in which "a" comes before "B"; for Python, and so for COPY, it comes after."""
    options = "LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C'"
    with fresh_database(old_postgres, "template0", options) as url:
        migrate_now(url)
        yield url


def _zones(*zones: str) -> ExportMetricsServiceRequest:
    """A delivery in each zone, at one time."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="host.id", value=AnyValue(string_value="n1"))
    points = resource.scope_metrics.add().metrics.add(name="zonemta.delivery.attempts").sum
    points.is_monotonic = True
    points.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    outcome = KeyValue(key="zonemta.outcome", value=AnyValue(string_value="delivered"))
    for zone in zones:
        name = KeyValue(key="zonemta.zone", value=AnyValue(string_value=zone))
        points.data_points.add(time_unix_nano=TIME, start_time_unix_nano=TIME, as_int=1, attributes=[outcome, name])
    return request


@pytest.mark.parametrize("there", [False, True])
async def test_what_is_merged_is_locked_in_the_order_of_what_is_copied(english: str, *, there: bool) -> None:
    """A sink that waits for "a" holds "B" already, whether it adds both or fills cells of both."""
    async with (
        ingesting(english) as ingest,
        await psycopg.AsyncConnection.connect(english) as holder,
        await psycopg.AsyncConnection.connect(english, autocommit=True) as other,
    ):
        # The zone that is there already sends the whole request through the staging table.
        await ingest(Signal.METRICS, _zones("A!", "B", "a") if there else _zones("A!"))
        await (holder.execute(_ZONE_LOCKED, ("a",)) if there else holder.execute(_ZONE_ADDED, (TIME // 10**9, "a")))
        merging = asyncio.create_task(ingest(Signal.METRICS, _zones("A!", "B", "a")))
        await eventually(lambda: waited_for(english), 3, "it waits")
        await other.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await (other.execute(_ZONE_LOCKED, ("B",)) if there else other.execute(_ZONE_ADDED, (TIME // 10**9, "B")))
        await holder.rollback()
        assert await merging == Outcome()
    assert await recount(english) == []
