"""Routes of the API about events: searched by pages, exported as a whole, and joined to a message's life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.convertors import PathConvertor, register_url_convertor

from postel.signals import FIXED_EVENT_COLUMNS
from timescale_sink.api import exports, filters, trace
from timescale_sink.api.answers import BAD_QUERY, REFUSED, readers
from timescale_sink.api.events import LONGEST_PAGE, Key, Search
from timescale_sink.api.filters import MOST_FILTERS
from timescale_sink.api.ranges import From, To, between


class Event(BaseModel):
    """A row of a table of events."""

    table: str
    time: datetime
    id: str = Field(description="The event's id, `log.record.uid`.")
    node: str
    instance: str
    name: str = Field(description="The event's name, such as zonemta.delivery.accepted.")
    values: dict[str, Any] = Field(description="The table's declared columns that are not NULL.")
    attributes: dict[str, Any] = Field(description="What the event says beside them.")


class Events(BaseModel):
    """A page of events, the newest first."""

    events: list[Event]
    next: str | None = Field(description="`before` of the next page; null where there is none.")


class Fate(BaseModel):
    """What became of the message, or of a bounce about it, for one recipient."""

    recipient: str
    state: str = Field(description="delivered, deferred, rejected; stored, queued and the like before a delivery.")
    time: datetime
    event: str = Field(description="The id of the event that says so.")
    bounce: bool = Field(description="Of a bounce about the message; the message's own come first.")


class Trace(BaseModel):
    """The joined life of a message; empty where no event has the id."""

    ids: list[str] = Field(description="All ids that its events have.")
    events: list[Event] = Field(description="On every node, the oldest first.")
    hosts: dict[str, str] = Field(description="The host of each node.")
    fates: list[Fate]
    cut: bool = Field(description="More events than are told share the ids.")


async def _search(
    request: Request,
    *,
    table: Annotated[str, Query(description="A table of events, such as delivery_events.")],
    start: From = None,
    stop: To = None,
    conditions: Annotated[
        list[str],
        Query(
            alias="filter",
            max_length=MOST_FILTERS,
            description="A column, one of = != >= <= ~ (contains) and a value, such as `status=deferred`. "
            "Several = of one column: any of these; else all.",
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
    address: Annotated[
        str | None,
        Query(description="The sender's address or a recipient's, as the envelope says it; `<>`: the null sender."),
    ] = None,
) -> Search:
    return Search(readers(request).events.filter(table, conditions, address), *between(start, stop))


class AnythingConvertor(PathConvertor):
    """The rest of a path, whatever it is: Starlette's own ``path`` ends at a line's end, and the route is not found."""

    regex = r"[\s\S]*"


register_url_convertor("anything", AnythingConvertor())
router = APIRouter(responses=REFUSED)


@router.get("/events", responses=BAD_QUERY)
async def get_events(
    request: Request,
    *,
    search: Annotated[Search, Depends(_search)],
    before: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=LONGEST_PAGE)] = 100,
) -> Events:
    """Events of one table, by pages."""
    if before is not None:
        search = replace(search, before=Key.parse(before))
    page = await readers(request).events.page(search, limit)
    return Events(events=[_told(event) for event in page], next=str(Key.of(page[-1])) if len(page) == limit else None)


@router.get(
    "/events/export",
    response_class=StreamingResponse,
    responses={**exports.RESPONSES, **BAD_QUERY},
)
async def export(
    request: Request,
    *,
    search: Annotated[Search, Depends(_search)],
    format_: exports.Chosen = "ndjson",
) -> StreamingResponse:
    """All events of a search, the newest first, as a stream. One that was cut short by a fault ends without an end."""
    reader = readers(request).events
    # What cannot be asked is answered before the stream begins.
    await reader.page(search, 1)
    found = reader.stream(search)
    lines = _ndjson(found) if format_ == "ndjson" else _csv(found, reader.columns(search.filter.table))
    return exports.response(lines, search.filter.table, format_)


@router.get("/trace/{id:anything}", responses=BAD_QUERY)
async def get_trace(
    request: Request,
    id_: Annotated[
        str,
        Path(
            alias="id",
            min_length=1,
            max_length=1000,
            description="A Message-ID, a queue's, transaction's or connection's id, or an event's.",
        ),
    ],
) -> Trace:
    """The joined life of a message."""
    found = await readers(request).tracer.trace(id_)
    hosts = {node.id: node.host for node in await readers(request).series.nodes()}
    return Trace(
        ids=sorted(found.ids),
        events=[_told(event) for event in found.events],
        hosts={event.node: hosts.get(event.node, "") for event in found.events},
        fates=[_fate(fate) for fate in found.fates],
        cut=found.cut,
    )


def _told(event: filters.Event) -> Event:
    return Event.model_validate(event.told())


def _fate(fate: trace.Fate) -> Fate:
    return Fate(recipient=fate.recipient, state=fate.state, time=fate.time, event=str(fate.event), bounce=fate.bounce)


async def _ndjson(found: AsyncIterator[filters.Event]) -> AsyncIterator[bytes]:
    async for event in found:
        yield event.encoded() + b"\n"


async def _csv(found: AsyncIterator[filters.Event], columns: Sequence[str]) -> AsyncIterator[str]:
    """A line per event; what is no text or number is JSON in its cell."""
    yield exports.line([*FIXED_EVENT_COLUMNS, *columns, "attributes"])
    async for event in found:
        cells = [event.values.get(column) for column in columns]
        yield exports.line(
            [event.time.isoformat(), event.event_id, event.node, event.instance, event.name, *cells, event.attributes]
        )
