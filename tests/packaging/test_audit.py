"""`make audit`: what it asks about, and what it makes of each answer of a server that speaks as OSV does.

OSV itself is asked by no test: they run where nothing of the internet is reached.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.markdown import CHECKOUT
from support.ports import free_port
from tools import audit

FAULT = "GHSA-0000-0000-0001"
RECORD = {"id": FAULT, "aliases": ["CVE-2026-0001"], "summary": "It lets anybody in"}


class Osv(ThreadingHTTPServer):
    """Knows a fault of one package.

    Args:
        package: its name.
        record: of the fault.
    """

    def __init__(self, package: str | None = None, record: dict[str, Any] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.package = package
        self.record = record or RECORD
        self.asked: list[dict[str, Any]] = []
        # In place of all that; status and text.
        self.instead: tuple[int, str] | None = None
        self.pages = 1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def results(self, queries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.asked += queries
        return [self._result(query) for query in queries]

    def _result(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["package"]["name"] != self.package:
            return {}
        page = int(query.get("page_token", "1"))
        if page < self.pages:
            return {"next_page_token": str(page + 1)}
        return {"vulns": [{"id": self.record["id"], "modified": "2026-01-01T00:00:00Z"}]}


class Asked(BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/v1/querybatch"
        self._answer({"results": self.server.results(asked["queries"])})

    def do_GET(self) -> None:
        assert self.path == f"/v1/vulns/{self.server.record['id']}"
        self._answer(self.server.record)

    def _answer(self, answer: object) -> None:
        status, text = self.server.instead or (200, json.dumps(answer))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def osv(package: str | None = None, record: dict[str, Any] | None = None) -> Iterator[Osv]:
    with Osv(package, record) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_all_that_is_locked_is_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    with osv() as server:
        assert audit.main(["--url", server.url]) == 0
    asked = {(query["package"]["ecosystem"], query["package"]["name"], query["version"]) for query in server.asked}
    assert f"audit: no known fault in {len(asked)} packages\n" in capsys.readouterr().out
    for file in (CHECKOUT / "requirements").glob("*.txt"):
        # Each has a line of hashes.
        pinned = re.findall(r"^([^\s#=]+)==(\S+).*\\$", file.read_text("utf-8"), re.MULTILINE)
        assert pinned
        assert {("PyPI", re.sub(r"\[.*", "", name), version.rstrip(";")) for name, version in pinned} <= asked
    # The plugins need none of others.
    assert {name for ecosystem, name, _ in asked if ecosystem == "npm"} == set()


def test_packages_of_npm_are_those_of_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mail_plugins").mkdir()
    shutil.copy(CHECKOUT / "tests/testbed/npm/haraka-3.3/package-lock.json", tmp_path / "mail_plugins")
    monkeypatch.setattr(audit, "CHECKOUT", tmp_path)
    found = {package.name: package for package in audit._of_npm()}
    assert found["Haraka"].query["version"].startswith("3.3.")
    assert len([name for name in found if name.startswith("@")]) > 0
    assert all(re.match(r"\d", package.version) and package.ecosystem == "npm" for package in found.values())


GO_VERSION_M = """/checkout/postel-otelcol: go1.26.8
\tpath\tgo.opentelemetry.io/collector/cmd/builder
\tmod\tgo.opentelemetry.io/collector/cmd/builder\t(devel)\t
\tdep\tgithub.com/golang/snappy\tv1.0.0\th1:aaaa=
\tdep\tgithub.com/old/name\tv1.2.3
\t=>\tgithub.com/new/name\tv1.2.4-0.20260101000000-0123456789ab\th1:bbbb=
\tdep\tpostel.test/collector/extensions\tv0.0.0
\t=>\t../extensions\t(devel)\t
\tbuild\t-ldflags="-s -w"
"""


def test_modules_are_those_that_are_linked() -> None:
    assert [(package.name, package.version) for package in audit.modules(GO_VERSION_M)] == [
        ("stdlib", "1.26.8"),
        ("github.com/golang/snappy", "1.0.0"),
        ("github.com/new/name", "1.2.4-0.20260101000000-0123456789ab"),
    ]


@pytest.mark.parametrize("pages", [1, 3])
def test_a_known_fault_fails_it(capsys: pytest.CaptureFixture[str], pages: int) -> None:
    with osv("click") as server:
        server.pages = pages
        assert audit.main(["--url", server.url]) == 1
    said = capsys.readouterr().out
    assert re.search(
        rf"^audit: requirements/runtime\.txt: click \S+: CVE-2026-0001, {FAULT}: It lets anybody in$",
        said,
        re.MULTILINE,
    )
    assert "audit: 1 known faults" in said


def test_one_that_was_withdrawn_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    with osv("click", {**RECORD, "withdrawn": "2026-02-01T00:00:00Z"}) as server:
        assert audit.main(["--url", server.url]) == 0
    assert "no known fault" in capsys.readouterr().out


@pytest.mark.parametrize(("until", "code"), [("2999-01-01", 0), ("2020-01-01", 1)])
def test_one_that_is_accepted_does_not_until_its_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: str, code: int
) -> None:
    # By the id that people know, not OSV's own; in the form that the file itself gives.
    text = (CHECKOUT / "requirements" / "accepted.toml").read_text("utf-8")
    text = text.replace("# [", "[").replace("# reason", "reason").replace("# until = 2027-01-31", f"until = {until}")
    (tmp_path / "accepted.toml").write_text(text.replace("GHSA-0000-0000-0000", "CVE-2026-0001"))
    monkeypatch.setattr(audit, "_ACCEPTED", tmp_path / "accepted.toml")
    with osv("click") as server:
        assert audit.main(["--url", server.url]) == code


@pytest.mark.parametrize("instead", [(503, "{}"), (403, "no"), (200, "<html>"), (200, "[]"), (200, "{}"), None])
def test_where_nobody_can_be_asked_it_says_so_and_fails_if_it_must(
    capsys: pytest.CaptureFixture[str], instead: tuple[int, str] | None
) -> None:
    """Away, out of order, or a proxy that answers in its place."""
    with osv("click") as server:
        server.instead = instead
        url = server.url if instead else f"http://127.0.0.1:{free_port()}"
        assert audit.main(["--url", url]) == 0
        said = capsys.readouterr().out
        assert f"audit: COULD NOT ASK {url} (" in said
        assert "no known fault" not in said
        assert audit.main(["--url", url, "--required"]) == 3


def test_a_question_that_is_wrong_fails_it() -> None:
    with osv() as server:
        server.instead = (400, '{"code": 3, "message": "Invalid query."}')
        assert audit.main(["--url", server.url]) == 2


@pytest.mark.parametrize(("audited", "tested", "code"), [(0, 0, 0), (2, 0, 2), (0, 1, 1), (2, 1, 1)])
def test_continuous_integration_asks_and_tests_whatever_the_other_says(
    tmp_path: Path, audited: int, tested: int, code: int
) -> None:
    """With a `make` that only says what it is told."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci" / "run", tmp_path / ".ci")
    make = tmp_path / "make"
    make.write_text(f'#!/bin/sh\necho "$1"\n[ "$1" = audit ] && exit {audited}\nexit {tested}\n')
    make.chmod(0o755)
    ended = subprocess.run(
        [tmp_path / ".ci" / "run"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == ("audit\ntest\n", code)
