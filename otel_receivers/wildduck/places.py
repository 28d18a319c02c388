"""Where a WildDuck's API and its own Prometheus page are looked for."""

from __future__ import annotations

from collections.abc import Sequence

from otel_receivers.discovery import Place, page, server_header
from otel_receivers.receiver import Target
from postel.settings import Discovery

_API_PORTS = (8080, 3000)
_METRICS_PORT = 8081


def places(settings: Discovery) -> Sequence[Place]:
    """Both, from ``[discovery]``."""
    api_ports = (settings.wildduck_api_port,) if settings.wildduck_api_port else _API_PORTS
    return (
        Place(
            "wildduck",
            tuple(Target(settings.wildduck_host, port) for port in api_ports),
            server_header("/", r"WildDuck"),
            settings="wildduck_api_port",
            trusted=settings.wildduck_api_port is not None,
        ),
        Place(
            "wildduck_metrics",
            (Target(settings.wildduck_host, settings.wildduck_metrics_port or _METRICS_PORT),),
            page("/metrics", rb"^# TYPE wildduck_", rb'^wildduck_info\{version="(\d[\w.]*)"\}'),
            settings="wildduck_metrics_port",
            trusted=settings.wildduck_metrics_port is not None,
        ),
    )
