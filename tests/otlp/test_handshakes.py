"""What is said of connections over TLS that came to nothing, with real handshakes at the gRPC server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from postel.otlp import grpc_server, handshakes
from postel.otlp.client import create_sender
from postel.otlp.signal import Signal
from postel.otlp.tls_door import TlsDoor
from postel.otlp.tls_files import TlsFiles
from support.gateway import AUTHORITY
from support.otlp_receiver import running_receiver
from support.tls_listeners import CERTIFICATES

SAID = "connections came to nothing: no TLS came about, or no call"


async def _fail(port: int) -> None:
    """Speak no TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.read()
    writer.transport.abort()


async def _send(port: int) -> None:
    sender = create_sender(f"https://localhost:{port}", "grpc", tls=TlsFiles(AUTHORITY), timeout=10)
    try:
        for _ in range(3):
            await sender.send(Signal.METRICS, b"")
    finally:
        await sender.close()


async def test_those_that_fail_are_counted_in_a_line_and_those_that_call_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "_HANDSHAKE_MS", 500)
    async with running_receiver(tls=TlsDoor("[sink]", CERTIFICATES / "gateway.pem")) as receiver:
        with capture_logs() as log:
            await _send(receiver.grpc_port)
            for _ in range(5):
                await _fail(receiver.grpc_port)
            await asyncio.sleep(1.2)
            await _send(receiver.grpc_port)
    # Of more lines a minute has one; on a busy machine it does not tell of all five.
    (line,) = (line for line in log if line["event"] == SAID)
    assert 1 <= line.pop("connections") <= 5
    assert line == {"event": SAID, "at": "[sink] grpc_address", "log_level": "warning"}


def test_what_brings_no_call_in_its_time_is_counted_in_a_line_a_minute() -> None:
    now = 0.0
    counted = handshakes.Handshakes("a test", 20, clock=lambda: now)
    with capture_logs() as log:
        for moment, begun, told in ((100.0, 5, []), (119.9, 0, []), (120.1, 1, [5]), (141, 2, [5]), (181, 0, [5, 3])):
            now = moment
            counted.begun()
            counted.called(f"{moment}")
            for _ in range(begun):
                counted.begun()
            assert [line["connections"] for line in log] == told


def test_a_flood_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "_REMEMBERED", 10)
    counted = handshakes.Handshakes("a test", seconds=0)
    with capture_logs() as log:
        for number in range(100):
            counted.begun()
            counted.called(f"{number}")
    assert len(counted._callers) == 10
    assert log == []


@pytest.mark.parametrize(("verbosity", "lines"), [(None, 0), ("INFO", 2)])
def test_grpc_says_nothing_of_each_unless_asked(verbosity: str | None, lines: int) -> None:
    program = Path(__file__).with_name("failing_handshakes.py")
    variables = {key: value for key, value in os.environ.items() if key != "GRPC_VERBOSITY"}
    if verbosity:
        variables["GRPC_VERBOSITY"] = verbosity
    variables["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, program], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Handshake failed") == lines
