"""The pages of alerts and runbooks in a real Chromium, over a running `postel serve`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.page import look, serving
from support.postgres import fresh_database
from support.running_postel import until

pytestmark = [pytest.mark.slow]

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
EVIL = "<img src=x onerror=window.taken=1>"
# Rules that keep an alert whose subject they know nothing of, or `serve` would resolve these.
STUCK = ("zone-stuck", {"queue": "out1:12080", "zone": "bulk"})
DEEP = ("queue-depth", {"queue": EVIL})
GROWN = ("queue-growth", {"queue": "out1:12080"})
OWN = ("own-rule", {"queue": "out1:12080"})
OWN_RUNBOOK = "https://wiki.example.org/own-rule#first"
OWN_RULE = f"""
rules:
  - name: {OWN[0]}
    title: A rule of one's own
    runbook: {OWN_RUNBOOK}
    severity: warning
    sql: SELECT 'none' AS queue, 0 AS value WHERE false
    labels: [queue]
    above: 1
    missing: keep
"""
OLD = ("oldest-message", {"queue": "out2:12080"})


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[str]:
    """One for all tests of this module; each puts its alerts in anew."""
    with fresh_database(server, template) as url:
        yield url


@pytest.fixture(scope="module")
def page(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "rules.yaml").write_text(OWN_RULE)
    with serving(folder, database, POSTEL_ALERTS__RULES=str(folder / "rules.yaml")) as address:
        yield address


@pytest.fixture
def alerts(database: str) -> Iterator[psycopg.Connection]:
    """Two that fire, one that is pending, one that was resolved, and the change that it was; nothing silenced."""
    now = datetime.now(UTC)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("TRUNCATE alert, alert_change, alert_silence")
        put(connection, STUCK, "firing critical", "The zone bulk makes no attempt", 42, now - timedelta(minutes=20))
        put(connection, DEEP, "firing warning", f"12,345 wait in {EVIL}", 12345, now - timedelta(days=2))
        put(connection, GROWN, "pending warning", "The queue grew by 2,000", 2000, now - timedelta(minutes=1))
        put(connection, OLD, "resolved warning", "The oldest message has waited", 30000, now - timedelta(hours=2))
        connection.execute(
            "INSERT INTO alert_change (time, rule, labels, state, value) VALUES (%s, %s, %s, 'resolved', 30000)",
            (now - timedelta(hours=2), OLD[0], Jsonb(OLD[1])),
        )
        yield connection


def put(  # noqa: PLR0917 - a row
    connection: psycopg.Connection, of: tuple[str, dict[str, str]], is_: str, title: str, value: float, since: datetime
) -> None:
    connection.execute(
        "INSERT INTO alert (rule, labels, state, severity, title, value, since, seen)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, now())",
        (of[0], Jsonb(of[1]), *is_.split(), title, value, since),
    )


def opened(browser: webdriver.Chrome, address: str) -> None:
    browser.get(address)
    until(lambda: listed(browser), 15, "alerts are listed")


def listed(browser: webdriver.Chrome) -> list[str]:
    """The rules of the alerts that are shown, in their order."""
    rules: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('.alert')].filter((e) => e.offsetParent).map((e) => e.dataset.rule)"
    )
    return rules


def said(browser: webdriver.Chrome, selector: str = "body") -> str:
    text: str = browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
    return text


def press(browser: webdriver.Chrome, selector: str, name: str) -> None:
    """By the keyboard: the button of this name gets the focus, then Enter."""
    browser.execute_script(
        "[...document.querySelectorAll(arguments[0])].find((b) => b.innerText.trim() === arguments[1]).focus()",
        f"{selector} button",
        name,
    )
    keys(browser, Keys.ENTER)


def keys(browser: webdriver.Chrome, *pressed: str) -> None:
    ActionChains(browser).send_keys(*pressed).perform()


def write(browser: webdriver.Chrome, label: str, text: str) -> None:
    browser.execute_script(
        "const field = document.querySelector(arguments[0]); field.focus(); field.select()",
        f".ask input[aria-label='{label}']",
    )
    keys(browser, text)


def all_rows(connection: psycopg.Connection, text: str) -> list[Any]:
    return connection.execute(text.encode()).fetchall()


def test_what_is_wrong_stands_there_the_worst_first(
    browser: webdriver.Chrome, page: str, alerts: psycopg.Connection
) -> None:
    opened(browser, f"{page}/alerts")
    assert listed(browser) == ["zone-stuck", "queue-depth", "queue-growth"]
    ((since,),) = all_rows(alerts, "SELECT since FROM alert WHERE rule = 'zone-stuck'")
    text = said(browser, "[data-rule=zone-stuck]")
    for part in ("firing", "critical", "The zone bulk makes no attempt", "20 min ago", "value 42"):
        assert part in text
    # In the viewer's zone, not the server's.
    assert f"{since.astimezone(ZoneInfo('Europe/Berlin')):%H:%M:%S}" in text
    assert "2 d ago" in said(browser, "[data-rule=queue-depth]")
    assert "oldest-message" in said(browser, ".changes")
    assert "Nothing is silenced." in said(browser, ".silences")
    assert browser.execute_script("return window.taken ?? null") is None


def test_a_view_is_in_the_address_and_says_when_it_is_empty(
    browser: webdriver.Chrome, page: str, alerts: psycopg.Connection
) -> None:
    del alerts
    opened(browser, f"{page}/alerts?state=firing&q=no+ATTEMPT")
    assert listed(browser) == ["zone-stuck"]
    browser.execute_script(
        "[...document.querySelectorAll('.bar .q-btn')].find((b) => b.innerText.startsWith('Resolved')).click()"
    )
    until(lambda: "No alert of this view says that." in said(browser), 10, "the empty view")
    assert "state=resolved&q=no+ATTEMPT" in browser.current_url
    opened(browser, f"{page}/alerts?state=resolved")
    assert listed(browser) == ["oldest-message"]
    browser.get(f"{page}/alerts?state=silenced")
    until(lambda: "Silence an alert with the button beside it." in said(browser), 10, "what to do")


def test_who_looks_after_an_alert_is_said_once(
    browser: webdriver.Chrome, page: str, alerts: psycopg.Connection
) -> None:
    opened(browser, f"{page}/alerts")
    browser.execute_script("localStorage.removeItem('postel-author')")
    press(browser, "[data-rule=zone-stuck]", "Acknowledge")
    until(lambda: "Your name" in said(browser, ".ask"), 10, "the question")
    press(browser, ".ask", "Acknowledge")
    until(lambda: "is needed" in said(browser, ".ask"), 10, "a name is asked for")
    write(browser, "Your name", "Ada Lovelace")
    keys(browser, Keys.ENTER)
    until(lambda: "Ada Lovelace looks after it" in said(browser, "[data-rule=zone-stuck]"), 10, "it is said")
    assert all_rows(alerts, "SELECT rule, acknowledged_by FROM alert WHERE acknowledged_by IS NOT NULL") == [
        ("zone-stuck", "Ada Lovelace")
    ]
    assert "Acknowledge" not in said(browser, "[data-rule=zone-stuck]")
    opened(browser, f"{page}/alerts")
    press(browser, "[data-rule=queue-growth]", "Acknowledge")
    until(lambda: said(browser, ".ask"), 10, "the question")
    name = "return document.querySelector('.ask input').value"
    until(lambda: browser.execute_script(name) == "Ada Lovelace", 10, "the name is known")
    keys(browser, Keys.ESCAPE)
    until(lambda: not said(browser, ".ask"), 10, "it is closed")


def test_an_alert_is_silenced_and_the_silence_ended(
    browser: webdriver.Chrome, page: str, alerts: psycopg.Connection
) -> None:
    opened(browser, f"{page}/alerts")
    press(browser, "[data-rule=queue-depth]", "Silence")
    until(lambda: "For how long" in said(browser, ".ask"), 10, "the question")
    write(browser, "Your name", "Ada")
    write(browser, "Reason", "a large mailing")
    keys(browser, Keys.ENTER)
    until(lambda: "a large mailing" in said(browser, ".silences"), 10, "the silence stands there")
    ((rule, labels, author, hours),) = all_rows(
        alerts,
        "SELECT rule, labels, author, round(extract(epoch FROM ends - starts) / 3600) FROM alert_silence",
    )
    assert (rule, labels, author, hours) == (*DEEP, "Ada", 1)
    until(lambda: "silenced" in said(browser, "[data-rule=queue-depth] .marks"), 10, "it is marked")
    told = httpx.get(f"{page}/api/v1/alerts", timeout=10, trust_env=False).json()["alerts"]
    assert [alert["rule"] for alert in told if alert["silenced"]] == ["queue-depth"]
    press(browser, ".silences", "End")
    until(lambda: "Nothing is silenced." in said(browser, ".silences"), 10, "it is over")
    assert all_rows(alerts, "SELECT 1 FROM alert_silence WHERE ends > now()") == []
    until(lambda: "silenced" not in said(browser, "[data-rule=queue-depth] .marks"), 10, "the mark is gone")


def test_what_changes_appears_by_itself(browser: webdriver.Chrome, page: str, alerts: psycopg.Connection) -> None:
    opened(browser, f"{page}/alerts")
    alerts.execute("DELETE FROM alert WHERE rule = 'zone-stuck'")
    put(alerts, (OLD[0], {"queue": "out3"}), "firing critical", "Anew", 1, datetime.now(UTC))
    until(lambda: listed(browser) == ["oldest-message", "queue-depth", "queue-growth"], 15, "the new one is first")


def test_the_overview_says_how_many_fire_and_leads_to_them(
    browser: webdriver.Chrome, page: str, alerts: psycopg.Connection
) -> None:
    browser.get(page)
    until(lambda: "2 alerts fire, 1 critical" in said(browser), 15, "the number")
    browser.execute_script("document.querySelector('.firing-card').focus()")
    keys(browser, Keys.ENTER)
    until(lambda: listed(browser) == ["zone-stuck", "queue-depth"], 15, "they are listed")
    assert browser.execute_script("return document.querySelector('nav [aria-current=page]').innerText") == "Alerts"
    alerts.execute("TRUNCATE alert")
    browser.get(page)
    until(lambda: "No alert fires" in said(browser), 15, "it is said")


def test_each_rule_leads_to_its_runbook(browser: webdriver.Chrome, page: str, alerts: psycopg.Connection) -> None:
    del alerts
    opened(browser, f"{page}/alerts")
    browser.execute_script("document.querySelector('[data-rule=queue-depth] .do a').click()")
    until(lambda: "recipients wait in a Zone-MTA queue" in said(browser, ".prose"), 15, "the runbook")
    assert browser.execute_script("return document.querySelector('.prose h1').innerText") == "queue-depth"
    browser.execute_script("[...document.querySelectorAll('.prose a')][0].click()")
    until(lambda: "provider-blocking" in said(browser, ".prose h1"), 15, "another runbook")


def test_a_rule_of_ones_own_leads_to_the_runbook_that_it_names(
    browser: webdriver.Chrome, page: str, alerts: psycopg.Connection
) -> None:
    put(alerts, OWN, "firing warning", "A rule of one's own", 1, datetime.now(UTC))
    opened(browser, f"{page}/alerts")
    until(lambda: OWN[0] in listed(browser), 15, "it is listed")
    links = browser.execute_script(
        "return [...document.querySelectorAll('.alert .do a')].map((a) => [a.closest('.alert').dataset.rule, a.href])"
    )
    assert dict(links)[OWN[0]] == OWN_RUNBOOK
    assert dict(links)["queue-depth"] == f"{page}/runbooks/queue-depth"


def test_every_runbook_is_there_and_no_other(page: str) -> None:
    names = sorted(path.stem for path in RUNBOOKS.glob("*.md"))
    assert "zone-stuck" in names
    with httpx.Client(base_url=page, timeout=20, trust_env=False) as client:
        assert {client.get(f"/runbooks/{name}").status_code for name in names} == {200}
        for name in ("no-such-rule", "..%2F..%2FREADME", "zone-stuck.md"):
            answer = client.get(f"/runbooks/{name}")
            assert answer.status_code == 404
        assert "There is no such runbook" in client.get("/runbooks/no-such-rule").text


@pytest.mark.parametrize("path", ["/alerts", "/runbooks/provider-blocking"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_has_all_of_it(
    browser: webdriver.Chrome, page: str, alerts: psycopg.Connection, path: str, scheme: str
) -> None:
    del alerts
    look(browser, width=360, height=740, scheme=scheme)
    browser.get(f"{page}{path}")
    until(lambda: said(browser, ".alert") or said(browser, ".prose"), 15, "it is there")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
