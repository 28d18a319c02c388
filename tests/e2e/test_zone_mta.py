"""A real Zone-MTA under a whole Postel: what the database holds is what Zone-MTA's page says and what was attempted."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from testbed.fixtures import NewZoneMta
from testbed.zone_mta import ZoneMta

from postel.collector import find_collector
from support.requirements import require
from support.running_postel import RunningPostel, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IN_FLIGHT = 1.0
"""Seconds from an attempt's arrival at the sink to its place on Zone-MTA's page, at most: its answer waits 0.05 s."""
OUTCOMES = ("delivered", "rejected", "deferred", "unknown")
SCRAPED = "(started_at IS NOT NULL OR (zone = '' AND queue_size IS NOT NULL))"
"""A row that Zone-MTA's page had a part in; others are of its REST alone."""
Counts = Mapping[tuple[str, str], int]


@pytest.fixture(autouse=True)
def collector() -> None:
    require("collector", available=find_collector() is not None)


def settings(server: ZoneMta) -> dict[str, str]:
    return {
        "POSTEL_DISCOVERY__ZONE_MTA_PORT": str(server.api_port),
        "POSTEL_INTERVALS__ZONE_MTA_PROMETHEUS": "1",
        "POSTEL_INTERVALS__ZONE_MTA_QUEUE": "1",
        "POSTEL_INTERVALS__SEND_METRICS": "1",
    }


def newest(postel: RunningPostel, column: str) -> Any:
    found = postel.query(
        f"SELECT {column} FROM metrics_zonemta WHERE zone = '' AND {column} IS NOT NULL ORDER BY time DESC LIMIT 1"
    )
    return found[0][0] if found else None


def latest_counts(postel: RunningPostel, instance: str) -> Counts:
    """What the newest row of each zone says."""
    rows = postel.query(
        "SELECT DISTINCT ON (zone) zone, delivered_total, rejected_total, deferred_total, unknown_total"
        " FROM metrics_zonemta WHERE zone <> '' AND instance LIKE %s AND started_at IS NOT NULL"
        " ORDER BY zone, time DESC",
        f"%:{instance}",
    )
    return {(row[0], outcome): n for row in rows for outcome, n in zip(OUTCOMES, row[1:], strict=True) if n is not None}


def increase(postel: RunningPostel) -> int:
    columns = ", ".join(f"coalesce(sum({outcome}_total), 0)" for outcome in OUTCOMES)
    rows = postel.query(f"SELECT {columns} FROM metrics_zonemta_increase WHERE zone <> ''")
    return int(sum(rows[0])) if rows else -1


def last_scrape(postel: RunningPostel) -> float:
    found = postel.query(f"SELECT extract(epoch FROM max(time))::float8 FROM metrics_zonemta WHERE {SCRAPED}")
    return float(found[0][0]) if found and found[0][0] else 0.0


def scraped_since(postel: RunningPostel, moment: float) -> None:
    until(lambda: last_scrape(postel) > moment, 60, "a scrape after now")


def test_the_table_agrees_with_the_page_and_the_increase_with_the_attempts(zone_mta: ZoneMta, tmp_path: Path) -> None:
    with running(tmp_path, **settings(zone_mta)) as postel:
        until(lambda: last_scrape(postel), 60, "the first scrape")
        zone_mta.send(6, "ok")
        zone_mta.send(3, "ok", zone="bulk")
        zone_mta.send(4, "reject", zone="bulk")
        zone_mta.send(3, "defer-then-ok")
        zone_mta.wait_until_idle()
        scraped_since(postel, time.time())
        page = zone_mta.delivery_status()
        assert {zone for zone, _ in page} == {"default", "bulk"}
        assert latest_counts(postel, str(zone_mta.api_port)) == page
        assert page == zone_mta.sink.counts()

        # What waits is counted too: the gauge is Zone-MTA's own, which it renews every 10 s.
        zone_mta.send(5, "defer")
        until(lambda: newest(postel, "deferred_size") == 5, 60, "five deferred")
        assert b'zonemta_queue_size{type="deferred"} 5' in zone_mta.metrics_page()
        zones = (
            "SELECT DISTINCT ON (zone) zone, deferred_size, oldest_age > 0 FROM metrics_zonemta WHERE zone <> '' AND"
        )
        last = f"{zones} deferred_size IS NOT NULL AND oldest_age IS NOT NULL ORDER BY zone, time DESC"
        until(lambda: postel.query(last) == [("bulk", 0, False), ("default", 5, True)], 60, "each zone is told of")
        assert newest(postel, "oldest_age") > 0
        # Where all five are tried again just now, none is listed.
        deferred = f"{zone_mta.api}/queued/deferred/default"
        waiting, *_ = until(lambda: httpx.get(deferred).json()["list"], 60, "one waits")
        told = postel.command("message", waiting["id"])
        assert f"{waiting['recipient']}: deferred in zone default" in told.stdout
        assert postel.query("SELECT DISTINCT queue_id IS NULL FROM metrics_zonemta") == [(False,)]

        # After one idle interval a restart loses nothing.
        scraped_since(postel, time.time())
        zone_mta.stop()
        zone_mta.start()
        zone_mta.send(4, "ok")
        zone_mta.send(2, "reject", zone="bulk")
        until(lambda: zone_mta.delivery_status().get(("bulk", "rejected")) == 2, 60, "the rejects are attempted")
        until(lambda: sum(zone_mta.delivery_status().values()) >= 8, 60, "their bounces too")
        scraped_since(postel, time.time() + 1)
        assert latest_counts(postel, str(zone_mta.api_port)) == zone_mta.delivery_status()
        assert increase(postel) == len(zone_mta.sink.attempts())
        assert postel.query("SELECT count(DISTINCT started_at) FROM metrics_zonemta WHERE zone = 'default'") == [(2,)]
        assert postel.command("db", "check").returncode == 0


