"""New values of typed columns as they are stored, for who listens."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from timescale_sink.api.series import Answer, Query, Reader

EVERY_S = 5.0
# Rows of a tick come when the agent has sent them, and may be filled up by a later batch.
_BACK_S = 300
_BACK_TICKS = 8


@dataclass(frozen=True, slots=True)
class Watched:
    """Columns of one typed table, all gauges or all counters, of one node, instance and zone or of each (None)."""

    table: str
    columns: tuple[str, ...]
    node: str | None = None
    instance: str | None = None
    zone: str | None = None

    def query(self, reader: Reader, now: float) -> Query:
        """What is asked each time; the same for all who watch the same, so that they share the answer."""
        step = reader.interval(self.table)
        stop = math.floor(now / step + 1) * step
        start = stop - max(_BACK_TICKS * step, math.ceil(_BACK_S / step) * step)
        return Query(
            self.table, self.columns, start, stop, step, node=self.node, instance=self.instance, zone=self.zone
        )


async def watch(reader: Reader, watched: Watched) -> AsyncIterator[list[dict[str, Any]]]:
    """Each value once, those of the last minutes first; raises what the reader raises."""
    sent: set[tuple[Any, ...]] = set()
    while True:
        answer = await reader.series(watched.query(reader, time.time()))
        found = dict(_values(answer))
        if new := [value for key, value in found.items() if key not in sent]:
            yield new
        sent = {*found}
        await asyncio.sleep(EVERY_S)


def _values(answer: Answer) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    asked = answer.query
    for series in answer.series:
        where = (series.node, series.instance, series.zone, series.queue, series.column)
        names = dict(zip(("node", "instance", "zone", "queue", "column"), where, strict=True))
        for number, value in enumerate(series.values):
            if value is not None:
                moment = asked.start + number * asked.step
                yield (moment, *where), {"time": datetime.fromtimestamp(moment, UTC), **names, "value": value}
