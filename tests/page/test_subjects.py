"""The pages of one subject each in a real Chromium, over the demo's rows: figures, links, ranges, what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from dashboards.web.subjects import SUBJECTS
from support.demo_rows import fill
from support.page import drawn, look, serving
from support.postgres import fresh_database
from support.running_postel import until

pytestmark = [pytest.mark.slow]

ADDRESSES = [subject.address for subject in SUBJECTS]
# One chart of each page and lines of it; one table and words in it.
SHOWN = {
    "/queues": ("deferred", {"default", "bulk"}, "destinations", "bigmail.test"),
    "/deliverability": ("shares", {"deferred", "bounced"}, "providers", "bigmail.test"),
    "/spam": ("actions", {"no action", "reject"}, "symbols", "BAYES_HAM"),
    "/mailboxes": ("storage", {"stored", "allowed"}, "nearest", "emil"),
    "/hosts": ("cpu", {"busy"}, "nodes", "mail.demo.test"),
}
# Each node below the tables and cards whose right edge is beyond what it is in.
OUTSIDE = """
return [...document.querySelectorAll(".shell .card *")].flatMap((element) => {
  const box = element.closest(".card").getBoundingClientRect();
  const own = element.getBoundingClientRect();
  return own.width && own.right > box.right + 0.5 ? [`${element.tagName}: ${element.innerText}`] : [];
});
"""


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[str]:
    """The demo's day, for tests that only read."""
    with fresh_database(server, template) as url:
        asyncio.run(fill(url, datetime.now(UTC)))
        yield url


@pytest.fixture(scope="module")
def page(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("serve"), database) as address:
        yield address


def table(browser: webdriver.Chrome, key: str) -> list[list[str]]:
    """The cells of a table, row by row, without its head."""
    rows: list[list[str]] = browser.execute_script(
        "return [...document.querySelectorAll(`[data-table=${arguments[0]}] tbody tr`)]"
        ".map((row) => [...row.children].map((cell) => cell.innerText.trim()))",
        key,
    )
    return rows


def said(browser: webdriver.Chrome) -> str:
    text: str = browser.execute_script("return document.body.innerText")
    return text


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_shows_its_subject_and_fits_a_narrow_screen(browser: webdriver.Chrome, page: str, address: str) -> None:
    chart, lines, listed, word = SHOWN[address]
    look(browser, width=375, height=740, scheme="dark")
    browser.get(f"{page}{address}")
    found = until(lambda: drawn(browser, chart), 20, f"{chart} is drawn")
    assert lines <= found.keys()
    assert all(found[line] for line in lines)
    until(lambda: word in str(table(browser, listed)), 20, f"{listed} is there")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    assert browser.execute_script(OUTSIDE) == []
    current = browser.execute_script("return document.querySelector('.pages [aria-current]').getAttribute('href')")
    assert current == address


def test_figures_are_those_of_the_database(browser: webdriver.Chrome, page: str, database: str) -> None:
    with psycopg.connect(database) as connection:
        counted = connection.execute(
            "SELECT to_domain, count(*), count(*) FILTER (WHERE status = 'deferred') FROM delivery_events"
            " GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        (used,) = connection.execute(
            "SELECT (attributes ->> 'wildduck.quota.used')::float8 FROM otel_log"
            " WHERE event_name = 'wildduck.quota.snapshot' AND attributes ->> 'user.name' = 'emil'"
            " ORDER BY time DESC LIMIT 1"
        ).fetchone() or (0,)
    browser.get(f"{page}/deliverability")
    rows = until(lambda: table(browser, "domains"), 20, "domains")
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (domain, f"{count:,}", f"{100 * deferred / count:.1f}".removesuffix(".0") + " %")
        for domain, count, deferred in counted
    ]
    browser.get(f"{page}/mailboxes")
    users = until(lambda: table(browser, "largest"), 20, "users")
    assert [row[1] for row in users if row[0] == "emil"] == [f"{used / 1e9:.3g} GB"]


