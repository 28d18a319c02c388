"""What was measured so far: the cumulative sums and histograms of each sender's events, and since when. Pure.

A sender is an instance of a program (:class:`~otel_receivers.derived.Instance`); all its counters began together, when
the first of its events was counted, and go on over restarts of that program and of the agent: what they count are
events, and each of those is counted once. :meth:`Totals.counted` says what they become with more events and changes
nothing; only :meth:`Totals.keep` does, when that is stored. Points never fall within one start.

Series are bounded (the Metrics SDK's "Cardinality limits"): what would be one too many is counted in the series whose
only attribute is ``otel.metric.overflow``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import orjson

from otel_receivers.derived import Instance, Occurrence, Series
from otel_receivers.epochs import AHEAD_NANOS, STEP_NANOS
from otel_receivers.points import INT64_MAX, OVERFLOW

# Of a metric of one instance, and of all together. A Zone-MTA has three series for each of its zones.
SERIES_OF_METRIC = 500
SERIES = 20_000
INSTANCES = 1_000
# Who was not heard of for so long makes room for another.
QUIET_SECONDS = 86_400
# How far behind the time is that is remembered of a sender; it is written with what is counted anyway.
HEARD_SECONDS = 600

# As it is stored: the sender, the series ('' for the sender itself), the state.
Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Sum:
    """A monotonic sum."""

    value: float = 0

    def plus(self, values: Sequence[float]) -> Sum:
        """The sum with more values; it stays where it is when a point could not carry more."""
        return Sum(min(self.value + sum(values), INT64_MAX))


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram; its own start, for it begins anew where its bounds are declared otherwise.

    Attributes:
        start: nanoseconds since 1970.
        bounds: the upper bounds of the buckets but the last.
        counts: of each bucket; one more than bounds.
        total: the sum of all values.
        lowest: the least of them.
        highest: the greatest of them.
    """

    start: int
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    lowest: float
    highest: float

    def plus(self, values: Sequence[float]) -> Histogram:
        """The histogram with more values. A bound belongs to the bucket below it (OTLP, HistogramDataPoint)."""
        counts = list(self.counts)
        for value in values:
            counts[bisect_left(self.bounds, value)] += 1
        return Histogram(
            self.start,
            self.bounds,
            tuple(counts),
            self.total + sum(values),
            min(self.lowest, *values),
            max(self.highest, *values),
        )


Total = Sum | Histogram


@dataclass(frozen=True, slots=True)
class Sender:
    """What is known of an instance beside its series.

    Attributes:
        start: since when its events are counted, nanoseconds since 1970.
        host_name: as it was first said; a resource that changed would begin all its series anew.
        heard: when the last event came, seconds since 1970; up to `HEARD_SECONDS` behind.
    """

    start: int
    host_name: str
    heard: float


@dataclass
class Change:
    """What events change; what they do not is not in it.

    Attributes:
        senders: that are new, or heard of after a time.
        totals: with the events.
        forgotten: senders that made room; of them all goes before the rest comes.
        heard: whom the events are of.
    """

    senders: dict[Instance, Sender] = field(default_factory=dict)
    totals: dict[tuple[Instance, Series], Total] = field(default_factory=dict)
    forgotten: list[Instance] = field(default_factory=list)
    heard: set[Instance] = field(default_factory=set)

    def rows(self) -> list[Row]:
        """What is to be stored, in the place of what is there."""
        rows = [(_encode_instance(instance), "", _encode_sender(sender)) for instance, sender in self.senders.items()]
        rows += [
            (_encode_instance(instance), _encode_series(series), _encode_total(total))
            for (instance, series), total in self.totals.items()
        ]
        return rows

    def gone(self) -> list[str]:
        """Senders whose rows are to go first."""
        return [_encode_instance(instance) for instance in self.forgotten]


# The bounds of a series' histogram, None where it is a sum, and what is to be added to it.
_Values = tuple[tuple[float, ...] | None, list[float]]


@dataclass
class _Work:
    """What a call of :meth:`Totals.counted` is at; ``new``: the series of each metric that were not there."""

    now: int
    change: Change = field(default_factory=Change)
    new: Counter[tuple[Instance, str]] = field(default_factory=Counter)


