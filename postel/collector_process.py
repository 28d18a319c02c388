"""A Collector of Postel's as a process: its command line and environment, made of Postel's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from postel.collector import Tier, collector_configs, find_collector, missing
from postel.errors import PostelError, SettingsError
from postel.listening import reachable
from postel.settings import Settings

# MiB that the memory_limiter of agent.yaml and gateway.yaml leaves at most.
_LIMIT_MIB = {Tier.AGENT: 256, Tier.GATEWAY: 1024, Tier.KAFKA_MEMBER: 256}
_GATEWAY_LIMIT = "POSTEL_GATEWAY_MEMORY_MIB"


def run(settings: Settings, tier: Tier) -> NoReturn:
    """Become the Collector.

    Raises:
        PostelError: there is none, or the folder of its queue cannot be made.
    """
    if (program := find_collector()) is None:
        mend = ", or let the agent send to the sink ([otlp] endpoint)" if tier is Tier.AGENT else ""
        raise PostelError(f"{missing()}: build it{mend}")
    variables = {**os.environ, **environment(settings, tier)}
    os.execve(program, command(settings, program, tier), variables)  # noqa: S606 - on purpose


def command(settings: Settings, program: Path, tier: Tier = Tier.AGENT) -> list[str]:
    """Its command line.

    Raises:
        SettingsError: a layer is of another tier, or the folder of the user's own configuration cannot be read.
    """
    otlp = settings.otlp
    files = collector_configs(tier, otlp.collector_layers, otlp.collector_config_dir)
    return [str(program), *(f"--config={path}" for path in files)]


def environment(settings: Settings, tier: Tier = Tier.AGENT) -> dict[str, str]:
    """Its variables beside those of this process; makes the folder of its queue.

    Raises:
        PostelError: the folder cannot be made, or a variable is wrong.
    """
    sink = settings.sink
    return {
        **_of_tier(settings, tier),
        # Below the memory_limiter's, so that Go collects before the limiter refuses.
        "GOMEMLIMIT": f"{_limit(tier) * 4 // 5}MiB",
        "POSTEL_SINK_GRPC": reachable(sink.grpc_address),
        "POSTEL_SINK_TOKEN": sink.token.get_secret_value() if sink.token else "",
        "POSTEL_SINK_INSECURE": str(not sink.uses_tls).lower(),
        "POSTEL_SINK_CA": str(sink.tls_ca or ""),
        "POSTEL_SINK_CLIENT_CERTIFICATE": str(sink.tls_client_certificate or ""),
        "POSTEL_SINK_CLIENT_KEY": str(sink.tls_client_key or sink.tls_client_certificate or ""),
    }


def _of_tier(settings: Settings, tier: Tier) -> dict[str, str]:
    otlp = settings.otlp
    if tier is Tier.KAFKA_MEMBER:
        # It takes nothing but from Kafka, and keeps nothing: so it may stand beside one of the others.
        return {"POSTEL_COLLECTOR_HEALTH": otlp.kafka_member_health_address}
    # A gateway's is one of its own: it may have been the host's other Collector before.
    storage = settings.data_dir / ("gateway" if tier is Tier.GATEWAY else "collector")
    make_folder(storage)
    own = {
        "POSTEL_COLLECTOR_GRPC": otlp.collector_grpc_address,
        "POSTEL_COLLECTOR_HTTP": otlp.collector_http_address,
        "POSTEL_COLLECTOR_HEALTH": otlp.collector_health_address,
        "POSTEL_COLLECTOR_STORAGE": str(storage),
    }
    if tier is Tier.AGENT:
        # While the sink is away gRPC warns several times a second; the supervisor says in one line that it is away.
        own["POSTEL_COLLECTOR_LOG_LEVEL"] = os.environ.get("POSTEL_COLLECTOR_LOG_LEVEL", "error")
    if tier is Tier.GATEWAY or otlp.collector_layers or otlp.collector_config_dir is not None:
        # What it tells of itself, or what the user adds, is to say of which node it speaks, as the agent does.
        from otel_receivers.node import identify  # noqa: PLC0415

        own["POSTEL_NODE__ID"] = identify(settings.data_dir, setting=settings.node.id).id
    return own


def _limit(tier: Tier) -> int:
    """MiB of memory at most."""
    said = os.environ.get(_GATEWAY_LIMIT) if tier is Tier.GATEWAY else None
    if not said:
        return _LIMIT_MIB[tier]
    try:
        return int(said)
    except ValueError:
        raise SettingsError(f"environment, {_GATEWAY_LIMIT} = {said!r} is wrong; accepted: MiB, such as 1024") from None


def make_folder(folder: Path) -> None:
    """Make a folder for this user alone: what waits there holds what the records hold.

    Raises:
        PostelError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PostelError(f"{folder}: cannot be made: {error.strerror}; mend it, or set data_dir") from None
