"""The doctor's checks of everything that listens: Postel's own programs, the agent's receiver, the mail servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from pydantic import SecretStr

from otel_receivers.discovery import Finding, look_everywhere
from otel_receivers.registry import places
from postel.collector import find_collector, missing, turned_off
from postel.doctor import plugins
from postel.doctor.result import Result, Verdict
from postel.errors import PostelError, SettingsError
from postel.listening import listen, reachable
from postel.otlp.client import sender_of
from postel.otlp.errors import Malformed, Refused, Retryable, Unauthenticated
from postel.otlp.signal import Signal
from postel.otlp.tls_door import pinned
from postel.settings import Otlp, Settings
from postel.up import runs_collector

_HTTP_SECONDS = 3.0


async def sink(settings: Settings) -> AsyncIterator[Result]:
    """The sink is ready to take data."""
    yield await _ask(
        "sink",
        settings.sink.http_address,
        "/readyz",
        "[sink] http_address",
        "start it with `postel up` or `postel sink`; if it runs, its log says why it is not ready",
        tls=settings.sink.tls_certificate,
        shown=(settings.sink.tls_client_certificate, settings.sink.tls_client_key),
    )


async def collector(settings: Settings) -> AsyncIterator[Result]:
    """The Collector that `postel up` runs is ready."""
    if not runs_collector(settings):
        return
    if turned_off():
        yield Result(Verdict.NOTE, "collector", "POSTEL_COLLECTOR is none; the agent sends straight to the sink")
        return
    if find_collector() is None:
        yield Result(
            Verdict.NOTE,
            "collector",
            f"{missing()}; `postel up` lets the agent send straight to the sink",
            "`make collector` in a checkout builds it, or says what it lacks",
        )
        return
    yield await _ask(
        "collector",
        settings.otlp.collector_health_address,
        "/",
        "[otlp] collector_health_address",
        "start it with `postel up`; if it runs, its lines in the log say what is wrong",
    )


async def endpoint(settings: Settings) -> AsyncIterator[Result]:
    """What the agent sends to takes OTLP from it."""
    yield await export(settings.otlp)


async def endpoint_of_up(settings: Settings) -> AsyncIterator[Result]:
    """The same where `postel up` runs the agent: without a Collector it sends to the sink, which has its own check."""
    try:
        straight = runs_collector(settings) and find_collector() is None
    except SettingsError:
        # The Collector's check says it.
        straight = False
    if not straight:
        yield await export(settings.otlp)


async def export(otlp: Otlp) -> Result:
    """What the agent's receiver says of a request like the agent's own, with nothing in it."""
    impatient = otlp.model_copy(update={"timeout": _HTTP_SECONDS})
    try:
        sender = sender_of(impatient)
    except SettingsError as error:
        text, _, mend = str(error).partition("; accepted: ")
        return Result(Verdict.FAIL, "endpoint", text, mend or "correct what it names")
    try:
        await sender.send(Signal.METRICS, b"")
    except Malformed as error:
        # It read the request as OTLP, and let it in; a request that has something in it may well be taken.
        return Result(Verdict.NOTE, "endpoint", f"{otlp.endpoint} takes no empty request: {error}")
    except Unauthenticated as error:
        return Result(
            Verdict.FAIL,
            "endpoint",
            f"{otlp.endpoint} lets nobody in: {error}",
            "correct [otlp] headers, the token in it",
        )
    except (Retryable, Refused) as error:
        return Result(
            Verdict.FAIL,
            "endpoint",
            f"{otlp.endpoint} takes no OTLP by {otlp.protocol}: {error}",
            "start what listens there, or correct [otlp] endpoint and protocol",
        )
    finally:
        await sender.close()
    return Result(Verdict.OK, "endpoint", f"{otlp.endpoint} takes OTLP by {otlp.protocol}")


async def page(settings: Settings) -> AsyncIterator[Result]:
    """The page answers."""
    if settings.serve.tls_client_ca:
        yield Result(Verdict.NOTE, "page", "it asks for a certificate ([serve] tls_client_ca); it is not looked at")
        return
    yield await _ask(
        "page",
        settings.serve.address,
        "/healthz",
        "[serve] address",
        "start it with `postel up` or `postel serve`",
        token=next(iter((*settings.serve.read_tokens, *settings.serve.admin_tokens)), None),
        tls=settings.serve.tls_certificate,
    )


async def servers(settings: Settings) -> AsyncIterator[Result]:
    """Which mail servers are found on this host, and whether their plugins are loaded."""
    findings = await look_everywhere(places(settings.discovery))
    for finding in findings:
        yield _server(finding)
    for result in plugins.check(settings, findings):
        yield result


def _server(finding: Finding) -> Result:
    version = f" {finding.version}" if finding.version else ""
    if finding.found:
        return Result(Verdict.OK, finding.source, f"{finding.target}{version}, {finding.how}")
    if finding.listening:
        return Result(
            Verdict.NOTE,
            finding.source,
            f"not at {finding.target}: {finding.how}",
            "if it runs elsewhere, set its host and port in [discovery]",
        )
    return Result(Verdict.NOTE, finding.source, f"not at {finding.target}: {finding.how}")


async def _ask(
    subject: str,
    address: str,
    path: str,
    setting: str,
    mend: str,
    *,
    token: SecretStr | None = None,
    tls: Path | None = None,
    shown: tuple[Path | None, Path | None] = (None, None),
) -> Result:
    """What a program of Postel's says of itself; where nobody answers, whether it could listen there at all.

    ``tls`` is the certificate that it has to show, ``shown`` the one that it is shown, and its key.
    """
    url = f"{'https' if tls else 'http'}://{reachable(address)}{path}"
    try:
        context = pinned(setting.partition(" ")[0], tls, *shown)
    except SettingsError as error:
        return Result(Verdict.FAIL, subject, str(error), "correct what it names")
    try:
        async with httpx.AsyncClient(timeout=_HTTP_SECONDS, trust_env=False, verify=context) as client:
            headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
            answer = await client.get(url, headers=headers)
    except (httpx.ConnectError, UnicodeError) as error:
        try:
            listen(address, setting).close()
        except PostelError as obstacle:
            mend = str(obstacle)
        return Result(Verdict.FAIL, subject, f"{url}: {error}", mend)
    except httpx.HTTPError as error:
        return Result(Verdict.FAIL, subject, f"{url}: {str(error) or type(error).__name__}", mend)
    if answer.is_success:
        return Result(Verdict.OK, subject, f"{url} answers")
    return Result(Verdict.FAIL, subject, f"{url} answers {answer.status_code} {answer.text[:200]}", mend)
