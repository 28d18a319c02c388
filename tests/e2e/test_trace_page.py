"""Mail through real servers under a whole Postel: a viewer who waits for a message sees its life, seconds later."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

import pytest
from mail_plugins.haraka_mail import Mailer
from selenium import webdriver
from testbed.fixtures import WatchedHaraka, WatchedZoneMta
from testbed.zone_mta import SENDER, ZoneMta

from postel.collector import find_collector
from support.page import chromium_in, complaints, look
from support.requirements import require
from support.running_postel import RunningPostel, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# Of each step who did it, and its title.
LIFE = """
return [...document.querySelectorAll('.step')].map((step) =>
  step.querySelector('.part').innerText + ': ' + step.querySelector('h3').innerText)
"""
WITHIN_S = 5


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with chromium_in(tmp_path / "chromium") as chrome:
        look(chrome)
        yield chrome


def ask(browser: webdriver.Chrome, postel: RunningPostel, id_: str) -> None:
    browser.get(f"{postel.page}trace?id={quote(id_)}")


def life(browser: webdriver.Chrome) -> Sequence[str]:
    told: list[str] = browser.execute_script(LIFE)
    return told


def hand_over(server: ZoneMta, message_id: str, recipient: str) -> None:
    """A message with this Message-ID into Zone-MTA's queue."""
    message = EmailMessage()
    message["Message-ID"] = message_id
    message["From"] = SENDER
    message["To"] = recipient
    message.set_content("Body.")
    with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=30) as client:
        client.send_message(message, SENDER, [recipient])


def test_who_waits_for_a_message_sees_its_life_within_seconds(
    watched_haraka: WatchedHaraka, watched_zone_mta: WatchedZoneMta, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    require("collector", available=find_collector() is not None)
    with running(tmp_path) as postel:
        until(lambda: postel.query("SELECT 1 FROM node"), 60, "the agent runs")
        intake = f"http://127.0.0.1:{postel.ports['intake']}"
        zone_mta, haraka = watched_zone_mta(intake), watched_haraka(intake)

        # Out: queued, deferred once, delivered.
        out = "<out@sender.test>"
        ask(browser, postel, out)
        hand_over(zone_mta, out, "defer-then-ok+1@rcpt.test")
        until(lambda: [one for one in zone_mta.sink.attempts() if one.accepted_at], 60, "it is delivered")
        delivered = time.monotonic()
        until(lambda: len(life(browser)) == 3, 30, "all of it is shown")
        took = {"out": time.monotonic() - delivered}
        queued, deferred, accepted = life(browser)
        assert queued == "Zone-MTA: Taken into the queue"
        assert deferred.startswith("Zone-MTA: Attempt 1 at 127.0.0.1")
        assert deferred.endswith(": deferred")
        assert accepted.startswith("Zone-MTA: Attempt 2 at 127.0.0.1")
        assert accepted.endswith(": delivered")

        # In: taken by Haraka, stored by what stands in for WildDuck there.
        mail = Mailer(haraka, known="box")
        told = len(mail.expected)
        reply = mail.hand_over()
        assert reply[0] == 250
        stored = time.monotonic()
        into = mail.expected[told].message_id
        assert into
        ask(browser, postel, into)
        until(lambda: life(browser), 30, "it is shown")
        took["in"] = time.monotonic() - stored
        assert life(browser)[0] == "Haraka: Connection of 127.0.0.1"
        assert life(browser)[-1].startswith("Storage: Stored")

        # By each of their ids.
        for message in (out, into):
            ask(browser, postel, message)
            steps = until(lambda: life(browser), 15, "it is found by its Message-ID")
            ids = postel.query(
                "SELECT queue_id, event_id::text FROM email_events WHERE message_id = %s"
                " UNION ALL SELECT queue_id, event_id::text FROM delivery_events WHERE message_id = %s",
                message,
                message,
            )
            assert ids
            for id_ in {id_ for row in ids for id_ in row}:
                ask(browser, postel, id_)
                assert until(lambda: life(browser), 15, f"it is found by {id_}") == steps
        wrong = complaints(browser)
        browser.get("about:blank")
    assert wrong == []
    assert max(took.values()) < WITHIN_S, took
