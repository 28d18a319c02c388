"""A real Rspamd under a whole Postel: what the database holds is what Rspamd says of the mail that it was given."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from testbed.fixtures import NewRspamd
from testbed.rspamd import GTUBE, PASSWORD, Rspamd, message

from postel.collector import find_collector
from support.requirements import require
from support.running_postel import RunningPostel, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BARE = "From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n"
ACTIONS = ("reject", "soft_reject", "rewrite_subject", "add_header", "greylist", "no_action")


@pytest.fixture(autouse=True)
def collector() -> None:
    require("collector", available=find_collector() is not None)


def last_asked(postel: RunningPostel) -> float:
    found = postel.query("SELECT extract(epoch FROM max(time))::float8 FROM metrics_rspamd")
    return float(found[0][0]) if found and found[0][0] else 0.0


def asked_since(postel: RunningPostel, moment: float) -> None:
    until(lambda: last_asked(postel) > moment, 60, "Rspamd was asked after now")


def newest(postel: RunningPostel) -> dict[str, Any]:
    columns = [*(f"{action}_total" for action in ACTIONS), "scanned_total", "learned_total"]
    (row,) = postel.query(f"SELECT {', '.join(columns)} FROM metrics_rspamd ORDER BY time DESC LIMIT 1")
    return {name.removesuffix("_total"): value for name, value in zip(columns, row, strict=True)}


def said(server: Rspamd) -> dict[str, Any]:
    stat = server.ask("/stat")
    actions = {name.replace(" ", "_"): value for name, value in stat["actions"].items()}
    return {**actions, "scanned": stat["scanned"], "learned": stat["learned"]}


def test_the_table_agrees_with_its_statistics_and_the_increase_with_the_mail(
    new_rspamd: NewRspamd, tmp_path: Path
) -> None:
    server = new_rspamd(trusts_loopback=False)
    for _ in range(7):
        server.scan(message("before Postel"))
    settings = {
        "POSTEL_DISCOVERY__RSPAMD_CONTROLLER_PORT": str(server.controller_port),
        "POSTEL_DISCOVERY__RSPAMD_PASSWORD": PASSWORD,
        "POSTEL_INTERVALS__RSPAMD_CONTROLLER": "1",
        "POSTEL_INTERVALS__SEND_METRICS": "1",
    }
    with running(tmp_path, **settings) as postel:
        until(lambda: last_asked(postel), 60, "the first asking")
        for text, count in ((message("hello"), 6), (message(GTUBE), 3), (BARE, 2)):
            for _ in range(count):
                server.scan(text, IP="192.0.2.1")
        asked_since(postel, time.time() + 1)
        assert newest(postel) == said(server)
        # In order it keeps what it has scanned, and nobody sees that it was away.
        server.stop()
        server.start()
        asked_since(postel, time.time() + 1)
        assert newest(postel) == said(server)
        columns = ", ".join(f"sum({action}_total)::int" for action in ("scanned", *ACTIONS))
        assert postel.query(f"SELECT {columns} FROM metrics_rspamd_increase") == [(11, 3, 0, 0, 0, 2, 6)]
        assert postel.query("SELECT count(DISTINCT started_at) FROM metrics_rspamd") == [(1,)]
        (duration,) = postel.query("SELECT max(scan_duration) FROM metrics_rspamd")
        assert 0 < duration[0] < 5

        # A rule's own hits are in the generic tables, once they can be told from every other's.
        for text in (BARE, message("hello").replace("Message-ID", "X-Message-ID")):
            server.scan(text, IP="192.0.2.1")
        hits = (
            "SELECT max(value_int)::int FROM otel_metric_point JOIN otel_series USING (series_id)"
            " WHERE metric = 'rspamd.symbol.hits' AND attributes ->> 'rspamd.symbol' = %s"
        )
        until(lambda: postel.query(hits, "MISSING_MID") == [(2,)], 60, "two messages without an id")
        assert postel.query(hits, "MISSING_TO") == [(1,)]
        scanned = "SELECT sum(scanned_total)::int FROM metrics_rspamd_increase"
        until(lambda: postel.query(scanned) == [(13,)], 30, "these two are counted on")
        names = "SELECT DISTINCT metric FROM otel_series WHERE metric LIKE 'rspamd.%%' ORDER BY metric"
        assert [row[0] for row in postel.query(names)] == [
            "rspamd.accepted.connections",
            "rspamd.memory.usage",
            "rspamd.symbol.hits",
            "rspamd.uptime",
        ]
        assert postel.command("db", "check").returncode == 0
