"""A `postel serve`, the headless Chromium that looks at it, and rows for both, inserted as the sink would."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
from psycopg import conninfo, sql
from psycopg.types.json import Jsonb
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from support import warm
from support.ports import free_port
from support.requirements import require
from support.running_postel import until
from tools.bootstrap.programs import Browser, find_browser

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--lang=en-GB",
)

# A chart's instance and the numbers that it was given: [series name, [[time, value], ...]].
_DATA = """
const element = document.querySelector(`[data-chart=${arguments[0]}] .nicegui-echart`);
if (!element) return null;
const chart = getElement(element.id.slice(1)).chart;
if (!chart) return null;
return chart.getOption().series.map((s) => [s.name, s.data.map((d) => d.value ?? d)]);
"""


@contextmanager
def serving(folder: Path, url: str, **variables: str) -> Iterator[str]:
    """`postel serve` on a free port, ended by SIGTERM and expected to say nothing wrong; the address of its page.

    It begins with its imports made, as :mod:`support.warm` has it.

    Args:
        folder: where it runs, and writes ``serve.log``.
        url: its database.
        variables: of its environment, beside those.
    """
    own, log = _environment(folder, url, variables), folder / "serve.log"
    with _until_ended(warm.start(["serve"], folder=folder, variables=own, log=log), own, log) as address:
        yield address


@contextmanager
def serving_as_a_program(folder: Path, url: str, **variables: str) -> Iterator[str]:
    """As :func:`serving`, begun as whoever types the command begins it."""
    own, log = _environment(folder, url, variables), folder / "serve.log"
    command = [sys.executable, "-m", "postel.cli", "serve"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, env=own, stdout=output, stderr=output)
    with _until_ended(process, own, log) as address:
        yield address


def _environment(folder: Path, url: str, variables: Mapping[str, str]) -> dict[str, str]:
    address = f"127.0.0.1:{free_port()}"
    return {"POSTEL_DATABASE__URL": url, "POSTEL_SERVE__ADDRESS": address, "HOME": str(folder), **variables}


@contextmanager
def _until_ended(process: subprocess.Popen[bytes] | warm.Forked, own: Mapping[str, str], log: Path) -> Iterator[str]:
    address = f"http://{own['POSTEL_SERVE__ADDRESS']}"
    try:
        # 401 where it asks for a token.
        until(lambda: status(f"{address}/healthz") in (200, 401), 20, "serve answers", pause=0.05)
        yield address
    except BaseException:
        sys.stderr.write(log.read_text("utf-8", "replace")[-10_000:])
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(15)
        finally:
            process.kill()
            process.wait(10)
    said = log.read_text("utf-8", "replace")
    assert code == 0, said[-5000:]
    assert "Traceback" not in said, said[-5000:]


def name_of(url: str) -> str:
    """The name of the database that a URL means."""
    return str(conninfo.conninfo_to_dict(url)["dbname"])


def answers(url: str) -> bool:
    """Whether an address answers 200 now."""
    return status(url) == 200


def status(url: str) -> int:
    """The status that an address answers now; 0 where nobody does."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def start_chromium(browser: Browser, folder: Path) -> webdriver.Chrome:
    """A headless Chromium with its own empty profile; whoever starts it quits it."""
    options = Options()
    options.binary_location = str(browser.program)
    for flag in (*_FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(str(browser.driver)))


@contextmanager
def chromium_in(folder: Path) -> Iterator[webdriver.Chrome]:
    """The one of this machine, which the test requires."""
    found = find_browser()
    require("chromium", available=found)
    assert found
    chrome = start_chromium(found, folder)
    try:
        yield chrome
    finally:
        chrome.quit()


def complaints(chrome: webdriver.Chrome) -> list[dict[str, Any]]:
    """What the browser logged as a warning or an error since this was last asked."""
    entries: list[dict[str, Any]] = chrome.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry for entry in entries if entry["level"] in ("SEVERE", "WARNING")]


def look(chrome: webdriver.Chrome, *, width: int = 1440, height: int = 1000, scheme: str = "light") -> None:
    """Give the window a size and the system's colour scheme."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def drawn(chrome: webdriver.Chrome, chart: str) -> dict[str, dict[int, float]]:
    """What a chart holds: name -> {epoch milliseconds: value} without gaps; {} before it is drawn."""
    series = chrome.execute_script(_DATA, chart) or []
    return {name: {int(at): value for at, value in points if value is not None} for name, points in series}


class Rows:
    """Inserts rows by hand: the page and the API must not need the sink that wrote them."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def node(self, id_: str, host: str, *, seen: float, demo: bool = False, sources: Sequence[str] = ()) -> None:
        """A node, last heard of at ``seen`` (epoch seconds)."""
        moment = datetime.fromtimestamp(seen, UTC)
        self._insert(
            "node",
            id=id_,
            host=host,
            first_seen=moment,
            last_seen=moment,
            sources=Jsonb(list(sources)),
            versions=Jsonb({}),
            demo=demo,
            attributes=Jsonb({}),
        )

    def system(self, time: float, node: str, *, started: float | None = None, **columns: float) -> None:
        """A row of `metrics_system`."""
        self._typed("metrics_system", time, started, node_id=node, instance=node, zone="", **columns)

    def zonemta(
        self,
        time: float,
        node: str,
        *,
        zone: str = "",
        instance: str = "",
        started: float | None = None,
        **columns: Any,
    ) -> None:
        """A row of `metrics_zonemta`."""
        instance = instance or f"{node}:12080"
        self._typed("metrics_zonemta", time, started, node_id=node, instance=instance, zone=zone, **columns)

    def event(
        self,
        table: str,
        time: float,
        number: int,
        name: str,
        *,
        node: str = "mx1",
        attributes: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> None:
        """A row of a table of events; its id is the number's UUID."""
        self._insert(
            table,
            time=datetime.fromtimestamp(time, UTC),
            event_id=UUID(int=number),
            node_id=node,
            instance=node,
            event_name=name,
            attributes=Jsonb(dict(attributes or {})),
            **columns,
        )

    def _typed(self, table: str, time: float, started: float | None, **columns: Any) -> None:
        begun = None if started is None else datetime.fromtimestamp(started, UTC)
        self._insert(table, time=datetime.fromtimestamp(time, UTC), started_at=begun, **columns)

    def _insert(self, table: str, **values: Any) -> None:
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        )
        self._connection.execute(statement, list(values.values()))
