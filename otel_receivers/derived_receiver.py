"""The metrics that are derived from events, as a source: what the spool has counted, at each tick, sender by sender.

Points are cumulative and each start is before its first point, which counts in full (the design, "Epochs of counters").
A sender of which nothing was heard for a while has no points until it is heard again; its counters go on then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opentelemetry.sdk.resources import Resource

from otel_receivers.derived import Series
from otel_receivers.epochs import AHEAD_NANOS
from otel_receivers.node import Node
from otel_receivers.points import Attributes, Recorder, UndeclaredError
from otel_receivers.receiver import Batch, Problem, ScrapeError, Target, Tick
from otel_receivers.spool import Spool, SpoolError
from otel_receivers.spool_events import Told
from otel_receivers.totals import HEARD_SECONDS, Histogram, Sum, Total
from postel.signals import Declaration, Declarations, Metric
from postel.signals.derivation import is_derived

NAME = "derived"
LAST = f"{NAME}/last"
# A plugin's heartbeat comes every 30 seconds. Long enough for what was counted last to be told again and again.
_QUIET_SECONDS = 900.0
_SET_BACK = Problem("clock", "the clock was set back: what events add up to is told again when it is past where it was")


class DerivedReceiver:
    """A :class:`~otel_receivers.receiver.Receiver`.

    Args:
        declarations: of all sources.
        spool: which counts.
        node: who tells of senders that are too many to be told apart.
        interval: seconds.
        state: what it stored when the agent last ran.
    """

    def __init__(
        self,
        declarations: Declarations,
        spool: Spool,
        node: Node,
        *,
        interval: int,
        state: Mapping[str, str] | None = None,
    ) -> None:
        self.name = NAME
        self.interval = interval
        self.target: Target | None = None
        self._declarations = declarations
        self._spool = spool
        self._node = node
        self._last = self._last_before = _number((state or {}).get(LAST, ""))
        self._quiet = max(_QUIET_SECONDS, 3.0 * interval)

    async def collect(self, tick: Tick) -> Batch:
        """The points of every sender that was heard.

        Raises:
            ScrapeError: the disk does not give what was counted.
        """
        now = tick.time_unix_nano
        if 0 <= self._last - now <= AHEAD_NANOS:
            # The clock was set back: rows of these times are there. The first point after them has it all.
            return Batch(problems=[_SET_BACK])
        try:
            told = await self._spool.told()
            if any(each.sender.start - now > AHEAD_NANOS for each in told):
                await self._spool.begin_anew()
                told = await self._spool.told()
        except SpoolError as error:
            raise ScrapeError("spool", str(error)) from None
        batches = [self._record(each, tick) for each in told if self._is_heard(each, now)]
        self._last = now
        return Batch(
            metrics=[metrics for batch in batches for metrics in batch.metrics],
            problems=[problem for batch in batches for problem in batch.problems],
            state={LAST: str(now)} if batches else {},
        )

    async def close(self) -> None:
        """Nothing to let go of."""

    def _is_heard(self, told: Told, now: int) -> bool:
        if told.instance.source not in self._declarations.sources:
            return False
        # Who was gone before the agent ended has had all its points.
        gone = min(self._last_before, now) / 1e9 - self._quiet - HEARD_SECONDS
        # What was first counted after the tick's time comes with the next one.
        return told.quiet <= self._quiet and told.sender.heard >= gone and told.sender.start < now

    def _record(self, told: Told, tick: Tick) -> Batch:
        declaration = self._declarations[told.instance.source]
        recorder = Recorder(declaration, _resource(told, declaration, self._node), tick)
        start = told.sender.start
        for series, total in told.totals.items():
            metric = declaration.metrics.get(series.metric)
            if metric is None or not is_derived(metric):
                continue  # of an older Postel
            if isinstance(total, Histogram) and total.start >= tick.time_unix_nano:
                continue  # it comes with the next tick
            try:
                _add(recorder, metric.key, dict(series.attributes), total, start)
            except UndeclaredError as error:
                recorder.problem("undeclared", str(error))
        for metric, series in _typed(declaration):
            if series not in told.totals:
                # So a row of the table is whole from the first on.
                recorder.number(metric.key, 0, dict(series.attributes), start_unix_nano=start)
        return recorder.batch()


def _add(recorder: Recorder, key: str, attributes: Attributes, total: Total, start: int) -> None:
    if isinstance(total, Sum):
        recorder.number(key, total.value, attributes, start_unix_nano=start)
        return
    recorder.histogram(
        key,
        bounds=total.bounds,
        counts=total.counts,
        total=total.total,
        lowest=total.lowest,
        highest=total.highest,
        start_unix_nano=total.start,
        attributes=attributes,
    )


def _typed(declaration: Declaration) -> Iterator[tuple[Metric, Series]]:
    for metric in declaration.metrics.values():
        if is_derived(metric):
            for column in metric.columns:
                yield metric, Series(metric.name, tuple(sorted(column.when.items())))


def _resource(told: Told, declaration: Declaration, node: Node) -> Resource:
    """Only what stays as long as the sender is the same: a series of another resource would be another series."""
    instance = told.instance
    said = {
        "service.name": instance.service or declaration.service,
        "service.instance.id": instance.id,
        "host.id": instance.host_id or node.id,
        "host.name": told.sender.host_name if instance.host_id else node.host,
    }
    return Resource({name: text for name, text in said.items() if text})


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
