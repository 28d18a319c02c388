"""The rows of the pages' tables, asked of the readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from urllib.parse import urlencode

from dashboards.web.board import grid
from dashboards.web.charts import latest
from dashboards.web.tables import Cell, Link, Rows, View
from postel.signals import load_all
from timescale_sink.api.series import Answer, Query, Series
from timescale_sink.api.standing import SCORE_STEP, Quota
from timescale_sink.api.tallies import Asked, Delivered, Grouping, Refusal, Subject, Top, table_of

_MOST = 25
_ANSWERS = 3
# What is now may have come some steps ago.
_NOW_STEPS = 20


async def zones(view: View) -> Rows:
    """What waits in each zone now, since when, and how much more than when the range began."""
    columns = ("queue_size", "deferred_size", "oldest_age")
    answer = await _series(view, "metrics_zonemta", columns)
    found: dict[str, dict[str, list[Series]]] = {}
    for series in answer.series:
        if series.zone and _shown(view, series.node):
            found.setdefault(series.zone, {}).setdefault(series.column, []).append(series)
    rows: list[tuple[Cell, ...]] = []
    hours = (view.stop - view.start).total_seconds() / 3600
    for zone, told in sorted(found.items()):
        queued, deferred, ages = (told.get(column, []) for column in columns)
        growth = [rise for series in (*queued, *deferred) if (rise := _rise(series.values)) is not None]
        oldest = [age for series in ages if (age := latest(series.values, _NOW_STEPS)) is not None]
        rows.append(
            (
                zone,
                _now(queued),
                _now(deferred),
                max(oldest, default=None),
                sum(growth) if growth else None,
                sum(growth) / hours if growth else None,
            )
        )
    return rows


async def waiting(view: View) -> Rows:
    """Where the deferred mail wants to go, and why it does not get there."""
    found = await view.readers.standing.waiting(view.only, _MOST, **view.narrowed.in_address)
    return [
        (
            _events(view, one.to_domain, "status=deferred", to_domain=one.to_domain),
            one.mx,
            one.category,
            one.recipients,
            one.since,
            one.last_attempt,
            one.response,
        )
        for one in found
    ]


async def providers(view: View) -> Rows:
    """How providers take the mail."""
    return await _delivered(view, "provider")


async def domains(view: View) -> Rows:
    """How domains take the mail."""
    return await _delivered(view, "domain")


async def categories(view: View) -> Rows:
    """Of what was not delivered, how Zone-MTA tells the answers apart."""
    groups = await _groups(view, "category", "status!=delivered")
    return [
        (
            _events(view, group.name, "status!=delivered", category=group.name),
            group.deferred,
            group.rejected,
        )
        for group in groups
    ]


async def codes(view: View) -> Rows:
    """The codes of what was not delivered."""
    groups = await _groups(view, "code", "status!=delivered")
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        column = "enhanced_code" if group.name and "." in group.name else "smtp_code"
        link = _events(view, group.name, "status!=delivered", **{column: group.name})
        rows.append((link, group.deferred, group.rejected, _why(group.categories)))
    return rows


async def symbols(view: View) -> Rows:
    """Rspamd's symbols that most messages had."""
    top = await _top(view, "symbol")
    return [
        (_events(view, count.name, symbols=count.name), count.events, count.score, count.outcomes.get("rejected", 0))
        for count in top.counts
    ]


async def scores(view: View) -> Rows:
    """How many messages had which score."""
    found = await view.readers.standing.scores(view.only, view.day, view.stop)
    all_ = sum(score.messages for score in found)
    return [
        (f"{one.score} to {one.score + SCORE_STEP}", one.messages, 100 * one.messages / all_, one.rejected)
        for one in found
    ]


async def rejected_senders(view: View) -> Rows:
    """Whose messages were rejected most."""
    top = await _top(view, "sender", "outcome=rejected")
    rows: list[tuple[Cell, ...]] = []
    for count in top.counts:
        user, _, domain = (count.name or "").rpartition("@")
        link = (
            _events(view, count.name, "outcome=rejected", from_domain=domain, **({"from_user": user} if user else {}))
            if domain and count.name != "<>"
            else count.name
        )
        rows.append((link, count.events))
    return rows


async def nearest(view: View) -> Rows:
    """The users that are nearest to their quota, or over it."""
    found = await view.readers.standing.quotas(view.only, view.stop, _MOST, nearest=True)
    return [_user(quota) for quota in found if quota.allowed]


