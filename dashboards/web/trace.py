"""The page at ``/trace``: a message's life on one time line across nodes, found by any of its ids.

``/trace?id=ID`` opens one. What is no id of a message is looked for as an address and in servers' answers; where
nothing is asked for, the newest events stand there. ``/trace?table=TABLE&filter=COLUMN=VALUE&range=SECONDS`` lists the
newest events of a table that meet all of the filters, as ``/api/v1/events`` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query
from nicegui import ui

from dashboards.web import life
from dashboards.web.frame import OpenPages, Page, moment, text
from dashboards.web.names import names
from dashboards.web.ranged import RANGES_IN_ADDRESS
from timescale_sink.api.access import TooSlowError
from timescale_sink.api.events import Search
from timescale_sink.api.filters import MOST_FILTERS, Event
from timescale_sink.api.readers import Readers
from timescale_sink.api.shared import Shared
from timescale_sink.api.trace import Fate, Trace

_LONGEST = 1000
_DAY_S = 86400
# More nobody reads; a Message-ID that bulk mail shares has as many as are asked for.
_MOST_STEPS, _MOST_LISTED, _MOST_EVENTS, _MOST_IDS = 200, 30, 100, 12
# Who has just sent a message waits for it here, and for what becomes of it.
_SOON_S = 1.0
_JUST_NOW = timedelta(minutes=1)
# A filter that few events meet reads all of the range.
_LIST_S = 30.0
_NOTHING_YET = (
    "No events of mail within a day. They come from the plugins of Zone-MTA and Haraka: `postel plugins install` puts "
    "them in, `postel doctor` tells what is missing."
)
_NOT_FOUND = (
    "No event has this id, no address of a day's mail is it, and no server's answer says it. A message is found "
    "seconds after its event; this page looks again by itself."
)
_NOT_READ = (
    "No event has this id. A day's addresses and answers are more than can be read in time; this page looks by itself "
    "at those that come from now on."
)
_NONE_LISTED = "No event of this time is so, or not any more: events are kept as long as [database] says."
_MENTIONED = "No message has this id. Events of a day that say it"


@dataclass(frozen=True, slots=True)
class Listing:
    """Events of a table that meet all of the filters, of the time ``back`` from now."""

    table: str
    filters: tuple[str, ...]
    back: timedelta


class TraceBoard:
    """What the pages show, asked once for all that show the same; raises what the readers raise."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._traces: Shared[Trace] = Shared()
        self._mentions: Shared[Sequence[Event]] = Shared()
        self._newest: Shared[Sequence[Event]] = Shared()
        self._lists: Shared[Sequence[Event]] = Shared()
        readers.close_first(self._close)

    async def _close(self) -> None:
        for shared in (self._traces, self._mentions, self._newest, self._lists):
            await shared.close()

    async def trace(self, asked: str) -> Trace:
        """The life of the message with this id."""
        return await self._traces.get(asked, lambda: self._readers.tracer.trace(asked), _SOON_S / 2)

    async def mentions(self, asked: str, back: timedelta) -> Sequence[Event]:
        """The newest events that say an address or an answer, of the time ``back`` from now."""
        tracer = self._readers.tracer
        return await self._mentions.get((asked, back), lambda: tracer.mentions(asked, _MOST_LISTED, back), _SOON_S / 2)

    async def newest(self) -> Sequence[Event]:
        """The newest events of a day."""
        return await self._newest.get("newest", self._ask_newest)

    async def listed(self, listing: Listing) -> Sequence[Event]:
        """The newest events of a listing."""
        return await self._lists.get(listing, lambda: self._ask_listed(listing), _LIST_S)

    async def hosts(self) -> Mapping[str, str]:
        """What each node is called."""
        return names(await self._readers.series.nodes())

    async def _ask_listed(self, listing: Listing) -> Sequence[Event]:
        reader, now = self._readers.events, datetime.now(UTC)
        filter_ = reader.filter(listing.table, listing.filters)
        return await reader.page(Search(filter_, now - listing.back, now + timedelta(minutes=5)), _MOST_EVENTS)

    async def _ask_newest(self) -> Sequence[Event]:
        reader, now = self._readers.events, datetime.now(UTC)
        found: list[Event] = []
        for table in reader.tables:
            search = Search(reader.filter(table), now - timedelta(days=1), now + timedelta(minutes=5))
            found += await reader.page(search, _MOST_LISTED)
        return sorted(found, key=lambda event: event.time, reverse=True)[:_MOST_LISTED]


