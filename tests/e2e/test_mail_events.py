"""Mail through real servers with Postel's plugins, under a whole Postel: all is told and counted once, whoever dies."""

import time
from collections import Counter
from pathlib import Path

import pytest
from mail_plugins.haraka_mail import MAX_BYTES, Mailer, send_every_kind
from testbed.fixtures import WatchedHaraka, WatchedZoneMta

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


def histogram(postel: RunningPostel, metric: str) -> Counter[tuple[str, str]]:
    """The latest counts by zone and outcome; each series has one start, however often the agent was killed."""
    rows = postel.query(
        """
        SELECT attributes ->> 'zonemta.zone', attributes ->> 'zonemta.outcome', max(count), count(DISTINCT started_at),
            bool_and(started_at < time AND count = (SELECT sum(bucket) FROM unnest(bucket_counts) AS bucket))
        FROM otel_metric_point JOIN otel_series USING (series_id) WHERE metric = %s GROUP BY series_id, attributes
        """,
        metric,
    )
    assert all(starts == 1 and fits for *_, starts, fits in rows)
    return Counter({(zone, outcome): int(count) for zone, outcome, count, *_ in rows})


@pytest.mark.soak
def test_each_attempt_is_a_row_once_with_the_agent_killed_on_the_way(
    watched_zone_mta: WatchedZoneMta, tmp_path: Path
) -> None:
    with running(tmp_path, POSTEL_INTERVALS__SEND_METRICS="2") as postel:
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

        # What was counted of the events is what they are.
        attempts = Counter((a.zone, a.status) for a in server.sink.attempts())
        until(lambda: histogram(postel, "zonemta.delivery.duration") == attempts, 30, "every attempt is counted, once")
        final = Counter({key: count for key, count in attempts.items() if key[1] != "deferred"})
        assert histogram(postel, "zonemta.message.queue.duration") == final
        ((counted, lasted),) = postel.query(
            """
            SELECT (SELECT sum(latest) FROM (
                SELECT max(point.sum) AS latest FROM otel_metric_point AS point JOIN otel_series USING (series_id)
                WHERE metric = 'zonemta.delivery.duration' GROUP BY series_id
            ) AS series), (SELECT sum(duration) FROM delivery_events)
            """
        )
        assert counted == pytest.approx(lasted)

        # The events and the counters of the same server are of one instance, and say the same.
        ((instance,),) = postel.query("SELECT DISTINCT instance FROM delivery_events")
        assert instance.endswith(f":{server.api_port}")
        assert postel.command("db", "check").returncode == 0


def test_what_haraka_did_is_counted_once_with_the_agent_killed_on_the_way(
    watched_haraka: WatchedHaraka, tmp_path: Path
) -> None:
    with running(tmp_path, POSTEL_INTERVALS__SEND_METRICS="2") as postel:
        until(lambda: postel.query("SELECT 1 FROM node"), 60, "the agent runs")
        server = watched_haraka(f"http://127.0.0.1:{postel.ports['intake']}", max_bytes=MAX_BYTES)
        # The testbed's own connections, by which it sees that the server is there.
        mail = Mailer(server, known="box", connections=2)
        for _ in range(3):
            send_every_kind(mail)
            killed = postel.kill("agent")
            until(lambda: postel.runs("agent", but=killed), 30, "the agent runs again")  # noqa: B023 - used at once

        outcomes = Counter(expected.outcome for expected in mail.expected)

        def rows() -> Counter[str]:
            messages = "SELECT outcome, count(*) FROM email_events WHERE event_name LIKE 'haraka.message.%%' GROUP BY 1"
            return Counter(dict(postel.query(messages)))

        until(lambda: rows().total() >= outcomes.total(), 60, "every transaction is told")
        until(lambda: sums(postel, "haraka.connections") == {"": mail.connections}, 60, "every connection is counted")
        time.sleep(5)  # what would come twice, and two more ticks
        assert rows() == outcomes
        assert sums(postel, "haraka.connections") == {"": mail.connections}
        counted = sums(postel, "haraka.messages", "haraka.outcome")
        (row,) = postel.query(
            """
            SELECT inbound_total, rejected_count, spam_count, delivered_count, bounce_count, deferred_count, instance
            FROM metrics_haraka ORDER BY time DESC LIMIT 1
            """
        )
        # Rejected ones have a column of their own; its points are no others.
        assert {**counted, "rejected": row[1]} == outcomes
        assert row[:-1] == (outcomes.total(), outcomes["rejected"], 0, 0, 0, 0)
        assert row[-1].endswith(f":{server.port}")
        denials = postel.query(
            """
            SELECT attributes ->> 'haraka.plugin', attributes ->> 'haraka.hook', max(value_int)
            FROM otel_metric_point JOIN otel_series USING (series_id) WHERE metric = 'haraka.denials' GROUP BY 1, 2
            """
        )
        assert {(plugin, hook): count for plugin, hook, count in denials} == Counter(mail.denials)
        # In full from the first row on, over all kills.
        assert postel.query("SELECT sum(inbound_total), count(DISTINCT started_at) FROM metrics_haraka_increase") == [
            (outcomes.total(), 1)
        ]
        assert postel.command("db", "check").returncode == 0


def sums(postel: RunningPostel, metric: str, attribute: str = "") -> dict[str, int]:
    """The latest value by an attribute's values; '' where it has none."""
    return dict(
        postel.query(
            """
            SELECT coalesce(attributes ->> %s, ''), max(value_int)
            FROM otel_metric_point JOIN otel_series USING (series_id) WHERE metric = %s GROUP BY 1
            """,
            attribute,
            metric,
        )
    )
