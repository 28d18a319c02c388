"""Alerts of a running `postel serve`: told, silenced, acknowledged, evaluated by one process of several."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psycopg
import pytest

from support.page import serving
from support.running_postel import until
from support.silent_server import silent_server

RULES = """
rules:
  - name: too-many
    title: "{value} are too many in {place}"
    severity: critical
    labels: [place]
    above: 10
    for: 0
    keep: 0
    every: 0
    sql: SELECT place, value FROM measured
  - name: nonsense
    title: never
    severity: warning
    labels: []
    above: 0
    every: 0
    sql: SELECT no_such_column AS value FROM measured
"""


# More than from one evaluation to the next: who had something to tell twice, or to take over, would have.
TURN_S = 6


class Target(http.server.ThreadingHTTPServer):
    """A webhook that keeps what it is told; it refuses while `closed`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.told: list[dict[str, Any]] = []
        self.asked = 0
        self.closed = False

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.told]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Target
    timeout: ClassVar[float] = 10

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked += 1
        if not self.server.closed:
            self.server.told.append(body)
        self.send_response(500 if self.server.closed else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def measured(migrated_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE measured (place text PRIMARY KEY, value bigint)")
        connection.execute("INSERT INTO measured VALUES ('here', 1), ('there', 2)")
        yield connection


@pytest.fixture
def variables(tmp_path: Path, target: Target) -> dict[str, str]:
    (tmp_path / "rules.yaml").write_text(RULES)
    return {
        "POSTEL_ALERTS__RULES": str(tmp_path / "rules.yaml"),
        "POSTEL_ALERTS__NOTIFY": json.dumps([f"json://user:secret@127.0.0.1:{target.server_port}/hook"]),
        "POSTEL_ALERTS__PAGE": "https://postel.example.org",
    }


@pytest.fixture
def api(
    migrated_database: str, tmp_path: Path, measured: psycopg.Connection, variables: dict[str, str]
) -> Iterator[httpx.Client]:
    del measured
    with (
        serving(tmp_path, migrated_database, **variables) as address,
        httpx.Client(base_url=f"{address}/api/v1", timeout=20, trust_env=False) as client,
    ):
        yield client


def measure(connection: psycopg.Connection, **values: int) -> None:
    for place, value in values.items():
        connection.execute("UPDATE measured SET value = %s WHERE place = %s", (value, place))


def alerts(api: httpx.Client) -> dict[str, dict[str, Any]]:
    found = api.get("/alerts").json()["alerts"]
    return {alert["labels"]["place"]: alert for alert in found if alert["rule"] == "too-many"}


def test_what_is_wrong_is_told_together_and_so_is_that_it_is_over(
    api: httpx.Client, measured: psycopg.Connection, target: Target, tmp_path: Path
) -> None:
    measure(measured, here=11, there=1200)
    until(lambda: len(target.told) == 1, 30, "it is told")
    assert target.told[0]["title"] == "11 are too many in here and 1 more"
    assert "FIRING critical: 1,200 are too many in there" in target.told[0]["message"]
    assert "what to do: https://postel.example.org/runbooks/too-many" in target.told[0]["message"]
    assert "all alerts: https://postel.example.org/alerts" in target.told[0]["message"]
    here = alerts(api)["here"]
    assert (here["state"], here["severity"], here["title"]) == ("firing", "critical", "11 are too many in here")
    measure(measured, here=1)
    until(lambda: len(target.told) == 2, 30, "it is told that it is over")
    assert target.titles[1] == "Resolved: 11 are too many in here"
    assert {place: alert["state"] for place, alert in alerts(api).items()} == {"here": "resolved", "there": "firing"}
    changes = api.get("/alerts/changes").json()["changes"]
    assert (changes[0]["labels"]["place"], changes[0]["state"], len(changes)) == ("here", "resolved", 3)
    # Neither in the database nor in the log.
    assert "secret" not in (tmp_path / "serve.log").read_text("utf-8")
    rows = measured.execute("SELECT * FROM alert_notification").fetchall()
    assert len(rows) == 2
    assert "secret" not in str(rows)


def test_what_a_target_does_not_take_comes_again(
    api: httpx.Client, measured: psycopg.Connection, target: Target
) -> None:
    del api
    target.closed = True
    measure(measured, here=11)
    until(lambda: target.asked == 1, 30, "it was asked")
    target.closed = False
    # Half a minute, or the test would wait that long.
    until(lambda: measured.execute("SELECT 1 FROM alert_notification WHERE attempts = 1").fetchall(), 20, "it is noted")
    measured.execute("UPDATE alert_notification SET next_attempt = now()")
    until(lambda: target.titles == ["11 are too many in here"], 30, "it is told")


def test_a_target_that_hangs_holds_neither_evaluation_nor_others_up(
    migrated_database: str, tmp_path: Path, measured: psycopg.Connection, variables: dict[str, str], target: Target
) -> None:
    with silent_server() as silent:
        hanging = f"{silent.replace('http', 'json')}/?rto=60"
        targets = [hanging, *json.loads(variables["POSTEL_ALERTS__NOTIFY"])]
        with serving(tmp_path, migrated_database, **{**variables, "POSTEL_ALERTS__NOTIFY": json.dumps(targets)}):
            measure(measured, here=11)
            until(lambda: len(target.told) == 1, 30, "the other is told")
            measure(measured, there=12)
            begun = time.monotonic()
            until(lambda: measured.execute("SELECT FROM alert_change OFFSET 1").fetchall(), 30, "it is evaluated")
            assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("url", "said"), [("nonsense://user:secret@host", "of the scheme 'nonsense'"), ("secret", "without a scheme")]
)
def test_a_target_that_cannot_be_is_said_before_anything_runs(
    migrated_database: str, tmp_path: Path, url: str, said: str
) -> None:
    variables = {"POSTEL_DATABASE__URL": migrated_database, "POSTEL_ALERTS__NOTIFY": json.dumps([url])}
    command = [sys.executable, "-m", "postel.cli", "serve"]
    ended = subprocess.run(
        command, env=os.environ | variables, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert f"[alerts] notify: number 1 of the list, {said}, is no URL that apprise can use" in ended.stderr
    assert "secret" not in ended.stderr + ended.stdout


def test_what_is_silenced_is_told_when_the_silence_ends(
    api: httpx.Client, measured: psycopg.Connection, target: Target
) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    asked = {"labels": {"place": "here"}, "ends": ends, "author": "me", "reason": "maintenance"}
    silence = api.post("/silences", json=asked)
    assert silence.status_code == 201
    measure(measured, here=11, there=12)
    until(lambda: target.told, 30, "the other is told")
    assert target.titles == ["12 are too many in there"]
    assert alerts(api)["here"]["silenced"]
    assert [one["reason"] for one in api.get("/silences").json()["silences"]] == ["maintenance"]
    assert api.delete(f"/silences/{silence.json()['id']}").status_code == 204
    until(lambda: len(target.told) == 2, 30, "it is told")
    assert target.titles[1] == "11 are too many in here"
    assert api.delete(f"/silences/{silence.json()['id']}").status_code == 404
    assert api.get("/silences").json() == {"silences": []}


def test_what_was_acknowledged_is_not_told_again_until_it_fires_anew(
    api: httpx.Client, measured: psycopg.Connection, target: Target
) -> None:
    measure(measured, here=11, there=11)
    until(lambda: target.told, 30, "it is told")
    said = {"rule": "too-many", "labels": {"place": "here"}, "author": "me"}
    assert api.post("/alerts/acknowledge", json=said).status_code == 204
    measured.execute("UPDATE alert SET told_at = told_at - interval '4 hours'")
    until(lambda: len(target.told) == 2, 30, "the other is told again")
    assert target.titles[1] == "11 are too many in there"
    assert alerts(api)["here"]["acknowledged_by"] == "me"
    measure(measured, here=1)
    until(lambda: alerts(api)["here"]["state"] == "resolved", 20, "it is over")
    measure(measured, here=11)
    until(lambda: alerts(api)["here"]["state"] == "firing", 20, "it fires again")
    assert alerts(api)["here"]["acknowledged_by"] is None
    assert api.post("/alerts/acknowledge", json={**said, "rule": "other"}).status_code == 404


def test_one_process_evaluates_and_another_takes_over(
    migrated_database: str,
    tmp_path: Path,
    measured: psycopg.Connection,
    variables: dict[str, str],
    target: Target,
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()

    def evaluates(folder: Path) -> bool:
        return "this process evaluates the alert rules" in (folder / "serve.log").read_text("utf-8")

    with serving(folders[1], migrated_database, **variables):
        until(lambda: evaluates(folders[1]), 20, "one evaluates")
        with serving(folders[0], migrated_database, **variables):
            measure(measured, here=11)
            until(lambda: target.told, 30, "it is told")
            time.sleep(TURN_S)
            assert not evaluates(folders[0])
            assert len(target.told) == 1
            measured.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            until(lambda: evaluates(folders[0]), 20, "the other takes over")
            measure(measured, there=12)
            until(lambda: len(target.told) == 2, 30, "it is told once")
            time.sleep(TURN_S)
            assert target.titles[1] == "12 are too many in there"
            assert len(target.told) == 2


def test_a_rule_that_cannot_be_evaluated_is_an_alert_itself(api: httpx.Client) -> None:
    def broken() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = api.get("/alerts").json()["alerts"]
        return [alert for alert in found if alert["rule"] == "rule-broken"]

    until(broken, 30, "it is pending")
    assert broken()[0]["labels"] == {"rule": "nonsense"}
    assert "no_such_column" in broken()[0]["title"]


def test_a_silence_that_cannot_be_is_refused(api: httpx.Client) -> None:
    for asked in (
        {"ends": "2020-01-01T00:00:00Z", "author": "me", "reason": "x"},
        {"ends": "tomorrow", "author": "me", "reason": "x"},
        {"ends": "2999-01-01T00:00:00Z", "author": "", "reason": "x"},
        {"ends": "2999-01-01T00:00:00Z", "author": "me", "reason": "a\0b"},
        {},
    ):
        assert api.post("/silences", json=asked).status_code in (400, 422), asked
        assert api.get("/silences").json() == {"silences": []}
