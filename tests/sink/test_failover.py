"""A primary that dies, and a standby that takes over: a real pair of servers, one URL with both hosts."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psycopg
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from psycopg import conninfo

from postel.otlp.errors import Retryable
from postel.otlp.signal import Signal
from support.postgres import distribution_server, migrate_now
from support.replica import replica_of
from support.requirements import require
from support.sink import ingesting, recount
from timescale_sink.ingest.queue import IngestQueue
from tools.bootstrap.programs import find_postgres

_SERVERS = find_postgres()


def _host(url: str) -> str:
    return str(conninfo.conninfo_to_dict(url)["host"])


async def _taken(ingest: IngestQueue, number: int) -> int:
    """Send a record until it is committed; how often it was told to come again."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(time_unix_nano=1_768_471_200_000_000_000 + number * 1000, body=AnyValue(int_value=number))
    again = 0
    while True:
        try:
            await ingest(Signal.LOGS, request)
        except Retryable:
            again += 1
            await asyncio.sleep(0.2)
        else:
            return again


@pytest.mark.slow
async def test_what_was_acknowledged_before_a_failover_is_there_after_it() -> None:
    require("postgresql", available=_SERVERS)
    server = _SERVERS[-1]
    with distribution_server(server) as primary, replica_of(primary, server) as replica:
        standby = replica.url
        await asyncio.to_thread(migrate_now, primary)
        with psycopg.connect(primary, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
        both = conninfo.make_conninfo(
            primary, host=f"{_host(primary)},{_host(standby)}", target_session_attrs="read-write"
        )
        async with ingesting(both, connections=4) as ingest:
            before = [await _taken(ingest, number) for number in range(50)]
            senders = [asyncio.create_task(_taken(ingest, number)) for number in range(50, 100)]
            pid = int((Path(_host(primary)) / "data/postmaster.pid").read_text().split()[0])
            # At once, as a power cut would: what it has not told the standby it has not told anybody.
            os.kill(pid, signal.SIGQUIT)
            late = asyncio.create_task(_taken(ingest, 100))
            # Meanwhile the standby is there, and takes no writes; longer than a sender is kept waiting.
            await asyncio.sleep(7)
            assert not late.done()
            with psycopg.connect(standby, autocommit=True) as connection:
                # It has a standby of its own no more; who runs such a pair tells it so.
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
                connection.execute("SELECT pg_promote()")
                connection.execute("SELECT pg_reload_conf()")
            again = [*await asyncio.gather(*senders), await late]
        assert set(before) == {0}
        assert again[-1] > 0
        assert await recount(both) == []
        with psycopg.connect(standby) as connection:
            found = connection.execute("SELECT count(*), count(DISTINCT body) FROM otel_log").fetchone()
    assert found == (101, 101)
