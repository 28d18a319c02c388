"""Routes of the API about alerts: what is wrong, who looks after it, what is silenced."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from timescale_sink.api import alerts
from timescale_sink.api.alerts import AlertReader
from timescale_sink.api.answers import BAD_QUERY, REFUSED, Problem, readers

Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
Labels = dict[Text, Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]]


class Alert(BaseModel):
    """A subject of a rule for which it is, or within a week was, so."""

    model_config = ConfigDict(from_attributes=True)

    rule: str
    labels: dict[str, str] = Field(description="Which subject.")
    state: Literal["pending", "firing", "resolved"]
    severity: str
    title: str
    value: float
    details: dict[str, Any]
    since: datetime = Field(description="Since when it is in this state.")
    seen: datetime = Field(description="When it was last wrong.")
    silenced: bool
    acknowledged_by: str | None
    acknowledged_at: datetime | None


class Alerts(BaseModel):
    """Alerts, what fires first."""

    alerts: list[Alert]


class Change(BaseModel):
    """An alert that began to fire, or was resolved."""

    model_config = ConfigDict(from_attributes=True)

    time: datetime
    rule: str
    labels: dict[str, str]
    state: Literal["firing", "resolved"]
    value: float


class Changes(BaseModel):
    """Changes, the newest first, a thousand at most."""

    changes: list[Change]


class Acknowledgement(BaseModel):
    """Who looks after an alert; it is not told again until it fires anew."""

    model_config = ConfigDict(extra="forbid")

    rule: Text
    labels: Labels
    author: Text


class NewSilence(BaseModel):
    """What is told to nobody for a time: alerts of the rule (none: of each) that have all of the labels."""

    model_config = ConfigDict(extra="forbid")

    rule: Text | None = None
    labels: Labels = {}
    starts: AwareDatetime | None = Field(None, description="Default: now.")
    ends: AwareDatetime
    author: Text
    reason: Text


class Silence(NewSilence):
    """A silence."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    starts: AwareDatetime


class Silences(BaseModel):
    """Silences that are not over."""

    silences: list[Silence]


_NOT_THERE: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is none."}}
router = APIRouter(responses=REFUSED)


@router.get("/alerts")
async def get_alerts(request: Request, state: Literal["pending", "firing", "resolved"] | None = None) -> Alerts:
    """What is wrong, and what was within a week."""
    return Alerts(alerts=[Alert.model_validate(alert) for alert in await _reader(request).alerts(state)])


@router.get("/alerts/changes", responses=BAD_QUERY)
async def get_changes(
    request: Request,
    start: Annotated[AwareDatetime | None, Query(alias="from", description="Default: a day before `to`.")] = None,
    stop: Annotated[AwareDatetime | None, Query(alias="to", description="Default: now.")] = None,
) -> Changes:
    """What began to fire and what was resolved."""
    last = stop.timestamp() if stop else time.time()
    first = start.timestamp() if start else last - alerts.DAY_S
    return Changes(changes=[Change.model_validate(change) for change in await _reader(request).changes(first, last)])


@router.post("/alerts/acknowledge", status_code=204, responses={**BAD_QUERY, **_NOT_THERE})
async def acknowledge(request: Request, said: Acknowledgement) -> None:
    """Say who looks after an alert."""
    if not await _reader(request).acknowledge(said.rule, said.labels, said.author):
        raise HTTPException(404, "no such alert is pending or firing")


@router.get("/silences")
async def get_silences(request: Request) -> Silences:
    """What is silenced, now or later."""
    return Silences(silences=[Silence.model_validate(silence) for silence in await _reader(request).silences()])


@router.post("/silences", status_code=201, responses=BAD_QUERY)
async def add_silence(request: Request, wanted: NewSilence) -> Silence:
    """Tell nobody for a time."""
    return Silence.model_validate(await _reader(request).silence(**wanted.model_dump()))


@router.delete("/silences/{id}", status_code=204, responses=_NOT_THERE)
async def end_silence(request: Request, id: UUID) -> None:  # noqa: A002 - the name in the path
    """End a silence now."""
    if not await _reader(request).end_silence(id):
        raise HTTPException(404, "no such silence")


def _reader(request: Request) -> AlertReader:
    return readers(request).alerts
