"""Dead letters: alone, each with all that it needs to be mended and sent again, and no larger than what came."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from postel.otlp import codec
from postel.otlp.answers import Outcome
from postel.otlp.signal import ExportRequest, Signal
from postel.signals import load_all
from support.sink import ingesting, recount
from timescale_sink.ingest.mapping import Mapper
from timescale_sink.ingest.rows import Rows
from timescale_sink.ingest.slices import Slices

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)
TIME = 1_768_471_200_000_000_000
MAPPER = Mapper(load_all())


def under_a_large_resource(points: int, size: int) -> ExportMetricsServiceRequest:
    """Points without a time, which no table holds."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="process.command_args", value=AnyValue(string_value="x" * size))
    metric = resource.scope_metrics.add().metrics.add(name="made.up", description="y" * size).gauge.data_points
    for number in range(points):
        metric.add(as_double=number)
    return request


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_what_stands_above_is_kept_once() -> None:
    request = under_a_large_resource(20_000, 20_000)
    rows = Rows()
    assert len(MAPPER.map(Signal.METRICS, request, NOW, rows)) == 20_000
    assert len(rows.dead) == 20_000
    assert len(rows.parts) == 3
    held = sum(len(letter.record) for letter in rows.dead.values()) + sum(map(len, rows.parts.values()))
    assert held < 4 * request.ByteSize()


def test_the_id_is_the_same_in_any_piece_and_tells_what_stands_above_apart() -> None:
    one, other = under_a_large_resource(10, 10), under_a_large_resource(10, 11)
    slices = Slices(Signal.METRICS, one)
    whole, pieces, different = Rows(), Rows(), Rows()
    MAPPER.map(Signal.METRICS, one, NOW, whole)
    for start in range(0, 10, 3):
        MAPPER.map(Signal.METRICS, slices.cut(start, min(start + 3, 10)), NOW, pieces)
    MAPPER.map(Signal.METRICS, other, NOW, different)
    assert pieces.dead == whole.dead
    assert pieces.parts == whole.parts
    assert not different.dead.keys() & whole.dead.keys()


@pytest.mark.parametrize(
    ("said", "kept"),
    [("a\0b", '"a\\ufffdb"'), ("\\u0000", '"\\\\u0000"'), ("\\\0\\\\\0", '"\\\\\\ufffd\\\\\\\\\\ufffd"')],
)
def test_a_nul_becomes_the_replacement_character_and_its_escape_stays(said: str, kept: str) -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(body=AnyValue(string_value=said))
    rows = Rows()
    assert MAPPER.map(Signal.LOGS, request, NOW, rows) == ["it has no time"]
    (letter,) = rows.dead.values()
    assert letter.record == b'{"body":{"stringValue":' + kept.encode() + b"}}"


def _requests() -> Iterator[tuple[Signal, ExportRequest]]:
    """A point of each kind and a log record, none with a time."""
    above: dict[str, Any] = {
        "resource": {"attributes": [{"key": "host.id", "value": {"stringValue": "n1"}}], "droppedAttributesCount": 1},
        "schemaUrl": "https://example.org/resource",
    }
    scope: dict[str, Any] = {"scope": {"name": "s", "version": "1"}, "schemaUrl": "https://example.org/scope"}
    attributes = [{"key": "k", "value": {"intValue": "1"}}]
    kinds: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "gauge": ({}, {"asInt": "1", "exemplars": [{"asInt": "2", "traceId": "AAECAwQFBgcICQoLDA0ODw=="}]}),
        "sum": ({"isMonotonic": True, "aggregationTemporality": 2}, {"asDouble": "NaN", "startTimeUnixNano": "5"}),
        "histogram": ({"aggregationTemporality": 1}, {"count": "3", "bucketCounts": ["1", "2"], "explicitBounds": [1]}),
        "exponentialHistogram": ({"aggregationTemporality": 2}, {"count": "3", "scale": 1, "zeroCount": "3"}),
        "summary": ({}, {"count": "3", "sum": 4.5, "quantileValues": [{"quantile": 0.5, "value": 1}]}),
    }
    for kind, (settings, point) in kinds.items():
        data = {**settings, "dataPoints": [{**point, "attributes": attributes}]}
        metric = {"name": f"of.{kind}", "unit": "By", "description": "d", "metadata": attributes, kind: data}
        request = {"resourceMetrics": [{**above, "scopeMetrics": [{**scope, "metrics": [metric]}]}]}
        yield Signal.METRICS, ParseDict(request, ExportMetricsServiceRequest())
    record = {"body": {"stringValue": "b"}, "traceId": "AAECAwQFBgcICQoLDA0ODw==", "attributes": attributes}
    request = {"resourceLogs": [{**above, "scopeLogs": [{**scope, "logRecords": [record]}]}]}
    yield Signal.LOGS, ParseDict(request, ExportLogsServiceRequest())


def _records(signal: Signal, request: Any) -> Iterator[Any]:
    slices = Slices(signal, request)
    for holder in slices._holders:
        yield from holder.records


async def test_a_dead_letter_can_be_mended_and_sent_again(migrated_database: str) -> None:
    sent = list(_requests())
    async with ingesting(migrated_database) as ingest:
        for _ in range(2):
            for signal, request in sent:
                assert await ingest(signal, request) == Outcome(1, "it has no time")
        letters = ask(migrated_database, "SELECT reason, request FROM dead_letter_request ORDER BY record_id")
        assert len(letters) == len(sent)
        again = []
        for reason, kept in letters:
            assert reason == "it has no time"
            signal = Signal.METRICS if "resourceMetrics" in kept else Signal.LOGS
            again.append((signal, codec.decode(signal, orjson.dumps(kept), codec.JSON)))
        # All that was sent, to the letter.
        key = repr
        assert sorted(again, key=key) == sorted(sent, key=key)
        for signal, request in again:
            for record in _records(signal, request):
                record.time_unix_nano = TIME
            assert await ingest(signal, request) == Outcome()
    stored = ask(migrated_database, "SELECT metric, kind FROM otel_metric_point JOIN otel_series USING (series_id)")
    assert len(stored) == len(sent) - 1
    assert ask(migrated_database, "SELECT body FROM otel_log") == [("b",)]
    # One resource, one scope, five metrics.
    assert ask(migrated_database, "SELECT count(*) FROM dead_letter_part") == [(7,)]
    assert await recount(migrated_database) == []


async def test_letters_of_many_bytes_go_in_several_statements(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timescale_sink.ingest.writer._LETTERS_BYTES", 100)
    request = under_a_large_resource(50, 10)
    async with ingesting(migrated_database) as ingest:
        for _ in range(2):
            assert (await ingest(Signal.METRICS, request)).rejected == 50
    assert ask(migrated_database, "SELECT count(*), count(DISTINCT record) FROM dead_letter") == [(50, 50)]
    assert await recount(migrated_database) == []


async def test_what_the_database_refuses_has_a_letter_without_a_request(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("ALTER TABLE otel_log ADD CHECK (body <> '\"poison\"')")
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(time_unix_nano=TIME, body=AnyValue(string_value="poison"))
    async with ingesting(migrated_database) as ingest:
        assert (await ingest(Signal.LOGS, request)).rejected == 1
    assert ask(migrated_database, "SELECT request FROM dead_letter_request") == [(None,)]
    assert ask(migrated_database, "SELECT record ->> 'body' FROM dead_letter") == [('"poison"',)]
