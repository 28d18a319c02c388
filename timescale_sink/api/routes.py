"""The API under ``/api/v1``: all routes together, and those of nodes and series.

Those of events and traces are in `timescale_sink.api.event_routes`, of counts in `tally_routes`, of alerts in
`alert_routes`, what comes in is in `live`.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from timescale_sink.api import alert_routes, event_routes, live, series, tally_routes
from timescale_sink.api.answers import BAD_QUERY, REFUSED, handle_errors, readers
from timescale_sink.api.readers import Readers
from timescale_sink.api.rolled import begin, end
from timescale_sink.api.series import Reading

# What the API asks for where the caller names no step: about as many points as a chart has room for.
_STEPS = 240
_DEFAULT_RANGE_S = 3600


class Node(BaseModel):
    """A host that has sent data."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="The node's id, the resource attribute host.id.")
    host: str
    first_seen: datetime
    last_seen: datetime
    age: float = Field(description="Seconds since the node was last heard of.")
    sources: Any = Field(
        description="The sources that the node's agent last said it watches; empty until it has said so."
    )
    versions: Any = Field(description="Their versions.")
    demo: bool = Field(description="True for synthetic data of `postel demo`.")


class Nodes(BaseModel):
    """All nodes, real ones first."""

    nodes: list[Node]


class Series(BaseModel):
    """One series: a value per time of the answer, null where there is none."""

    model_config = ConfigDict(from_attributes=True)

    column: str
    node: str = Field(description="The node's id; for a queue that several nodes share, the first of them.")
    instance: str
    zone: str = Field(description="'' is what the instance says of itself as a whole; never add it to zones.")
    queue: str = Field(description="The queue's id, for figures of a queue that instances may share; else ''.")
    values: list[float | None]


class SeriesAnswer(BaseModel):
    """The series asked for, on one grid of times."""

    table: str
    units: dict[str, str] = Field(description="The unit of each column (UCUM).")
    start: int = Field(description="The first step, epoch seconds.")
    step: int = Field(description="Seconds from one value to the next.")
    times: list[int] = Field(description="The start of each step, epoch seconds.")
    series: list[Series]


class Health(BaseModel):
    """That the API and its database answer."""

    status: str
    replica: bool = Field(description="Whether a replica answers all but alerts.")
    age: float | None = Field(
        description="Seconds since the newest transaction that the replica has: it is no further behind. null: there "
        "is none, or it was given no transaction since it started."
    )


PREFIX = "/api/v1"
router = APIRouter(responses=REFUSED)


@router.get("/healthz")
async def healthz(request: Request) -> Health:
    """Whether the database answers, and how far it is behind where it is a replica."""
    standing = await readers(request).series.ping()
    return Health(status="ok", replica=standing.replica, age=standing.age)


@router.get("/nodes")
async def nodes(request: Request) -> Nodes:
    """Every node that has ever sent data."""
    return Nodes(nodes=[Node.model_validate(node) for node in await readers(request).series.nodes()])


@router.get("/series", responses=BAD_QUERY)
async def get_series(
    request: Request,
    *,
    table: Annotated[str, Query(description="A typed table, such as metrics_system.")],
    column: Annotated[list[str], Query(description="Its columns: all gauges or all counters.", min_length=1)],
    node: Annotated[str | None, Query(description="Only this node's id.")] = None,
    instance: Annotated[str | None, Query(description="Only this instance.")] = None,
    zone: Annotated[str | None, Query(description="Only this zone; '' is the instance as a whole.")] = None,
    start: Annotated[
        AwareDatetime | None,
        Query(alias="from", description="Default: an hour before `to`. ISO 8601 with zone, or epoch seconds."),
    ] = None,
    stop: Annotated[AwareDatetime | None, Query(alias="to", description="Default: now.")] = None,
    step: Annotated[
        int | None,
        Query(
            ge=1,
            le=366 * 86400,
            description="Seconds; default: the table's interval, or as fits the range and how many series it has: "
            "240 steps at most, and fewer where no node is named and there are many.",
        ),
    ] = None,
    reading: Annotated[Reading, Query(description="How counters are read.")] = "rate",
) -> SeriesAnswer:
    """The series of typed columns: gauges as their mean per step, counters as rate per second or increase per step."""
    reader = readers(request).series
    last = stop.timestamp() if stop else time.time()
    first = start.timestamp() if start else last - _DEFAULT_RANGE_S
    if step is None:
        step = await reader.step(table, last - first, _STEPS, node=node, instance=instance, zone=zone)
    asked = series.Query(
        table=table,
        columns=tuple(dict.fromkeys(column)),
        start=begin(first, step),
        stop=end(last, step),
        step=step,
        reading=reading,
        node=node,
        instance=instance,
        zone=zone,
    )
    answer = await reader.series(asked)
    return SeriesAnswer(
        table=table,
        units=dict(answer.units),
        start=asked.start,
        step=step,
        times=list(range(asked.start, asked.stop, step)),
        series=[Series.model_validate(one) for one in answer.series],
    )


_ROUTERS = (router, event_routes.router, tally_routes.router, alert_routes.router)


def add_to(app: FastAPI, readers: Readers) -> None:
    """Put the API and its answers to errors into an application."""
    app.state.readers = readers
    for routes in (*_ROUTERS, live.router):
        app.include_router(routes, prefix=PREFIX)
    # The page's own "not found" is HTML, and a line in the log for each.
    app.router.routes.append(Route("/api/{path:path}", _NothingHere()))
    handle_errors(app)


class _NothingHere:
    """Answers what no route does; a class, because Starlette lets a function answer to named methods alone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(PREFIX)
        routes = [route for one in _ROUTERS for route in one.routes]
        known = [
            route
            for route in routes
            if isinstance(route, Route) and route.matches({**scope, "path": path})[0] is Match.PARTIAL
        ]
        if known:
            allowed = sorted({method for route in known for method in route.methods or ()})
            detail, headers = f"{scope['method']} is not answered here", {"Allow": ", ".join(allowed)}
            answer = JSONResponse({"detail": detail}, 405, headers=headers)
        else:
            answer = JSONResponse({"detail": "no such resource"}, 404)
        await answer(scope, receive, send)
