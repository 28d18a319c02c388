"""The live page in a real Chromium: what is stored is what is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from selenium import webdriver

from support.page import Rows, answers, drawn, look, name_of, serving_as_a_program
from support.running_postel import until

pytestmark = [pytest.mark.slow]

NODE = "4f1c2a7e"
PIXELS = """
const canvas = document.querySelector(`[data-chart=${arguments[0]}] canvas`);
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
let drawn = 0;
for (let i = 3; i < pixels.length; i += 4) drawn += pixels[i] > 0;
return drawn;
"""


def last_tick(interval: int) -> int:
    return int(time.time()) // interval * interval - interval


def fill(
    rows: Rows, node: str = NODE, host: str = "mx1.example.org", *, demo: bool = False, times: int = 1
) -> dict[str, dict[int, float]]:
    """Ten minutes of a host and of Zone-MTA with a gap; what each column was given, by epoch milliseconds.

    Queue, attempts and network are as many times what they are in a small one.
    """
    given: dict[str, dict[int, float]] = {}
    rows.node(node, host, seen=time.time() - 5, demo=demo, sources=["system", "zone_mta"])
    begin = last_tick(30) - 600
    for index in range(41):
        moment = begin + 15 * index
        if 20 <= index < 24:
            continue
        values = {
            "cpu_load": 20 + index / 2,
            "memory_percent": 41.5,
            "disk_percent": 61.25,
            "network_in": 10**9 + 15_000 * index * times,
            "network_out": 10**9 + 30_000 * index * times,
            "load_1m": 0.5 + index / 100,
            "process_count": 200,
        }
        rows.system(moment, node, started=begin, **values)
        for column, value in values.items():
            given.setdefault(column, {})[1000 * moment] = value
        if index % 2 == 0:
            waiting, deferred = index * times, (100 - index) * times
            rows.zonemta(moment, node, queue_size=waiting, deferred_size=deferred, queue_id=f"{node}:12080")
            for zone in ("bulk", "default"):
                rows.zonemta(
                    moment,
                    node,
                    zone=zone,
                    started=begin,
                    delivered_total=60 * index * times,
                    deferred_total=2 * index * times,
                    rejected_total=index * times,
                )
            given.setdefault("queue_size", {})[1000 * moment] = waiting
    return given


def drawing(browser: webdriver.Chrome, chart: str) -> dict[str, dict[int, float]]:
    return until(lambda: drawn(browser, chart), 15, f"{chart} is drawn")


def text(browser: webdriver.Chrome) -> str:
    shown: str = browser.execute_script("return document.body.innerText")
    return shown


def test_charts_hold_what_is_stored(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    given = fill(rows)
    browser.get(page)
    assert drawing(browser, "cpu") == {"busy": pytest.approx(given["cpu_load"])}
    assert drawing(browser, "disk") == {"used": pytest.approx(given["disk_percent"])}
    assert drawing(browser, "queue")["queued"] == pytest.approx(given["queue_size"])
    network = drawing(browser, "network")
    assert set(network["in"].values()) == {1000}
    assert set(network["out"].values()) == {2000}
    outcomes = drawing(browser, "attempts")
    # Two zones with 120 deliveries each in 30 s.
    assert list(outcomes["delivered"].values())[1] == pytest.approx(480)
    assert list(outcomes["deferred"].values())[1] == pytest.approx(16)
    assert sorted(drawing(browser, "zones")) == ["bulk", "default"]
    for chart in ("queue", "attempts", "zones", "cpu", "memory", "disk", "network", "load", "processes"):
        assert browser.execute_script(PIXELS, chart) > 500, chart
    shown = text(browser)
    assert "mx1.example.org" in shown
    assert "40 %" in shown  # the newest CPU value, in the card's head
    assert "ago" in shown
    assert "Europe/Berlin" in shown
    assert "DEMO" not in shown


def test_an_agent_that_asks_less_often_makes_lines_and_no_dots(
    browser: webdriver.Chrome, page: str, rows: Rows
) -> None:
    rows.node(NODE, "mx1.example.org", seen=time.time())
    newest = last_tick(60)
    for index in range(10):
        rows.system(newest - 60 * index, NODE, cpu_load=index)
    browser.get(page)
    times = sorted(drawing(browser, "cpu")["busy"])
    assert [after - before for before, after in pairwise(times)] == [60_000] * 9


def test_new_rows_appear_without_reload(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    given = fill(rows)
    browser.get(page)
    assert len(drawing(browser, "cpu")["busy"]) == len(given["cpu_load"])
    browser.execute_script("window.notReloaded = true")
    moment = int(time.time()) // 15 * 15
    rows.system(moment, NODE, cpu_load=77.25)
    until(lambda: drawn(browser, "cpu")["busy"].get(1000 * moment) == 77.25, 15, "the new value is drawn")
    assert "77.2 %" in text(browser)
    assert browser.execute_script("return window.notReloaded")


def test_an_empty_page_says_what_to_do_and_fills_by_itself(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    browser.get(page)
    until(lambda: "No data yet: is the agent running? `postel doctor` tells" in text(browser), 10, "the hint")
    assert "CPU" not in text(browser)
    rows.node(NODE, "mx1.example.org", seen=time.time())
    rows.system(last_tick(15), NODE, cpu_load=50)
    assert list(drawing(browser, "cpu")["busy"].values()) == [50]
    assert "No data yet" not in text(browser)
    assert "No Zone-MTA figures in this time. `postel doctor` tells" in text(browser)


def test_demo_data_and_silent_nodes_are_marked(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    fill(rows, "demo", "mail.demo.test", demo=True)
    rows.node("old", "gone.example.org", seen=time.time() - 7300)
    browser.get(page)
    until(lambda: "DEMO" in text(browser), 10, "the mark")
    assert "silent, last heard of 2 h ago" in text(browser)
    drawing(browser, "queue")
    marks = browser.execute_script("return [...document.querySelectorAll('.card .demo')].map((e) => e.innerText)")
    assert marks == ["DEMO"] * 9


def test_one_of_several_nodes_can_be_chosen_and_linked(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    fill(rows)
    fill(rows, "9a0b", "mx2.example.org")
    browser.get(page)
    assert sorted(drawing(browser, "cpu")) == ["mx1", "mx2"]
    browser.get(f"{page}/?node=9a0b&range=3600")
    assert sorted(drawing(browser, "cpu")) == ["busy"]
    assert chosen_range(browser) == "1 h"
    browser.execute_script(
        "[...document.querySelectorAll('.bar .q-btn')].find((b) => b.innerText.trim() === '6 h').click()"
    )
    until(lambda: "range=21600" in browser.current_url, 10, "the address names the range")
    assert "node=9a0b" in browser.current_url


@pytest.mark.parametrize("range_", ["0900", "9" * 5000, "\0"])
def test_an_unknown_range_or_node_falls_back(browser: webdriver.Chrome, page: str, rows: Rows, range_: str) -> None:
    fill(rows)
    browser.get(f"{page}/?node={quote('a' + range_)}&range={quote(range_)}")
    assert sorted(drawing(browser, "cpu")) == ["busy"]
    assert chosen_range(browser) == "15 min"


def chosen_range(browser: webdriver.Chrome) -> str:
    label: str = browser.execute_script("return document.querySelector('.bar [aria-pressed=true]').innerText.trim()")
    return label


def test_dark_follows_the_system_even_while_open(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    fill(rows)
    look(browser, scheme="dark")
    browser.get(page)
    drawing(browser, "cpu")
    assert brightness(browser) < 60
    ink = label_colour(browser)
    look(browser, scheme="light")
    until(lambda: brightness(browser) > 200, 5, "a light page")
    until(lambda: label_colour(browser) != ink, 10, "charts for a light page")


def brightness(browser: webdriver.Chrome) -> float:
    colour: str = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    parts = [float(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    return sum(parts) / 3


def label_colour(browser: webdriver.Chrome) -> str:
    script = """
    const element = document.querySelector("[data-chart=cpu] .nicegui-echart");
    return getElement(element.id.slice(1)).chart.getOption().yAxis[0].axisLabel.color;
    """
    colour: str = browser.execute_script(script)
    return colour


# What stands out of the card, the label or the bar that it is in.
OUTSIDE = """
return [...document.querySelectorAll(".shell *")].flatMap((element) => {
  const box = element.parentElement.closest(".card, .node, .bar, .panel")?.getBoundingClientRect();
  const own = element.getBoundingClientRect();
  const out = box && own.width && (own.left < box.left || own.right > box.right + 0.5 || own.bottom > box.bottom + 0.5);
  return out ? [`${element.className}: ${element.innerText}`] : [];
});
"""


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_large_numbers_and_long_names_stay_in_their_cards(
    browser: webdriver.Chrome, page: str, rows: Rows, width: int
) -> None:
    fill(rows, times=123_457)
    fill(rows, "9a0b", "a-very-long-name-of-a-mail-server.subdomain.example.org", demo=True, times=1_234_567)
    look(browser, width=width, height=740)
    for address in (page, f"{page}/?node=9a0b"):
        browser.get(address)
        drawing(browser, "cpu")
        assert browser.execute_script(OUTSIDE) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # A line may break between the two figures, and nowhere else.
    assert "49,382,680\xa0queued · 74,074,020\xa0deferred" in text(browser)
    lefts = browser.execute_script(
        "return [...document.querySelectorAll('.card')].map((c) => Math.round(c.getBoundingClientRect().left))"
    )
    assert len(set(lefts)) == (1 if width < 700 else 3)


# The rows and columns at which a chart is cut off, its canvas's edges and those of a legend that scrolls, where
# something is drawn; what ends before them is whole.
CUT = """
const element = document.querySelector(`[data-chart=${arguments[0]}] .nicegui-echart`);
const canvas = element.querySelector("canvas");
const { width, height } = canvas;
const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
const range = (from, count) => Array.from({ length: count }, (_, index) => Math.round(from) + index);
const drawn = (x, y) => pixels[4 * (y * width + x) + 3] > 0;
const inRow = (y, from = 0, count = width) => range(from, count).some((x) => drawn(x, Math.round(y)));
const inColumn = (x) => range(0, height).some((y) => drawn(x, y));
const cut = { left: inColumn(0), right: inColumn(width - 1), top: inRow(0), bottom: inRow(height - 1) };
const { chart } = getElement(element.id.slice(1));
for (const shape of chart.getZr().storage.getDisplayList()) {
  // What clips a legend has no more than a name's height; what clips lines has the plot's.
  for (const clip of shape.__clipPaths ?? []) {
    const box = clip.getBoundingRect().clone();
    box.applyTransform(clip.getComputedTransform());
    if (box.height > 30) continue;
    cut["legend's top"] ||= inRow(box.y, box.x, box.width);
    cut["legend's bottom"] ||= inRow(box.y + box.height - 1, box.x, box.width);
  }
}
return Object.keys(cut).filter((edge) => cut[edge]);
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_charts_cut_no_text_off(browser: webdriver.Chrome, page: str, rows: Rows, width: int) -> None:
    fill(rows)
    fill(rows, "9a0b", "a-very-long-name-of-a-mail-server.subdomain.example.net")
    look(browser, width=width)
    browser.get(page)
    for chart in ("queue", "attempts", "cpu", "network"):
        drawing(browser, chart)
        assert browser.execute_script(CUT, chart) == [], chart


