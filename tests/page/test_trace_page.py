"""The page of traces in a real Chromium, over a running `postel serve`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import quote
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from support.page import Rows, look, serving
from support.postgres import fresh_database
from support.running_postel import until

pytestmark = [pytest.mark.slow]

EVIL = "<img src=x onerror=window.taken=1>"
TRANSACTION = "4B0B9A2A-2C9C-4F3E-8D0E-111111111111.2"
MESSAGE = "<one@here.test>"
# The steps of that message, node by node, by what they are titled.
LIFE = [
    ("Haraka", "mx1", "Connection of 192.0.2.7"),
    ("Rspamd", "mx1", "Score 1.5 of 15: no action"),
    ("Zone-MTA", "out1", "Taken into the queue"),
    ("Storage", "mx1", "Forwarded by queue/smtp_forward"),
    ("Zone-MTA", "out1", "Attempt 1 at mx.there.test [198.51.100.9]: deferred"),
    ("Zone-MTA", "out1", "Attempt 2 at mx.there.test [198.51.100.9]: delivered"),
]


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[str]:
    """One for all tests of this module, with three messages that two hosts had."""
    with fresh_database(server, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            put_mail(Rows(connection), time.time())
        yield url


@pytest.fixture(scope="module")
def page(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("serve"), database) as address:
        yield address


def put_mail(rows: Rows, now: float) -> None:
    """A message in through Haraka and out through Zone-MTA, one that was refused, and a mailing of many events."""
    rows.node("mx1", "mx1.example.org", seen=now)
    rows.node("out1", "out1.example.org", seen=now)
    rows.event(
        "email_events", now - 60, 1, "haraka.message.accepted", outcome="accepted", storage_status="forwarded",
        queue_id=TRANSACTION, message_id=MESSAGE, direction="outbound", from_user="a", from_domain="here.test",
        to_domain="there.test", client_ip="192.0.2.7", tls="1.3", size_bytes=4711, spam_score=1.5,
        spam_action="no action", symbols=Jsonb({"BAYES_HAM": -3, "R_BAD": 4.5}),
        attributes={
            "email.to.address": ["x@there.test"], "haraka.client.name": "client.here.test",
            "haraka.transaction.duration": 2.5, "haraka.queue.duration": 0.5, "rspamd.required_score": 15,
            "haraka.storage.plugin": "queue/smtp_forward", "haraka.storage.text": "queued as 18c",
        },
    )  # fmt: skip
    rows.event(
        "email_events", now - 60.2, 2, "zonemta.message.queued", node="out1", outcome="queued", queue_id="18c",
        message_id=MESSAGE, direction="outbound", from_user="a", from_domain="here.test", size_bytes=4600,
        attributes={"email.to.address": ["x@there.test"], "zonemta.interface": "feeder"},
    )  # fmt: skip
    for number, status, ago, answer in (
        (1, "deferred", 50, "451 4.7.1 Greylisted, come again"),
        (2, "delivered", 20, "250 2.0.0 Ok: queued as 77"),
    ):
        rows.event(
            "delivery_events", now - ago, 2 + number, f"zonemta.delivery.{status}", node="out1", status=status,
            queue_id="18c", message_id=MESSAGE, attempt=number, response=answer, smtp_code=int(answer[:3]),
            mx="mx.there.test", mx_ip="198.51.100.9", source_ip="192.0.2.25", zone="default", duration=0.75,
            to_domain="there.test",
            attributes={
                "email.from.address": "a@here.test", "email.to.address": ["x@there.test"], "zonemta.message.seq": "001",
            },
        )  # fmt: skip
    rows.event(
        "email_events", now - 300, 10, "haraka.message.rejected", outcome="rejected", queue_id="D.1",
        message_id="<bad@spam.test>", client_ip="203.0.113.5", from_user=EVIL, from_domain="spam.test",
        spam_score=31, spam_action="reject", symbols=Jsonb({EVIL: 31}),
        attributes={
            "email.to.address": [EVIL], "haraka.plugin": "rspamd", "smtp.response.status_code": 550,
            "smtp.response.text": f"550 5.7.1 spam {EVIL}",
        },
    )  # fmt: skip
    for number in range(250):
        rows.event(
            "delivery_events", now - 4000 - number, 1000 + number, "zonemta.delivery.accepted", node="out1",
            status="delivered", message_id="<many@here.test>", queue_id=f"bulk{number}", response="250 Ok",
            attributes={"email.to.address": [f"r{number}@there.test"]},
        )  # fmt: skip


def said(browser: webdriver.Chrome, selector: str = "body") -> str:
    text: str = browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
    return text


def life(browser: webdriver.Chrome) -> list[tuple[str, str, str]]:
    """Of each step who did it, on which host, and its title."""
    found = browser.execute_script(
        "return [...document.querySelectorAll('.step')].map((step) =>"
        " ['.part', '.node-name', 'h3'].map((part) => step.querySelector(part).innerText))"
    )
    return [(part, node, title) for part, node, title in found]


def traced(browser: webdriver.Chrome, page: str, id_: str) -> list[tuple[str, str, str]]:
    browser.get(f"{page}/trace?id={quote(id_)}")
    return until(lambda: life(browser), 15, f"{id_} is found")


@pytest.mark.parametrize(
    "id_", [MESSAGE, "one@here.test", "18c", TRANSACTION, TRANSACTION.partition(".")[0].lower(), str(UUID(int=3))]
)
def test_a_message_is_found_by_any_of_its_ids_and_told_node_by_node(
    browser: webdriver.Chrome, page: str, id_: str
) -> None:
    assert traced(browser, page, id_) == LIFE


def test_the_time_line_says_what_each_server_said(browser: webdriver.Chrome, page: str) -> None:
    traced(browser, page, MESSAGE)
    text = said(browser, ".life")
    for part in (
        "client.here.test", "a@here.test → x@there.test", "R_BAD (4.5), BAYES_HAM (-3)", "queued as 18c", "4,711 B",
        "451 4.7.1 Greylisted, come again", "250 2.0.0 Ok: queued as 77", "192.0.2.25", "0.75 s",
    ):  # fmt: skip
        assert part in text
    offsets = browser.execute_script(
        "return [...document.querySelectorAll('.step .when')].map((e) => e.lastElementChild.innerText)"
    )
    assert offsets == ["+0.000 s", "+2.000 s", "+2.300 s", "+2.500 s", "+12.500 s", "+42.500 s"]
    (fate,) = browser.execute_script("return [...document.querySelectorAll('.fates li')].map((e) => e.innerText)")
    assert fate.startswith("x@there.test\ndelivered\n")
    assert {MESSAGE, "18c", TRANSACTION} <= set(said(browser, ".summary .marks").split("\n"))
    browser.execute_script("document.querySelector('.step:nth-child(3) summary').focus()")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(lambda: "zonemta.interface: feeder" in said(browser, "[open] .everything"), 10, "all that the event says")


def test_what_is_typed_is_looked_for_and_stands_in_the_address(browser: webdriver.Chrome, page: str) -> None:
    browser.get(f"{page}/trace")
    until(lambda: "Newest events" in said(browser), 15, "the newest")
    newest = browser.execute_script("return [...document.querySelectorAll('.events li a')].map((a) => a.innerText)")
    assert newest[0] == LIFE[-1][2]
    assert len(newest) == 30
    browser.execute_script("document.querySelector('.find input').focus()")
    ActionChains(browser).send_keys(" 18c ", Keys.ENTER).perform()
    until(lambda: life(browser) == LIFE, 15, "it is found")
    assert browser.current_url == f"{page}/trace?id=18c"
    browser.back()
    until(lambda: "Newest events" in said(browser), 15, "the way back")


@pytest.mark.parametrize("mentioned", ["x@there.test", "greylisted, come", "QUEUED AS 18C"])
def test_an_address_or_an_answer_leads_to_its_messages(browser: webdriver.Chrome, page: str, mentioned: str) -> None:
    browser.get(f"{page}/trace?id={quote(mentioned)}")
    until(lambda: "Events of a day that say it" in said(browser), 15, "its events")
    browser.execute_script("document.querySelector('.events li a').click()")
    until(lambda: life(browser) == LIFE, 15, "the message")


def test_what_comes_after_it_was_asked_for_is_shown_within_five_seconds(
    browser: webdriver.Chrome, page: str, database: str
) -> None:
    browser.get(f"{page}/trace?id=later@here.test")
    until(lambda: "this page looks again by itself" in said(browser), 15, "it is not there")
    with psycopg.connect(database, autocommit=True) as connection:
        Rows(connection).event(
            "email_events", time.time(), 20, "zonemta.message.queued", node="out1", outcome="queued", queue_id="19a",
            message_id="<later@here.test>", attributes={"zonemta.bounce.message.id": "nothing"},
        )  # fmt: skip
    began = time.monotonic()
    until(lambda: life(browser), 15, "it is found")
    assert time.monotonic() - began < 8
    assert life(browser) == [("Zone-MTA", "out1", "Bounce about nothing queued")]


@pytest.mark.parametrize(("number", "what"), [(21, "waited+for@there.test"), (22, "554 5.7.1 nobody said it yet")])
def test_an_address_or_an_answer_that_comes_after_it_was_asked_for_is_shown_within_five_seconds(
    browser: webdriver.Chrome, page: str, database: str, number: int, what: str
) -> None:
    browser.get(f"{page}/trace?id={quote(what)}")
    until(lambda: "this page looks again by itself" in said(browser), 15, "it is not there")
    with psycopg.connect(database, autocommit=True) as connection:
        Rows(connection).event(
            "email_events", time.time(), number, "zonemta.message.refused", node="out1", outcome="refused",
            queue_id=f"refused-{number}", attributes={"email.to.address": [what], "smtp.response.text": what},
        )  # fmt: skip
    began = time.monotonic()
    until(lambda: "say it" in said(browser), 15, "it is found")
    assert time.monotonic() - began < 5
    assert len(browser.find_elements("css selector", ".events li")) == 1


def test_what_becomes_of_a_message_under_way_is_shown_at_once_however_long_it_took(
    browser: webdriver.Chrome, page: str, database: str
) -> None:
    def put(number: int, at: float, status: str) -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            Rows(connection).event(
                "delivery_events", at, number, f"zonemta.delivery.{status}", node="out1", status=status,
                queue_id="under-way", attributes={"email.to.address": ["late@there.test"]},
            )  # fmt: skip

    put(31, time.time() - 600, "deferred")
    assert len(traced(browser, page, "under-way")) == 1
    put(32, time.time(), "delivered")
    began = time.monotonic()
    until(lambda: len(life(browser)) == 2, 15, "the delivery is shown")
    # Each page asks every five seconds.
    assert time.monotonic() - began < 3


def test_a_mailing_of_many_events_is_cut_and_says_so(browser: webdriver.Chrome, page: str) -> None:
    assert len(traced(browser, page, "<many@here.test>")) == 200
    assert "these are the last" in said(browser)
    assert "and 239 more ids" in said(browser)


def test_what_the_network_said_is_text_and_never_markup(browser: webdriver.Chrome, page: str) -> None:
    assert [title for *_, title in traced(browser, page, "D.1")] == [
        "Connection of 203.0.113.5",
        "Score 31: reject",
        "Rejected by rspamd",
    ]
    assert said(browser).count(EVIL) >= 4
    browser.get(f"{page}/trace?id={quote(EVIL)}")
    until(lambda: "No event has this id" in said(browser) or "say it" in said(browser), 15, "the answer")
    assert browser.execute_script("return window.taken ?? null") is None
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0


# `serve` gives a viewer 10 s to come back. What it logs meanwhile is looked at when it ends: no traceback.
@pytest.mark.soak
def test_who_leaves_while_the_database_is_asked_is_no_fault(
    browser: webdriver.Chrome, page: str, database: str
) -> None:
    traced(browser, page, MESSAGE)
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE email_events IN ACCESS EXCLUSIVE MODE")
        browser.get("about:blank")
        # As long as this lasts the page asks, and gets no answer; then it is told so where nobody looks any more.
        time.sleep(16)
        connection.rollback()


@pytest.mark.parametrize("path", ["/trace", f"/trace?id={quote(MESSAGE)}"])
def test_a_narrow_screen_has_all_of_it(browser: webdriver.Chrome, page: str, path: str) -> None:
    look(browser, width=360, height=740, scheme="dark")
    browser.get(f"{page}{path}")
    until(lambda: said(browser, ".events") or said(browser, ".life"), 15, "it is there")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
