"""``POST /wildduck/webhook`` at the agent's intake: what WildDuck tells of its users, as events.

WildDuck sends no header that one could choose, so a token stands in the URL that is registered with it, before the host
(``http://postel:TOKEN@127.0.0.1:4319/wildduck/webhook``, which it sends as ``Authorization: Basic``); a bearer token is
taken too. Nor does it show a certificate. It is answered once the spool has the event, and never 410, at which WildDuck
would forget the webhook.

Source: WildDuck's webhooks.js.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_receivers.building import Context, Door, Entry
from otel_receivers.points import Recorder
from otel_receivers.receiver import Target, Tick
from otel_receivers.wildduck.places import places
from otel_receivers.wildduck.webhook import Told, Vocabulary
from postel.otlp.signal import Signal

if TYPE_CHECKING:
    from starlette.routing import Route

PATH = "/wildduck/webhook"
# With a message that was marked as spam comes the image of its sender's brand.
_BODY_BYTES = 4 << 20


def build(context: Context) -> Door:
    """The door for the webhooks of the WildDuck that the agent asks, or would ask."""
    declaration = context.declarations["wildduck"]
    guess = next(place.targets[0] for place in places(context.settings.discovery) if place.source == "wildduck")
    vocabulary = Vocabulary(declaration, names=context.settings.privacy.addresses == "keep")

    def request(told: Told) -> ExportLogsServiceRequest:
        target: Target = next(iter(context.all_of("wildduck")), guess)
        recorder = Recorder(declaration, context.node.resource(declaration.service, target=target), Tick(0))
        body = f"WildDuck: {told.name}"
        recorder.event(told.key, body, told.attributes, time_unix_nano=told.time_unix_nano, uid=told.uid)
        return ExportLogsServiceRequest(resource_logs=recorder.batch().events)

    async def take(body: bytes) -> None:
        await context.ingest(Signal.LOGS, request(vocabulary.read(body)))

    return partial(routes, take)


def routes(take: Callable[[bytes], Awaitable[None]], entry: Entry) -> Sequence[Route]:
    """The routes for the intake's listener.

    Args:
        take: stores what a body says; raises what `postel.otlp.answers` has an answer for.
        entry: whom the intake lets in.
    """
    # As in the intake: what only prints what it found pays neither the memory nor the time.
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import JSONResponse, Response  # noqa: PLC0415
    from starlette.routing import Route, request_response  # noqa: PLC0415

    from postel.guard import Guard  # noqa: PLC0415
    from postel.otlp import codec  # noqa: PLC0415
    from postel.otlp import token as bearer  # noqa: PLC0415
    from postel.otlp.errors import UnsupportedMedia  # noqa: PLC0415
    from postel.otlp.http_server import answered, read_body  # noqa: PLC0415
    from postel.otlp.refusals import Refusals  # noqa: PLC0415

    refusals = Refusals()

    async def receive(request: Request) -> Response:
        async def work() -> Response:
            bearer.check(_as_bearer(request.headers.get("authorization", "")), entry.token)
            # A form of a page in a browser cannot send this one.
            if codec.media_type(request.headers.get("content-type", "")) != codec.JSON:
                raise UnsupportedMedia(f"an event of WildDuck's is {codec.JSON}")
            await take(await read_body(request, _BODY_BYTES))
            return JSONResponse({"success": True})

        return await answered(request, Signal.LOGS, refusals, work)

    guarded = Guard(request_response(receive), loopback_only=entry.loopback_only)
    return [Route(PATH, guarded, methods=["POST"], name="wildduck_webhook")]


def _as_bearer(authorization: str) -> str:
    """The header with the password of ``Basic`` as the token of ``Bearer``; RFC 7617 section 2."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        password = base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return f"Bearer {password}"