@pytest.mark.soak
def test_killed_under_load_it_falls_short_by_no_more_than_since_the_last_scrape(
    new_zone_mta: NewZoneMta, tmp_path: Path
) -> None:
    server = new_zone_mta(("default", "bulk"))
    server.sink.delay = 0.05
    with running(tmp_path, **settings(server)) as postel:
        until(lambda: last_scrape(postel), 60, "the first scrape")
        for _ in range(2):
            before = len(server.sink.attempts())
            server.send(60, "ok")
            server.send(20, "ok", zone="bulk")
            until(lambda: len(server.sink.attempts()) > before + 20, 60, "under load")  # noqa: B023 - used at once
            server.kill()
            # The last good scrape may still be on its way; the tick's time is at most one interval before its page.
            until(
                lambda: (
                    postel.query(f"SELECT now() - max(time) > '5 s' FROM metrics_zonemta WHERE {SCRAPED}") == [(True,)]
                ),
                60,
                "quiet",
            )
            server.start()
            server.wait_until_idle()
            scraped_since(postel, time.time() + 1)
        attempts = [attempt.at for attempt in server.sink.attempts()]
        counted = increase(postel)
        # Of each life: what the page said last, against what the sink saw in it. Zone-MTA counts an attempt when its
        # answer has come back and its sender has told the main process: what was in flight at the scrape is not in it.
        assert counted <= len(attempts)
        gaps = postel.query(
            "SELECT extract(epoch FROM max(time))::float8, extract(epoch FROM lead(min(time)) OVER w)::float8"
            " FROM metrics_zonemta WHERE started_at IS NOT NULL GROUP BY started_at WINDOW w AS (ORDER BY started_at)"
        )
        unseen = sum(
            1 for at in attempts for last, first in gaps if first is not None and last - IN_FLIGHT <= at < first
        )
        assert len(attempts) - counted <= unseen
        assert counted > 0


# By `make test` the agent is asked of each kind of wrong answer: tests/agent/test_agent.py.
@pytest.mark.soak
def test_a_zone_mta_that_answers_wrongly_is_down_and_nothing_else_is(zone_mta: ZoneMta, tmp_path: Path) -> None:
    wrong = {**settings(zone_mta), "POSTEL_DISCOVERY__ZONE_MTA_METRICS_PATH": "/zones"}
    up = (
        "SELECT value_int FROM otel_metric_point JOIN otel_series USING (series_id)"
        " WHERE metric = 'postel.receiver.up' AND attributes ->> 'postel.receiver.name' = %s ORDER BY time DESC LIMIT 1"
    )
    with running(tmp_path, **wrong, POSTEL_INTERVALS__SYSTEM_METRICS="1") as postel:
        until(lambda: postel.query(up, "zone_mta") == [(0,)], 60, "Zone-MTA's receiver is down")
        until(lambda: postel.query(up, "system") == [(1,)], 60, "the system's receiver is up")
        errors = postel.query(
            "SELECT max(value_int) FROM otel_metric_point JOIN otel_series USING (series_id)"
            " WHERE metric = 'postel.scrape.errors'"
        )
        assert errors[0][0] >= 1
        assert postel.query("SELECT count(*) FROM metrics_zonemta WHERE started_at IS NOT NULL") == [(0,)]
        # What its REST says of its queue is told all the same.
        until(lambda: newest(postel, "oldest_age") == 0, 60, "the queue is asked for")