def test_a_range_is_chosen_by_keyboard_and_stands_in_the_address(browser: webdriver.Chrome, page: str) -> None:
    browser.get(f"{page}/queues")
    until(lambda: drawn(browser, "deferred"), 20, "an hour")
    browser.execute_script(
        "[...document.querySelectorAll('.bar .q-btn')].find((b) => b.innerText.trim() === '6 h').focus()"
    )
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(lambda: browser.current_url == f"{page}/queues?node=&range=21600", 10, "the address names the range")
    # The demo's day begins at midnight: of six hours there may be eighty minutes.
    until(lambda: span(browser) > timedelta(minutes=65), 15, "more than an hour")
    browser.get(f"{page}/queues?range=900")
    until(lambda: drawn(browser, "deferred"), 20, "a quarter of an hour")
    assert span(browser) < timedelta(minutes=16)


def span(browser: webdriver.Chrome) -> timedelta:
    times = drawn(browser, "deferred")["default"]
    return timedelta(milliseconds=max(times) - min(times))


def test_a_name_leads_to_its_events_and_on_to_a_trace(browser: webdriver.Chrome, page: str) -> None:
    browser.get(f"{page}/deliverability")
    until(lambda: table(browser, "categories"), 20, "categories")
    # Or what the page still asks for would be given up, which the server says in its log.
    until(lambda: drawn(browser, "shares"), 20, "all is there")
    browser.execute_script("document.querySelector('[data-table=categories] a').click()")
    until(lambda: "Events with status!=delivered and category=" in said(browser), 15, "its events")
    assert browser.execute_script("return document.querySelectorAll('.events li').length") > 0
    browser.execute_script("document.querySelector('.events li a').click()")
    until(lambda: "What became of it" in said(browser), 15, "a trace")
    browser.get(f"{page}/trace?table=delivery_events&filter=nothing%3D1")
    until(lambda: "delivery_events has no column 'nothing'" in said(browser), 15, "why there is none")


def test_the_name_is_painted_before_the_scripts_where_the_page_has_it(browser: webdriver.Chrome, page: str) -> None:
    place = "const box = document.querySelector(arguments[0]).getBoundingClientRect(); return [box.left, box.top]"
    for width in (375, 1440):
        look(browser, width=width)
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            browser.get(f"{page}/hosts")
            first = browser.execute_script(place, ".first h1")
        finally:
            browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        browser.get(f"{page}/hosts")
        until(lambda: drawn(browser, "cpu"), 20, "the page")
        assert browser.execute_script("return document.querySelector('.first').offsetHeight") == 0
        assert browser.execute_script(place, ".shell h1") == pytest.approx(first, abs=1)


def test_without_data_a_page_says_what_to_do(
    server: str, template: str, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    with fresh_database(server, template) as url, serving(tmp_path, url) as address:
        browser.get(f"{address}/queues")
        until(lambda: "No data yet: is the agent running?" in said(browser), 15, "the hint")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO node (id, host, first_seen, last_seen, sources, versions, attributes)"
                " VALUES ('n1', 'mx1.example.org', now(), now(), '[]', '{}', '{}')"
            )
        for path, hint in (
            ("/queues", "zone_mta_instances"), ("/deliverability", "postel plugins install"),
            ("/spam", "No figures of Rspamd"), ("/mailboxes", "wildduck_api_token"), ("/hosts", "No host figures"),
        ):  # fmt: skip
            browser.get(f"{address}{path}")
            until(lambda hint=hint: hint in said(browser), 15, hint)  # type: ignore[misc]
        browser.get("about:blank")


def field(browser: webdriver.Chrome, name: str) -> str:
    value: str = browser.execute_script(f"return document.querySelector('input[data-filter={name}]').value")
    return value


def write(browser: webdriver.Chrome, name: str, *keys: str) -> None:
    """Type over what a field has, and Enter."""
    browser.execute_script(f"document.querySelector('input[data-filter={name}]').focus()")
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(*keys).perform()
    ActionChains(browser).send_keys(Keys.ENTER).perform()


