"""docs/add-a-source.md, followed step by step: its files in a copy of the project, its commands, a real nginx."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from testbed.program import Program

from support.bootstrap import copy_project
from support.markdown import blocks, reading
from support.ports import free_port
from support.requirements import require
from support.sink import RunningSink, running_sink
from tools.bootstrap.programs import find_nginx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).parents[2]
PAGE = "docs/add-a-source.md"
MIGRATIONS = "timescale_sink/store/sql/migrations"

# Its folder, its migrations and their hashes, its tests, and what is made of all declarations.
OWN = re.compile(
    rf"otel_receivers/nginx/|{MIGRATIONS}/(\d{{4}}_nginx|SHA256SUMS$)|"
    r"tests/(recordings/nginx|agent/test_nginx)\.py$|docs/reference/"
)
CACHE = re.compile(r"(^|/)(\.\w+_cache|\.hypothesis|__pycache__)/")


FILES = [block for block in blocks(PAGE) if block.kind]
"""A block of a kind is the file of that path."""


def of(language: str) -> str:
    """The one block of this language that is no file."""
    (block,) = blocks(PAGE, language)
    return block.text


def test_no_block_is_left_out() -> None:
    with reading("docs/add-a-source.md") as page:
        for block in FILES:
            page.take(block.language, block.kind)
        for language in ("nginx", "sh"):
            page.take(language)


def run(*command: str | Path, project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def succeed(*command: str | Path, project: Path, **environment: str) -> str:
    done = run(*command, project=project, **environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which all files of the page are."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    # What mypy knows of the files that stay the same.
    if (CHECKOUT / ".mypy_cache").is_dir():
        shutil.copytree(CHECKOUT / ".mypy_cache", project / ".mypy_cache")
    taken = max(int(path.name[:4]) for path in (project / MIGRATIONS).glob("*.sql"))
    for block in FILES:
        path = block.kind.replace("NNNN", f"{taken + 1:04}").replace("MMMM", f"{taken + 2:04}")
        assert not (project / path).exists(), f"{path} is of the project already"
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(block.text)
    return project


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real nginx with the page's location; its port."""
    require("nginx", available=find_nginx())
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    places = "\n".join(
        f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder / 'nginx.pid'}; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {places}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 'webmail'; }}\n{of('nginx')} }} }}\n"
    )
    server = Program(
        "nginx", [str(find_nginx()), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"], folder / "nginx.log"
    )
    server.start(lambda: says(port))
    yield port
    server.stop()


def says(port: int) -> str:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/nginx_status", timeout=5).raise_for_status().text
    except httpx.TransportError:
        return ""


def test_its_commands_find_nothing_wrong_and_no_file_of_others_is_touched(project: Path) -> None:
    for line in of("sh").splitlines():
        name, *arguments = line.removeprefix(".venv/bin/").split()
        assert line.startswith(".venv/bin/")
        succeed(Path(sys.executable).parent / name, *arguments, project=project)
    touched = {
        str(path.relative_to(project))
        for path in project.rglob("*")
        if path.is_file() and not CACHE.search(str(path.relative_to(project))) and is_new(path, project)
    }
    assert "docs/reference/nginx.md" in touched
    assert {path for path in touched if not OWN.match(path)} == set()


def is_new(path: Path, project: Path) -> bool:
    original = CHECKOUT / path.relative_to(project)
    return not original.is_file() or original.read_bytes() != path.read_bytes()


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        (
            "receiver.py",
            "import otel_receivers.zone_mta.parse  # noqa",
            "Sources never import each other",
        ),
        ("parse.py", "import httpx  # noqa", "Parsers, epochs, encoding and mapping do no I/O"),
        ("receiver.py", "import timescale_sink.store  # noqa", "The agent and the sink never import each other"),
    ],
)
def test_the_walls_are_around_it_without_a_line(project: Path, file: str, line: str, broken: str) -> None:
    path = project / "otel_receivers" / "nginx" / file
    text = path.read_text()
    path.write_text(f"{text}\n{line}\n")
    try:
        done = run(Path(sys.executable).parent / "lint-imports", "--no-cache", project=project)
    finally:
        path.write_text(text)
    assert done.returncode == 1, done.stdout
    assert f"{broken} BROKEN" in " ".join(done.stdout.split())


def test_what_it_does_not_declare_it_cannot_say(project: Path) -> None:
    path = project / "otel_receivers" / "nginx" / "metadata.yaml"
    text = path.read_text()
    path.write_text(text.replace('unit: "{request}"', "unit: requests"))
    try:
        done = run(sys.executable, "-m", "postel.cli", "describe", project=project)
    finally:
        path.write_text(text)
    assert done.returncode == 2
    assert "otel_receivers/nginx/metadata.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_agent_asks_a_real_one_and_the_sink_stores_it(
    project: Path, nginx: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        httpx.get(f"http://127.0.0.1:{nginx}/", timeout=5)
    before = requests(nginx)
    printed = succeed(
        sys.executable,
        "-m",
        "postel.cli",
        "agent",
        "--once",
        project=project,
        POSTEL_DATA_DIR=str(tmp_path / "agent"),
        POSTEL_NODE__ID="node-1",
        POSTEL_DISCOVERY__TARGETS=json.dumps({"nginx": f"127.0.0.1:{nginx}"}),
    )
    after = requests(nginx)
    lines = [line for line in printed.splitlines() if '"postel.nginx"' in line]
    found = {metric["name"] for line in lines for metric in metrics(json.loads(line))}
    declared = set(re.findall(r"^  (nginx\.\S+):\n    description:.*\n    unit:", metadata(), re.MULTILINE))
    assert len(declared) == 4
    assert found == declared

    monkeypatch.setenv("PYTHONPATH", str(project))
    with running_sink(tmp_path, "") as sink:
        sink.start(seconds=60)
        for line in lines:
            answer = httpx.post(
                f"{sink.http}/v1/metrics", content=line, headers={"content-type": "application/json"}, timeout=30
            )
            assert (answer.status_code, answer.json()) == (200, {})
        (row,) = stored(sink, "SELECT requests_total, active_connections, instance, zone FROM metrics_nginx")
        assert before < row[0] < after
        assert row[1:] == (1, f"node-1:{nginx}", "")
        # A counter that is met for the first time has not risen yet.
        assert stored(sink, "SELECT requests_total FROM metrics_nginx_increase") == [(0,)]
        sink.end(signal.SIGTERM)


def metadata() -> str:
    (text,) = [block.text for block in FILES if block.kind.endswith("metadata.yaml")]
    return text


def requests(port: int) -> int:
    """What nginx itself says that it has answered."""
    return int(says(port).splitlines()[2].split()[2])


def metrics(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request["resourceMetrics"]:
        for scope in resource["scopeMetrics"]:
            if scope["scope"]["name"] == "postel.nginx":
                yield from scope["metrics"]


def stored(sink: RunningSink, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(sink.command("db", "url").stdout.strip(), autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()
