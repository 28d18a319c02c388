"""Fetches one page of a server that may misbehave: whole, of bounded size, within a bounded time, or not at all."""

from __future__ import annotations

import asyncio
import ssl

import anyio  # noqa: F401 - httpcore imports it at its first request, which would hold up the event loop for 50 ms
import httpx

from otel_receivers.receiver import ScrapeError

PAGE_BYTES = 16 << 20
TIMEOUT = 10.0
_HTTP_OK = 200
# gzip on /metrics fails in some Zone-MTA versions; a page from this host gains nothing from it.
_HEADERS = {"Accept": "text/plain", "Accept-Encoding": "identity", "User-Agent": "postel"}


def client() -> httpx.AsyncClient:
    """A client for servers on this host or network, over plain HTTP; the caller closes it.

    No redirects: a metrics page has moved nowhere. No proxy: those of the environment are for the way out. No
    certificates: loading them costs 2 MiB for what plain HTTP never uses.
    """
    return httpx.AsyncClient(
        headers=_HEADERS, trust_env=False, follow_redirects=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )


async def fetch(client: httpx.AsyncClient, url: str, *, limit: int, timeout: float) -> bytes:  # noqa: ASYNC109 - the whole answer's, not one operation's
    """GET a page.

    Args:
        client: of :func:`client`.
        url: of the page.
        limit: bytes of the page at most, decompressed.
        timeout: seconds for everything from the connection to the last byte.

    Raises:
        ScrapeError: ``timeout``, ``connection`` (nobody listens), an HTTP status, ``too_large``, ``incomplete`` (ended
            before its length), ``encoding`` (compressed although not asked to be, and not readable).
    """
    try:
        async with asyncio.timeout(timeout):
            return await _fetch(client, url, limit, timeout)
    except (TimeoutError, httpx.TimeoutException):
        raise ScrapeError("timeout", f"{url}: no whole answer within {timeout:g} s") from None
    except httpx.ConnectError as error:
        raise ScrapeError("connection", f"{url}: nobody answers: {error}") from None
    except httpx.DecodingError as error:
        raise ScrapeError("encoding", f"{url}: {error}") from None
    except httpx.RemoteProtocolError as error:
        raise ScrapeError("incomplete", f"{url}: {error}") from None
    except httpx.TransportError as error:
        raise ScrapeError("connection", f"{url}: {type(error).__name__} {error}") from None


async def _fetch(client: httpx.AsyncClient, url: str, limit: int, timeout: float) -> bytes:  # noqa: ASYNC109
    async with client.stream("GET", url, timeout=timeout) as response:
        if response.status_code != _HTTP_OK:
            raise ScrapeError(str(response.status_code), f"{url}: HTTP {response.status_code}")
        parts: list[bytes] = []
        size = 0
        # What servers compress although asked not to, httpx undoes (gzip, deflate).
        async for part in response.aiter_bytes():
            size += len(part)
            if size > limit:
                raise ScrapeError("too_large", f"{url}: more than {limit} bytes")
            parts.append(part)
        return b"".join(parts)
