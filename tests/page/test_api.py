"""The API of a running `postel serve` on a migrated database: what is stored is what is answered."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.page import Rows, serving
from support.ports import free_port

T0 = 1_790_000_010  # a multiple of 30
NODE = "4f1c"


@pytest.fixture
def api(page: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{page}/api/v1", timeout=20, trust_env=False) as client:
        yield client


def ask(api: httpx.Client, table: str, *columns: str, **parameters: Any) -> dict[str, Any]:
    asked = {"table": table, "column": columns, "from": T0, "to": T0 + 120, **parameters}
    answer = api.get("/series", params=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_health_and_nodes(api: httpx.Client, rows: Rows) -> None:
    rows.node(NODE, "mx1.example.org", seen=time.time() - 40, sources=["system", "zone_mta"])
    rows.node("demo", "mail.demo.test", seen=time.time(), demo=True)
    assert api.get("/healthz").json() == {"status": "ok", "replica": False, "age": None}
    nodes = api.get("/nodes").json()["nodes"]
    assert [(node["id"], node["host"], node["demo"]) for node in nodes] == [
        (NODE, "mx1.example.org", False),
        ("demo", "mail.demo.test", True),
    ]
    assert 39 < nodes[0]["age"] < 60
    assert nodes[0]["sources"] == ["system", "zone_mta"]


def test_gauges_come_as_they_were_stored_and_gaps_are_null(api: httpx.Client, rows: Rows) -> None:
    for tick, value in ((0, 10.5), (15, 20.25), (60, 30.0)):
        rows.system(T0 + tick, NODE, cpu_load=value)
    rows.system(T0 + 75, NODE, load_1m=0.5)
    rows.system(T0, "other", cpu_load=99)
    told = ask(api, "metrics_system", "cpu_load", node=NODE)
    assert told["step"] == 15
    assert told["times"] == [T0 + 15 * step for step in range(8)]
    assert told["units"] == {"cpu_load": "%"}
    (series,) = told["series"]
    assert series["values"] == [10.5, 20.25, None, None, 30.0, None, None, None]
    assert (series["node"], series["instance"], series["zone"], series["queue"]) == (NODE, NODE, "", "")


def test_a_longer_step_gives_the_mean(api: httpx.Client, rows: Rows) -> None:
    for tick, value in ((0, 10), (15, 20), (60, 30)):
        rows.system(T0 + tick, NODE, cpu_load=value)
    (series,) = ask(api, "metrics_system", "cpu_load", step=30)["series"]
    assert series["values"] == [15, None, 30, None]


def test_columns_of_one_kind_come_together(api: httpx.Client, rows: Rows) -> None:
    rows.system(T0, NODE, cpu_load=1, load_1m=2)
    told = ask(api, "metrics_system", "cpu_load", "load_1m")
    assert {series["column"]: series["values"][0] for series in told["series"]} == {"cpu_load": 1, "load_1m": 2}


def test_counters_come_as_increase_across_a_restart_or_as_rate(api: httpx.Client, rows: Rows) -> None:
    for tick, began, value in ((0, 0, 100), (30, 0, 160), (60, 50, 12), (90, 50, 42)):
        rows.zonemta(T0 + tick, NODE, zone="a", started=T0 + began - 10, delivered_total=value)
    (increase,) = ask(api, "metrics_zonemta", "delivered_total", reading="increase")["series"]
    # An epoch's first point counts in full: its counter began at nothing when the epoch did.
    assert increase["values"] == [100, 60, 12, 30]
    told = ask(api, "metrics_zonemta", "delivered_total")
    assert told["units"] == {"delivered_total": "{attempt}/s"}
    assert told["series"][0]["values"][1] == 2
    assert told["series"][0]["values"][3] == 1


def test_a_rate_over_a_gap_is_the_mean_of_the_gap(api: httpx.Client, rows: Rows) -> None:
    for tick, value in ((0, 0), (90, 180)):
        rows.zonemta(T0 + tick, NODE, zone="a", started=T0, delivered_total=value)
    (series,) = ask(api, "metrics_zonemta", "delivered_total")["series"]
    assert series["values"][1:] == [None, None, 2]


def test_a_row_that_counts_nothing_of_it_makes_no_gap_shorter(api: httpx.Client, rows: Rows) -> None:
    for tick, value in ((0, 0), (90, 180)):
        rows.zonemta(T0 + tick, NODE, zone="a", started=T0, delivered_total=value)
    for tick in (30, 60):
        # Zone-MTA's queue was asked for by its REST while its page did not come.
        rows.zonemta(T0 + tick, NODE, zone="a", queue_size=7)
    (series,) = ask(api, "metrics_zonemta", "delivered_total")["series"]
    assert series["values"][1:] == [None, None, 2]


def test_the_first_rate_of_a_range_counts_from_the_row_before_it(api: httpx.Client, rows: Rows) -> None:
    for tick, value in ((-330, 0), (0, 660), (30, 690)):
        rows.zonemta(T0 + tick, NODE, zone="a", started=T0 - 330, delivered_total=value)
    (series,) = ask(api, "metrics_zonemta", "delivered_total")["series"]
    assert series["values"][:2] == [2, 1]


def test_a_zone_that_appears_has_a_rate_and_an_instance_that_appears_has_none_yet(
    api: httpx.Client, rows: Rows
) -> None:
    rows.zonemta(T0, NODE, zone="a", started=T0 - 9000, delivered_total=900)
    rows.zonemta(T0 + 30, NODE, zone="a", started=T0 - 9000, delivered_total=900)
    rows.zonemta(T0 + 30, NODE, zone="b", started=T0 - 9000, delivered_total=60)
    told = ask(api, "metrics_zonemta", "delivered_total")["series"]
    assert {series["zone"]: series["values"][:2] for series in told} == {"a": [None, 0], "b": [None, 2]}


def test_a_queue_that_instances_share_has_one_value(api: httpx.Client, rows: Rows) -> None:
    for node, size in (("n1", 70), ("n2", 71)):
        rows.zonemta(T0, node, queue_size=size, queue_id="shared")
    rows.zonemta(T0, "n3", queue_size=5, queue_id="n3:12080")
    rows.zonemta(T0, "n3", zone="a", delivered_total=5, queue_id="n3:12080")
    told = ask(api, "metrics_zonemta", "queue_size")
    assert [(series["queue"], series["values"][0]) for series in told["series"]] == [("n3:12080", 5), ("shared", 71)]


def test_filters_by_zone_and_the_whole_is_a_zone_of_its_own(api: httpx.Client, rows: Rows) -> None:
    for zone, value in (("", 100), ("a", 1), ("b", 2)):
        rows.zonemta(T0, NODE, zone=zone, started=T0 - 5, delivered_total=value)
    every = ask(api, "metrics_zonemta", "delivered_total", reading="increase")["series"]
    assert {series["zone"]: series["values"][0] for series in every} == {"": 100, "a": 1, "b": 2}
    (whole,) = ask(api, "metrics_zonemta", "delivered_total", zone="", reading="increase")["series"]
    assert whole["values"][0] == 100


REFUSED: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"table": "pg_authid"}, 400, "no typed table"),
    ({"column": "time; DROP TABLE node"}, 400, "has no column"),
    ({"column": ["cpu_load", "network_in"]}, 400, "gauges and for counters apart"),
    ({"from": T0, "to": T0 - 60}, 400, "before"),
    ({"from": 0, "to": T0, "step": 15}, 400, "too short for this range"),
    ({"from": "2026-09-21T00:00:00"}, 422, "timezone"),
    ({"from": "yesterday"}, 422, "datetime"),
    ({"step": 0}, 422, "greater than or equal to 1"),
    ({"reading": "sum"}, 422, "rate"),
    ({"node": "a\0b"}, 400, "node"),
    ({"column": []}, 422, "required"),
)


def test_what_cannot_be_asked_is_refused_with_a_reason(api: httpx.Client) -> None:
    for parameters, status, reason in REFUSED:
        answer = api.get("/series", params={"table": "metrics_system", "column": "cpu_load", **parameters})
        assert answer.status_code == status, (parameters, answer.text)
        assert reason in answer.text, (parameters, answer.text)


# What a text, a number or a time may be in an address, and is not.
ODD = ("", "\0", "a\0b", "9" * 5000, "-" + "9" * 5000, "-1", "1e400", "nan", "-inf", "٩٠٠", "'", "%s", "x" * 9000)
EDGES = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "253402300800", "-62135596801", str(2**63))


@pytest.mark.parametrize("name", ["table", "column", "node", "instance", "zone", "from", "to", "step", "reading"])
def test_no_parameter_brings_the_api_down(api: httpx.Client, rows: Rows, name: str) -> None:
    rows.zonemta(T0, NODE, queue_size=1, queue_id="q")
    for table, column in (("metrics_system", "cpu_load"), ("metrics_zonemta", "queue_size")):
        for value in (*ODD, *EDGES):
            # A step of a year lets the edges of time through to the database.
            for step in (15, 31_622_400):
                asked: dict[str, Any] = {"table": table, "column": column, "from": T0, "to": T0 + 120, "step": step}
                answer = api.get("/series", params={**asked, name: value})
                assert answer.status_code in (200, 400, 422), (value[:40], answer.text[:500])


def test_no_parameter_brings_the_page_down(page: str) -> None:
    with httpx.Client(base_url=page, timeout=20, trust_env=False) as client:
        for name in ("node", "range", "client_id"):
            for value in ODD:
                assert client.get("/", params={name: value}).status_code == 200, (name, value[:40])


def test_what_is_not_there_is_said_in_json(api: httpx.Client) -> None:
    assert (api.get("/nope").status_code, api.get("/nope").json()) == (404, {"detail": "no such resource"})
    assert (api.post("/nodes").status_code, api.post("/nodes").json()) == (405, {"detail": "POST is not answered here"})


def test_foreign_names_and_origins_are_refused(api: httpx.Client) -> None:
    assert api.get("/nodes", headers={"host": "rebound.example.com"}).status_code == 400
    assert api.get("/nodes", headers={"origin": "http://evil.example.com"}).status_code == 403
    assert api.get("/nodes", headers={"origin": str(api.base_url.copy_with(path="/")).rstrip("/")}).status_code == 200
    for origin in ("null", "", "http://[", "http://[::1"):
        assert api.get("/nodes", headers={"origin": origin}).status_code == 403
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "origin": "http://evil.example.com",
    }
    root = api.base_url.copy_with(path="/_nicegui_ws/socket.io/", query=b"EIO=4&transport=websocket")
    assert api.get(root, headers=upgrade).status_code == 403


def test_the_api_describes_itself_without_scripts_from_elsewhere(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    assert set(document["paths"]) == {
        f"/api/v1/{path}"
        for path in (
            "healthz",
            "nodes",
            "series",
            "events",
            "events/export",
            "trace/{id}",
            "top",
            "top/export",
            "deliverability",
            "deliverability/export",
            "alerts",
            "alerts/acknowledge",
            "alerts/changes",
            "silences",
            "silences/{id}",
        )
    }
    assert "unpkg" not in api.get("/docs").text
    assert "jsdelivr" not in api.get("/docs").text


def test_without_a_database_the_api_says_so(tmp_path: Path) -> None:
    nobody = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    with serving(tmp_path, nobody) as address:
        answer = httpx.get(f"{address}/api/v1/nodes", timeout=20, trust_env=False)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "does not answer" in answer.json()["detail"]
        page = httpx.get(f"{address}/", timeout=20, trust_env=False)
        assert page.status_code == 200
        assert "Asking the database ..." in page.text


def test_a_port_in_use_names_its_setting(database: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "postel.cli", "serve"],
            cwd=tmp_path,
            env={"POSTEL_DATABASE__URL": database, "POSTEL_SERVE__ADDRESS": address, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert f"{address} is in use" in done.stderr
    assert "[serve] address" in done.stderr


def test_it_serves_within_three_seconds_and_leaves_cleanly(database: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with serving(tmp_path, database) as address:
        assert httpx.get(f"{address}/", timeout=20, trust_env=False).status_code == 200
        took = time.monotonic() - begun
    said = (tmp_path / "serve.log").read_text()
    assert f"the page is at {address}/" in said
    # 1.5 s on a quiet machine of 2 cores; the rest is for neighbours.
    assert took < 6, f"{took:.1f} s"
    assert signal.SIGTERM.name not in said
