"""The range of time that a question is about, as who asks names it, or by default."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Query
from pydantic import AwareDatetime

From = Annotated[
    AwareDatetime | None,
    Query(alias="from", description="Default: a day before `to`. ISO 8601 with zone, or epoch seconds."),
]
To = Annotated[AwareDatetime | None, Query(alias="to", description="Default: now.")]
_DEFAULT = timedelta(days=1)
# For clocks of nodes that are ahead.
_AHEAD = timedelta(minutes=5)


def between(start: datetime | None, stop: datetime | None) -> tuple[datetime, datetime]:
    """The range, of which both ends may be left out."""
    last = stop or datetime.now(UTC) + _AHEAD
    try:
        return start or last - _DEFAULT, last
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC), last
