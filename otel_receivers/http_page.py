"""Fetches one page of a server that may misbehave: whole, of bounded size, within a bounded time, or not at all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import anyio  # noqa: F401 - httpcore imports it at its first request, which would hold up the event loop for 50 ms
import httpx

from otel_receivers.memory import collector_paused
from otel_receivers.prometheus import PageError
from otel_receivers.receiver import ScrapeError

T = TypeVar("T")
PAGE_BYTES = 16 << 20
TIMEOUT = 10.0
_HTTP_OK = 200
# Of an error page: enough for the code that a server gives its error, and soon, as the status alone says what is wrong.
_ERROR_BYTES = 4096
_ERROR_SHARE = 0.1
# gzip on /metrics fails in some Zone-MTA versions; a page from this host gains nothing from it.
_HEADERS = {"Accept": "text/plain", "Accept-Encoding": "identity", "User-Agent": "postel"}


class StatusError(ScrapeError):
    """A server answered with another status than 200; ``error_type`` is that status.

    Args:
        status: of the answer.
        message: one line for the log.
        body: the first 4 KiB of the answer, as far as they came within a tenth of the time.
    """

    def __init__(self, status: int, message: str, body: bytes) -> None:
        super().__init__(str(status), message)
        self.body = body


def client(headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """A client for servers on this host or network, over plain HTTP; the caller closes it.

    ``headers`` are sent with every request, beside those of a page that is text, or in their place.

    No redirects: a metrics page has moved nowhere. No proxy: those of the environment are for the way out. No
    certificates: loading them costs 2 MiB for what plain HTTP never uses.
    """
    return httpx.AsyncClient(
        headers={**_HEADERS, **(headers or {})},
        trust_env=False,
        follow_redirects=False,
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )


class ScrapedPage:
    """A page that is read again and again; what a read makes of it is made in a thread, beside the event loop.

    Args:
        url: of the page.
        timeout: seconds for a whole page.
        limit: bytes of a page at most.
        headers: beside those of a page that is text, or in their place.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = TIMEOUT,
        limit: int = PAGE_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._limit = limit
        self._client = client(headers)

    async def read(self, make: Callable[[bytes], T]) -> T:
        """Fetch the page and make of it what the caller wants.

        Raises:
            ScrapeError: it could not be had (:func:`fetch`), or ``make`` raised a PageError.
        """
        body = await fetch(self._client, self._url, limit=self._limit, timeout=self._timeout)
        return await asyncio.to_thread(self._make, make, body)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    def _make(self, make: Callable[[bytes], T], body: bytes) -> T:
        with collector_paused():
            try:
                return make(body)
            except PageError as error:
                raise ScrapeError(error.error_type, f"{self._url}: {error}") from None


async def fetch(client: httpx.AsyncClient, url: str, *, limit: int, timeout: float) -> bytes:  # noqa: ASYNC109 - the whole answer's, not one operation's
    """GET a page.

    Args:
        client: of :func:`client`.
        url: of the page.
        limit: bytes of the page at most, decompressed.
        timeout: seconds for everything from the connection to the last byte.

    Raises:
        StatusError: the status is not 200.
        ScrapeError: ``timeout``, ``connection`` (nobody listens), ``too_large``, ``incomplete`` (ended before its
            length), ``encoding`` (compressed although not asked to be, and not readable).
    """
    async with _named_faults(url, timeout):
        return await _fetch(client, url, limit, timeout)


async def server_header(client: httpx.AsyncClient, url: str, *, timeout: float) -> str:  # noqa: ASYNC109 - as above
    """What the header ``Server`` of the answer to a GET says, whatever its status; '' where it is not there.

    Raises:
        ScrapeError: as of :func:`fetch`.
    """
    async with _named_faults(url, timeout), client.stream("GET", url, timeout=timeout) as response:
        server: str = response.headers.get("server", "")
        return server


@asynccontextmanager
async def _named_faults(url: str, timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - as above
    try:
        async with asyncio.timeout(timeout):
            yield
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
            raise StatusError(
                response.status_code, f"{url}: HTTP {response.status_code}", await _head(response, timeout)
            )
        parts: list[bytes] = []
        size = 0
        # What servers compress although asked not to, httpx undoes (gzip, deflate).
        async for part in response.aiter_bytes():
            size += len(part)
            if size > limit:
                raise ScrapeError("too_large", f"{url}: more than {limit} bytes")
            parts.append(part)
        return b"".join(parts)


async def _head(response: httpx.Response, timeout: float) -> bytes:  # noqa: ASYNC109 - as above
    """The begin of an error page, as far as it comes."""
    head = b""
    with suppress(httpx.TransportError, httpx.DecodingError, TimeoutError):
        async with asyncio.timeout(timeout * _ERROR_SHARE):
            async for part in response.aiter_bytes():
                head += part
                if len(head) >= _ERROR_BYTES:
                    break
    return head[:_ERROR_BYTES]
