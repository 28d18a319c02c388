"""Routes of the API that count events: top lists, and deliverability by destination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from timescale_sink.api import exports
from timescale_sink.api.answers import BAD_QUERY, REFUSED, readers
from timescale_sink.api.filters import MOST_FILTERS
from timescale_sink.api.ranges import From, To, between
from timescale_sink.api.tallies import MOST, Asked, Grouping, Subject, table_of

_SOURCE = (
    "`rows`, or the size of the buckets (`5m`, `1h`, `daily`) that `from` and `to` then bound; what is within may be"
    " read by larger ones."
)


class Count(BaseModel):
    """How often a name came."""

    model_config = ConfigDict(from_attributes=True)

    name: str | None = Field(description="null: of events that name none.")
    events: int
    outcomes: dict[str, int] = Field(description="What became of them, and of how many.")
    score: float | None = Field(description="The mean score of a symbol; null for what is none.")


class Top(BaseModel):
    """The names that came most often, those with most events first."""

    by: str
    table: str = Field(description="The table whose events are counted.")
    source: str = Field(description=_SOURCE)
    start: datetime = Field(serialization_alias="from")
    stop: datetime = Field(serialization_alias="to")
    top: list[Count]


class Refusal(BaseModel):
    """Why attempts failed."""

    model_config = ConfigDict(from_attributes=True)

    answer: str = Field(description="A category of Zone-MTA's, or an enhanced status code or reply code.")
    deferred: int
    rejected: int


class Delivered(BaseModel):
    """How the attempts of one name ended."""

    model_config = ConfigDict(from_attributes=True)

    name: str | None = Field(description="null: of attempts that name none, such as those that reached no host.")
    attempts: int
    delivered: int
    deferred: int
    rejected: int
    delivery_rate: float = Field(description="Delivered of all attempts.")
    deferral_rate: float = Field(description="Deferred of all attempts.")
    bounce_rate: float | None = Field(description="Rejected of those that were delivered or rejected.")
    attempt_duration: float | None = Field(description="Mean seconds of an attempt.")
    wait_median: float | None = Field(
        description="Median seconds from the queue to the delivery; null where rollups are read."
    )
    wait_p95: float | None = Field(description="95 of 100 were delivered within so many seconds.")
    categories: list[Refusal] = Field(description="Of what failed, the most frequent first, 10 at most.")
    codes: list[Refusal] = Field(description="The same by code; empty where rollups are read.")


class Deliverability(BaseModel):
    """How destinations took the mail, those with most attempts first."""

    by: str
    source: str = Field(description=_SOURCE)
    start: datetime = Field(serialization_alias="from")
    stop: datetime = Field(serialization_alias="to")
    groups: list[Delivered]


Limit = Annotated[int, Query(ge=1, le=MOST)]


def _filters(columns_of: str) -> object:
    return Query(
        alias="filter",
        max_length=MOST_FILTERS,
        description=f"As of `/events`, on columns of {columns_of}. A rollup is read where it has them.",
    )


def _top(
    request: Request,
    *,
    by: Annotated[
        Subject,
        Query(
            description="`domain`: recipients' domains; `destination`: mail exchangers; `symbol`: Rspamd's; `sender`: "
            "the envelope's. Of attempts to deliver the first two, of messages the others."
        ),
    ],
    start: From = None,
    stop: To = None,
    conditions: Annotated[
        list[str], _filters("delivery_events for the first two, of email_events for the others")
    ] = [],  # noqa: B006 - FastAPI copies it
    limit: Limit = 20,
) -> Asked:
    return Asked(by, readers(request).events.filter(table_of(by), conditions), *between(start, stop), limit)


def _deliverability(
    request: Request,
    *,
    by: Annotated[
        Grouping,
        Query(
            description="`domain` of the recipients; `provider`: the registered domain of the mail exchanger; `mx`; "
            "`category`; `code`: enhanced status codes, or reply codes where there are none."
        ),
    ] = "domain",
    start: From = None,
    stop: To = None,
    conditions: Annotated[list[str], _filters("delivery_events")] = [],  # noqa: B006 - FastAPI copies it
    limit: Limit = 50,
) -> Asked:
    return Asked(by, readers(request).events.filter("delivery_events", conditions), *between(start, stop), limit)


router = APIRouter(responses=REFUSED)


@router.get("/top", responses=BAD_QUERY)
async def get_top(request: Request, asked: Annotated[Asked, Depends(_top)]) -> Top:
    """The names that came most often in events of a range."""
    found = await readers(request).tallies.top(asked)
    return Top(
        by=asked.by,
        table=asked.filter.table,
        source=found.source.name,
        start=found.source.start,
        stop=found.source.stop,
        top=[Count.model_validate(count) for count in found.counts],
    )


@router.get("/top/export", response_class=StreamingResponse, responses={**exports.RESPONSES, **BAD_QUERY})
async def export_top(
    request: Request, asked: Annotated[Asked, Depends(_top)], format_: exports.Chosen = "ndjson"
) -> StreamingResponse:
    """The same as a file."""
    counts = (await get_top(request, asked)).top
    return exports.response(_lines(counts, Count, format_), f"top-{asked.by}", format_)


@router.get("/deliverability", responses=BAD_QUERY)
async def get_deliverability(request: Request, asked: Annotated[Asked, Depends(_deliverability)]) -> Deliverability:
    """How attempts to deliver ended, by destination or by answer."""
    found = await readers(request).tallies.deliverability(asked)
    return Deliverability(
        by=asked.by,
        source=found.source.name,
        start=found.source.start,
        stop=found.source.stop,
        groups=[Delivered.model_validate(group) for group in found.groups],
    )


@router.get("/deliverability/export", response_class=StreamingResponse, responses={**exports.RESPONSES, **BAD_QUERY})
async def export_deliverability(
    request: Request, asked: Annotated[Asked, Depends(_deliverability)], format_: exports.Chosen = "ndjson"
) -> StreamingResponse:
    """The same as a file."""
    groups = (await get_deliverability(request, asked)).groups
    return exports.response(_lines(groups, Delivered, format_), f"deliverability-{asked.by}", format_)


def _lines(rows: Sequence[BaseModel], kind: type[BaseModel], format_: exports.Format) -> Iterator[bytes | str]:
    told = (row.model_dump() for row in rows)
    if format_ == "ndjson":
        yield from (orjson.dumps(row) + b"\n" for row in told)
    else:
        yield exports.line([*kind.model_fields])
        yield from (exports.line([*row.values()]) for row in told)
