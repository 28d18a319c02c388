"""``postel up``: database, sink, Collector, agent and page on this host, under one supervisor.

Starts nothing when an address that it needs is taken. Where no Collector is built the agent sends straight to the sink.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx

from postel import log
from postel.collector import find_collector, missing
from postel.collector_process import command, environment, make_folder
from postel.listening import listen, reachable
from postel.settings import Settings
from postel.streams import say
from postel.supervisor import Program, Supervisor

READY_SECONDS = 60.0
_POLL_SECONDS = 0.2


async def run(settings: Settings, *, demo: bool) -> int:
    """Run everything until SIGINT, SIGTERM, or SIGHUP: the terminal is gone.

    Returns:
        The exit code: 0 after a stop that was asked for, 2 when a part cannot start.

    Raises:
        AddressInUseError: an address is taken; nothing was started.
    """
    make_folder(settings.data_dir)
    for address, setting in _addresses(settings):
        listen(address, setting).close()
    supervisor = Supervisor(list(_programs(settings, demo=demo)))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, supervisor.stop)
    # Started under nohup, it is meant to outlive its terminal.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, supervisor.stop)
    announcer = asyncio.create_task(_announce(settings))
    try:
        return await supervisor.run()
    finally:
        announcer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await announcer
        _say("stopped")


def _programs(settings: Settings, *, demo: bool) -> Iterator[Program]:
    # -P: a file in the folder where `up` was started must not stand in for a module of Python.
    postel = [sys.executable, "-P", "-m", "postel.cli"]
    supervised = {log.SUPERVISED: "1", "PYTHONUNBUFFERED": "1"}
    sender = dict(supervised)
    yield Program("sink", [*postel, "sink"], supervised, stop_rank=2, refuses=True)
    if not runs_collector(settings):
        _say(f"the agent sends to {settings.otlp.endpoint}, as [otlp] endpoint says; no Collector is started here")
    elif collector := find_collector():
        yield Program(
            "collector",
            command(settings, collector),
            environment(settings),
            stop_rank=1,
            # Its batches wait for 200 ms (agent.yaml), and the sink then commits. What is left waits on disk and comes
            # with the next start, even of a demo that was deleted meanwhile.
            linger_seconds=1.0,
            clean_line=_plain,
        )
    else:
        sink = reachable(settings.sink.http_address)
        sender["POSTEL_OTLP__ENDPOINT"] = f"{'https' if settings.sink.uses_tls else 'http'}://{sink}"
        sender["POSTEL_OTLP__PROTOCOL"] = "http/protobuf"
        for variable, file in (
            ("CERTIFICATE", settings.sink.tls_ca),
            ("CLIENT_CERTIFICATE", settings.sink.tls_client_certificate),
            ("CLIENT_KEY", settings.sink.tls_client_key),
        ):
            if file is not None:
                sender[f"POSTEL_OTLP__{variable}"] = str(file)
        if token := settings.sink.token:
            sender["POSTEL_OTLP__HEADERS"] = json.dumps({"authorization": f"Bearer {token.get_secret_value()}"})
        _say(f"{missing()}: the agent sends straight to the sink at {sink}")
    yield Program("agent", [*postel, "agent"], sender, stop_rank=0, refuses=True)
    if demo:
        yield Program("demo", [*postel, "demo"], sender, stop_rank=0)
    yield Program("serve", [*postel, "serve"], supervised, stop_rank=2, refuses=True)


def runs_collector(settings: Settings) -> bool:
    """Whether the agent sends to the Collector that `up` starts, rather than to one that the user runs."""
    target = urlsplit(settings.otlp.endpoint).netloc
    own = (settings.otlp.collector_grpc_address, settings.otlp.collector_http_address)
    return target in (*own, *map(reachable, own))


def _plain(line: str) -> str:
    """The Collector's zap line, tab-separated, without its caller: time, level, message, fields."""
    parts = line.split("\t")
    if len(parts) < 4:  # noqa: PLR2004 - not a zap line
        return line
    time, level, _caller, *rest = parts
    text = " ".join(rest)
    if "interrupted due to shutdown" in text:
        # exporterhelper says "Dropping data" here, though it drops nothing: the queue on disk still has it.
        level, text = "info", "stopped before the sink took all; the rest stays in the queue on disk"
    return f"{time} [{level.strip():<7}] {text}"


def _addresses(settings: Settings) -> Iterator[tuple[str, str]]:
    yield settings.sink.grpc_address, "[sink] grpc_address"
    yield settings.sink.http_address, "[sink] http_address"
    yield settings.serve.address, "[serve] address"
    yield settings.intake.address, "[intake] address"
    if runs_collector(settings) and find_collector():
        yield settings.otlp.collector_grpc_address, "[otlp] collector_grpc_address"
        yield settings.otlp.collector_http_address, "[otlp] collector_http_address"
        yield settings.otlp.collector_health_address, "[otlp] collector_health_address"


async def _announce(settings: Settings) -> None:
    page = f"{settings.serve.scheme}://{reachable(settings.serve.address)}"
    # It is asked nothing, and told nothing, that could not be said to another.
    async with httpx.AsyncClient(timeout=2, trust_env=False, verify=False) as client:  # noqa: S501
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(httpx.TransportError):
                # Anything that answers is the page: it says itself what is missing behind it.
                await client.get(f"{page}/healthz")
                _say(f"the page is at {page}/  (Ctrl-C stops everything; data is in {settings.data_dir})")
                return
            await asyncio.sleep(_POLL_SECONDS)
    _say(f"the page at {page}/ does not answer after {READY_SECONDS:g} s; the lines of 'serve' above say why")


def _say(text: str) -> None:
    say(f"postel: {text}")
