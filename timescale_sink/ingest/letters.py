"""What cannot be stored, in OTLP's JSON: each record alone, and what stands above it once, to be mended and sent again.

Pure. A resource may be a thousand times as large as a point below it, so a dead letter names the parts above it instead
of holding them: letters are never larger than the request that they come from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics

from postel.otlp import json_mapping
from timescale_sink.ingest.rows import DeadLetter, Rows
from timescale_sink.ingest.slices import copy_metric
from timescale_sink.ingest.values import fingerprint

# A NUL in JSON, and not the six characters of its escape as a text.
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class Part:
    """What stands above records, without what is below it; encoded when the first dead letter asks.

    Args:
        whole: the ResourceMetrics or ResourceLogs, ScopeMetrics or ScopeLogs, or Metric.
    """

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    @cached_property
    def content(self) -> bytes:
        """As JSON."""
        return _encoded(_bare(self._whole))

    @cached_property
    def part_id(self) -> UUID:
        """A hash of the content."""
        return fingerprint(self.content)


def bury(rows: Rows, record: Message, above: Sequence[Part], *, destination: str, reason: str, at: datetime) -> None:
    """Add a record that cannot be stored, and count it.

    Args:
        rows: they grow by a dead letter, and by the parts that are not there yet.
        record: the data point or log record.
        above: its resource, its scope and, of a point, its metric.
        destination: the table that it was meant for.
        reason: why it cannot be stored there.
        at: the hour under which it is counted.
    """
    content = _encoded(record)
    ids = [part.part_id for part in above]
    record_id = fingerprint(destination.encode(), *(id_.bytes for id_ in ids), content)
    tally = rows.tally(at, destination)
    tally.received += 1
    if record_id in rows.dead:
        tally.duplicate += 1
        return
    rows.dead[record_id] = DeadLetter(record_id, at, destination, reason, content, *ids)
    for part in above:
        rows.parts.setdefault(part.part_id, part.content)


def _bare(whole: Any) -> Message:
    if isinstance(whole, Metric):
        metric = Metric()
        copy_metric(whole, metric, slice(0))
        return metric
    bare: Message = type(whole)(schema_url=whole.schema_url)
    name = "resource" if isinstance(whole, (ResourceMetrics, ResourceLogs)) else "scope"
    getattr(bare, name).CopyFrom(getattr(whole, name))
    return bare


def _encoded(message: Message) -> bytes:
    # Copied for the reason that `values.canonical` gives.
    return bytes(memoryview(_NUL.sub(rb"\1\\ufffd", json_mapping.encode(message))))
