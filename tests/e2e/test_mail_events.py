"""Mail through a real Zone-MTA with Postel's plugin, under a whole Postel: each attempt is a row, whatever dies."""

import time
from collections import Counter
from pathlib import Path

import pytest
from testbed.fixtures import WatchedZoneMta

from postel.collector import find_collector
from support.requirements import require
from support.running_postel import RunningPostel, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def collector() -> None:
    require("collector", available=find_collector() is not None)


def told(postel: RunningPostel) -> Counter[tuple[str, str, str]]:
    """What the database holds of attempts: zone, recipient's domain, status; that of the sink is compared with it."""
    rows = postel.query("SELECT zone, attributes ->> 'email.to.address', status FROM delivery_events")
    return Counter((zone, to, status) for zone, to, status in rows)


def test_each_attempt_is_a_row_once_with_the_agent_killed_on_the_way(
    watched_zone_mta: WatchedZoneMta, tmp_path: Path
) -> None:
    with running(tmp_path) as postel:
        until(lambda: postel.query("SELECT 1 FROM node"), 60, "the agent runs")
        server = watched_zone_mta(f"http://127.0.0.1:{postel.ports['intake']}", bounce_zone="default")
        for _ in range(3):
            server.send(12, "ok")
            server.send(4, "reject", zone="bulk")
            server.send(3, "defer-then-ok")
            killed = postel.kill("agent")
            until(lambda: postel.runs("agent", but=killed), 30, "the agent runs again")  # noqa: B023 - used at once
        server.wait_until_idle()

        def seen() -> Counter[tuple[str, str, str]]:
            return Counter((a.zone, f'["{a.recipient}"]', a.status) for a in server.sink.attempts())

        def queued() -> int:
            return sum(n for (n,) in postel.query("SELECT count(*) FROM email_events WHERE outcome = 'queued'"))

        # Every message was queued once, the bounces too.
        messages = len({a.recipient for a in server.sink.attempts() if not a.is_bounce})
        bounces = sum(1 for a in server.sink.attempts() if a.is_bounce)
        until(lambda: sum(told(postel).values()) >= sum(seen().values()), 60, "every attempt is told")
        until(lambda: queued() >= messages + bounces, 30, "every message is told")
        time.sleep(2)  # what would come twice
        assert told(postel) == seen()
        assert queued() == messages + bounces
        assert {status for _, _, status in seen()} == {"delivered", "rejected", "deferred"}

        # A message is followed by its ids: queued, deferred, delivered.
        ways = postel.query(
            """
            SELECT array_agg(status ORDER BY time), count(DISTINCT message_id), min(attempt), max(attempt)
            FROM delivery_events WHERE attributes ->> 'email.to.address' LIKE '%%defer-then-ok%%' GROUP BY queue_id
            """
        )
        assert len(ways) == 9
        assert {(tuple(statuses), ids, first) for statuses, ids, first, _ in ways} == {
            (("deferred", "delivered"), 1, 1)
        }
        joined = postel.query(
            "SELECT count(*) FROM delivery_events d WHERE NOT EXISTS"
            " (SELECT 1 FROM email_events e WHERE e.queue_id = d.queue_id AND e.outcome = 'queued')"
        )
        assert joined == [(0,)]

        # The events and the counters of the same server are of one instance, and say the same.
        ((instance,),) = postel.query("SELECT DISTINCT instance FROM delivery_events")
        assert instance.endswith(f":{server.api_port}")
        assert postel.command("db", "check").returncode == 0
