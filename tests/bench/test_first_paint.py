"""How long a browser that has nothing of the page waits for the overview's first paint: `make bench`.

`POSTEL_YEAR_DATABASE` names a database on the server with TimescaleDB that `test_year` filled and kept; without it the
demo's day is asked. Measured by Chromium (first-contentful-paint), with an empty cache, over each range of the page;
the server has answered somebody before.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from selenium import webdriver

from dashboards.web.ranged import RANGES
from support.demo_rows import fill
from support.page import answers, chromium_in, complaints, look, serving
from support.postgres import fresh_database, migrate_now, named
from support.running_postel import until

BOUND_MS = 1000
TIMES = 5
PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
# The overview has something to say once a chart is there or it is said why none is.
TOLD = """
return [...document.querySelectorAll(".card canvas")].length
  || [...document.querySelectorAll(".empty.panel")].some((element) => element.offsetHeight);
"""

pytestmark = [pytest.mark.bench, pytest.mark.timeout(0)]


@pytest.fixture
def year(timescale: str) -> Iterator[str]:
    """The URL of what is asked."""
    if name := os.environ.get("POSTEL_YEAR_DATABASE"):
        yield named(timescale, name)
        return
    with fresh_database(timescale) as url:
        migrate_now(url)
        asyncio.run(fill(url, datetime.now(UTC)))
        yield url


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with chromium_in(tmp_path / "chromium") as chrome:
        chrome.execute_cdp_cmd("Network.enable", {})
        chrome.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
        look(chrome)
        yield chrome


def test_the_overview_paints_within_a_second(
    year: str, chromium: webdriver.Chrome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painted: dict[str, list[float]] = {}
    lines = []
    with serving(tmp_path, year) as address:
        until(lambda: answers(f"{address}/api/v1/healthz"), 30, "the database is open")
        chromium.get(address)
        until(lambda: chromium.execute_script(TOLD), 30, "it was looked at before")
        for seconds, told in RANGES.items():
            taken, filled, charts = [], [], 0
            for _ in range(TIMES):
                begun = time.monotonic()
                chromium.get(f"{address}/?range={seconds}")
                taken.append(until(lambda: chromium.execute_script(PAINT), 10, "the first paint"))
                charts = until(lambda: chromium.execute_script(TOLD), 30, "a chart, or why there is none")
                filled.append(1000 * (time.monotonic() - begun))
                # What the page still asks for would be given up.
                time.sleep(1)
            painted[told] = sorted(taken)
            lines.append(
                f"{told}: {painted[told][TIMES // 2]:.0f} / {max(taken):.0f}; {sorted(filled)[TIMES // 2]:.0f}, "
                f"{int(charts)} charts"
            )
        wrong = complaints(chromium)
        chromium.get("about:blank")
    with capsys.disabled():
        heads = "ms to the first paint, median / longest; to the first chart; how many charts:"
        print("", heads, *lines, sep="\n")  # noqa: T201 - the figures
    assert wrong == []
    assert {told: times for told, times in painted.items() if times[-1] >= BOUND_MS} == {}
