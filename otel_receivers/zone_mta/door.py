"""``GET /zone-mta/message/ID`` at the agent's intake: where a message stands that waits in a Zone-MTA's queue, as JSON.

The API and the page may run on another host than Zone-MTA, whose REST asks for no password and belongs on loopback;
the agent is beside it. Who may ask is who may send to the intake: everybody on this host where it is bound to loopback
and has no token, but no page of another origin in a browser; else who shows the token, or the certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from otel_receivers.building import Context, Door, Entry
from otel_receivers.privacy import Privacy
from otel_receivers.receiver import ScrapeError
from otel_receivers.zone_mta.lookup import Lookup, NoQueueIdError, NoZoneMtaError

if TYPE_CHECKING:
    from starlette.routing import Route

PATH = "/zone-mta/message/"


def build(context: Context) -> Door:
    """The door to the Zone-MTAs that the agent asks."""
    privacy = Privacy(context.settings.privacy.addresses)
    return partial(routes, Lookup(lambda: context.all_of("zone_mta"), privacy))


def routes(lookup: Lookup, entry: Entry) -> Sequence[Route]:
    """The routes for the intake's listener.

    Args:
        lookup: answers.
        entry: whom the intake lets in; a token is shown as ``Authorization: Bearer``.
    """
    # As in the intake: what only prints what it found pays neither the memory nor the time.
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import JSONResponse  # noqa: PLC0415
    from starlette.routing import Route, request_response  # noqa: PLC0415

    from postel.guard import Guard  # noqa: PLC0415
    from postel.otlp import token as bearer  # noqa: PLC0415
    from postel.otlp.errors import Unauthenticated  # noqa: PLC0415

    async def show(request: Request) -> JSONResponse:
        try:
            bearer.check(request.headers.get("authorization", ""), entry.token)
        except Unauthenticated as error:
            return JSONResponse({"error": str(error)}, HTTPStatus.UNAUTHORIZED)
        status, content = await _answer(lookup, request.path_params["id"])
        return JSONResponse(content, status)

    guarded = Guard(request_response(show), loopback_only=entry.loopback_only)
    return [Route(f"{PATH}{{id}}", guarded, methods=["GET"], name="zone_mta_message")]


async def _answer(lookup: Lookup, queue_id: str) -> tuple[HTTPStatus, dict[str, Any]]:
    try:
        found = await lookup.find(queue_id)
    except NoQueueIdError as error:
        return HTTPStatus.BAD_REQUEST, {"error": str(error)}
    except NoZoneMtaError as error:
        return HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}
    except ScrapeError as error:
        return HTTPStatus.BAD_GATEWAY, {"error": str(error), "error.type": error.error_type}
    if found is None:
        return HTTPStatus.NOT_FOUND, {"error": "it waits in no queue: delivered, rejected, deleted, or never there"}
    return HTTPStatus.OK, found
