"""Cutting a request: every record once, in order, below what stood above it."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from postel.otlp.signal import ExportRequest, Signal
from timescale_sink.ingest.slices import Slices

_KINDS: dict[str, dict[str, Any]] = {
    "gauge": {},
    "sum": {"isMonotonic": True, "aggregationTemporality": 2},
    "histogram": {"aggregationTemporality": 1},
    "exponentialHistogram": {"aggregationTemporality": 2},
    "summary": {},
}
_sizes = st.lists(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=3), max_size=3)


def _metrics(sizes: list[list[list[int]]]) -> ExportRequest:
    """A request of resources with scopes with metrics of so many points; of each kind in turn."""
    kinds = list(_KINDS.items())
    resources = []
    for r, scopes in enumerate(sizes):
        parts = []
        for s, metrics in enumerate(scopes):
            made = []
            for m, points in enumerate(metrics):
                kind, settings = kinds[(r + s + m) % len(kinds)]
                data = {**settings, "dataPoints": [{"timeUnixNano": 1 + p} for p in range(points)]}
                head = {"name": f"{r}.{s}.{m}", "unit": "By", "description": "d", "metadata": [{"key": "k"}]}
                made.append({**head, kind: data})
            parts.append({"scope": {"name": f"scope {s}"}, "schemaUrl": "s", "metrics": made})
        resources.append({"resource": {"droppedAttributesCount": r}, "schemaUrl": "r", "scopeMetrics": parts})
    return ParseDict({"resourceMetrics": resources}, Signal.METRICS.request_class())


def _logs(sizes: list[list[list[int]]]) -> ExportRequest:
    resources = [
        {
            "resource": {"droppedAttributesCount": r},
            "schemaUrl": "r",
            "scopeLogs": [
                {
                    "scope": {"name": f"scope {s}"},
                    "schemaUrl": "s",
                    "logRecords": [{"timeUnixNano": 1 + p} for p in range(sum(records))],
                }
                for s, records in enumerate(scopes)
            ],
        }
        for r, scopes in enumerate(sizes)
    ]
    return ParseDict({"resourceLogs": resources}, Signal.LOGS.request_class())


def _told(signal: Signal, request: Any) -> list[bytes]:
    """Each record with all that stands above it, its siblings left out."""
    told = []
    for resource in getattr(request, f"resource_{signal.value}"):
        for scope in getattr(resource, f"scope_{signal.value}"):
            for holder in scope.metrics if signal is Signal.METRICS else [scope]:
                kind = holder.WhichOneof("data") if signal is Signal.METRICS else None
                records = getattr(holder, kind).data_points if kind else holder.log_records
                for record in records:
                    alone = type(holder)()
                    alone.CopyFrom(holder)
                    kept = getattr(alone, kind).data_points if kind else alone.log_records
                    del kept[:]
                    kept.append(record)
                    above = resource.schema_url, scope.schema_url, scope.scope.name
                    told.append(repr((above, resource.resource, alone)).encode())
    return told


@given(_sizes, st.integers(1, 7), st.sampled_from(Signal))
def test_the_pieces_hold_each_record_once_with_all_above_it(
    sizes: list[list[list[int]]], length: int, signal: Signal
) -> None:
    request = _metrics(sizes) if signal is Signal.METRICS else _logs(sizes)
    slices = Slices(signal, request)
    assert len(slices) == sum(count for scopes in sizes for metrics in scopes for count in metrics)
    pieces = [slices.cut(start, min(start + length, len(slices))) for start in range(0, len(slices), length)]
    for piece in pieces:
        assert 0 < len(Slices(signal, piece)) <= length
    assert [one for piece in pieces for one in _told(signal, piece)] == _told(signal, request)


@given(_sizes, st.integers(1, 7), st.integers(0, 300), st.sampled_from(Signal))
def test_a_piece_reaches_as_far_as_both_bounds_let_it(
    sizes: list[list[list[int]]], records: int, repeated: int, signal: Signal
) -> None:
    slices = Slices(signal, _metrics(sizes) if signal is Signal.METRICS else _logs(sizes))
    start = 0
    while start < len(slices):
        stop = slices.reach(start, records, repeated)
        assert start < stop <= min(start + records, len(slices))
        assert stop == start + 1 or slices.repeated(start, stop) <= repeated
        # One more is one too many, or there is none.
        if stop < min(start + records, len(slices)):
            assert slices.repeated(start, stop + 1) > repeated
        start = stop
    whole = slices.repeated(0, len(slices))
    assert whole == sum(slices.repeated(number, number + 1) for number in range(len(slices)))
