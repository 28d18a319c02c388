"""What all routes of the API answer where they cannot answer what was asked.

400 or 422 with a reason for what cannot be asked, 503 where the database is away, 504 where it took too long.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from postel.errors import DatabaseError, PostelError
from timescale_sink.api.access import BadQueryError, TooSlowError
from timescale_sink.api.readers import Readers


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


Responses = dict[int | str, dict[str, Any]]
BAD_QUERY: Responses = {400: {"model": Problem, "description": "Nothing like it can be asked."}}
REFUSED: Responses = {
    401: {"model": Problem, "description": "Tokens are set, and none of them was shown."},
    403: {"model": Problem, "description": "The token may only read."},
    503: {"model": Problem, "description": "The database is away."},
    504: {"model": Problem, "description": "The database took too long."},
}


def readers(request: Request) -> Readers:
    """The readers that a route asks."""
    found: Readers = request.app.state.readers
    return found


def handle_errors(app: FastAPI) -> None:
    """Give each kind of error its answer."""
    for kind, status in ((BadQueryError, 400), (DatabaseError, 503), (TooSlowError, 504)):
        app.add_exception_handler(kind, _answer(status))
    app.add_exception_handler(RequestValidationError, _unreadable)


async def _unreadable(_request: Request, error: Any) -> JSONResponse:
    """FastAPI's own answer without what was sent, which may be no JSON."""
    faults = [{key: fault[key] for key in ("type", "loc", "msg")} for fault in error.errors()]
    return JSONResponse({"detail": faults}, 422)


def _answer(status: int) -> Any:
    async def handler(_request: Request, error: PostelError) -> JSONResponse:
        return JSONResponse(
            {"detail": str(error)}, status, headers={"Retry-After": "5"} if isinstance(error, DatabaseError) else None
        )

    return handler