class Totals:
    """All of them.

    Args:
        rows: what :meth:`Change.rows` gave earlier; unreadable ones are as if they had never been.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.senders: dict[Instance, Sender] = {}
        self.totals: dict[Instance, dict[Series, Total]] = {}
        self._numbers: Counter[tuple[Instance, str]] = Counter()
        self._size = 0
        stored = list(rows)
        for sender, series, text in stored:
            if not series and (known := _decode_sender(sender, text)):
                self.senders[known[0]] = known[1]
                self.totals[known[0]] = {}
        for sender, series, text in stored:
            if series and (found := _decode_total(sender, series, text)) and found[0] in self.senders:
                self._set(*found)

    def counted(self, occurrences: Sequence[Occurrence], now: int) -> Change:
        """What becomes of the totals with these events.

        Args:
            occurrences: that were not counted before.
            now: nanoseconds since 1970.
        """
        work = _Work(now)
        known: dict[Instance, Instance] = {}
        values: dict[tuple[Instance, Series], _Values] = {}
        for occurrence in occurrences:
            said = occurrence.instance
            instance = known.get(said) or known.setdefault(said, self._sender(occurrence, work))
            for series, value, bounds in occurrence.measurements:
                values.setdefault((instance, series), (bounds, []))[1].append(value)
        for (instance, series), more in values.items():
            self._add(instance, series, more, work)
        return work.change

    def begun_anew(self, now: int) -> Change:
        """Senders of which a clock that was far ahead said that they begin later than now: they begin now.

        Args:
            now: nanoseconds since 1970.
        """
        change = Change()
        for instance, sender in self.senders.items():
            if sender.start - now > AHEAD_NANOS:
                change.senders[instance] = replace(sender, start=now - STEP_NANOS)
        for instance, totals in self.totals.items():
            for series, total in totals.items():
                if isinstance(total, Histogram) and total.start - now > AHEAD_NANOS:
                    change.totals[instance, series] = replace(total, start=now - STEP_NANOS)
        return change

    def keep(self, change: Change) -> None:
        """It is stored."""
        for instance in change.forgotten:
            del self.senders[instance]
            for series in self.totals.pop(instance):
                self._size -= 1
                self._numbers[instance, series.metric] -= 1
        for instance, sender in change.senders.items():
            self.senders[instance] = sender
            self.totals.setdefault(instance, {})
        for (instance, series), total in change.totals.items():
            self._set(instance, series, total)

    def _set(self, instance: Instance, series: Series, total: Total) -> None:
        totals = self.totals[instance]
        if series not in totals:
            self._size += 1
            self._numbers[instance, series.metric] += 1
        totals[series] = total

    def _sender(self, occurrence: Occurrence, work: _Work) -> Instance:
        """The instance that an event is counted under; what is new of it is in the change then."""
        instance, change, seconds = occurrence.instance, work.change, work.now / 1e9
        known, host_name = self._known(instance, change), occurrence.host_name
        if known is None and len(self.senders) + len(change.senders) - len(change.forgotten) >= INSTANCES:
            if (quiet := self._longest_quiet(seconds, change)) is not None:
                change.forgotten.append(quiet)
            else:
                # Of many hosts, or of none: the agent tells it as its own.
                instance, host_name = Instance(instance.source, "", "", next(iter(OVERFLOW))), ""
                known = self._known(instance, change)
        if known is None:
            change.senders[instance] = Sender(work.now - STEP_NANOS, host_name, seconds)
        elif abs(seconds - known.heard) > HEARD_SECONDS:
            change.senders[instance] = replace(known, heard=seconds)
        change.heard.add(instance)
        return instance

    def _known(self, instance: Instance, change: Change) -> Sender | None:
        if instance in change.senders:
            return change.senders[instance]
        return None if instance in change.forgotten else self.senders.get(instance)

    def _longest_quiet(self, seconds: float, change: Change) -> Instance | None:
        quiet = self.senders.keys() - change.heard - set(change.forgotten)
        oldest = min(quiet, key=lambda each: (self.senders[each].heard, each), default=None)
        if oldest is None or seconds - self.senders[oldest].heard <= QUIET_SECONDS:
            return None
        return oldest

    def _add(self, instance: Instance, series: Series, values: _Values, work: _Work) -> None:
        bounds, added = values
        before = self._before(instance, series, work.change)
        if before is None:
            number = self._numbers[instance, series.metric] + work.new[instance, series.metric]
            if number >= SERIES_OF_METRIC or self._size + work.new.total() >= SERIES:
                series = Series(series.metric, tuple(OVERFLOW.items()))
                before = self._before(instance, series, work.change)
            work.new[instance, series.metric] += before is None
        if bounds is None:
            total: Total = before if isinstance(before, Sum) else Sum()
        elif isinstance(before, Histogram) and before.bounds == bounds:
            total = before
        else:
            # Where it was declared otherwise, what the other one counted was told.
            known = self._known(instance, work.change)
            start = known.start if before is None and known is not None else work.now - STEP_NANOS
            total = Histogram(start, bounds, (0,) * (len(bounds) + 1), 0.0, float("inf"), float("-inf"))
        work.change.totals[instance, series] = total.plus(added)

    def _before(self, instance: Instance, series: Series, change: Change) -> Total | None:
        if (instance, series) in change.totals:
            return change.totals[instance, series]
        return None if instance in change.forgotten else self.totals.get(instance, {}).get(series)


def _encode_instance(instance: Instance) -> str:
    return orjson.dumps([instance.source, instance.service, instance.host_id, instance.id]).decode()


def _encode_series(series: Series) -> str:
    return orjson.dumps([series.metric, *series.attributes]).decode()


def _encode_sender(sender: Sender) -> str:
    return orjson.dumps([sender.start, sender.host_name, sender.heard]).decode()


def _encode_total(total: Total) -> str:
    if isinstance(total, Sum):
        return orjson.dumps(total.value).decode()
    content = [total.start, total.bounds, total.counts, total.total, total.lowest, total.highest]
    return orjson.dumps(content).decode()


def _decode_sender(sender: str, text: str) -> tuple[Instance, Sender] | None:
    try:
        start, host_name, heard = orjson.loads(text)
        return Instance(*orjson.loads(sender)), Sender(start, host_name, heard)
    except (ValueError, TypeError):
        return None


def _decode_total(sender: str, series: str, text: str) -> tuple[Instance, Series, Total] | None:
    try:
        instance, names, content = Instance(*orjson.loads(sender)), orjson.loads(series), orjson.loads(text)
        if not isinstance(names, list):
            return None
        key = Series(names[0], tuple((name, value) for name, value in names[1:]))
        if type(content) in (int, float):
            return instance, key, Sum(content)
        start, bounds, counts, total, lowest, highest = content
        histogram = Histogram(start, tuple(bounds), tuple(counts), total, lowest, highest)
        return (instance, key, histogram) if len(counts) == len(bounds) + 1 else None
    except (ValueError, TypeError, IndexError):
        return None