def test_the_page_says_its_language_and_has_one_main_part(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    fill(rows)
    browser.get(page)
    drawing(browser, "cpu")
    assert browser.execute_script("return document.documentElement.lang") == "en-GB"
    assert browser.execute_script("return document.querySelectorAll('main, [role=main]').length") == 1


def test_nothing_comes_from_elsewhere(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    fill(rows)
    browser.get(page)
    drawing(browser, "cpu")
    names = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(names) > 5
    assert [name for name in names if not name.startswith((page, page.replace("http", "ws")))] == []


def test_a_database_that_goes_away_is_said_and_comes_back(
    browser: webdriver.Chrome, page: str, rows: Rows, database: str, server: str
) -> None:
    fill(rows)
    browser.get(page)
    drawing(browser, "cpu")
    name = name_of(database)
    closed = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name))
    opened = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(closed)
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            until(lambda: "tries again by itself" in text(browser), 20, "the notice")
            assert "What is below may be old" in text(browser)
            assert "CPU" in text(browser)
        finally:
            connection.execute(opened)
    until(lambda: "tries again by itself" not in text(browser), 20, "the notice is gone")


def test_names_from_the_network_are_text_and_never_markup(browser: webdriver.Chrome, page: str, rows: Rows) -> None:
    evil = "<img src=x onerror=window.taken=1>\"' :onclick=window.taken=1 ${window.taken=1} `x` </script>"
    fill(rows)
    fill(rows, f"id {evil}", f"host {evil}")
    rows.zonemta(last_tick(30), NODE, zone=f"zone {evil}", started=1, delivered_total=1)
    browser.get(f"{page}/?node={quote(evil)}&range=x")
    assert any(evil in name for name in drawing(browser, "cpu"))
    assert any(evil in name for name in drawing(browser, "zones"))
    for chart in ("cpu", "zones"):
        browser.execute_script(
            """
            const element = document.querySelector(`[data-chart=${arguments[0]}] .nicegui-echart`);
            const chart = getElement(element.id.slice(1)).chart;
            const told = chart.getOption().series[0].data.findIndex((d) => (d.value ?? d)[1] !== null);
            chart.dispatchAction({type: "showTip", seriesIndex: 0, dataIndex: told});
            """,
            chart,
        )
    until(lambda: text(browser).count(f"host {evil}") >= 2, 10, "the tooltip")
    assert browser.execute_script("return window.taken ?? null") is None
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0


def test_many_open_pages_share_their_questions(
    chromium: webdriver.Chrome, page: str, rows: Rows, statements: Callable[[], str]
) -> None:
    fill(rows)
    windows = [chromium.current_window_handle]
    try:
        for _ in range(6):
            chromium.switch_to.new_window("tab")
            windows.append(chromium.current_window_handle)
            chromium.get(page)
        drawing(chromium, "cpu")
        time.sleep(2)
        before = statements()
        time.sleep(6)
        asked = statements().removeprefix(before)
    finally:
        for window in windows[1:]:
            chromium.switch_to.window(window)
            chromium.close()
        chromium.switch_to.window(windows[0])
    # All refresh together every 5 s, and one asks for all: nodes, and five charts of plain gauges.
    refreshes = asked.count("-- Every node of which")
    assert 1 <= refreshes <= 2
    assert asked.count("-- The mean of each gauge per bucket") == 5 * refreshes


def test_begun_as_a_program_it_serves_within_three_seconds(database: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with serving_as_a_program(tmp_path, database) as address:
        assert answers(f"{address}/")
        took = time.monotonic() - begun
    # 1.5 s on a quiet machine of 2 cores; the rest is for neighbours.
    assert took < 6, f"{took:.1f} s"