async def largest(view: View) -> Rows:
    """The users that store most."""
    return [_user(quota) for quota in await view.readers.standing.quotas(view.only, view.stop, _MOST, nearest=False)]


async def hosts(view: View) -> Rows:
    """The nodes, what runs there in which version, and the newest figures of their hosts."""
    columns = ("cpu_load", "load_1m", "memory_percent", "disk_percent", "process_count")
    answer = await _series(view, "metrics_system", columns)
    now = {(s.node, s.column): latest(s.values, _NOW_STEPS) for s in answer.series}
    return [
        (
            Link(view.names[node.id], "/?" + urlencode({"node": node.id})),
            _runs(node.sources, node.versions),
            node.last_seen,
            *(now.get((node.id, column)) for column in columns),
        )
        for node in view.nodes
    ]


def _runs(sources: object, versions: object) -> str:
    told: Mapping[str, object] = versions if isinstance(versions, Mapping) else {}
    named: Iterable[str] = sources if isinstance(sources, list) else told
    return ", ".join(
        f"{source} {version}" if (version := told.get(_services().get(source, source))) else source
        for source in sorted(named)
    )


@cache
def _services() -> Mapping[str, str]:
    """Source -> the name that its resource has, under which a node's versions stand."""
    return {source.type: source.service for source in load_all()}


def _user(quota: Quota) -> tuple[Cell, ...]:
    share = 100 * quota.used / quota.allowed if quota.allowed else None
    return quota.name, quota.used, quota.allowed, share, quota.time


async def _series(view: View, table: str, columns: tuple[str, ...]) -> Answer:
    """Of all nodes, or of the one that is shown."""
    reader = view.readers.series
    node = view.nodes[0].id if len(view.nodes) == 1 else None
    zone = view.narrowed.zone or None
    seconds = int((view.stop - view.start).total_seconds())
    start, stop, step = await grid(reader, table, seconds, node=node, zone=zone)
    return await reader.series(Query(table, columns, start, stop, step, node=node, zone=zone))


def _shown(view: View, node: str) -> bool:
    return view.only is None or node in view.only


def _now(series: Sequence[Series]) -> float | None:
    told = [value for one in series if (value := latest(one.values, _NOW_STEPS)) is not None]
    return sum(told) if told else None


def _rise(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return told[-1] - told[0] if told else None


async def _groups(view: View, by: Grouping, *filters: str) -> Sequence[Delivered]:
    # Zones, domains and categories are in rollups; all else is read of a day.
    rolled = by in ("domain", "category") and not view.narrowed.provider
    start = view.start if rolled else view.day
    filter_ = view.readers.events.filter("delivery_events", (*filters, *view.narrowed.conditions))
    found = await view.readers.tallies.deliverability(Asked(by, filter_, start, view.stop, _MOST, view.only))
    return found.groups


async def _top(view: View, by: Subject, *filters: str) -> Top:
    filter_ = view.readers.events.filter(table_of(by), filters)
    return await view.readers.tallies.top(Asked(by, filter_, view.day, view.stop, _MOST, view.only))


async def _delivered(view: View, by: Grouping) -> Rows:
    rows: list[tuple[Cell, ...]] = []
    for group in await _groups(view, by):
        # A provider's hosts end with its name.
        condition = f"mx~{group.name}" if by == "provider" else f"to_domain={group.name}"
        rows.append(
            (
                _events(view, group.name, condition) if group.name else None,
                group.attempts,
                100 * group.delivery_rate,
                100 * group.deferral_rate,
                None if group.bounce_rate is None else 100 * group.bounce_rate,
                group.wait_median,
                group.wait_p95,
                _why(group.categories),
            )
        )
    return rows


def _why(refusals: Sequence[Refusal]) -> str:
    return ", ".join(f"{one.answer} ({one.deferred + one.rejected:,})" for one in refusals[:_ANSWERS])


def _events(view: View, name: str | None, *conditions: str, **equal: str | None) -> Link | None:
    """A name that leads to its newest events; None where it names nothing."""
    if name is None:
        return None
    named = [*conditions, *(f"{column}={value}" for column, value in equal.items())]
    table = "email_events" if equal.keys() & {"symbols", "from_domain"} else "delivery_events"
    narrowed = view.narrowed.conditions if table == "delivery_events" else ()
    filters = dict.fromkeys([*named, *narrowed])
    seconds = int((view.stop - view.start).total_seconds())
    asked = [("table", table), *(("filter", one) for one in filters), ("range", str(seconds))]
    return Link(name, "/trace?" + urlencode(asked))
