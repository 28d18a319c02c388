"""Looks for the mail servers on this host: a cheap connection to each declared place, and how the server shows itself.

A place where nobody listens costs one refused connection. What listens is recognised by what it says first (SMTP,
IMAP) or by one page (HTTP); what listens and is not recognised is named as such.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import httpx

from otel_receivers.http_page import client
from otel_receivers.receiver import Target, target_of
from postel.settings import Discovery

TIMEOUT = 3.0
_HTTP_OK = 200
_LOOPBACK = "127.0.0.1"
_PAGE_HEAD = 64 << 10
_BANNER_BYTES = 512
_IMAP_TLS_PORT = 9993
_IMAP_PORT = 143
_WILDDUCK_PORTS = (8080, 3000)
_WILDDUCK_METRICS_PORT = 8081


@dataclass(frozen=True, slots=True)
class Finding:
    """What is at one place.

    Attributes:
        source: what was looked for: ``zone_mta``, ``wildduck``, ``haraka``, ...
        target: where.
        listening: somebody accepts connections there.
        found: it is what was looked for.
        how: in words: how it was recognised, or what is there instead.
        error_type: why it was not found, for ``error.type``; '' when found.
        version: as the server says it; '' where it does not.
        asked: it may be asked for its figures.
        which: tells several of one source apart; '' for the first.
    """

    source: str
    target: Target
    listening: bool
    found: bool
    how: str
    error_type: str = ""
    version: str = ""
    asked: bool = False
    which: str = ""

    @property
    def name(self) -> str:
        """Of the place that was looked at."""
        return place_name(self.source, self.which)


@dataclass(frozen=True, slots=True)
class _Recognised:
    how: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class _Another:
    """It is not what was looked for; ``how`` follows on "listens,"."""

    how: str = "is another server"
    error_type: str = "unrecognised"


@dataclass(frozen=True, slots=True)
class _Connection:
    """An open connection to a place, and a client for those that are recognised by a page instead."""

    target: Target
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: httpx.AsyncClient


# Given a place where somebody listens: how it is recognised, or what is there instead.
_Recognise = Callable[[_Connection], Awaitable[_Recognised | _Another]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look for a source: targets in the order of preference, the first that is recognised counts.

    ``settings`` are the keys of ``[discovery]`` to look at where something listens and is not what was looked for.
    ``trusted``: whoever listens there is asked, recognised or not, so that its failing is seen; else only who is
    recognised, because the place is a guess and another program may well be there, which a token must not be shown to.
    ``which`` tells several of one source apart; '' for the first.
    """

    source: str
    targets: tuple[Target, ...]
    recognise: _Recognise
    interval: float = 30.0
    settings: str = ""
    trusted: bool = True
    which: str = ""

    @property
    def name(self) -> str:
        """No two places have the same."""
        return place_name(self.source, self.which)


def place_name(source: str, which: str) -> str:
    """``source`` for the first place of a source, ``source@which`` for further ones."""
    return f"{source}@{which}" if which else source


def source_and_which(name: str) -> tuple[str, str]:
    """What :func:`place_name` was given."""
    source, _, which = name.partition("@")
    return source, which


def places(settings: Discovery) -> tuple[Place, ...]:
    """All places to look at, from ``[discovery]``."""
    wildduck_ports = (settings.wildduck_api_port,) if settings.wildduck_api_port else _WILDDUCK_PORTS
    zone_mta = Place(
        "zone_mta",
        (Target(settings.zone_mta_host, settings.zone_mta_port),),
        _page(settings.zone_mta_metrics_path, rb"^# TYPE zonemta_"),
        settings="zone_mta_port and zone_mta_metrics_path",
    )
    # Each once, however often it is named: the points of two receivers would be the same points.
    further = dict.fromkeys(target_of(address) for address in settings.zone_mta_instances)
    return (
        zone_mta,
        *(
            replace(
                zone_mta,
                targets=(target,),
                settings="zone_mta_instances and zone_mta_metrics_path",
                which=str(target),
            )
            for target in further
            if target not in zone_mta.targets
        ),
        Place(
            "wildduck",
            tuple(Target(settings.wildduck_host, port) for port in wildduck_ports),
            _server_header("/", r"WildDuck"),
            settings="wildduck_api_port",
            trusted=settings.wildduck_api_port is not None,
        ),
        Place(
            "wildduck_metrics",
            (Target(settings.wildduck_host, settings.wildduck_metrics_port or _WILDDUCK_METRICS_PORT),),
            _page("/metrics", rb"^# TYPE wildduck_", rb'^wildduck_info\{version="(\d[\w.]*)"\}'),
            settings="wildduck_metrics_port",
            trusted=settings.wildduck_metrics_port is not None,
        ),
        # Every look at an SMTP or IMAP port leaves a line in that server's log.
        Place(
            "haraka", (Target(_LOOPBACK, settings.haraka_smtp_port),), _banner(rb"^220[ -].*Haraka", b"QUIT\r\n"), 300.0
        ),
        Place("rspamd", (Target(settings.rspamd_host, settings.rspamd_tcp_port),), _server_header("/ping", "rspamd")),
        Place(
            "rspamd_controller",
            (Target(settings.rspamd_host, settings.rspamd_controller_port),),
            _server_header("/ping", "rspamd"),
            settings="rspamd_controller_port",
            trusted="rspamd_controller_port" in settings.model_fields_set,
        ),
        Place("imap", (Target(settings.wildduck_host, _IMAP_PORT),), _banner(rb"^\* OK", b"1 LOGOUT\r\n"), 300.0),
        Place("imap_tls", (Target(settings.wildduck_host, _IMAP_TLS_PORT),), _listens, 300.0),
    )


