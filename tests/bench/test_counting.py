"""What the agent's intake costs with and without counting events: `make bench`, figures in docs/benchmarks.md."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import uuid_utils

from otel_receivers.derived import Occurrence
from otel_receivers.intake import Intake
from otel_receivers.node import identify
from otel_receivers.privacy import Privacy
from otel_receivers.spool import Spool
from postel.otlp import codec
from postel.otlp.signal import Signal
from support.mail_events import event, request

EVENTS, BATCH, ROUNDS = 5_000, 100, 5
# As Zone-MTA's plugin tells an attempt.
ATTEMPT: dict[str, Any] = {
    "zonemta.message.id": "19ac8f1c2d3000a1b2",
    "zonemta.message.seq": "001",
    "zonemta.zone": "default",
    "zonemta.interface": "feeder",
    "zonemta.attempt.number": 1,
    "zonemta.attempt.duration": 0.123,
    "email.message_id": "<abc-def-0123456789@sender.test>",
    "email.from.address": "ok@sender.test",
    "email.to.address": ["ok+17@rcpt.test"],
    "email.direction": "outbound",
    "smtp.response.status_code": 250,
    "smtp.response.enhanced_code": "2.0.0",
    "smtp.response.text": "250 2.0.0 Ok: queued as 123456789",
    "server.address": "mx.rcpt.test",
    "network.peer.address": "127.0.0.1",
    "network.local.address": "127.0.0.1",
    "network.protocol.name": "smtp",
    "client.address": "127.0.0.1",
    "tls.established": False,
    "zonemta.message.size": 1200,
    "zonemta.queue.duration": 0.5,
}


def bodies() -> list[bytes]:
    """Requests as a plugin sends them, each event with an id of its own."""
    resource = {"service.name": "zone-mta", "server.port": 12080, "process.pid": 4711}
    return [
        codec.encode(
            request(
                *(event("zonemta.delivery.accepted", ATTEMPT, uid=str(uuid_utils.uuid7())) for _ in range(BATCH)),
                resource=resource,
            ),
            codec.JSON,
        )
        for _ in range(EVENTS // BATCH)
    ]


def nothing(_: object) -> list[Occurrence]:
    return []


@pytest.mark.bench
async def test_events_are_decoded_stored_and_counted(tmp_path: Path) -> None:
    """CPU an event of all that the intake does with a body, beside HTTP itself."""
    spool = await Spool.open(tmp_path, max_bytes=1 << 30, max_age=3600)
    node, privacy = identify(tmp_path, setting="node-1"), Privacy("keep")
    counting, plain = (Intake(node, spool, privacy, request_bytes=1 << 20) for _ in range(2))
    plain._derivation.occurrences = nothing  # type: ignore[method-assign, assignment]
    costs: dict[str, list[float]] = {"plain": [], "counting": []}
    try:
        for _ in range(ROUNDS):
            for name, intake in (("plain", plain), ("counting", counting)):
                sent = bodies()
                began = time.process_time()
                for body in sent:
                    await intake(Signal.LOGS, codec.decode(Signal.LOGS, body, codec.JSON))
                costs[name].append((time.process_time() - began) / EVENTS)
        counted = [sum(getattr(total, "counts", ())) for told in await spool.told() for total in told.totals.values()]
    finally:
        await spool.close()
    assert counted == [ROUNDS * EVENTS] * 2
    least = {name: min(each) for name, each in costs.items()}
    ratio = least["counting"] / least["plain"]
    print(f"an event: {least['counting'] * 1e6:.0f} us of CPU with counting, {ratio:.2f} times that without")  # noqa: T201 - the figure
    # 2,000 events a second take half a core at most.
    assert least["counting"] < 250e-6
