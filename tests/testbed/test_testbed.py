"""The testbed itself: what the sink saw is what Zone-MTA counts, and every process can be ended at any moment.

Most of it is left to `make soak`: the tests of the agent and of the plugins end servers so too, and compare all.
"""

from __future__ import annotations

import collections
import re
import time

import httpx
import psutil
import pytest
from testbed.backends import Backends
from testbed.fixtures import NewRspamd, NewZoneMta
from testbed.program import until
from testbed.rspamd import GTUBE, message
from testbed.zone_mta import SENDER, ZoneMta


def start_time(server: ZoneMta) -> float:
    found = re.search(rb"^process_start_time_seconds (\S+)$", server.metrics_page(), re.MULTILINE)
    assert found
    return float(found[1])


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# By `make test` the agent's points are compared with both: tests/agent/test_zone_mta_real.py.
@pytest.mark.soak
def test_the_page_counts_what_the_sink_saw_in_every_zone(zone_mta: ZoneMta) -> None:
    zone_mta.send(5)
    zone_mta.send(4, zone="bulk")
    zone_mta.send(3, "reject", "bulk")
    zone_mta.send(2, "spam")
    zone_mta.send(1, "full", "bulk")
    zone_mta.send(4, "defer-then-ok", "bulk")
    zone_mta.wait_until_idle()

    bounces = 3 + 2 + 1
    assert zone_mta.sink.counts() == {
        ("default", "delivered"): 5 + bounces,
        ("default", "rejected"): 2,
        ("bulk", "delivered"): 4 + 4,
        ("bulk", "rejected"): 3 + 1,
        ("bulk", "deferred"): 4,
    }
    assert zone_mta.delivery_status() == zone_mta.sink.counts()
    sent_back = [attempt for attempt in zone_mta.sink.attempts() if attempt.is_bounce]
    assert [attempt.recipient for attempt in sent_back] == [SENDER] * bounces
    assert b"zonemta_bounce_generation %d\n" % bounces in zone_mta.metrics_page()


# A setting of the testbed, as the one before.
@pytest.mark.soak
def test_without_a_bounce_zone_no_bounce_is_sent(new_zone_mta: NewZoneMta) -> None:
    server = new_zone_mta(zones=("only",))
    server.send(3, "reject")
    server.wait_until_idle()
    assert server.delivery_status() == server.sink.counts() == {("only", "rejected"): 3}


@pytest.mark.soak
def test_a_restart_keeps_the_queue_and_the_ports_and_counts_from_nothing(new_zone_mta: NewZoneMta) -> None:
    server = new_zone_mta(defer_times_s=(600,))
    server.send(2)
    server.send(3, "defer", "bulk")
    before = {("default", "delivered"): 2, ("bulk", "deferred"): 3}
    until(lambda: server.delivery_status() == before, 15, f"{before}")
    first_start = start_time(server)

    server.stop()
    assert server.program.pids() == []
    time.sleep(1)  # process_start_time_seconds is whole seconds
    server.start()

    assert server.delivery_status() == {}
    assert server.queued() == 3
    assert start_time(server) > first_start
    server.send(1)
    until(lambda: server.delivery_status() == {("default", "delivered"): 1}, 15, "the page counts again")
    assert server.sink.counts() == {("default", "delivered"): 3, ("bulk", "deferred"): 3}


@pytest.mark.soak
def test_stopped_under_load_nothing_is_delivered_twice(zone_mta: ZoneMta) -> None:
    zone_mta.sink.delay = 0.2
    recipients = zone_mta.send(30)
    until(lambda: len(zone_mta.sink.attempts()) >= 6, 15, "deliveries are under way", pause=0.01)
    zone_mta.stop()
    done = zone_mta.sink.attempts()
    assert len(done) < len(recipients), "it was to be stopped under load"
    assert all(attempt.accepted_at for attempt in done)

    zone_mta.sink.delay = 0
    zone_mta.start()
    zone_mta.wait_until_idle()
    assert sorted(attempt.recipient for attempt in zone_mta.sink.attempts()) == sorted(recipients)
    assert zone_mta.delivery_status() == {("default", "delivered"): len(recipients) - len(done)}


@pytest.mark.soak
def test_killed_under_load_the_whole_group_is_gone_and_the_rest_is_delivered_later(zone_mta: ZoneMta) -> None:
    zone_mta.sink.delay = 0.1
    recipients = zone_mta.send(30)
    until(lambda: len(zone_mta.sink.attempts()) >= 6, 15, "deliveries are under way", pause=0.01)
    counted = sum(zone_mta.delivery_status().values())
    assert counted <= len(zone_mta.sink.attempts())
    processes = zone_mta.program.pids()
    assert len(processes) == 4, "main, receiver and a sender for each of two zones"
    zone_mta.kill()
    assert not any(lives(pid) for pid in processes)
    before_death = zone_mta.sink.attempts()
    assert len(before_death) < len(recipients), "it was to be killed under load"

    zone_mta.sink.delay = 0
    zone_mta.start()
    zone_mta.wait_until_idle()
    accepted = collections.Counter(a.recipient for a in zone_mta.sink.attempts() if a.accepted_at)
    assert set(accepted) == set(recipients)
    # At most the deliveries in flight at the death were made again, one for each of the three connections.
    assert sum(accepted.values()) <= len(recipients) + 3
    later = len(zone_mta.sink.attempts()) - len(before_death)
    assert zone_mta.delivery_status() == {("default", "delivered"): later}


def test_a_server_that_cannot_start_says_why_and_leaves_nobody(new_zone_mta: NewZoneMta, zone_mta: ZoneMta) -> None:
    with pytest.raises(AssertionError, match="EADDRINUSE"):
        new_zone_mta(settings={"api": {"port": zone_mta.api_port}})
    assert zone_mta.metrics_page()


def test_rspamd_scans_without_dns_and_keeps_its_counts_over_a_restart(new_rspamd: NewRspamd) -> None:
    server = new_rspamd()
    judged = [server.scan(message(text)) for text in ("Hello", GTUBE)]
    assert [each["action"] for each in judged] == ["no action", "reject"]
    assert "FROM_NO_DN" in judged[0]["symbols"]
    before = server.ask("/stat")
    assert (before["scanned"], before["actions"]["reject"], before["actions"]["no action"]) == (2, 1, 1)

    server.stop()
    server.start()
    assert server.ask("/stat")["scanned"] == 2
    server.stop()
    server.forget()
    server.start()
    assert server.ask("/stat")["scanned"] == 0
    assert "failed" not in server.program.said()


def test_rspamd_learns_into_redis(new_rspamd: NewRspamd, backends: Backends) -> None:
    server = new_rspamd(redis=(backends.redis_port, backends.new_redis_number()))
    words = " ".join(f"word{number}" for number in range(40))
    server.learn(message(f"{words} spam"), spam=True)
    server.learn(message(f"{words} scam"), spam=True)
    server.learn(message(f"{words} ham"), spam=False)
    assert server.ask("/stat")["learned"] == 3


def test_rspamd_without_trust_asks_for_its_password(new_rspamd: NewRspamd) -> None:
    server = new_rspamd(trusts_loopback=False)
    assert httpx.get(f"{server.controller_url}/stat").status_code == 401
    assert server.ask("/stat")["scanned"] == 0
