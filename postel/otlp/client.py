"""Builds the sender for an endpoint: OTLP over HTTP or gRPC, by the standard settings of an exporter.

Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" (endpoint, headers, compression, timeout,
certificate, client certificate and key).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import SplitResult

from postel.errors import SettingsError
from postel.otlp.sender import Sender
from postel.otlp.tls_files import TlsFiles
from postel.settings import Otlp
from postel.settings_values import endpoint_url

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 section 5.5: no space at either end.
_HEADER_VALUE = re.compile(r"([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?")


def create_sender(
    endpoint: str,
    protocol: Literal["grpc", "http/protobuf"] = "http/protobuf",
    *,
    headers: Mapping[str, str] | None = None,
    compression: Literal["gzip", "none"] = "gzip",
    timeout: float = 30.0,
    tls: TlsFiles | None = None,
) -> Sender:
    """Build the sender for an endpoint; nothing is connected before the first `send`.

    Args:
        endpoint: ``http://host:port`` or ``https://host:port``; over HTTP ``/v1/<signal>`` is put behind it.
        protocol: what is spoken there.
        headers: sent with every request, such as ``{"authorization": "Bearer ..."}``.
        compression: of the request body.
        timeout: seconds for one request, from the connection to the answer.
        tls: the files for ``https``; None: the usual authorities are trusted, and nothing is shown.

    Raises:
        SettingsError: the endpoint, a header or a file cannot be used.
    """
    url = _check_endpoint(endpoint)
    headers = dict(headers or {})
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise SettingsError(
                f"[otlp] headers: {name!r} is no header with a printable ASCII value without spaces around it"
            )
    files = tls or TlsFiles()
    # Each protocol costs the agent some 10 MiB; only the one in use is loaded.
    if protocol == "grpc":
        from postel.otlp.grpc_sender import GrpcSender  # noqa: PLC0415

        return GrpcSender(url, headers, compression=compression, timeout=timeout, files=files)
    from postel.otlp.http_sender import HttpSender  # noqa: PLC0415

    return HttpSender(url, headers, compression=compression, timeout=timeout, files=files)


def sender_of(otlp: Otlp) -> Sender:
    """The sender that the settings describe.

    Raises:
        SettingsError: the endpoint, a header or a file cannot be used.
    """
    return create_sender(
        otlp.endpoint,
        otlp.protocol,
        headers={name: value.get_secret_value() for name, value in otlp.headers.items()},
        compression=otlp.compression,
        timeout=otlp.timeout,
        tls=TlsFiles(otlp.certificate, otlp.client_certificate, otlp.client_key),
    )


def _check_endpoint(endpoint: str) -> SplitResult:
    try:
        return endpoint_url(endpoint)
    except ValueError:
        raise SettingsError(
            f'[otlp] endpoint = {endpoint!r} is wrong; accepted: a URL such as "http://127.0.0.1:4318", without ? and #'
        ) from None