def names_of(browser: webdriver.Chrome, key: str) -> list[str]:
    return [row[0] for row in table(browser, key)]


def test_a_domain_is_typed_and_stands_in_the_address_so_that_a_link_shows_the_same(
    browser: webdriver.Chrome, page: str, database: str
) -> None:
    with psycopg.connect(database) as connection:
        (attempts,) = connection.execute(
            "SELECT count(*) FROM delivery_events WHERE to_domain = 'bigmail.test'"
        ).fetchone() or (0,)
    browser.get(f"{page}/deliverability")
    until(lambda: len(table(browser, "domains")) > 1, 20, "all domains")
    write(browser, "domain", " BigMail.TEST")
    link = f"{page}/deliverability?node=&range=86400&domain=bigmail.test"
    until(lambda: browser.current_url == link, 10, "the address names the domain")
    for again in (False, True):
        if again:
            browser.refresh()
        until(lambda: names_of(browser, "domains") == ["bigmail.test"], 20, "the domain alone")
        until(lambda: table(browser, "categories"), 20, "its categories")
        assert table(browser, "domains")[0][1] == f"{attempts:,}"
        assert field(browser, "domain") == "bigmail.test"
        assert "Charts are of all domains" in said(browser)
    # What is listed leads to the events of this domain alone.
    (href,) = browser.execute_script(
        "return [...document.querySelectorAll('[data-table=categories] a')].slice(0, 1).map((a) => a.href)"
    )
    assert "filter=to_domain%3Dbigmail.test" in href
    until(lambda: drawn(browser, "shares"), 20, "all is there")
    write(browser, "domain", Keys.BACKSPACE)
    until(lambda: browser.current_url == f"{page}/deliverability?node=&range=86400", 10, "the address names none")
    until(lambda: len(table(browser, "domains")) > 1, 20, "all domains again")
    assert "Charts are of all domains" not in said(browser)


def test_a_provider_and_a_zone_that_a_link_names_are_shown_alone(browser: webdriver.Chrome, page: str) -> None:
    browser.get(f"{page}/deliverability?zone=default&provider=bigmail.test&range=86400")
    until(lambda: names_of(browser, "providers") == ["bigmail.test"], 20, "the provider alone")
    until(lambda: drawn(browser, "zones"), 20, "the chart of zones")
    assert drawn(browser, "zones").keys() == {"default"}
    browser.get(f"{page}/queues?zone=default&domain=bigmail.test&provider=BIGMAIL")
    until(lambda: drawn(browser, "queue"), 20, "the zone's queue")
    until(lambda: set(names_of(browser, "destinations")) == {"bigmail.test"}, 20, "what waits for it")
    assert names_of(browser, "zones") == ["default"]
    assert drawn(browser, "queued").keys() == drawn(browser, "oldest").keys() == {"default"}
    # One that is not there stays in the address and on the page, and has nothing.
    browser.get(f"{page}/queues?zone=nowhere%00&domain=a%3D%27b")
    until(lambda: said(browser).count("Nothing of this zone, domain or provider") == 2, 20, "nothing")
    assert field(browser, "domain") == "a='b"
    assert "nowhere" in said(browser)


def test_a_zone_is_chosen_by_keyboard(browser: webdriver.Chrome, page: str) -> None:
    browser.get(f"{page}/queues?domain=bigmail.test")
    until(lambda: len(drawn(browser, "queued")) > 1, 20, "all zones")
    browser.execute_script("document.querySelector('.filters [role=combobox]').focus()")
    # Opened, the first zone behind "All zones".
    for key in (Keys.ENTER, Keys.ARROW_DOWN, Keys.ENTER):
        ActionChains(browser).send_keys(key).pause(0.3).perform()
    chosen = f"{page}/queues?node=&range=3600&zone=bounces&domain=bigmail.test"
    until(lambda: browser.current_url == chosen, 10, "the address names the zone, and the domain still")
    until(lambda: drawn(browser, "queued").keys() == {"bounces"}, 20, "the zone alone")
