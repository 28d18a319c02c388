"""``postel message ID``: where a message stands that waits in a Zone-MTA's queue, on the terminal.

The agent is asked, at its intake's address; where none runs on this host, the Zone-MTA that the settings name.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import click
import httpx
import orjson

from otel_receivers.privacy import Privacy
from otel_receivers.receiver import ScrapeError
from otel_receivers.registry import places
from otel_receivers.zone_mta.door import PATH
from otel_receivers.zone_mta.lookup import WITHIN, Lookup, NoQueueIdError, NoZoneMtaError
from otel_receivers.zone_mta.message import is_id
from postel.errors import PostelError
from postel.listening import reachable
from postel.otlp.tls_door import pinned
from postel.settings import Settings
from postel.streams import printable

# The agent's own word for an answer that does not come arrives before this.
_SECONDS = WITHIN + 5
_WHO = "does an agent of Postel listen there?"
_HEAD = {
    "Message:": "id",
    "Message-ID:": "message_id",
    "From:": "from_address",
    "Queued:": "queued",
    "By:": "interface",
    "Client:": "client_address",
    "Body, bytes:": "body_size",
}


async def run(settings: Settings, queue_id: str, *, as_json: bool) -> int:
    """Print what is known of a message.

    Returns:
        The exit code: 0, or 1 where it waits in no queue.

    Raises:
        PostelError: nobody could be asked, or gave no answer; or it is no queue id.
    """
    if not is_id(queue_id):
        raise PostelError(f"{queue_id!r} is no queue id: letters and digits, 64 at most")
    found = await _find(settings, queue_id)
    if found is None:
        click.echo(f"{queue_id} waits in no queue: delivered, rejected, deleted, or never there", err=True)
        return 1
    lines = [orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()] if as_json else described(found)
    for line in lines:
        click.echo(line)
    return 0


async def _find(settings: Settings, queue_id: str) -> dict[str, Any] | None:
    intake = settings.intake
    url = f"{intake.scheme}://{reachable(intake.address)}{PATH}{queue_id}"
    headers = {"Authorization": f"Bearer {intake.token.get_secret_value()}"} if intake.token else {}
    trusting = pinned("[intake]", intake.tls_certificate, intake.tls_client_certificate, intake.tls_client_key)
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False, headers=headers, verify=trusting) as client:
            answer = await client.get(url)
    except (httpx.HTTPError, ssl.SSLError) as error:
        if isinstance(error, httpx.ConnectError) and not _in_handshake(error):
            return await _ask_zone_mta(settings, queue_id)
        wanted = intake.tls_client_ca and not intake.tls_client_certificate
        mend = "it wants a certificate: set [intake] tls_client_certificate" if wanted else _WHO
        raise PostelError(f"{url}: {type(error).__name__} {error}; {mend}") from None
    content = _content(answer)
    if answer.status_code == HTTPStatus.OK and "recipients" in content:
        return content
    if answer.status_code == HTTPStatus.NOT_FOUND and "error" in content:
        return None
    raise PostelError(f"{url}: HTTP {answer.status_code}: {content.get('error', 'this is no agent of this version')}")


def _in_handshake(error: BaseException | None) -> bool:
    """Whether somebody was there, with whom no TLS came about."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


async def _ask_zone_mta(settings: Settings, queue_id: str) -> dict[str, Any] | None:
    found = (place.targets for place in places(settings.discovery) if place.source == "zone_mta")
    targets = [target for targets in found for target in targets]
    try:
        return await Lookup(lambda: targets, Privacy(settings.privacy.addresses)).find(queue_id)
    except (NoQueueIdError, NoZoneMtaError, ScrapeError) as error:
        raise PostelError(f"no agent runs here, and Zone-MTA gives no answer: {error}") from None


def _content(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def described(message: dict[str, Any]) -> Iterator[str]:
    """A message in lines for a human; nothing that a server said reaches the terminal as a control character."""
    for name, key in _HEAD.items():
        if message[key] is not None:
            # An empty sender is the null sender.
            yield printable(f"{name:14}{message[key] if message[key] != '' else '<>'}")
    for recipient in message["recipients"]:
        yield ""
        yield from map(printable, _recipient(recipient))


def _recipient(recipient: dict[str, Any]) -> Iterator[str]:
    now = ", an attempt is being made" if recipient["in_delivery"] else ""
    yield f"{recipient['seq']} {recipient['address']}: {recipient['status']} in zone {recipient['zone']}{now}"
    if recipient["attempts"] is not None:
        first, last = recipient["first_deferred"], recipient["last_deferred"]
        yield f"    deferred {recipient['attempts']} times, at {first} first, at {last} last"
    if recipient["next_attempt"] is not None:
        yield f"    next attempt: {recipient['next_attempt']}"
    if recipient["response"] is not None:
        yield f"    because: {recipient['response']}"
    for line in recipient["log"]:
        for text in line["text"].split("\n"):
            yield f"    {line['time'] or '-'} {line['kind']:8} {text}"
