"""Tokens of `[serve]`: nobody comes in without one, and who may look changes nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from postel.entry import COOKIE, Tokens
from postel.strangers import FORM_SECONDS, WRONG_SECONDS
from support.page import complaints, serving
from support.postgres import fresh_database
from support.running_postel import until

READ, ADMIN = "may-look", "may-change"
WRONG: Sequence[dict[str, str]] = (
    {},
    {"Authorization": "Bearer nonsense"},
    {"Authorization": f"Basic {READ}"},
    {"Cookie": f"{COOKIE}=a.b.c"},
)
TOKENS = {"POSTEL_SERVE__READ_TOKENS": json.dumps([READ]), "POSTEL_SERVE__ADMIN_TOKENS": json.dumps([ADMIN])}
SILENCE = {"ends": "2999-01-01T00:00:00Z", "author": "me", "reason": "a test"}


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[str]:
    with fresh_database(server, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO alert (rule, labels, state, severity, title, value, since, seen)"
                " VALUES ('queue-depth', %s, 'firing', 'warning', 'Many wait', 12345, now(), now())",
                (Jsonb({"queue": "q"}),),
            )
        yield url


@pytest.fixture(scope="module")
def page(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("serve")
    with serving(folder, database, **TOKENS) as address:
        yield address
    said = (folder / "serve.log").read_text("utf-8")
    assert READ not in said
    assert ADMIN not in said


@pytest.fixture
def client(page: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=page, timeout=20, trust_env=False) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("headers", WRONG)
def test_no_route_answers_without_a_token(client: httpx.Client, headers: dict[str, str]) -> None:
    document = client.get("/api/v1/openapi.json", headers=bearer(READ)).json()
    asked = [
        (method.upper(), re.sub(r"{\w+}", "019bc119-0100-7000-8000-0000000000aa", path))
        for path, methods in document["paths"].items()
        for method in methods
    ]
    assert len(asked) > 10
    asked += [("GET", path) for path in ("/", "/alerts", "/trace", "/runbooks/host-cpu", "/healthz", "/nonsense")]
    asked += [("GET", path) for path in ("/api/v1/openapi.json", "/api/nonsense", "/_nicegui/nonsense", "/favicon.ico")]
    asked += [("POST", "/_nicegui_ws/socket.io/"), ("TRACE", "/api/v1/nodes"), ("DELETE", "/")]

    def ask(said: tuple[str, str]) -> httpx.Response:
        return client.request(*said, headers=headers)

    # Side by side: a wrong token waits for its answer.
    with ThreadPoolExecutor(20) as threads:
        for said, answer in zip(asked, threads.map(ask, asked), strict=True):
            assert (*said, answer.status_code) == (*said, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "token" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1/live", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"])
def test_no_websocket_opens_without_a_token(page: str, path: str) -> None:
    address = page.replace("http", "ws") + path
    for headers in WRONG:
        with pytest.raises(InvalidStatus) as refused, connect(address, proxy=None, additional_headers=headers):
            pass
        assert refused.value.response.status_code == 401
    with connect(address, proxy=None, additional_headers=bearer(READ)):
        pass


def test_who_may_look_changes_nothing(client: httpx.Client) -> None:
    assert client.get("/api/v1/alerts", headers=bearer(READ)).status_code == 200
    refused = client.post("/api/v1/silences", json=SILENCE, headers=bearer(READ))
    assert (refused.status_code, refused.json()) == (403, {"detail": "this token may only read"})
    said = {"rule": "queue-depth", "labels": {"queue": "q"}, "author": "me"}
    assert client.post("/api/v1/alerts/acknowledge", json=said, headers=bearer(READ)).status_code == 403
    silence = client.post("/api/v1/silences", json=SILENCE, headers=bearer(ADMIN))
    assert silence.status_code == 201
    address = f"/api/v1/silences/{silence.json()['id']}"
    assert client.delete(address, headers=bearer(READ)).status_code == 403
    assert client.delete(address, headers=bearer(ADMIN)).status_code == 204


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("/alerts?state=firing", "/alerts?state=firing"),
        ("https://elsewhere.test/", "/"),
        ("//elsewhere.test", "/"),
        ("/\\elsewhere.test", "/"),
    ],
)
def test_a_token_is_given_once_to_the_form(client: httpx.Client, wanted: str, target: str) -> None:
    asked = client.get("/alerts?state=firing", headers={"Accept": "text/html"})
    assert asked.status_code == 401
    assert 'value="/alerts?state=firing"' in asked.text
    wrong = client.post("/login", data={"token": "nonsense", "next": '"><script>'})
    assert wrong.status_code == 401
    assert "<script>" not in wrong.text
    right = client.post("/login", data={"token": READ, "next": wanted})
    assert (right.status_code, right.headers["location"]) == (303, target)
    cookie = right.headers["set-cookie"]
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert READ not in cookie
    # The client keeps it.
    assert client.get("/api/v1/nodes").status_code == 200
    assert client.post("/api/v1/silences", json=SILENCE).status_code == 403
    client.get("/logout")
    assert client.get("/api/v1/nodes").status_code == 401


MOST = 60
HALF_A_FORM = b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\ntoken="


@contextmanager
def flood(page: str) -> Iterator[list[socket.socket]]:
    """Connections, more than the server takes, that begin a form and wait."""
    with ExitStack() as opened:
        sockets = []
        for _ in range(2 * MOST):
            host, port = page.removeprefix("http://").rstrip("/").split(":")
            sockets.append(opened.enter_context(socket.create_connection((host, int(port)))))
            sockets[-1].sendall(HALF_A_FORM)
        yield sockets


def test_who_is_known_gets_through_beside_a_flood_of_strangers(tmp_path: Path, database: str) -> None:
    """And so does who sends a whole form with a right token; all of a burst are there at once, so it may take a try."""

    def retried(method: str, address: str, **named: Any) -> int:
        for _ in range(20):
            with suppress(httpx.TransportError):
                answer = httpx.request(method, address, timeout=20, trust_env=False, **named)
                if answer.status_code != 503:
                    return answer.status_code
            time.sleep(0.1)
        return 503

    with serving(tmp_path, database, POSTEL_SERVE__CONNECTIONS=str(MOST), **TOKENS) as page, flood(page):
        assert retried("GET", f"{page}/api/v1/nodes", headers=bearer(READ)) == 200
        assert retried("POST", f"{page}/login", data={"token": READ}) == 303


def test_a_form_that_does_not_come_is_given_up(page: str) -> None:
    with flood(page) as sockets:
        began = time.monotonic()
        sockets[0].settimeout(FORM_SECONDS + 10)
        assert sockets[0].recv(4096).startswith(b"HTTP/1.1 503 ")
        assert time.monotonic() - began == pytest.approx(FORM_SECONDS, abs=3)


def test_a_wrong_token_costs_a_second_and_is_in_the_log(tmp_path: Path, database: str) -> None:
    def took(client: httpx.Client, headers: Mapping[str, str]) -> float:
        began = time.monotonic()
        assert client.get("/api/v1/nodes", headers=headers).status_code == 401
        return time.monotonic() - began

    with (
        serving(tmp_path, database, **TOKENS) as page,
        httpx.Client(base_url=page, timeout=20, trust_env=False) as client,
    ):
        took(client, {})
        assert took(client, bearer("nonsense")) >= WRONG_SECONDS
        assert took(client, bearer("more nonsense")) >= WRONG_SECONDS
        # Who shows none, such as a browser before its user signs in, has the form at once.
        assert took(client, {}) < WRONG_SECONDS
    lines = [line for line in (tmp_path / "serve.log").read_text("utf-8").splitlines() if "wrong tokens" in line]
    assert len(lines) == 1
    assert "sender=127.0.0.1" in lines[0]
    assert "nonsense" not in lines[0]


def test_a_session_ends_and_goes_with_its_tokens() -> None:
    now = 1000.0
    tokens = Tokens([READ], [ADMIN], clock=lambda: now)
    session = tokens.session("admin")
    assert tokens.access_of_session(session) == "admin"
    assert Tokens([READ], [ADMIN], clock=lambda: now).access_of_session(session) == "admin"
    assert Tokens([READ], ["another"], clock=lambda: now).access_of_session(session) is None
    assert Tokens([READ, ADMIN], [], clock=lambda: now).access_of_session(session) is None
    assert tokens.access_of_session(session.replace("1", "2", 1)) is None
    assert tokens.access_of_session(tokens.session("read").replace("read", "admin")) is None
    now += 8 * 86400
    assert tokens.access_of_session(session) is None


def test_it_is_open_to_others_with_tokens_alone(tmp_path: Path) -> None:
    environment = {"POSTEL_SERVE__ADDRESS": "0.0.0.0:3001", "POSTEL_DATA_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "postel.cli", "serve"],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert (
        "[serve] address 0.0.0.0:3001 is open to other hosts: set [serve] read_tokens or admin_tokens" in ended.stderr
    )


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


@pytest.mark.slow
def test_a_viewer_signs_in_and_has_the_buttons_of_the_token(browser: webdriver.Chrome, page: str) -> None:
    def sign_in(token: str) -> None:
        browser.get(f"{page}/alerts?state=open")
        until(lambda: browser.find_elements("css selector", "#token"), 20, "the form")
        browser.find_element("id", "token").send_keys(token, Keys.ENTER)
        until(lambda: texts(browser, "li.alert h3") == ["Many wait"], 20, "the alert")

    sign_in(READ)
    assert texts(browser, "li.alert .do") == ["Runbook"]
    browser.find_element("link text", "Sign out").click()
    until(lambda: browser.find_elements("css selector", "#token"), 20, "the form again")
    sign_in(ADMIN)
    assert browser.current_url.endswith("/alerts?state=open")
    until(lambda: "ACKNOWLEDGE" in texts(browser, "li.alert .do")[0].upper(), 20, "the buttons")
    # The browser logs that a page was answered with 401, and nothing else.
    assert all("401" in complaint["message"] for complaint in complaints(browser))
