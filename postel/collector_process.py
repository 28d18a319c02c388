"""The Collector beside the agent as a process: its command line and environment, made of Postel's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from postel.collector import collector_configs, find_collector, missing
from postel.errors import PostelError
from postel.listening import reachable
from postel.settings import Settings


def run(settings: Settings) -> NoReturn:
    """Become the Collector.

    Raises:
        PostelError: there is none, or the folder of its queue cannot be made.
    """
    if (program := find_collector()) is None:
        raise PostelError(f"{missing()}: build it, or let the agent send to the sink ([otlp] endpoint)")
    os.execve(program, command(settings, program), {**os.environ, **environment(settings)})  # noqa: S606 - on purpose


def command(settings: Settings, program: Path) -> list[str]:
    """Its command line.

    Raises:
        SettingsError: the folder of the user's own configuration cannot be read.
    """
    return [str(program), *(f"--config={path}" for path in collector_configs(settings.otlp.collector_config_dir))]


def environment(settings: Settings) -> dict[str, str]:
    """Its variables beside those of this process; makes the folder of its queue.

    Raises:
        PostelError: the folder cannot be made.
    """
    storage = settings.data_dir / "collector"
    make_folder(storage)
    sink = settings.sink
    own: dict[str, str] = {}
    if settings.otlp.collector_config_dir is not None:
        # What the user adds is to say of which node it speaks, as the agent does.
        from otel_receivers.node import identify  # noqa: PLC0415

        own["POSTEL_NODE__ID"] = identify(settings.data_dir, setting=settings.node.id).id
    return {
        **own,
        # Below the memory_limiter's 256 MiB, so that Go collects before the limiter refuses.
        "GOMEMLIMIT": "200MiB",
        # While the sink is away gRPC warns several times a second; the supervisor says in one line that it is away.
        "POSTEL_COLLECTOR_LOG_LEVEL": os.environ.get("POSTEL_COLLECTOR_LOG_LEVEL", "error"),
        "POSTEL_COLLECTOR_GRPC": settings.otlp.collector_grpc_address,
        "POSTEL_COLLECTOR_HTTP": settings.otlp.collector_http_address,
        "POSTEL_COLLECTOR_HEALTH": settings.otlp.collector_health_address,
        "POSTEL_COLLECTOR_STORAGE": str(storage),
        "POSTEL_SINK_GRPC": reachable(sink.grpc_address),
        "POSTEL_SINK_TOKEN": sink.token.get_secret_value() if sink.token else "",
        "POSTEL_SINK_INSECURE": str(not sink.uses_tls).lower(),
        "POSTEL_SINK_CA": str(sink.tls_ca or ""),
        "POSTEL_SINK_CLIENT_CERTIFICATE": str(sink.tls_client_certificate or ""),
        "POSTEL_SINK_CLIENT_KEY": str(sink.tls_client_key or sink.tls_client_certificate or ""),
    }


def make_folder(folder: Path) -> None:
    """Make a folder for this user alone: what waits there holds what the records hold.

    Raises:
        PostelError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PostelError(f"{folder}: cannot be made: {error.strerror}; mend it, or set data_dir") from None
