"""The start times of counters: when what is counted began to count, as far as this agent can vouch for it.

Pure logic over explicit state, no I/O. Readers sum a counter as value minus predecessor within one start time; the
first point of a start counts 0 when its time equals its start, else in full (the design, "Epochs of counters" and
"Rollups"). So, for a counter:

* met for the first time: start = that point's time. What it counted before is not this agent's to claim.
* the counting life changed (process restarted, host booted): start = the life's begin. Everything is new.
* a value fell although the life is the same: start = just after the previous point. Everything is new.
* a value fell that is a sum over processes that come and go: start = that point's time, as if it were first met. What
  is left of it counted before.
* at a time that was passed before (the clock was set back): start = that point's time, and nothing is remembered. Where
  rows of those times exist they stay, so that such a point may never be seen; the counter goes on from the latest one.
* otherwise: the start stays.

The sum over any history then never exceeds what really happened since the counter was met, and falls short only by
what happened between the last point before a restart and the restart (or the first point, when first met).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from otel_receivers.receiver import Tick

# Process start times are whole seconds in most servers; a restart moves them by more than this.
_SAME_LIFE_NANOS = 2_000_000_000
# PostgreSQL keeps microseconds, JavaScript milliseconds: starts that must differ do so by this much.
STEP_NANOS = 1_000_000
# A clock that was further ahead is believed now: what it said then was refused by the sink, or is soon out of sight.
AHEAD_NANOS = 86_400_000_000_000
# Series that come and go (network interfaces of containers) are forgotten, longest unseen first, beyond this many.
_SERIES_KEPT = 5_000
PREFIX = "epochs/"


class AbandonedTickError(Exception):
    """The tick was given up meanwhile; whoever still works at it finds nobody who wants its points."""


@dataclass(frozen=True, slots=True)
class Life:
    """One uninterrupted life of what counts.

    Attributes:
        began_unix_nano: when it began.
        id: what tells lives apart (the kernel's boot id); '': lives are told apart by their begin, within 2 s.
    """

    began_unix_nano: int
    id: str = ""

    def same(self, other: Life) -> bool:
        """Whether both are one life."""
        if self.id or other.id:
            return self.id == other.id
        return abs(self.began_unix_nano - other.began_unix_nano) <= _SAME_LIFE_NANOS


@dataclass(slots=True)
class _Series:
    value: float
    start: int
    seen: int


@dataclass(slots=True)
class _Source:
    life: Life | None
    start: int
    whole: bool  # the life was seen from its begin: what appears in it later counted from `start` on
    last: int
    series: dict[str, _Series] = field(default_factory=dict)


class Epochs:
    """All counters of all sources of one agent; stored as text under keys that begin with `PREFIX`.

    May be used from several threads.

    Args:
        stored: what :meth:`changes` gave earlier; other keys are ignored, unreadable ones are as if never met.
    """

    def __init__(self, stored: Mapping[str, str] | None = None) -> None:
        self._sources: dict[str, _Source] = {}
        self._changed: set[str] = set()
        self._ticks: dict[str, Tick | None] = {}
        self._lock = threading.Lock()
        self._stored = {key: text for key, text in (stored or {}).items() if key.startswith(PREFIX)}
        for key, text in self._stored.items():
            if (source := _decode(text)) is not None:
                self._sources[key.removeprefix(PREFIX)] = source

    def starts(
        self,
        source: str,
        tick: Tick,
        values: Mapping[str, float],
        *,
        life: Life | None = None,
        together: bool,
        sums: bool = False,
    ) -> dict[str, int]:
        """The start of each counter of a source at this tick; call once per source and tick, with all counters.

        Args:
            source: names the instance: ``zone_mta/127.0.0.1:12080``, ``system``.
            tick: the points' time.
            values: series -> cumulative value.
            life: of the process or host that counts; None where nothing tells of it.
            together: all series of the source live and die together (the counters of a process); False: each may
                begin anew alone (the counters of network interfaces).
            sums: the values are sums over processes that end and begin one by one (the workers of a cluster), of whose
                lives nothing tells.

        Returns:
            series -> start, nanoseconds since 1970.

        Raises:
            AbandonedTickError: the source's owner is at another tick by now (:meth:`begin`).
        """
        with self._lock:
            if self._ticks.get(_owner(source), tick) != tick:
                raise AbandonedTickError(f"{source}: the tick at {tick.time_unix_nano} was given up")
            return self._starts(source, tick.time_unix_nano, values, life, together=together, sums=sums)

    def _starts(
        self, source: str, now: int, values: Mapping[str, float], life: Life | None, *, together: bool, sums: bool
    ) -> dict[str, int]:
        known = self._sources.get(source)
        if known is not None and known.last - AHEAD_NANOS <= now <= known.last:
            return dict.fromkeys(values, now)
        if known is None or now <= known.last or (sums and _fell(known, values)):
            known = _Source(life, now, whole=False, last=now)
        elif _began_anew(known, life, values, together=together):
            known = _Source(life, _new_start(known, now, life), whole=True, last=now)
        known.life = known.life or life
        self._sources[source] = known
        self._changed.add(source)
        for name, value in values.items():
            known.series[name] = _Series(value, _series_start(known, name, value, now, together=together), now)
        known.last = now
        _forget(known)
        return {name: known.series[name].start for name in values}

    def last(self, source: str, life: Life | None = None) -> dict[str, float]:
        """The last value of each counter of a source; empty where it was never met, or not in this life."""
        with self._lock:
            known = self._sources.get(source)
            if known is None or (life is not None and known.life is not None and not life.same(known.life)):
                return {}
            return {name: series.value for name, series in known.series.items()}

    def changes(self, owner: str) -> dict[str, str]:
        """What must be stored together with the points of a tick; it counts as stored from now on.

        Args:
            owner: the receiver's name: the sources ``owner`` and ``owner/...`` are its own.

        Returns:
            key -> text.
        """
        with self._lock:
            changed = {PREFIX + name: _encode(self._sources[name]) for name in self._of(owner)}
            self._stored.update(changed)
            self._changed -= set(self._of(owner))
            return changed

    def begin(self, owner: str, tick: Tick) -> None:
        """From now on the owner's counters are asked for at this tick alone, until it is stored or undone."""
        with self._lock:
            self._undo(owner)
            self._ticks[owner] = tick

    def undo(self, owner: str) -> None:
        """Forget what happened since the last :meth:`changes`: the points of those ticks were never stored."""
        with self._lock:
            self._undo(owner)
            if owner in self._ticks:
                self._ticks[owner] = None

    def _undo(self, owner: str) -> None:
        for name in self._of(owner):
            before = _decode(self._stored.get(PREFIX + name, ""))
            if before is None:
                del self._sources[name]
            else:
                self._sources[name] = before
            self._changed.discard(name)

    def _of(self, owner: str) -> list[str]:
        return [name for name in self._changed if _owner(name) == owner]


def _owner(source: str) -> str:
    return source.partition("/")[0]


def _began_anew(known: _Source, life: Life | None, values: Mapping[str, float], *, together: bool) -> bool:
    if life is not None and known.life is not None and not life.same(known.life):
        return True
    return together and _fell(known, values)


def _fell(known: _Source, values: Mapping[str, float]) -> bool:
    return any(name in known.series and value < known.series[name].value for name, value in values.items())


def _new_start(known: _Source, now: int, life: Life | None) -> int:
    """After every point of the life before, before the point at hand, and never a start that was used before."""
    changed = life is not None and known.life is not None and not life.same(known.life)
    began = life.began_unix_nano if changed and life is not None else known.last
    return min(max(began, known.last + STEP_NANOS), now - STEP_NANOS)


def _series_start(known: _Source, name: str, value: float, now: int, *, together: bool) -> int:
    before = known.series.get(name)
    if before is not None and value >= before.value:
        return before.start
    if before is not None:
        return min(before.seen + STEP_NANOS, now - STEP_NANOS)
    # A series that was not there: of a process, it counted 0 so far. Of a host, it may have been there all along.
    return known.start if together or known.whole else now


def _forget(known: _Source) -> None:
    surplus = len(known.series) - _SERIES_KEPT
    if surplus > 0:
        unseen = [name for name, series in known.series.items() if series.seen != known.last]
        for name in sorted(unseen, key=lambda name: known.series[name].seen)[:surplus]:
            del known.series[name]


def _encode(source: _Source) -> str:
    """A page of 15,000 counters is stored at every tick: what most series share stands in front, once."""
    life = source.life
    content = {
        "life": None if life is None else [life.began_unix_nano, life.id],
        "start": source.start,
        "whole": source.whole,
        "last": source.last,
        "series": {
            name: s.value if (s.start, s.seen) == (source.start, source.last) else [s.value, s.start, s.seen]
            for name, s in source.series.items()
        },
    }
    # Values beyond 64 bits come of no counter that a point could carry.
    return orjson.dumps(content).decode()


def _decode(text: str) -> _Source | None:
    try:
        content: dict[str, Any] = orjson.loads(text)
        life, start, last = content["life"], content["start"], content["last"]
        return _Source(
            None if life is None else Life(*life),
            start,
            content["whole"],
            last,
            {
                name: _Series(*said) if isinstance(said, list) else _Series(said, start, last)
                for name, said in content["series"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