async def look(place: Place, http: httpx.AsyncClient) -> Finding:
    """Look at one place; never raises for what a server does."""
    looked: list[Finding] = []
    for target in place.targets:
        looked.append(replace(await _look_at(place, target, http), which=place.which))
        if looked[-1].found:
            return looked[-1]
    # Of several targets, one where at least something listens says more than one where nothing does.
    first, *others = sorted(looked, key=lambda finding: not finding.listening)
    return replace(first, how="; ".join([first.how, *(f"at {other.target}: {other.how}" for other in others)]))


async def look_everywhere(all_places: Sequence[Place]) -> list[Finding]:
    """Look at all places at the same time."""
    async with client() as http:
        return await asyncio.gather(*(look(place, http) for place in all_places))


async def _look_at(place: Place, target: Target, http: httpx.AsyncClient) -> Finding:
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(target.host, target.port)
    except TimeoutError:
        return Finding(place.source, target, listening=False, found=False, how="no answer", error_type="timeout")
    except (OSError, ValueError) as error:
        # ValueError: a name that cannot be one, such as "a..b", fails in its encoding.
        how = "nobody listens" if isinstance(error, OSError) else "not a host name"
        return Finding(place.source, target, listening=False, found=False, how=how, error_type="connection")
    recognised: _Recognised | _Another
    try:
        async with asyncio.timeout(TIMEOUT):
            recognised = await place.recognise(_Connection(target, reader, writer, http))
    except (TimeoutError, httpx.TimeoutException):
        recognised = _Another(f"gives no answer within {TIMEOUT:g} s", "timeout")
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        recognised = _Another(f"answers badly ({type(error).__name__})", "protocol")
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await writer.wait_closed()
    if isinstance(recognised, _Another):
        how = f"listens, {recognised.how}"
        if place.settings:
            how += f"; see [discovery] {place.settings}"
        return Finding(
            place.source,
            target,
            listening=True,
            found=False,
            how=how,
            error_type=recognised.error_type,
            asked=place.trusted,
        )
    how, version = recognised.how, recognised.version
    return Finding(place.source, target, listening=True, found=True, how=how, version=version, asked=True)


async def _listens(_connection: _Connection) -> _Recognised:
    return _Recognised("somebody listens")


def _banner(pattern: bytes, goodbye: bytes) -> _Recognise:
    async def recognise(connection: _Connection) -> _Recognised | _Another:
        line = (await connection.reader.readline())[:_BANNER_BYTES]
        connection.writer.write(goodbye)
        await connection.writer.drain()
        if not re.search(pattern, line):
            return _Another()
        version = re.search(rb"/(\d+\.\d+[\w.]*)", line)
        text = line.decode("ascii", "replace").strip()
        return _Recognised(f"its greeting {text!r}", version[1].decode("ascii") if version else "")

    return recognise


def _server_header(path: str, name: str) -> _Recognise:
    async def recognise(connection: _Connection) -> _Recognised | _Another:
        url = f"http://{connection.target}{path}"
        # A server that takes one connection at a time would wait on the one that asks nothing.
        connection.writer.close()
        async with connection.http.stream("GET", url, timeout=TIMEOUT) as response:
            server = response.headers.get("server", "")
        if not re.search(name, server):
            return _Another()
        version = re.search(r"/(\d+\.[\w.]+)", server)
        return _Recognised(f"its header Server: {server}", version[1] if version else "")

    return recognise


def _page(path: str, pattern: bytes, says_version: bytes | None = None) -> _Recognise:
    async def recognise(connection: _Connection) -> _Recognised | _Another:
        url = f"http://{connection.target}{path}"
        head = b""
        connection.writer.close()
        async with connection.http.stream("GET", url, timeout=TIMEOUT) as response:
            if response.status_code != _HTTP_OK:
                status = str(response.status_code)
                return _Another(f"answers GET {path} with HTTP {status}", status)
            async for part in response.aiter_bytes():
                head += part
                if len(head) >= _PAGE_HEAD:
                    break
        if not re.search(pattern, head, re.MULTILINE):
            kind = response.headers.get("content-type", "without a content type").partition(";")[0]
            return _Another(f"answers GET {path} with another page ({kind})")
        version = re.search(says_version, head, re.MULTILINE) if says_version else None
        return _Recognised("its Prometheus page", version[1].decode("ascii") if version else "")

    return recognise