class TracePage(Page):
    """One open page: what is asked for, and what was found."""

    def __init__(self, board: TraceBoard, asked: str, listing: Listing | None = None) -> None:
        super().__init__("/trace")
        self._board = board
        self._listing = listing
        self._asked = asked.strip()[:_LONGEST]
        self._hosts: Mapping[str, str] = {}
        self._shown: object = None
        # What says what is asked for, by its id; None before it was looked for.
        self._mentioned: list[Event] | None = None
        self._unread = False
        with self.bar, ui.element("form").classes("find").props("action=/trace role=search") as form:
            self._field = ui.input(placeholder="Message-ID, queue id, address, answer", value=self._asked)
            self._field.props(f'outlined dense name=id maxlength={_LONGEST} aria-label="Any id of a message"')
            ui.button("Find").props("unelevated no-caps type=submit")
        form.on("submit.prevent", self._find)
        if not self._asked:
            self._field.props("autofocus")
        with self.body:
            self._content = ui.element("div")
            self._soon = ui.timer(_SOON_S, self.refresh, active=bool(self._asked), immediate=False)

    async def show(self) -> None:
        """Show what is asked for; what the database raises is told on the page."""
        self._hosts = await self._board.hosts()
        if not self._asked and self._listing is not None:
            listed, heading = await self._board.listed(self._listing), " and ".join(self._listing.filters)
            self._fill(listed, lambda: self._show_list(f"Events with {heading}", listed, _NONE_LISTED))
            return
        if not self._asked:
            newest = await self._board.newest()
            self._fill(newest, lambda: self._show_list("Newest events", newest, _NOTHING_YET))
            return
        trace = await self._board.trace(self._asked)
        if trace.events:
            # What has just happened is seldom the last of it.
            just_now = datetime.now(UTC) - trace.events[-1].time < _JUST_NOW
            self._soon.active = just_now or trace.under_way
            self._fill(trace, lambda: self._show_trace(trace))
        else:
            mentions = await self._look_for_mentions()
            nothing = _NOT_READ if self._unread else _NOT_FOUND
            self._fill(mentions, lambda: self._show_list(_MENTIONED, mentions, nothing))

    async def _look_for_mentions(self) -> Sequence[Event]:
        """The events that say what is asked for: at first of a day, which costs much, then with those that come."""
        first, known = self._mentioned is None, self._mentioned or []
        # Once, whatever becomes of it.
        self._mentioned = known
        try:
            found = await self._board.mentions(self._asked, timedelta(seconds=_DAY_S) if first else _JUST_NOW)
        except TooSlowError:
            self._unread |= first
            return known
        once = {event.event_id: event for event in (*known, *found)}.values()
        self._mentioned = sorted(once, key=_time, reverse=True)[:_MOST_LISTED]
        return self._mentioned

    def _fill(self, shown: object, build: Callable[[], None]) -> None:
        if shown == self._shown:
            return
        self._shown = shown
        self._content.clear()
        with self._content:
            build()

    def _find(self) -> None:
        asked = (self._field.value or "").strip()
        ui.navigate.to("/trace?" + urlencode({"id": asked}) if asked else "/trace")

    def _host(self, node: str) -> str:
        return self._hosts.get(node, node)

    def _show_list(self, heading: str, events: Sequence[Event], nothing: str) -> None:
        if not events:
            ui.label(nothing).classes("empty panel")
            return
        text("h2", heading).classes("section-name")
        with ui.element("ol").classes("lines events"):
            for event in events:
                step = life.headline(event)
                with ui.element("li"):
                    moment(event.time)
                    ui.label(step.part).classes(f"mark {step.tone}")
                    ui.link(step.title, _address(life.trace_id(event))).classes("name")
                    ui.label(life.addresses(event))
                    ui.label(f"· {self._host(event.node)}")

    def _show_trace(self, trace: Trace) -> None:
        with ui.element("section").classes("panel-solid summary"):
            with ui.element("div").classes("marks"):
                for id_ in sorted(trace.ids)[:_MOST_IDS]:
                    ui.label(id_).classes("mark id")
                if len(trace.ids) > _MOST_IDS:
                    ui.label(f"and {len(trace.ids) - _MOST_IDS} more ids")
            text("h2", "What became of it").classes("section-name")
            self._show_fates(trace.fates)
        text("h2", "What happened").classes("section-name")
        happened = life.steps(trace.events)
        if trace.cut or len(happened) > _MOST_STEPS:
            many = "More events than can be shown share this id; these are the last. "
            ui.label(many + "GET /api/v1/events with a filter has all.").classes("notice")
        with ui.element("ol").classes("life"):
            for step in happened[-_MOST_STEPS:]:
                self._show_step(step, happened[0].time)

    def _show_fates(self, fates: Sequence[Fate]) -> None:
        if not fates:
            ui.label("No event names a recipient.").classes("hint")
        with ui.element("ul").classes("fates"):
            for fate in fates[:_MOST_STEPS]:
                with ui.element("li"):
                    ui.label(fate.recipient).classes("name")
                    ui.label(fate.state).classes(f"mark {life.tone(fate.state)}")
                    if fate.bounce:
                        ui.label("bounce").classes("mark")
                    moment(fate.time)

    def _show_step(self, step: life.Step, begin: datetime) -> None:
        with ui.element("li").classes(f"step {step.tone}"):
            with ui.element("div").classes("when"):
                moment(step.time, exact=True)
                ui.label(f"+{(step.time - begin).total_seconds():,.3f} s")
            with ui.element("div").classes("what"):
                with ui.element("div").classes("marks"):
                    ui.label(step.part).classes(f"mark part {step.tone}")
                    ui.label(self._host(step.node)).classes("node-name")
                text("h3", step.title)
                with ui.element("dl").classes("said"):
                    for name, said in step.facts:
                        text("dt", name)
                        text("dd", said)
                with ui.element("details"):
                    text("summary", "All that the event says")
                    ui.label(life.everything(step.event)).classes("everything")


def _time(event: Event) -> tuple[datetime, UUID]:
    return event.time, event.event_id


def _address(id_: str) -> str:
    return "/trace?" + urlencode({"id": id_})


def add(opened: OpenPages, board: TraceBoard) -> None:
    """Make the traces of this board the page at ``/trace``."""

    @ui.page("/trace", title="Trace · Postel")
    async def trace(
        id: str = "",  # noqa: A002 - the name in the page's address
        table: str = "",
        conditions: Annotated[Sequence[str], Query(alias="filter")] = (),
        range: str = "",  # noqa: A002 - as above
    ) -> None:
        back = timedelta(seconds=RANGES_IN_ADDRESS.get(range, _DAY_S))
        listing = Listing(table, tuple(conditions[:MOST_FILTERS]), back) if table else None
        await opened.open(TracePage(board, id, listing))
