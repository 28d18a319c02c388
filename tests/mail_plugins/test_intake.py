"""The plugin in a real Zone-MTA and the agent, joined by the agent's Unix socket; also where the agent is killed."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from testbed.fixtures import WatchedZoneMta
from testbed.program import Program, until

from support.otlp_thread import OtlpThread
from support.running_agent import environment


@pytest.mark.slow
def test_events_come_by_the_unix_socket(
    watched_zone_mta: WatchedZoneMta, otlp_receiver: OtlpThread, tmp_path: Path
) -> None:
    path = tmp_path / "intake.sock"
    variables = environment(tmp_path, otlp_receiver.endpoint, INTAKE__SOCKET=path)
    agent = Program("agent", [sys.executable, "-m", "postel.cli", "agent"], tmp_path / "a.log", environment=variables)
    try:
        agent.start(path.exists)
        server = watched_zone_mta(f"unix:{path}")
        server.send(5)
        agent.kill()
        assert path.exists()
        server.send(5, "reject")
        agent.start(lambda: "the intake listens" in agent.said())
        server.send(5)
        server.wait_until_idle()
        expected = Counter(attempt.recipient for attempt in server.sink.attempts() if not attempt.is_bounce)
        assert sum(expected.values()) == 15

        def told() -> Counter[str]:
            return Counter(
                record.attributes["email.to.address"][0]
                for record in otlp_receiver.records()
                if record.name.startswith("zonemta.delivery.") and record.resource["host.id"] == "node-1"
            )

        until(lambda: told() >= expected, 30, "every attempt is told")
        uids = Counter(record.uid for record in otlp_receiver.records())
        # What was under way when the agent was killed may come twice, by the same id.
        assert {uid for uid, times in uids.items() if times > 2} == set()
        agent.stop()
        assert not path.exists()
    finally:
        agent.kill()
